"""Candidates that differ from one by a single design choice; no torch.

A cell is named by its place, counted from 1. Pools and transitions belong to the cell they come after.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate

from nas.network.cost import MapTooSmallError, cost
from nas.network.layers import Conv, Layer, MaxPool, Transition
from nas.network.limits import Constraints, violations
from nas.space.candidate import Candidate, digest
from nas.space.recipe import Augmentation

DROPOUT_RATES = (0.0, 0.05, 0.1, 0.2)
BATCH_SIZES = (32, 64, 128, 256)
ORDINALS = ("first", "second", "third", "later")  # of several after one cell
MOST_WIDENING = 4.0
STEPS = 400  # of a factor of widening up to that
Layers = tuple[Layer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A candidate, and what makes it differ; `choice` is the design question that this answers."""

    choice: str
    change: str
    candidate: Candidate


def variants(candidate: Candidate) -> list[Variant]:
    """Every change of one choice, each once, whether a limit allows it or not."""
    known, found = {digest(candidate)}, list[Variant]()
    for choice, changes in CHOICES.items():
        for change, other in changes(candidate):
            if digest(other) not in known:
                known.add(digest(other))
                found.append(Variant(choice=choice, change=change, candidate=other))
    return found


def forbidden_by(candidate: Candidate, limits: Constraints) -> str:
    """Why a candidate may not be trained: the limits that it breaks, or that a layer does not fit; "" when it may."""
    try:
        price = cost(candidate.architecture)
    except MapTooSmallError:
        return "a kernel is larger than the map that reaches it"
    return "; ".join(map(str, violations(limits, price, candidate.recipe.epochs)))


Changes = Iterator[tuple[str, Candidate]]


def _with_layers(candidate: Candidate, layers: Layers) -> Candidate:
    return replace(candidate, architecture=replace(candidate.architecture, layers=layers))


def _cells(candidate: Candidate) -> list[int]:
    """Where the convolution cells stand among the layers."""
    return [i for i, layer in enumerate(candidate.architecture.layers) if isinstance(layer, Conv)]


def _with_cells(candidate: Candidate, change: Callable[[int, Conv], Conv]) -> Candidate:
    """Every convolution cell changed; they are numbered from 1."""
    layers = candidate.architecture.layers
    places = accumulate(isinstance(layer, Conv) for layer in layers)
    changed = (change(n, layer) if isinstance(layer, Conv) else layer for n, layer in zip(places, layers, strict=True))
    return _with_layers(candidate, tuple(changed))


def _removed_or_moved(candidate: Candidate, kind: type[MaxPool] | type[Transition], name: str) -> Changes:
    layers, cells = candidate.architecture.layers, _cells(candidate)
    for i, layer in enumerate(layers):
        if not isinstance(layer, kind):
            continue
        before = [cell for cell in cells if cell < i]
        after = [cell for cell in cells if cell > i]
        place = f"after cell {len(before)}" if before else "before cell 1"
        others = sum(isinstance(other, kind) for other in layers[max(before, default=0) : i])
        what = f"{name} {place}" if not others else f"{ORDINALS[min(others, 3)]} {name} {place}"
        rest = layers[:i] + layers[i + 1 :]
        yield f"{what} removed", _with_layers(candidate, rest)
        if before and (kind is MaxPool or len(before) > 1):
            to = before[-1]
            yield f"{what} one cell earlier", _with_layers(candidate, (*layers[:to], layer, *rest[to:]))
        if after:
            to = after[0]
            yield f"{what} one cell later", _with_layers(candidate, (*rest[:to], layer, *rest[to:]))


def _pools(candidate: Candidate) -> Changes:
    return _removed_or_moved(candidate, MaxPool, "pool")


def _transitions(candidate: Candidate) -> Changes:
    return _removed_or_moved(candidate, Transition, "transition")


def _dropout(candidate: Candidate) -> Changes:
    def at(rate: float) -> Candidate:
        return _with_cells(candidate, lambda _, cell: replace(cell, dropout=rate))

    for rate in DROPOUT_RATES:
        yield f"dropout {100 * rate:g} % in every cell" if rate else "no dropout", at(rate)


def _kernel_sizes(candidate: Candidate) -> Changes:
    layers = candidate.architecture.layers
    for place, i in enumerate(_cells(candidate), start=1):
        cell = layers[i]
        assert isinstance(cell, Conv)
        size = 5 if cell.kernel_size == 3 else 3
        same = cell.padding == cell.kernel_size // 2
        padding = size // 2 if same else min(cell.padding, size // 2)
        changed = replace(cell, kernel_size=size, padding=padding)
        said = f"cell {place}: {size}×{size} kernels instead of {cell.kernel_size}×{cell.kernel_size}"
        yield said, _with_layers(candidate, (*layers[:i], changed, *layers[i + 1 :]))


