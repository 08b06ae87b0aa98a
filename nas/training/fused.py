"""Blocks of a network as one operation of a compiled library: see `cpp/block.cpp` and `cpp/first.cpp`.

In training, and where networks are judged, a block is one operation; on a GPU, and in evaluation with gradients, it is
the modules that it was made of. Statistics and gradients of parameters are sums in float32 within an image, in double
precision beyond, and a value is rounded to the map's dtype once. Where values of a window are equal, the first gets the
gradient. One thread at a time may use a block.
"""

import ctypes
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, nn

from nas.training.kernels import function

NAMES = {torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}
TAPS = 9  # of a kernel of the first convolution; measured: with 25 or 27, torch's convolution is quicker
GROUP = 16  # images whose patches are summed together, at most


def fused(modules: Sequence[nn.Module], library: ctypes.CDLL | None, dtype: torch.dtype) -> Iterator[nn.Module]:
    """The modules, with blocks for a batch normalization and what follows it; as they are without a library.

    The first convolution is part of its block, if it sees images. Maps are of `dtype`.
    """
    place, images = 0, True
    while place < len(modules):
        module, rest = modules[place], modules[place + 1 :]
        count = 0 if library is None else _fusible(modules[place:])
        if library is not None and count:
            yield FusedBlock(modules[place : place + count], library)
        elif library is not None and images and _is_small(module) and (after := _fusible(rest)) and _fits(rest[:after]):
            count = 1 + after
            yield FirstBlock(module, rest[:after], library, dtype)
        else:
            count = 1
            yield module
        images = images and not any(True for _ in module.parameters())
        place += count


class _Block(ctypes.Structure):
    """`Block` of `block.cpp`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "channels", "window")),
        *((name, ctypes.c_double) for name in ("floor", "momentum", "eps")),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "running_mean", "running_var", "numbers", "sums")),
    )


class _First(ctypes.Structure):
    """`First` of `first.cpp`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "padding", "channels", "window")),
        *((name, ctypes.c_double) for name in ("floor", "momentum", "eps")),
        *((name, ctypes.c_void_p) for name in ("kernels", "shift", "weight", "bias")),
        *((name, ctypes.c_void_p) for name in ("running_mean", "running_var", "numbers", "sums")),
    )


