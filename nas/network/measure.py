"""The costs of a built module, counted on its parameters and by forward hooks, and held against its description."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from nas.network.architecture import Architecture
from nas.network.cost import BYTES_PER_VALUE, Cost, cost
from nas.network.layers import Shape
from nas.network.limits import Constraints, violations
from nas.network.operations import covers_map


def _height(size: int | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else size[0]


@dataclass(slots=True)
class _Meter:
    """What forward hooks saw; the one value here that changes, while a single image passes through."""

    macs: int = 0
    peak_activation_bytes: int = 0
    receptive_field: int = 1
    jump: int = 1
    disguised: set[nn.Module] = field(default_factory=set)

    def observe(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if not isinstance(module, nn.Conv2d | nn.Linear | nn.MaxPool2d | nn.AdaptiveAvgPool2d):
            return
        (x,) = inputs
        if isinstance(module, nn.Conv2d):
            self.macs += module.weight.numel() * output[0, 0].numel()
            self._see(module.dilation[0] * (module.kernel_size[0] - 1) + 1, module.stride[0])
            height, width = module.kernel_size
            if covers_map(height, width, x.shape[2], x.shape[3]):
                self.disguised.add(module)
        elif isinstance(module, nn.Linear):
            self.macs += module.weight.numel()
        elif isinstance(module, nn.MaxPool2d):
            self._see(_height(module.kernel_size), _height(module.stride))
        memory = BYTES_PER_VALUE * (x.numel() + output.numel())
        self.peak_activation_bytes = max(self.peak_activation_bytes, memory)

    def _see(self, extent: int, stride: int) -> None:
        self.receptive_field += (extent - 1) * self.jump
        self.jump *= stride


def _dense(module: nn.Module) -> set[nn.Module]:
    return {part for part in module.modules() if isinstance(part, nn.Linear | nn.Bilinear | LazyModuleMixin)}


def measure(module: nn.Module, input_shape: Shape) -> Cost:
    """The costs of a built module, counted on its parameters and by forward hooks: nothing is taken from a description.

    `linear_layers` counts nn.Linear, bilinear and lazy layers anywhere inside, and disguised ones. A lazy layer that
    the image does not reach has no parameters yet.
    """
    dense = _dense(module)  # before the forward pass: lazy layers turn into ordinary ones there
    meter, device = _Meter(), next((p.device for p in module.parameters()), torch.device("cpu"))
    leaves = [part for part in module.modules() if not list(part.children())]
    handles = [leaf.register_forward_hook(meter.observe) for leaf in leaves]
    training = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, *input_shape, device=device))
    finally:
        for part, mode in training.items():
            part.training = mode
        for handle in handles:
            handle.remove()
    return Cost(
        params=sum(parameter.numel() for parameter in module.parameters() if not is_lazy(parameter)),
        macs=meter.macs,
        peak_activation_bytes=meter.peak_activation_bytes,
        receptive_field=meter.receptive_field,
        linear_layers=len(dense | _dense(module) | meter.disguised),
    )


class LimitBrokenError(Exception):
    """A built module breaks a limit, or costs something else than its description says: a bug, never bad input."""


def check_built(module: nn.Module, architecture: Architecture, constraints: Constraints, epochs: int) -> None:
    """Count a built module's costs and hold them against its description and the limits.

    Raises:
        LimitBrokenError: it breaks a limit, or the two counts differ.
    """
    measured, described = measure(module, architecture.input_shape), cost(architecture)
    for name in ("params", "macs", "peak_activation_bytes", "receptive_field", "linear_layers"):
        found, expected = getattr(measured, name), getattr(described, name)
        if found != expected:
            raise LimitBrokenError(f"{name} is {found} as built, {expected} described")
    if broken := violations(constraints, measured, epochs):
        raise LimitBrokenError("; ".join(map(str, broken)))
