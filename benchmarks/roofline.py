"""The least time of a training step: what its arithmetic and its memory traffic alone would take on this machine.

It is the roofline of S. Williams, A. Waterman and D. Patterson (2009), with rates that are measured:

- A convolution takes what torch's takes alone, forward and backward, on maps of its shape and precision.
- A first convolution that is part of its block never stores its map. Its arithmetic goes at the fastest rate that one
  of the other convolutions reaches.
- A block reads its map four times, for the statistics and the result, for the gradients of its parameters and of its
  map; it writes the last. It writes its result, and reads the gradient of it twice. Each goes at the rate at which
  torch copies a map of that size.

The last average, the classifier, the loss, the optimizer, the augmentation and all calls are free.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.training.acceleration import Convolution
from nas.training.fused import FirstBlock, FusedBlock
from nas.training.job import TrainingJob
from nas.training.training import Training

REPEATS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastTime:
    """Of a training step, in seconds."""

    arithmetic: float
    traffic: float

    @property
    def total(self) -> float:
        return self.arithmetic + self.traffic


def least_time(job: TrainingJob) -> LeastTime:
    """What no step of this training can be faster than, measured on one core."""
    training = Training(job)
    x, _ = next(training.batches())
    arithmetic = traffic = first_flops = fastest = 0.0
    images = True  # nothing asks for their gradient
    for module in training.forward:
        with torch.no_grad():
            y = module(x)
        match module:
            case Convolution():
                seconds, flops = _convolution(module, x, with_images=not images)
                arithmetic, fastest, images = arithmetic + seconds, max(fastest, flops / seconds), False
            case FirstBlock():
                maps = module.conv(x)
                first_flops, images = 4.0 * module.conv.weight[0].numel() * maps.numel(), False
                traffic += 3 * _one_way(x) + 2 * _one_way(y)
            case FusedBlock():
                traffic += 5 * _one_way(x) + 3 * _one_way(y)
        x = y
    return LeastTime(arithmetic=arithmetic + (first_flops / fastest if first_flops else 0.0), traffic=traffic)


def _convolution(module: Convolution, x: Tensor, *, with_images: bool) -> tuple[float, float]:
    """The seconds of a convolution alone, forward and backward, and its floating-point operations."""
    conv = module.conv
    padding = (0, 0) if conv.kernel_size == (1, 1) else module.padding  # zeros need no arithmetic there
    maps = x.detach().to(module.dtype).clone().requires_grad_(with_images)
    kernels = conv.weight.detach().to(module.dtype).requires_grad_()
    wanted = (maps, kernels) if with_images else (kernels,)

    def once() -> Tensor:
        return F.conv2d(maps, kernels, None, conv.stride, padding, conv.dilation, conv.groups)

    y = once()
    gradient = torch.randn_like(y)
    seconds = _seconds(lambda: torch.autograd.grad(once(), wanted, gradient))
    return seconds, 2.0 * (1 + len(wanted)) * kernels[0].numel() * y.numel()


def _one_way(maps: Tensor) -> float:
    """The seconds in which maps of this size are read, or written: half of a copy."""
    maps = maps.detach()
    copy = torch.empty_like(maps)
    return _seconds(lambda: copy.copy_(maps)) / 2


def _seconds(function: Callable[[], object]) -> float:
    """The median of many calls."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return median(times)
