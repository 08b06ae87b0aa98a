"""Forms of a network that take less time: the same parameters in other modules.

Measurements were made in alternating pairs on one core of an AMD EPYC with AVX512-BF16.
"""

import ctypes

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.training.fused import fused

OVERWRITTEN = (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d)  # do not need their output for their gradient


def faster(network: nn.Sequential) -> nn.Sequential:
    """The same scores, bit for bit: ReLU in place, max-pooling before ReLU and channel dropout.

    Max-pooling goes first because it leaves fewer values for the others. It commutes with ReLU, which is monotonic, and
    with channel dropout, which multiplies a whole map by one factor of at least 0. Measured: a step takes 2 to 10 %
    less time. The gradients are the same with one exception: where dropout's rounding makes two values of a window
    equal, another of them gets the gradient.
    ReLU works in place only where nothing else reads what it overwrites: not on images, nor on what another ReLU keeps.
    """
    modules: list[nn.Module] = []
    for module in network:
        place = len(modules)
        if isinstance(module, nn.MaxPool2d):
            while place and isinstance(modules[place - 1], nn.ReLU | nn.Dropout2d):
                place -= 1
        if isinstance(module, nn.ReLU) and place and isinstance(modules[-1], OVERWRITTEN):
            module = nn.ReLU(inplace=True)
        modules.insert(place, module)
    return nn.Sequential(*modules)


def training_form(network: nn.Sequential, dtype: torch.dtype, library: ctypes.CDLL | None = None) -> nn.Sequential:
    """`faster`, and changes that round differently, for a network that `nas.network.module.build` made.

    Convolutions and what follows them, up to the last average, are computed in `dtype`, dropout's factor included;
    parameters, their gradients, the statistics of batch normalization and the class scores are float32. Measured on the
    networks of `benchmarks/networks.py`, seed, 10k and 3k: 1.17, 1.00 and 1.03 times the speed of `faster` in float32,
    1.77, 1.18 and 1.01 times in bfloat16. With the library of `nas.training.kernels`, batch normalization and what
    follows it are one operation (see `nas.training.fused`). A module that is kept has its own options; one that is
    replaced must have those that its replacement computes.

    Raises:
        NotImplementedError: something else would be trained than is judged.
    """
    modules: list[nn.Module] = []
    for module in fused(list(faster(network)), library, dtype):
        match module:
            case nn.Conv2d() if modules and isinstance(modules[-1], GlobalAverage) and _is_product(module):
                modules.append(Classifier(module))
            case nn.Conv2d():
                modules.append(Convolution(module, dtype))
            case nn.AdaptiveAvgPool2d():
                _require(module, output_size=(1, (1, 1)))
                modules.append(GlobalAverage())
            case nn.Linear():
                modules += [Float32(), module]
            case _:
                modules.append(module)
    return nn.Sequential(*modules)


def _require(module: nn.Module, **known: tuple[object, ...]) -> None:
    """Raise NotImplementedError unless each of these options of a module has one of the values that are known."""
    for name, values in known.items():
        if (value := getattr(module, name)) not in values:
            raise NotImplementedError(
                f"{module} would be trained with {name}={values[0]!r} instead of {value!r}; "
                "teach nas.training.acceleration that option before building with it"
            )


def activation_dtype(device: torch.device) -> torch.dtype:
    """What training computes activations in: bfloat16 on a CPU with AVX512-BF16, float32 elsewhere.

    Torch must have `torch.cpu.get_capabilities`, the one public way to ask; without it, float32.
    """
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        return torch.bfloat16 if torch.cpu.get_capabilities().get("avx512_bf16") else torch.float32
    return torch.float32


class Convolution(nn.Module):
    """A convolution computed in `dtype`.

    A padded 1×1 convolution pads its output, with its bias, instead of its input. Measured: a step of the seed network,
    which pads its transitions, takes 68 ms instead of 78 in float32.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        _require(conv, padding_mode=("zeros",))
        if not isinstance(conv.padding, tuple):
            raise NotImplementedError(f"{conv} would be trained without padding; give it as numbers")
        self.conv, self.dtype, self.padding = conv, dtype, conv.padding

    def forward(self, x: Tensor) -> Tensor:
        x, weight = x.to(self.dtype), self.conv.weight.to(self.dtype)
        bias = None if self.conv.bias is None else self.conv.bias.to(self.dtype)
        height, width = self.padding
        stride, dilation, groups = self.conv.stride, self.conv.dilation, self.conv.groups
        if self.conv.kernel_size != (1, 1) or stride != (1, 1) or not (height or width):
            return F.conv2d(x, weight, bias, stride, self.padding, dilation, groups)
        padded = F.pad(F.conv2d(x, weight, groups=groups), (width, width, height, height))
        return padded if bias is None else padded.add_(bias.view(-1, 1, 1))


class GlobalAverage(nn.Module):
    """The mean of each map, in float32: (N, C, H, W) to (N, C, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True, dtype=torch.float32)


def _is_product(conv: nn.Conv2d) -> bool:
    """Whether it is a matrix product on maps of one pixel."""
    return conv.kernel_size == (1, 1) and conv.padding == (0, 0) and conv.groups == 1


class Classifier(nn.Module):
    """A 1×1 convolution of one-pixel maps as the matrix product that it is: (N, C, 1, 1) to (N, classes, 1, 1)."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), self.conv.weight.flatten(1), self.conv.bias)[..., None, None]


class Float32(nn.Module):
    """The same values in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float()
