"""A network drawn as a picture, as numbers for `templates/network.svg`: maps to scale, kernels, costs, what is seen."""

from collections.abc import Sequence
from dataclasses import dataclass

from nas.network.architecture import Architecture, names
from nas.network.cost import LayerCost, cost
from nas.network.layers import Shape

COLUMN = 96  # pixels a layer takes from left to right
FRONT = 84  # pixels of the input's longer side
PER_CHANNEL = 0.9  # pixels of a map's thickness
FORESHORTENED = 0.35  # of a side that leads away from the eye


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A layer: what it is, and its map as a block of `thick` by `tall` pixels that leads `away` into the picture.

    Shares are of the largest among the layers; `seen` is the part of the input's side that a value sees.
    """

    name: str
    kind: str
    shape: Shape
    params: int
    macs: int
    receptive_field: int
    x: float
    thick: float
    tall: float
    away: float
    params_share: float
    macs_share: float
    seen: float


def columns(architecture: Architecture) -> list[Column]:
    """One column a layer from left to right, the input first."""
    longer = max(architecture.input_shape[1:])
    rows: Sequence[LayerCost] = cost(architecture).rows
    most_params, most_macs = (max(1, *(getattr(row, name) for row in rows)) for name in ("params", "macs"))

    def column(place: int, name: str, kind: str, row: LayerCost) -> Column:
        depth, tall, wide = row.output_shape
        return Column(
            name=name,
            kind=kind,
            shape=row.output_shape,
            params=row.params,
            macs=row.macs,
            receptive_field=row.receptive_field,
            x=12.0 + place * COLUMN,
            thick=round(max(2.0, depth * PER_CHANNEL), 1),
            tall=round(max(3.0, tall * FRONT / longer), 1),
            away=round(max(3.0, wide * FRONT / longer) * FORESHORTENED, 1),
            params_share=row.params / most_params,
            macs_share=row.macs / most_macs,
            seen=min(1.0, row.receptive_field / longer),
        )

    start = LayerCost("conv", architecture.input_shape, 0, 0, 1, 0)
    layers = zip(names(architecture), rows, strict=True)
    return [
        column(0, "input", "input", start),
        *(column(place, name, row.kind, row) for place, (name, row) in enumerate(layers, start=1)),
    ]
