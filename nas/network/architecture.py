"""What a network is, as immutable values: layer kinds, Architecture, Candidate; no torch.

Shapes are (channels, height, width). The one-line notation reads from input to output: `c16` is a convolution cell of
sixteen 3×3 kernels, `k5` its other kernel size, `v` one without padding, `d5` 5 % dropout, `n` one without batch
normalization; `t8` a transition to 8 channels; `p2` a 2×2 max-pool; after the bar comes the head.
"""

from dataclasses import dataclass

from nas.errors import require, require_whole
from nas.network.layers import Conv, Head, Layer, MaxPool, Shape, Transition, layer_notation

RECENT = 1_000  # candidates of which JSON and cost are remembered: a search asks for those of one many times


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


def notation(architecture: Architecture) -> str:
    """The architecture in one line that a person can read in a table, such as `c12 p2 c16 c16d5 t8 c24v | gap 1×1`."""
    heads = {"pool_conv": "gap 1×1", "conv_pool": "1×1 gap", "linear": "linear"}
    padding = f"+{architecture.head.padding}" if architecture.head.padding else ""
    head = heads[architecture.head.kind].replace("1×1", f"1×1{padding}")
    return " ".join([*map(layer_notation, architecture.layers), "|", head])


def names(architecture: Architecture) -> list[str]:
    """What each row of the network's cost is called."""
    found: list[str] = []
    for layer in architecture.layers:
        match layer:
            case Conv():
                found.append(f"conv {layer.kernel_size}×{layer.kernel_size}")
            case Transition():
                found.append("transition")
            case MaxPool():
                found.append(f"pool {layer.kernel_size}×{layer.kernel_size}")
    heads = {
        "pool_conv": ["global pool", "classifier"],
        "conv_pool": ["classifier", "global pool"],
        "linear": ["linear"],
    }
    return [*found, *heads[architecture.head.kind]]
