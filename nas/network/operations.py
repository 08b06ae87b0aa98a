"""The operations that layers are made of, with their shape rules, their costs and the torch modules that they are.

A map's shape is (channels, height, width), a vector's (length,). A MAC is one multiply-accumulate of a convolution or a
dense layer for one image; biases, batch normalization, activations and pooling have none. Torch is not imported.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal, NamedTuple, TypeAlias, get_args

from nas.errors import require, require_bool, require_number, require_whole

Function: TypeAlias = Literal["relu", "silu", "gelu"]
Sizes: TypeAlias = tuple[int, ...]  # of a map or a vector
Argument: TypeAlias = int | float | bool
MODULES: dict[Function, str] = {"relu": "ReLU", "silu": "SiLU", "gelu": "GELU"}


class ModuleCall(NamedTuple):
    """A call of one of torch.nn's classes: building runs it, exporting writes it down."""

    name: str
    args: tuple[Argument, ...] = ()
    kwargs: tuple[tuple[str, Argument], ...] = ()

    def arguments(self) -> list[str]:
        """The arguments as Python source."""
        return [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs)]

    def source(self) -> str:
        """The call as Python source, such as `nn.Conv2d(1, 16, 3, padding=1, bias=False)`."""
        return f"nn.{self.name}({', '.join(self.arguments())})"


def covers_map(kernel_height: int, kernel_width: int, height: int, width: int) -> bool:
    """Whether a convolution of this size on a map of this size is a dense layer in disguise.

    It is when its kernel, larger than 1×1, spans the whole map: each kernel weight then meets one position of the map.
    A dilated kernel of fewer weights than the map has values leaves some out, so its extent does not count.
    """
    return kernel_height * kernel_width > 1 and kernel_height >= height and kernel_width >= width