class FusedBlock(nn.Module):
    """A batch normalization and what follows it, (N, C, H, W) to (N, C, H', W'), channels_last."""

    def __init__(self, modules: Sequence[nn.Module], library: ctypes.CDLL) -> None:
        super().__init__()
        self.each, self._library = nn.Sequential(*modules), library
        norm = modules[0]
        assert _is_usual_norm(norm)
        self._norm = norm
        self._window = next((cast(int, part.kernel_size) for part in modules if _is_usual_pool(part)), 1)
        self._rate = next((part.p for part in modules if isinstance(part, nn.Dropout2d)), 0.0)
        self._floor = 0.0 if any(isinstance(part, nn.ReLU) for part in modules) else -math.inf
        self._told_of: tuple[torch.Size, torch.dtype, int] | None = None  # the maps, and the place of the state
        self.numbers = torch.empty(6 * norm.num_features, dtype=norm.weight.dtype)
        self._sums = torch.empty(2 * norm.num_features, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        values = x.numel() // x.shape[1]  # a channel; of one there are no statistics
        if self.judges(x):
            return self._judged(x.contiguous(memory_format=torch.channels_last))
        if not self.training or x.device.type != "cpu" or values < 2:
            result: Tensor = self.each(x)
            return result
        return _Fused.apply(x, self._norm.weight, self._norm.bias, self.factors(len(x)), self)  # type: ignore[no-any-return]  # torch's stub

    def judges(self, x: Tensor) -> bool:
        """Whether the library evaluates it: nobody asks for gradients."""
        return not self.training and x.device.type == "cpu" and not torch.is_grad_enabled()

    def _judged(self, x: Tensor) -> Tensor:
        images, channels, height, width = x.shape
        block = self.told(x)
        y = _map(images, channels, height // block.window, width // block.window, x.dtype)
        self.call("block_evaluate", x.dtype, block, x, y, torch.empty_like(self._norm.bias))
        return y

    def factors(self, images: int) -> Tensor | None:
        """Dropout's, (N, C); counts the batch, too."""
        norm, kept = self._norm, 1 - self._rate
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        if kept == 1:
            return None
        return torch.empty(images, norm.num_features, dtype=norm.weight.dtype).bernoulli_(kept).div_(kept)

    def told(self, x: Tensor) -> _Block:
        """What the library is told for maps of this shape."""
        of = (x.shape, x.dtype, self._norm.weight.data_ptr())
        if of != self._told_of:
            images, channels, height, width = x.shape
            _require(channels == self._norm.num_features, f"{channels} channels instead of {self._norm.num_features}")
            _require(min(height, width) >= self._window, f"maps of {height}×{width} for windows of {self._window}")
            _require_dtypes(x.dtype, self._norm.weight.dtype, self.numbers.dtype)
            self._told, self._told_of = _Block(images, height, width, channels, *self._rest()), of
        return self._told

    def _rest(self) -> tuple[Any, ...]:
        """The window, the least value of the activation, what the normalization is, and memory to work in."""
        norm = self._norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        tensors = (norm.weight, norm.bias, norm.running_mean, norm.running_var, self.numbers, self._sums)
        pointers = (tensor.data_ptr() for tensor in tensors)
        return self._window, self._floor, norm.momentum, norm.eps, *pointers

    def call(self, name: str, dtype: torch.dtype, what: ctypes.Structure, *tensors: Tensor | None) -> None:
        """Call a function of the library for a dtype of maps."""
        pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
        function(self._library, f"{name}_{NAMES[dtype]}", len(pointers))(ctypes.byref(what), *pointers)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, factors: Tensor | None, fused: FusedBlock) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        images, channels, height, width = x.shape
        block = fused.told(x)
        y = _map(images, channels, height // block.window, width // block.window, x.dtype)
        mean, scale = torch.empty(2, channels, dtype=weight.dtype)
        fused.call("block_forward", x.dtype, block, x, y, factors, mean, scale)
        ctx.save_for_backward(x, factors, mean, scale)
        ctx.fused, ctx.block = fused, block
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, factors, mean, scale = ctx.saved_tensors
        dy = gradients[0].contiguous(memory_format=torch.channels_last)
        dx = torch.empty_like(x)
        dweight, dbias = torch.empty_like(mean), torch.empty_like(mean)
        ctx.fused.call("block_backward", x.dtype, ctx.block, x, dy, dx, factors, mean, scale, dweight, dbias)
        return dx, dweight, dbias, None, None


class FirstBlock(FusedBlock):
    """The convolution of grey images and the block behind it: float (N, 1, H, W) to (N, C, H', W') in `dtype`.

    The images get no gradient.
    """

    def __init__(self, conv: nn.Conv2d, modules: Sequence[nn.Module], library: ctypes.CDLL, dtype: torch.dtype) -> None:
        super().__init__(modules, library)
        self.conv, self.dtype = conv, dtype
        self._sums = torch.empty((TAPS + 1) * conv.out_channels, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        if self.judges(x):
            return self._judged(x.to(self.conv.weight.dtype).contiguous())
        if not self.training or x.device.type != "cpu" or x.requires_grad or len(x) < 2:
            result: Tensor = self.each(self.conv(x.to(self.conv.weight.dtype))).to(self.dtype)
            return result
        conv, norm = self.conv, self._norm
        return _FusedFirst.apply(x, conv.weight, conv.bias, norm.weight, norm.bias, self.factors(len(x)), self)  # type: ignore[no-any-return]  # torch's stub

    def _judged(self, x: Tensor) -> Tensor:
        what, _taps, y = self.begun(x)  # the library reads the taps until the call is over
        mean, scale = torch.empty(2, self.conv.out_channels, dtype=x.dtype)
        self.call("first_evaluate", self.dtype, what, x, y, mean, scale)
        return y

    def begun(self, x: Tensor) -> tuple[_First, Tensor, Tensor]:
        """What the library is told for images, the kernels (taps, C) that it is told of, and a map for the result."""
        kernels = self.conv.weight
        channels, size = len(kernels), kernels.shape[-1]
        taps = kernels.detach().permute(2, 3, 1, 0).reshape(-1, channels).contiguous()
        what = self.told_first(x, taps)
        larger = 2 * what.padding - size + 1
        height, width = ((side + larger) // what.window for side in x.shape[2:])
        _require(min(height, width) >= 1, f"images too small for its kernels and windows: {tuple(x.shape[2:])}")
        return what, taps, _map(len(x), channels, height, width, self.dtype)

    def told_first(self, x: Tensor, taps: Tensor) -> _First:
        """What the library is told for images of this shape and kernels (taps, C)."""
        conv = self.conv
        images, channels, height, width = x.shape
        _require(channels == 1, f"{channels} channels instead of 1")
        _require_dtypes(self.dtype, taps.dtype, self._norm.weight.dtype)
        padding = int(conv.padding[0])
        least = (1 + GROUP) * (height + 2 * padding) * (width + 2 * padding) + (TAPS + 1) * conv.out_channels
        if len(self.numbers) < least:
            self.numbers = torch.empty(least, dtype=taps.dtype)
        shape = (images, height, width, padding, conv.out_channels)
        window, floor, momentum, eps, *pointers = self._rest()
        shift = None if conv.bias is None else conv.bias.data_ptr()
        return _First(*shape, window, floor, momentum, eps, taps.data_ptr(), shift, *pointers)


class _FusedFirst(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kernels: Tensor,
        shift: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        factors: Tensor | None,
        first: FirstBlock,
    ) -> Tensor:
        x = x.to(weight.dtype).contiguous()
        what, taps, y = first.begun(x)
        moments = torch.empty(len(taps) * (len(taps) + 1), dtype=torch.float64)
        mean, scale = torch.empty(2, len(kernels), dtype=weight.dtype)
        first.call("first_forward", first.dtype, what, x, y, factors, moments, mean, scale)
        ctx.save_for_backward(x, taps, factors, moments, mean, scale)
        ctx.numbers = first.numbers  # which larger images replace
        ctx.first, ctx.what, ctx.shape, ctx.has_shift = first, what, kernels.shape, shift is not None
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, taps, factors, moments, mean, scale = ctx.saved_tensors
        dy = gradients[0].contiguous(memory_format=torch.channels_last)
        dtaps, dweight, dbias = torch.empty_like(taps), torch.empty_like(mean), torch.empty_like(mean)
        tensors = (x, dy, factors, moments, mean, scale, dtaps, dweight, dbias)
        ctx.first.call("first_backward", dy.dtype, ctx.what, *tensors)
        channels, _, height, width = ctx.shape
        dkernels = dtaps.view(height, width, 1, channels).permute(3, 2, 0, 1)
        dshift = torch.zeros_like(mean) if ctx.has_shift else None  # batch normalization takes away what it adds
        return None, dkernels, dshift, dweight, dbias, None, None


def _map(images: int, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    return torch.empty((images, channels, height, width), dtype=dtype, memory_format=torch.channels_last)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise RuntimeError(f"a fused block was given {what}")


def _require_dtypes(maps: torch.dtype, *numbers: torch.dtype) -> None:
    """Maps have the dtype of the parameters; those in bfloat16 have parameters in float32."""
    expected = torch.float32 if maps == torch.bfloat16 else maps
    _require(set(numbers) == {expected}, f"maps in {maps} with parameters in {' and '.join(map(str, numbers))}")


def _fusible(modules: Sequence[nn.Module]) -> int:
    """How many modules, from the first on, are one operation: a batch normalization and what may follow it, or none.

    ReLU, channel dropout and max-pooling follow in any order, each once at most. They commute: ReLU is monotonic, and
    channel dropout multiplies a whole map by one factor of at least 0.
    """
    if not modules or not _is_usual_norm(modules[0]):
        return 0
    seen: set[type[nn.Module]] = set()
    for place, module in enumerate(modules[1:], start=1):
        known = isinstance(module, nn.ReLU | nn.Dropout2d) or _is_usual_pool(module)
        if not known or type(module) in seen:
            return place
        seen.add(type(module))
    return len(modules)


def _is_usual_norm(module: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    """Whether it has an offset, a factor and running statistics that move by a constant momentum."""
    if not isinstance(module, nn.BatchNorm2d):
        return False
    return module.affine and module.track_running_stats and module.momentum is not None


def _is_usual_pool(module: nn.Module) -> TypeGuard[nn.MaxPool2d]:
    """Whether its windows are squares side by side, without padding or holes."""
    if not isinstance(module, nn.MaxPool2d) or module.return_indices or module.ceil_mode:
        return False
    size = module.kernel_size
    return isinstance(size, int) and (module.stride, module.padding, module.dilation) == (size, 0, 1)


def _is_small(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is a convolution of 3×3 on grey images, with zeros around them."""
    if not isinstance(module, nn.Conv2d) or module.padding_mode != "zeros" or module.in_channels != 1:
        return False
    plain = (module.kernel_size, module.stride, module.dilation) == ((3, 3), (1, 1), (1, 1))
    return plain and isinstance(module.padding, tuple) and module.padding[0] == module.padding[1]


def _fits(modules: Sequence[nn.Module]) -> bool:
    """Whether the pooling of a block, if it has one, has windows of two by two."""
    return all(part.kernel_size == 2 for part in modules if _is_usual_pool(part))
