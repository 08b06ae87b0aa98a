"""What a network is, as immutable values: layer kinds, Architecture, Candidate; no torch.

Shapes are (channels, height, width). The one-line notation reads from input to output: `c16` is a convolution cell of
sixteen 3×3 kernels, `k5` its other kernel size, `v` one without padding, `d5` 5 % dropout, `n` one without batch
normalization; `t8` a transition to 8 channels; `p2` a 2×2 max-pool; after the bar comes the head.
"""

import hashlib
import json
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias, assert_never, get_args

from nas.errors import UserError, require, require_bool, require_number, require_whole
from nas.recipe import Augmentation, Recipe

Activation: TypeAlias = Literal["relu", "silu", "gelu", "none"]
HeadKind: TypeAlias = Literal["pool_conv", "conv_pool", "linear"]
Shape: TypeAlias = tuple[int, int, int]

RECENT = 1_000  # candidates of which JSON and cost are remembered: a search asks for those of one many times

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A feed-forward network: `layers` in order, then `head`.

    Raises:
        UserError: a size below 1 in the input shape, fewer than 2 classes, or layers or a head that are something else.
    """

    input_shape: Shape
    num_classes: int
    layers: tuple[Layer, ...]
    head: Head

    def __post_init__(self) -> None:
        shape, layers = self.input_shape, self.layers
        sizes = isinstance(shape, tuple) and len(shape) == 3 and all(type(size) is int and size >= 1 for size in shape)
        require(sizes, "Architecture", "input_shape", shape, "three whole numbers, each at least 1")
        known = isinstance(layers, tuple) and all(isinstance(layer, Layer) for layer in layers)
        require(known, "Architecture", "layers", layers, "a tuple of Conv, Transition and MaxPool")
        require_whole("Architecture", "num_classes", self.num_classes, 2)
        require(isinstance(self.head, Head), "Architecture", "head", self.head, "a Head")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An architecture and the recipe it is trained by: all that decides a training but the data and the seed.

    Raises:
        UserError: one of them is something else.
    """

    architecture: Architecture
    recipe: Recipe

    def __post_init__(self) -> None:
        known = isinstance(self.architecture, Architecture)
        require(known, "Candidate", "architecture", self.architecture, "an Architecture")
        require(isinstance(self.recipe, Recipe), "Candidate", "recipe", self.recipe, "a Recipe")


def _layer_notation(layer: Layer) -> str:
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


def notation(architecture: Architecture) -> str:
    """The architecture in one line that a person can read in a table, such as `c12 p2 c16 c16d5 t8 c24v | gap 1×1`."""
    heads = {"pool_conv": "gap 1×1", "conv_pool": "1×1 gap", "linear": "linear"}
    padding = f"+{architecture.head.padding}" if architecture.head.padding else ""
    head = heads[architecture.head.kind].replace("1×1", f"1×1{padding}")
    return " ".join([*map(_layer_notation, architecture.layers), "|", head])


def _plain(value: Any) -> Any:
    """What JSON can hold; a float field is written as a float even when it was given as 0 or -0.0, equal to 0.0."""
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if not is_dataclass(value):
        return value
    plain: dict[str, Any] = {"kind": type(value).__name__} if isinstance(value, Layer) else {}
    for field in fields(value):
        part = getattr(value, field.name)
        plain[field.name] = float(part) + 0.0 if field.type is float else _plain(part)
    return plain


@lru_cache(maxsize=RECENT)
def to_json(candidate: Candidate) -> str:
    """Canonical JSON: equal candidates, and only those, give equal text."""
    return json.dumps(_plain(candidate), sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=RECENT)
def from_json(text: str) -> Candidate:
    """The candidate that `to_json` wrote.

    Raises:
        UserError: text that is not such a candidate, with what is wrong.
    """
    kinds = {kind.__name__: kind for kind in (Conv, Transition, MaxPool)}
    try:
        values = json.loads(text)
        architecture, recipe = values["architecture"], values["recipe"]
        layers = tuple(kinds[layer.pop("kind")](**layer) for layer in architecture["layers"])
        channels, height, width = architecture["input_shape"]
        return Candidate(
            architecture=Architecture(
                input_shape=(channels, height, width),
                num_classes=architecture["num_classes"],
                layers=layers,
                head=Head(**architecture["head"]),
            ),
            recipe=Recipe(**{**recipe, "augmentation": Augmentation(**recipe["augmentation"])}),
        )
    except (TypeError, KeyError, AttributeError, ValueError, RecursionError) as error:
        raise UserError(f"candidate JSON: {error} in {text[:80]!r}; it must be as to_json writes it") from error


def digest(candidate: Candidate) -> str:
    """Twelve hexadecimal digits that tell candidates apart (48 bits of SHA-256 over the canonical JSON)."""
    return hashlib.sha256(to_json(candidate).encode()).hexdigest()[:12]
