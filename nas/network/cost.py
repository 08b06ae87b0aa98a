"""What a network costs, layer by layer, without building it; no torch.

Conventions. A MAC is one multiply-accumulate of a convolution or linear layer for one image; biases, batch
normalization, activations and pooling are not counted. The receptive field is the number of input pixels, along one
axis, that a value of the last feature map can see; global pooling and the head, which see all of that map, do not
enlarge it. Peak activation bytes are the most that one layer's input and output take together at inference, for one
image in float32, with batch normalization, activation and dropout done in place.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import NamedTuple

from nas.network.architecture import RECENT, Architecture, parts
from nas.network.layers import Part, RowKind, Shape
from nas.network.operations import ModuleCall, Operation, Sizes

BYTES_PER_VALUE = 4  # float32
ROWS = 8_192  # of which the cost is remembered: in 13,000 candidates of the default space there are 4,663


class MapTooSmallError(ValueError):
    """A layer's kernel is larger than the map it is given, padding included."""


class Step(NamedTuple):
    """An operation in its place; a NamedTuple, as the next, because thousands are made a second."""

    operation: Operation
    input_shape: Sizes
    output_shape: Sizes
    receptive_field: int  # of its output, as the next
    jump: int  # input pixels between neighbouring values

    @property
    def params(self) -> int:
        return self.operation.params(self.input_shape)

    @property
    def call(self) -> ModuleCall:
        """The torch module that it is."""
        return self.operation.call(self.input_shape)


class LayerCost(NamedTuple):
    """One row: a layer's kind, output shape and cost."""

    kind: RowKind
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


def _walk(operations: Iterable[Operation], shape: Sizes) -> list[Step]:
    """The operations in their places, the first of them on a map of this shape.

    The receptive field grows by the values that an operation sees besides one, times the pixels between neighbours.
    """
    steps: list[Step] = []
    field = jump = 1
    for operation in operations:
        output_shape = operation.output_shape(shape)
        if min(output_shape) < 1:
            raise MapTooSmallError
        field += (operation.extent - 1) * jump
        jump *= operation.stride
        steps.append(Step(operation, shape, output_shape, field, jump))
        shape = output_shape
    return steps


def lower(architecture: Architecture) -> list[Step]:
    """The network as a flat list of operations; images (N, C, H, W) in, class scores (N, num_classes) out.

    Raises:
        MapTooSmallError: a layer does not fit on the map that reaches it.
    """
    return _walk((step for part in parts(architecture) for step in part.operations), architecture.input_shape)


def is_built(architecture: Architecture) -> bool:
    """Whether every layer fits on the map that reaches it."""
    try:
        lower(architecture)
    except MapTooSmallError:
        return False
    return True


class _Price(NamedTuple):
    """A row as if it came first in a network; what it adds to the pixels between neighbours, and to dense layers."""

    row: LayerCost
    output_shape: Sizes
    jump: int
    linear_layers: int


@lru_cache(maxsize=ROWS)
def _price(part: Part, shape: Sizes) -> _Price:
    steps = _walk(part.operations, shape)
    dense = sum(step.operation.is_dense(step.input_shape) for step in steps)
    taken = [prod(step.input_shape) + prod(step.output_shape) for step in steps if not step.operation.in_place]
    last = steps[-1]
    channels, height, width = (*last.output_shape, 1, 1)[:3]  # a vector is a map of one pixel
    row = LayerCost(
        kind="linear" if dense else part.kind,
        output_shape=(channels, height, width),
        params=sum(step.params for step in steps),
        macs=sum(step.operation.macs(step.input_shape) for step in steps),
        receptive_field=last.receptive_field,
        activation_bytes=BYTES_PER_VALUE * max(taken, default=0),
    )
    return _Price(row, last.output_shape, last.jump, dense)


@lru_cache(maxsize=RECENT)
def cost(architecture: Architecture) -> Cost:
    """Walk the layers once.

    Raises:
        MapTooSmallError: a layer does not fit on the map that reaches it.
    """
    shape: Sizes = architecture.input_shape
    field = jump = 1
    linear_layers = 0
    rows: list[LayerCost] = []
    for part in parts(architecture):
        (kind, output_shape, params, macs, alone, memory), shape, stride, dense = _price(part, shape)
        field += (alone - 1) * jump
        jump *= stride
        linear_layers += dense
        rows.append(LayerCost(kind, output_shape, params, macs, field, memory))
    return Cost(
        params=sum(row.params for row in rows),
        macs=sum(row.macs for row in rows),
        peak_activation_bytes=max(row.activation_bytes for row in rows),
        receptive_field=field,
        linear_layers=linear_layers,
        rows=tuple(rows),
    )
