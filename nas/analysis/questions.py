"""The design questions, each as a number of a candidate."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from nas.network.cost import cost
from nas.network.layers import Conv, MaxPool, Transition
from nas.space.candidate import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A design question, and the number of a candidate that it is about.

    `step` is the difference that the effect is told for, in words; the number counts such steps, each `scale` of what
    `axis` names. Where a step is twice as much, the number is a logarithm to the base 2; where it stands for words,
    they are `values`. `choices` are the names of the variants of an ablation that try it.
    """

    text: str
    number: Callable[[Candidate], float]
    step: str
    axis: str
    choices: tuple[str, ...] = ()
    scale: float = 1
    doubling: bool = False
    values: tuple[str, ...] = ()
    adjusted: bool = True  # for the parameters

    def shown(self, number: float) -> float:
        """The number in what the axis names."""
        return 2**number if self.doubling else self.scale * number

    def said(self, number: float) -> str:
        """The number as text."""
        if self.values:
            return self.values[round(number)]
        shown = self.shown(number)
        return f"{shown:,.0f}" if shown >= 1000 else f"{shown:.3g}"


def _cells(candidate: Candidate) -> list[Conv]:
    return [layer for layer in candidate.architecture.layers if isinstance(layer, Conv)]


def _kernels(candidate: Candidate, place: int) -> float:
    """The logarithm of the kernels of a cell; 0 without any cell."""
    cells = _cells(candidate)
    return math.log2(cells[place].out_channels) if cells else 0.0


def _count(kind: type[MaxPool] | type[Transition]) -> Callable[[Candidate], float]:
    return lambda candidate: sum(isinstance(layer, kind) for layer in candidate.architecture.layers)


def _cells_after_last(kind: type[MaxPool] | type[Transition]) -> Callable[[Candidate], float]:
    """How many cells come after the last layer of a kind: all when there is none."""

    def number(candidate: Candidate) -> float:
        layers = candidate.architecture.layers
        last = max((i for i, layer in enumerate(layers) if isinstance(layer, kind)), default=-1)
        return sum(isinstance(layer, Conv) for layer in layers[last + 1 :])

    return number


def _cells_before_first_pool(candidate: Candidate) -> float:
    """How many cells come before the first pool: all when there is none."""
    layers = candidate.architecture.layers
    first = next((i for i, layer in enumerate(layers) if isinstance(layer, MaxPool)), len(layers))
    return sum(isinstance(layer, Conv) for layer in layers[:first])


def _cells_after_last_norm(candidate: Candidate) -> float:
    normed = [place for place, cell in enumerate(_cells(candidate), start=1) if cell.batch_norm]
    return len(_cells(candidate)) - max(normed, default=0)


def _mean_of_cells(value: Callable[[Conv], float]) -> Callable[[Candidate], float]:
    return lambda candidate: sum(map(value, _cells(candidate))) / max(1, len(_cells(candidate)))


QUESTIONS: tuple[Question, ...] = (
    Question(
        text="How many convolution layers?",
        number=lambda c: len(_cells(c)),
        step="each cell more",
        axis="convolution cells",
        choices=("depth",),
    ),
    Question(
        text="How many max-pools?",
        number=_count(MaxPool),
        step="each pool more",
        axis="max-pools",
        choices=("pools",),
    ),
    Question(
        text="Where to pool first?",
        number=_cells_before_first_pool,
        step="each cell more before the first pool",
        axis="cells before the first pool",
        choices=("pools",),
    ),
    Question(
        text="How far is the last max-pool from the prediction?",
        number=_cells_after_last(MaxPool),
        step="each cell more between the last pool and the prediction",
        axis="cells after the last pool",
        choices=("pools",),
    ),
    Question(
        text="How many transition (1×1) layers?",
        number=_count(Transition),
        step="each transition more",
        axis="transitions",
        choices=("transitions",),
    ),
    Question(
        text="How far is the last transition from the prediction?",
        number=_cells_after_last(Transition),
        step="each cell more between the last transition and the prediction",
        axis="cells after the last transition",
        choices=("transitions",),
    ),
    Question(
        text="3×3 or larger kernels?",
        number=lambda c: sum(cell.kernel_size > 3 for cell in _cells(c)),
        step="each cell more with kernels larger than 3×3",
        axis="cells with kernels larger than 3×3",
        choices=("kernel sizes",),
    ),
    Question(
        text="How many kernels in the first cell?",
        number=lambda c: _kernels(c, 0),
        step="twice as many kernels",
        axis="kernels of the first cell",
        doubling=True,
        choices=("kernels of the first cell",),
    ),
    Question(
        text="How many kernels in the last cell?",
        number=lambda c: _kernels(c, -1),
        step="twice as many kernels",
        axis="kernels of the last cell",
        doubling=True,
        choices=("kernels of the last cell",),
    ),
    Question(
        text="Padding in the last cells?",
        number=lambda c: sum(cell.padding < cell.kernel_size // 2 for cell in _cells(c)),
        step="each cell more without padding",
        axis="cells without padding",
        choices=("padding",),
    ),
    Question(
        text="How large a receptive field?",
        number=lambda c: cost(c.architecture).receptive_field / 10,
        step="10 pixels more",
        axis="receptive field in pixels",
        scale=10,
        choices=("kernel sizes", "pools"),
    ),
    Question(
        text="How much dropout?",
        number=_mean_of_cells(lambda cell: 20 * cell.dropout),
        step="5 points more, mean of the cells",
        axis="mean dropout rate in %",
        scale=5,
        choices=("dropout",),
    ),
    Question(
        text="Batch normalization?",
        number=_mean_of_cells(lambda cell: float(cell.batch_norm)),
        step="in every cell instead of none",
        axis="% of the cells with it",
        scale=100,
        choices=("batch normalization",),
    ),
    Question(
        text="How far is batch normalization from the prediction?",
        number=_cells_after_last_norm,
        step="each cell more after the last one with it",
        axis="cells after the last with it",
        choices=("batch normalization",),
    ),
    Question(
        text="Global pooling before or after the 1×1 convolution of the head?",
        number=lambda c: float(c.architecture.head.kind == "conv_pool"),
        step="pooling after instead of before",
        axis="global pooling",
        values=("before", "after"),
        choices=("head",),
    ),
    Question(
        text="How large a batch?",
        number=lambda c: math.log2(c.recipe.batch_size),
        step="twice as large",
        axis="batch size",
        doubling=True,
        choices=("batch size",),
    ),
    Question(
        text="What learning rate?",
        number=lambda c: math.log2(c.recipe.learning_rate),
        step="twice as high",
        axis="learning rate",
        doubling=True,
    ),
    Question(
        text="How many parameters?",
        number=lambda c: math.log2(cost(c.architecture).params),
        step="twice as many",
        axis="parameters",
        doubling=True,
        adjusted=False,
    ),
    Question(
        text="How many multiply-accumulates (MACs)?",
        number=lambda c: math.log2(max(1, cost(c.architecture).macs)),
        step="twice as many",
        axis="MACs",
        doubling=True,
    ),
)