class _Base(ABC):
    """What an operation is unless it says otherwise: no parameters, no MACs, each value from one value, same shape."""

    __slots__ = ()
    in_place: ClassVar[bool] = False  # at inference it needs no memory beside its input's

    @property
    def extent(self) -> int:
        """Values of the input, along one axis, from the first to the last that one value of the output sees."""
        return 1

    @property
    def stride(self) -> int:
        """Values of the input from one value of the output to the next."""
        return 1

    def output_shape(self, shape: Sizes) -> Sizes:
        """The shape that leaves it; a size below 1 says that it does not fit on the map."""
        return shape

    def params(self, shape: Sizes) -> int:
        """Trainable values, for an input of this shape, as in the next."""
        return 0

    def macs(self, shape: Sizes) -> int:
        return 0

    def is_dense(self, shape: Sizes) -> bool:
        """Whether it is a fully connected layer, or one in disguise."""
        return False

    @abstractmethod
    def call(self, shape: Sizes) -> ModuleCall:
        """The torch module that it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kernels(_Base):
    """What convolutions have in common; arguments as torch's Conv2d has them, the same along both axes."""

    kernel_size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    bias: bool = True

    def __post_init__(self) -> None:
        where = type(self).__name__
        for name, minimum in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            require_whole(where, name, getattr(self, name), minimum)
        require_bool(where, "bias", self.bias)

    @abstractmethod
    def channels(self, in_channels: int) -> tuple[int, int]:
        """How many channels leave it, and in how many groups, when so many reach it."""

    @property
    def extent(self) -> int:
        return self.dilation * (self.kernel_size - 1) + 1

    def output_shape(self, shape: Sizes) -> Sizes:
        """The shape rule of torch's Conv2d."""
        channels, height, width = shape
        larger = 2 * self.padding - self.extent
        return self.channels(channels)[0], (height + larger) // self.stride + 1, (width + larger) // self.stride + 1

    def _weights(self, in_channels: int) -> int:
        out_channels, groups = self.channels(in_channels)
        return in_channels // groups * out_channels * self.kernel_size * self.kernel_size

    def params(self, shape: Sizes) -> int:
        return self._weights(shape[0]) + self.bias * self.channels(shape[0])[0]

    def macs(self, shape: Sizes) -> int:
        """Each weight at each position of the output."""
        _, height, width = self.output_shape(shape)
        return self._weights(shape[0]) * height * width

    def is_dense(self, shape: Sizes) -> bool:
        _, height, width = shape
        return covers_map(self.kernel_size, self.kernel_size, height, width)

    def call(self, shape: Sizes) -> ModuleCall:
        out_channels, groups = self.channels(shape[0])
        named = (("stride", self.stride, 1), ("padding", self.padding, 0), ("dilation", self.dilation, 1))
        options = (*named, ("groups", groups, 1), ("bias", self.bias, True))
        told = tuple((name, value) for name, value, default in options if value != default)
        return ModuleCall("Conv2d", (shape[0], out_channels, self.kernel_size), told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution(_Kernels):
    """A convolution: every kernel sees all channels.

    Raises:
        UserError: a value outside its range.
    """

    out_channels: int

    def __post_init__(self) -> None:
        require_whole("Convolution", "out_channels", self.out_channels, 1)
        _Kernels.__post_init__(self)

    def channels(self, in_channels: int) -> tuple[int, int]:
        return self.out_channels, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Depthwise(_Kernels):
    """A depthwise convolution: one kernel for each channel, which sees that channel only.

    Raises:
        UserError: a value outside its range.
    """

    def channels(self, in_channels: int) -> tuple[int, int]:
        return in_channels, in_channels


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchNorm(_Base):
    """Batch normalization: a trained factor and offset for each channel."""

    in_place: ClassVar[bool] = True

    def params(self, shape: Sizes) -> int:
        return 2 * shape[0]

    def call(self, shape: Sizes) -> ModuleCall:
        return ModuleCall("BatchNorm2d", (shape[0],))


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation(_Base):
    """A function of each value.

    Raises:
        UserError: an unknown function.
    """

    in_place: ClassVar[bool] = True
    function: Function = "relu"

    def __post_init__(self) -> None:
        known = get_args(Function)
        require(self.function in known, "Activation", "function", self.function, f"one of {known}")

    def call(self, shape: Sizes) -> ModuleCall:
        return ModuleCall(MODULES[self.function])


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropout(_Base):
    """Channel dropout: in training, whole channels are set to 0 at this rate.

    Raises:
        UserError: a rate below 0, or of 1 and more.
    """

    in_place: ClassVar[bool] = True
    rate: float

    def __post_init__(self) -> None:
        require_number("Dropout", "rate", self.rate, low=0, below=1)

    def call(self, shape: Sizes) -> ModuleCall:
        return ModuleCall("Dropout2d", (float(self.rate) + 0.0,))  # equal rates, 0 and -0.0 too, give equal text


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPooling(_Base):
    """The maximum of windows that do not overlap; what is left over at the edge is dropped.

    Raises:
        UserError: a kernel size below 2.
    """

    kernel_size: int

    def __post_init__(self) -> None:
        require_whole("MaxPooling", "kernel_size", self.kernel_size, 2)

    @property
    def extent(self) -> int:
        return self.kernel_size

    @property
    def stride(self) -> int:
        return self.kernel_size

    def output_shape(self, shape: Sizes) -> Sizes:
        channels, height, width = shape
        return channels, height // self.kernel_size, width // self.kernel_size

    def call(self, shape: Sizes) -> ModuleCall:
        return ModuleCall("MaxPool2d", (self.kernel_size,))


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalAveragePooling(_Base):
    """The mean of each map. It sees all of the map and, by convention, does not enlarge the receptive field."""

    def output_shape(self, shape: Sizes) -> Sizes:
        return shape[0], 1, 1

    def call(self, shape: Sizes) -> ModuleCall:
        return ModuleCall("AdaptiveAvgPool2d", (1,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Flatten(_Base):
    """A map as a vector."""

    in_place: ClassVar[bool] = True

    def output_shape(self, shape: Sizes) -> Sizes:
        return (prod(shape),)

    def call(self, shape: Sizes) -> ModuleCall:
        return ModuleCall("Flatten")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense(_Base):
    """A fully connected layer of a vector.

    Raises:
        UserError: a value outside its range.
    """

    out_features: int
    bias: bool = True

    def __post_init__(self) -> None:
        require_whole("Dense", "out_features", self.out_features, 1)
        require_bool("Dense", "bias", self.bias)

    def output_shape(self, shape: Sizes) -> Sizes:
        return (self.out_features,)

    def params(self, shape: Sizes) -> int:
        return self.out_features * (shape[0] + self.bias)

    def macs(self, shape: Sizes) -> int:
        return self.out_features * shape[0]

    def is_dense(self, shape: Sizes) -> bool:
        return True

    def call(self, shape: Sizes) -> ModuleCall:
        return ModuleCall("Linear", (shape[0], self.out_features), () if self.bias else (("bias", False),))


MapOperation: TypeAlias = (
    Convolution | Depthwise | BatchNorm | Activation | Dropout | MaxPooling | GlobalAveragePooling
)  # from a map to a map
Operation: TypeAlias = MapOperation | Flatten | Dense