def _batch_norm(candidate: Candidate) -> Changes:
    """A cell without it has a bias in its place."""
    cells = len(_cells(candidate))

    def only(kept: int) -> Candidate:
        def change(place: int, cell: Conv) -> Conv:
            return cell if place <= kept else replace(cell, batch_norm=False, bias=True)

        return _with_cells(candidate, change)

    yield "no batch normalization", only(0)
    for kept in sorted({cells // 2, cells - 1} - {0}):
        cell = "cell" if kept == 1 else f"{kept} cells"
        yield f"batch normalization in the first {cell} only", only(kept)


def as_large(candidate: Candidate, params: int, *, fixed: int = 0) -> Candidate:
    """The kernel counts of its cells, but for the `fixed` one, scaled together to at most so many parameters."""

    def scaled(factor: float) -> Candidate:
        def change(place: int, cell: Conv) -> Conv:
            return cell if place == fixed else replace(cell, out_channels=max(1, round(factor * cell.out_channels)))

        return _with_cells(candidate, change)

    factors = [MOST_WIDENING * step / STEPS for step in range(STEPS, 0, -1)]
    fitting = (other for other in map(scaled, factors) if cost(other.architecture).params <= params)
    return next(fitting, candidate)


def _same_size(candidate: Candidate, other: Candidate, *, fixed: int = 0) -> Candidate:
    try:
        return as_large(other, cost(candidate.architecture).params, fixed=fixed)
    except MapTooSmallError:
        return other


def _depth(candidate: Candidate) -> Changes:
    layers, cells = candidate.architecture.layers, _cells(candidate)
    if not cells:
        return
    middle = len(cells) // 2
    i = cells[middle]
    cell = layers[i]
    assert isinstance(cell, Conv)
    if len(cells) > 1:
        fewer = _with_layers(candidate, layers[:i] + layers[i + 1 :])
        yield f"cell {middle + 1} removed, the others widened to as many parameters", _same_size(candidate, fewer)
    copy = replace(cell, padding=cell.kernel_size // 2)
    more = _with_layers(candidate, (*layers[:i], copy, *layers[i:]))
    yield f"cell {middle + 1} twice, all narrowed to as many parameters", _same_size(candidate, more)


def _halved(candidate: Candidate, place: int) -> Candidate:
    def change(at: int, cell: Conv) -> Conv:
        return replace(cell, out_channels=max(1, cell.out_channels // 2)) if at == place else cell

    return _same_size(candidate, _with_cells(candidate, change), fixed=place)


def _first_width(candidate: Candidate) -> Changes:
    yield "half the kernels in the first cell, more in the others", _halved(candidate, 1)


def _last_width(candidate: Candidate) -> Changes:
    yield "half the kernels in the last cell, more in the others", _halved(candidate, len(_cells(candidate)))


def _padding(candidate: Candidate) -> Changes:
    yield (
        "padding in every cell",
        _with_cells(candidate, lambda _, cell: replace(cell, padding=max(cell.padding, cell.kernel_size // 2))),
    )


def _head(candidate: Candidate) -> Changes:
    architecture = candidate.architecture
    if architecture.head.kind == "pool_conv":
        head, said = replace(architecture.head, kind="conv_pool"), "1×1 convolution before global pooling"
    else:
        head, said = replace(architecture.head, kind="pool_conv", padding=0), "global pooling before 1×1 convolution"
    yield said, replace(candidate, architecture=replace(architecture, head=head))


def _batch_size(candidate: Candidate) -> Changes:
    for size in BATCH_SIZES:
        yield f"batches of {size}", replace(candidate, recipe=replace(candidate.recipe, batch_size=size))


def _augmentation(candidate: Candidate) -> Changes:
    none = Augmentation(rotation=0.0, shift=0.0, scale=0.0, shear=0.0)
    yield "no augmentation", replace(candidate, recipe=replace(candidate.recipe, augmentation=none))


CHOICES: dict[str, Callable[[Candidate], Changes]] = {
    "pools": _pools,
    "transitions": _transitions,
    "dropout": _dropout,
    "kernel sizes": _kernel_sizes,
    "batch normalization": _batch_norm,
    "depth": _depth,
    "kernels of the first cell": _first_width,
    "kernels of the last cell": _last_width,
    "padding": _padding,
    "head": _head,
    "batch size": _batch_size,
    "augmentation": _augmentation,
}
