"""What a network is, as an immutable value; no torch.

Shapes are (channels, height, width). The one-line notation reads from input to output: `c16` is a convolution cell of
sixteen 3×3 kernels, `k5` its other kernel size, `v` one without padding, `+2` one with another padding than that which
keeps the size, `n` one without batch normalization, `-silu` its other activation, `d5` 5 % dropout; `t8` a transition
to 8 channels; `p2` a 2×2 max-pool; a block has a word of its own; after the bar comes the head.
"""

from dataclasses import dataclass
from functools import lru_cache

from nas.errors import require, require_whole
from nas.network.layers import Head, Layer, Part, Shape

RECENT = 1_000  # candidates, and layers, of which something is remembered: a search asks for it many times


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
        require(known, "Architecture", "layers", layers, "a tuple of Conv, Transition, MaxPool and Block")
        require_whole("Architecture", "num_classes", self.num_classes, 2)
        require(isinstance(self.head, Head), "Architecture", "head", self.head, "a Head")


def notation(architecture: Architecture) -> str:
    """The architecture in one line that a person can read in a table, such as `c12 p2 c16 c16d5 t8 c24v | gap 1×1`."""
    return " ".join([*(layer.notation for layer in architecture.layers), "|", architecture.head.notation])


@lru_cache(maxsize=RECENT)
def _part(layer: Layer) -> Part:
    return Part(layer.name, layer.row_kind, layer.operations)


@lru_cache(maxsize=RECENT)
def _head_parts(head: Head, classes: int) -> tuple[Part, ...]:
    return head.parts(classes)


def parts(architecture: Architecture) -> list[Part]:
    """The rows of the network's cost, from input to output, with the operations that they are made of."""
    return [*map(_part, architecture.layers), *_head_parts(architecture.head, architecture.num_classes)]


def names(architecture: Architecture) -> list[str]:
    """What each row of the network's cost is called."""
    return [part.name for part in parts(architecture)]
