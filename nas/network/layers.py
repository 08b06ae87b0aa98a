"""The layers that a network may have, as immutable values; no torch.

A layer has a name for pictures and tables and a word in the one-line notation. It says which operations it is made of:
its costs, its modules and their source text follow from these.
"""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, assert_never, get_args

from nas.errors import require, require_bool, require_number, require_whole
from nas.network.operations import (
    Activation,
    BatchNorm,
    Convolution,
    Dense,
    Dropout,
    Flatten,
    Function,
    GlobalAveragePooling,
    MapOperation,
    MaxPooling,
    Operation,
)

ActivationKind: TypeAlias = Function | Literal["none"]
HeadKind: TypeAlias = Literal["pool_conv", "conv_pool", "linear"]
RowKind: TypeAlias = Literal["conv", "transition", "max_pool", "block", "global_pool", "classifier", "linear"]
Shape: TypeAlias = tuple[int, int, int]
ACTIVATIONS: tuple[ActivationKind, ...] = ("relu", "silu", "gelu", "none")
HEADS: tuple[HeadKind, ...] = get_args(HeadKind)
LONGEST = 24  # characters of a block's name: more would run into the next layer of a picture
WORD = r"[\w×+./-]+"  # no character that means something in a table, a page or a terminal


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv:
    """A convolution cell: convolution, batch normalization, activation, channel dropout.

    Raises:
        UserError: a value outside its range.
    """

    row_kind: ClassVar[RowKind] = "conv"
    out_channels: int
    kernel_size: int = 3
    padding: int = 1
    bias: bool = False
    batch_norm: bool = True
    activation: ActivationKind = "relu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_whole("Conv", "out_channels", self.out_channels, 1)
        require_whole("Conv", "kernel_size", self.kernel_size, 1)
        require_whole("Conv", "padding", self.padding, 0)
        require_bool("Conv", "bias", self.bias)
        require_bool("Conv", "batch_norm", self.batch_norm)
        require_number("Conv", "dropout", self.dropout, low=0, below=1)
        require(self.activation in ACTIVATIONS, "Conv", "activation", self.activation, f"one of {ACTIVATIONS}")

    @property
    def name(self) -> str:
        return f"conv {self.kernel_size}×{self.kernel_size}"

    @property
    def notation(self) -> str:
        size = f"k{self.kernel_size}" if self.kernel_size != 3 else ""
        same = self.kernel_size // 2
        padding = "" if self.padding == same else "v" if self.padding == 0 else f"+{self.padding}"
        norm = "" if self.batch_norm else "n"
        activation = "" if self.activation == "relu" else f"-{self.activation}"
        dropout = f"d{self.dropout * 100:g}" if self.dropout else ""
        return f"c{self.out_channels}{size}{padding}{norm}{activation}{dropout}"

    @property
    def operations(self) -> tuple[Operation, ...]:
        kernel_size, padding = self.kernel_size, self.padding
        found: list[Operation] = [
            Convolution(out_channels=self.out_channels, kernel_size=kernel_size, padding=padding, bias=self.bias)
        ]
        if self.batch_norm:
            found.append(BatchNorm())
        if self.activation != "none":
            found.append(Activation(function=self.activation))
        if self.dropout:
            found.append(Dropout(rate=self.dropout))
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A bare 1×1 convolution that changes the number of channels.

    Raises:
        UserError: a value outside its range.
    """

    row_kind: ClassVar[RowKind] = "transition"
    out_channels: int
    padding: int = 0
    bias: bool = True

    def __post_init__(self) -> None:
        require_whole("Transition", "out_channels", self.out_channels, 1)
        require_whole("Transition", "padding", self.padding, 0)
        require_bool("Transition", "bias", self.bias)

    @property
    def name(self) -> str:
        return "transition"

    @property
    def notation(self) -> str:
        return f"t{self.out_channels}" + (f"+{self.padding}" if self.padding else "")

    @property
    def operations(self) -> tuple[Operation, ...]:
        return (Convolution(out_channels=self.out_channels, kernel_size=1, padding=self.padding, bias=self.bias),)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool:
    """Max-pooling over windows that do not overlap; what is left over at the edge is dropped.

    Raises:
        UserError: a kernel size below 2.
    """

    row_kind: ClassVar[RowKind] = "max_pool"
    kernel_size: int = 2

    def __post_init__(self) -> None:
        require_whole("MaxPool", "kernel_size", self.kernel_size, 2)

    @property
    def name(self) -> str:
        return f"pool {self.kernel_size}×{self.kernel_size}"

    @property
    def notation(self) -> str:
        return f"p{self.kernel_size}"

    @property
    def operations(self) -> tuple[Operation, ...]:
        return (MaxPooling(kernel_size=self.kernel_size),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A layer of your own: operations from a map to a map, in order.

    Its JSON holds its operations, so that a study is read without the file that made them. `notation` is its word in
    the one-line notation; give blocks that differ different ones.

    Raises:
        UserError: a name that is no plain words, a notation that is no plain word, or operations that are none of maps.
    """

    row_kind: ClassVar[RowKind] = "block"
    name: str
    notation: str
    operations: tuple[MapOperation, ...]

    def __post_init__(self) -> None:
        rule = f"1 to {LONGEST} letters, digits or ×+-./_"
        require(_is_plain(self.name, f"{WORD}( {WORD})*"), "Block", "name", self.name, f"{rule}, with single spaces")
        require(_is_plain(self.notation, WORD), "Block", "notation", self.notation, rule)
        operations = self.operations
        known = isinstance(operations, tuple) and all(isinstance(part, MapOperation) for part in operations)
        kinds = ", ".join(kind.__name__ for kind in get_args(MapOperation))
        require(known and operations != (), "Block", "operations", operations, f"a tuple of at least one of {kinds}")


def _is_plain(text: object, pattern: str) -> bool:
    return isinstance(text, str) and len(text) <= LONGEST and re.fullmatch(pattern, text) is not None


Layer: TypeAlias = Conv | Transition | MaxPool | Block


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A row of a network's cost: what it is called, how it is drawn, and the operations that it is made of.

    Parts are told apart by identity, which is quicker than comparing operations.
    """

    name: str
    kind: RowKind
    operations: tuple[Operation, ...]


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

    @property
    def notation(self) -> str:
        padding = f"+{self.padding}" if self.padding else ""
        return {"pool_conv": "gap 1×1", "conv_pool": f"1×1{padding} gap", "linear": "linear"}[self.kind]

    def parts(self, classes: int) -> tuple[Part, ...]:
        """The rows of a head to so many classes."""
        pool = GlobalAveragePooling()
        convolution = Convolution(out_channels=classes, kernel_size=1, padding=self.padding, bias=self.bias)
        match self.kind:
            case "pool_conv":
                pooled = Part("global pool", "global_pool", (pool,))
                return pooled, Part("classifier", "classifier", (convolution, Flatten()))
            case "conv_pool":
                scores = Part("classifier", "classifier", (convolution,))
                return scores, Part("global pool", "global_pool", (pool, Flatten()))
            case "linear":
                return (Part("linear", "linear", (Flatten(), Dense(out_features=classes, bias=self.bias))),)
            case _:
                assert_never(self.kind)
