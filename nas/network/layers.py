"""The layers that a network may have, as immutable values with their one-line notation; no torch."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, assert_never, get_args

from nas.errors import require, require_bool, require_number, require_whole

Activation: TypeAlias = Literal["relu", "silu", "gelu", "none"]
HeadKind: TypeAlias = Literal["pool_conv", "conv_pool", "linear"]
Shape: TypeAlias = tuple[int, int, int]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
HEADS: tuple[HeadKind, ...] = get_args(HeadKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv:
    """A convolution cell: convolution, batch normalization, activation, channel dropout.

    Raises:
        UserError: a value outside its range.
    """

    out_channels: int
    kernel_size: int = 3
    padding: int = 1
    bias: bool = False
    batch_norm: bool = True
    activation: Activation = "relu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_whole("Conv", "out_channels", self.out_channels, 1)
        require_whole("Conv", "kernel_size", self.kernel_size, 1)
        require_whole("Conv", "padding", self.padding, 0)
        require_bool("Conv", "bias", self.bias)
        require_bool("Conv", "batch_norm", self.batch_norm)
        require_number("Conv", "dropout", self.dropout, low=0, below=1)
        require(self.activation in ACTIVATIONS, "Conv", "activation", self.activation, f"one of {ACTIVATIONS}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A bare 1×1 convolution that changes the number of channels.

    Raises:
        UserError: a value outside its range.
    """

    out_channels: int
    padding: int = 0
    bias: bool = True

    def __post_init__(self) -> None:
        require_whole("Transition", "out_channels", self.out_channels, 1)
        require_whole("Transition", "padding", self.padding, 0)
        require_bool("Transition", "bias", self.bias)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool:
    """Max-pooling over windows that do not overlap; what is left over at the edge is dropped.

    Raises:
        UserError: a kernel size below 2.
    """

    kernel_size: int = 2

    def __post_init__(self) -> None:
        require_whole("MaxPool", "kernel_size", self.kernel_size, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """From the last feature map to class scores.

    `pool_conv`: global average pooling, then a 1×1 convolution to the classes. `conv_pool`: the same in the other
    order. `linear`: a fully connected layer over the whole map.

    Raises:
        UserError: an unknown kind, or padding anywhere but in `conv_pool`.
    """

    kind: HeadKind = "pool_conv"
    padding: int = 0
    bias: bool = True

    def __post_init__(self) -> None:
        require(self.kind in HEADS, "Head", "kind", self.kind, f"one of {HEADS}")
        require_whole("Head", "padding", self.padding, 0)
        require_bool("Head", "bias", self.bias)
        require(self.padding == 0 or self.kind == "conv_pool", "Head", "padding", self.padding, "0 unless conv_pool")


Layer: TypeAlias = Conv | Transition | MaxPool


def layer_notation(layer: Layer) -> str:
    match layer:
        case Conv():
            size = f"k{layer.kernel_size}" if layer.kernel_size != 3 else ""
            same = layer.kernel_size // 2
            padding = "" if layer.padding == same else "v" if layer.padding == 0 else f"+{layer.padding}"
            norm = "" if layer.batch_norm else "n"
            activation = "" if layer.activation == "relu" else f"-{layer.activation}"
            dropout = f"d{layer.dropout * 100:g}" if layer.dropout else ""
            return f"c{layer.out_channels}{size}{padding}{norm}{activation}{dropout}"
        case Transition():
            return f"t{layer.out_channels}" + (f"+{layer.padding}" if layer.padding else "")
        case MaxPool():
            return f"p{layer.kernel_size}"
        case _:
            assert_never(layer)
