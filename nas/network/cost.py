"""What a network costs, layer by layer, without building it; no torch.

Conventions. A MAC is one multiply-accumulate of a convolution or linear layer for one image; biases, batch
normalization, activations and pooling are not counted. The receptive field is the number of input pixels, along one
axis, that a value of the last feature map can see; global pooling and the head, which see all of that map, do not
enlarge it. Peak activation bytes are the most that one layer's input and output take together at inference, for one
image in float32, with batch normalization, activation and dropout done in place.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias, assert_never

from nas.network.architecture import RECENT, Architecture
from nas.network.layers import Conv, Layer, MaxPool, Shape, Transition

BYTES_PER_VALUE = 4  # float32
LayerKind: TypeAlias = Literal["conv", "transition", "max_pool", "global_pool", "classifier", "linear"]


class MapTooSmallError(ValueError):
    """A layer's kernel is larger than the map it is given, padding included."""


class LayerCost(NamedTuple):
    """One row: a layer's kind, output shape and cost; a NamedTuple because thousands are made a second."""

    kind: LayerKind
    output_shape: Shape
    params: int
    macs: int
    receptive_field: int
    activation_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What is limited, in total; `linear_layers` counts dense layers, disguised ones included."""

    params: int
    macs: int
    peak_activation_bytes: int
    receptive_field: int
    linear_layers: int
    rows: tuple[LayerCost, ...] = ()


def covers_map(kernel_height: int, kernel_width: int, height: int, width: int) -> bool:
    """Whether a convolution of this size on a map of this size is a dense layer in disguise.

    It is when its kernel, larger than 1×1, spans the whole map: each kernel weight then meets one position of the map.
    """
    return kernel_height * kernel_width > 1 and kernel_height >= height and kernel_width >= width


class _Map(NamedTuple):
    """What reaches a layer: the shape, its receptive field, and the input pixels between neighbouring values."""

    shape: Shape
    field: int
    jump: int


def _convolution(
    kind: LayerKind, at: _Map, out_channels: int, kernel_size: int = 1, *, padding: int, extra: int
) -> LayerCost:
    """`extra`: parameters per output channel besides the kernels (bias, batch normalization)."""
    channels, height, width = at.shape
    out_height, out_width = height + 2 * padding - kernel_size + 1, width + 2 * padding - kernel_size + 1
    if out_height < 1 or out_width < 1:
        raise MapTooSmallError
    weights = channels * out_channels * kernel_size * kernel_size
    positions = out_height * out_width
    memory = BYTES_PER_VALUE * (channels * height * width + out_channels * positions)
    return LayerCost(
        "linear" if covers_map(kernel_size, kernel_size, height, width) else kind,
        (out_channels, out_height, out_width),
        weights + extra * out_channels,
        weights * positions,
        at.field + (kernel_size - 1) * at.jump,
        memory,
    )


def _layer_cost(layer: Layer, at: _Map) -> LayerCost:
    match layer:
        case Conv(out_channels=out_channels, kernel_size=kernel_size, padding=padding):
            extra = layer.bias + 2 * layer.batch_norm
            return _convolution("conv", at, out_channels, kernel_size, padding=padding, extra=extra)
        case Transition():
            return _convolution("transition", at, layer.out_channels, padding=layer.padding, extra=layer.bias)
        case MaxPool():
            channels, height, width = at.shape
            size = layer.kernel_size
            pooled = (channels, height // size, width // size)
            if pooled[1] < 1 or pooled[2] < 1:
                raise MapTooSmallError
            memory = BYTES_PER_VALUE * channels * (height * width + pooled[1] * pooled[2])
            return LayerCost("max_pool", pooled, 0, 0, at.field + (size - 1) * at.jump, memory)
        case _:
            assert_never(layer)


def _head_rows(architecture: Architecture, at: _Map) -> list[LayerCost]:
    head, classes, (shape, field, _) = architecture.head, architecture.num_classes, at
    if head.kind == "linear":
        inputs = shape[0] * shape[1] * shape[2]
        memory = BYTES_PER_VALUE * (inputs + classes)
        return [LayerCost("linear", (classes, 1, 1), classes * (inputs + head.bias), classes * inputs, field, memory)]
    rows: list[LayerCost] = []
    for step in head.kind.split("_"):
        if step == "conv":
            here = _Map(shape, field, at.jump)
            rows.append(_convolution("classifier", here, classes, padding=head.padding, extra=head.bias))
        else:
            memory = BYTES_PER_VALUE * shape[0] * (shape[1] * shape[2] + 1)
            rows.append(LayerCost("global_pool", (shape[0], 1, 1), 0, 0, field, memory))
        shape = rows[-1].output_shape
    return rows


@lru_cache(maxsize=RECENT)
def cost(architecture: Architecture) -> Cost:
    """Walk the layers once.

    Raises:
        MapTooSmallError: a layer does not fit on the map that reaches it.
    """
    at = _Map(architecture.input_shape, 1, 1)
    rows: list[LayerCost] = []
    for layer in architecture.layers:
        row = _layer_cost(layer, at)
        rows.append(row)
        jump = at.jump * layer.kernel_size if isinstance(layer, MaxPool) else at.jump
        at = _Map(row.output_shape, row.receptive_field, jump)
    rows += _head_rows(architecture, at)
    return Cost(
        params=sum(row.params for row in rows),
        macs=sum(row.macs for row in rows),
        peak_activation_bytes=max(row.activation_bytes for row in rows),
        receptive_field=at.field,
        linear_layers=sum(row.kind == "linear" for row in rows),
        rows=tuple(rows),
    )
