"""What each design choice is worth, as far as the trials of a search can tell.

Each question is a number that a candidate has, such as how many cells come after its last pool. The logarithm of the
validation loss is regressed on that number and on the logarithm of the parameters, so that a choice is not credited
with the size that it happens to come with. A trial that was stopped is compared at the epochs that it reached: it
gives a row for each epoch at which any trial has ended, and each such epoch has a level of its own. Rows of one trial
belong together, so standard errors are clustered by trial (Liang and Zeger, Biometrika, 1986). An effect is visible
when chance alone would show any such one among all the questions in less than 5 % of searches (Holm).

These are observations of candidates that a sampler liked, not experiments; `nas.ablation` has those.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nas.ablation import Ablation, Effect
from nas.architecture import Candidate, Conv, MaxPool, Transition
from nas.cost import cost
from nas.spread import holm, t_quantile, two_sided
from nas.study import TrialRecord

Vector = NDArray[np.float64]

MIN_TRIALS = 10  # trials that a regression of one choice takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A design question, and the number of a candidate that it is about.

    `step` is the difference that the effect is told for, in words; the number counts such steps. Where a step is twice
    as much, it is a logarithm to the base 2. `choices` are the names of the variants of an ablation that try it.
    """

    text: str
    number: Callable[[Candidate], float]
    step: str
    axis: str
    choices: tuple[str, ...] = ()
    doubling: bool = False
    adjusted: bool = True  # for the parameters

    def shown(self, number: float) -> float:
        """As a person reads it."""
        return 2**number if self.doubling else number


def _cells(candidate: Candidate) -> list[Conv]:
    return [layer for layer in candidate.architecture.layers if isinstance(layer, Conv)]


def _count(kind: type[MaxPool] | type[Transition]) -> Callable[[Candidate], float]:
    return lambda candidate: sum(isinstance(layer, kind) for layer in candidate.architecture.layers)


def _cells_after_last(kind: type[MaxPool] | type[Transition]) -> Callable[[Candidate], float]:
    """All cells when there is none of the kind."""

    def number(candidate: Candidate) -> float:
        layers = candidate.architecture.layers
        last = max((i for i, layer in enumerate(layers) if isinstance(layer, kind)), default=-1)
        return sum(isinstance(layer, Conv) for layer in layers[last + 1 :])

    return number


def _cells_before_first_pool(candidate: Candidate) -> float:
    """All cells when there is no pool."""
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
        number=lambda c: math.log2(_cells(c)[0].out_channels),
        step="twice as many kernels",
        axis="kernels of the first cell",
        doubling=True,
        choices=("kernel counts",),
    ),
    Question(
        text="How many kernels in the last cell?",
        number=lambda c: math.log2(_cells(c)[-1].out_channels),
        step="twice as many kernels",
        axis="kernels of the last cell",
        doubling=True,
        choices=("kernel counts",),
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
        axis="receptive field in tens of pixels",
        choices=("kernel sizes", "pools"),
    ),
    Question(
        text="How much dropout?",
        number=_mean_of_cells(lambda cell: 20 * cell.dropout),
        step="5 points more, mean of the cells",
        axis="mean dropout rate in units of 5 %",
        choices=("dropout",),
    ),
    Question(
        text="Batch normalization?",
        number=_mean_of_cells(lambda cell: float(cell.batch_norm)),
        step="in every cell instead of none",
        axis="share of the cells with it",
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
        axis="0: before, 1: after",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the trials show: the loss is `ratio` times as high for each step, with 95 % between `low` and `high`."""

    ratio: float
    low: float
    high: float
    p: float
    trials: int
    visible: bool
    points: tuple[tuple[float, float, int, int], ...]  # number, loss relative to what its size predicts, epoch, trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """To a question: `seen` in the trials, None where they do not differ; and what the ablation tried."""

    question: Question
    values: tuple[float, ...]  # of the number, among the trials, in order
    seen: Seen | None
    tried: tuple[tuple[Effect, float], ...]  # each with how many steps it goes

    @property
    def words(self) -> str:
        """What the trials say, in plain words."""
        if self.seen is None:
            only = f" (always {self.question.shown(self.values[0]):g})" if len(self.values) == 1 else ""
            return f"the trials do not say: it does not vary enough among them{only}"
        if not self.seen.visible:
            return "no visible effect above the noise"
        side = "lower" if self.seen.ratio < 1 else "higher"
        return f"{self.question.step}: {abs(self.seen.ratio - 1):.0%} {side} validation loss".replace("%", " %")

    @property
    def experiment(self) -> str:
        """What the ablation says of it, and whether the two agree; "" when it tried nothing of the kind."""
        known = [(effect, steps) for effect, steps in self.tried if effect.points is not None]
        if not known:
            return ""
        clear = [(effect, steps) for effect, steps in known if effect.visible and effect.points is not None]
        if not clear:
            said = f"none of {len(known)} changes has a visible effect"
            return f"{said}: the experiment does not confirm it" if self.seen and self.seen.visible else said
        worse = {steps > 0 for effect, steps in clear if effect.points and effect.points.mean < 0}
        better = {steps > 0 for effect, steps in clear if effect.points and effect.points.mean > 0}
        more_is_worse, less_is_worse = True in worse or False in better, False in worse or True in better
        said = f"{len(clear)} of {len(known)} changes have a visible effect; "
        if more_is_worse and less_is_worse:
            return said + "both more and less of it is worse: this network stands at the best place"
        side = "more of it is worse" if more_is_worse else "less of it is worse"
        if self.seen is None or not self.seen.visible:
            return f"{said}{side}, which the trials could not show"
        agrees = (self.seen.ratio > 1) == more_is_worse
        return f"{said}{side}: the experiment {'agrees' if agrees else 'contradicts the trials'}"


def answers(trials: Sequence[TrialRecord], found: Ablation | None, base: Candidate | None) -> list[Answer]:
    """One answer a question; `found` is an ablation of `base`."""
    measured = [_measured(question, trials) for question in QUESTIONS]
    asked = [effect for effect in measured if effect is not None]
    visible = iter(holm([effect.p for effect in asked]))
    return [
        Answer(
            question=question,
            values=tuple(sorted({question.number(trial.candidate) for trial in trials if trial.curve})),
            seen=None if effect is None else replace(effect, visible=next(visible)),
            tried=_tried(question, found, base),
        )
        for question, effect in zip(QUESTIONS, measured, strict=True)
    ]


def _tried(question: Question, found: Ablation | None, base: Candidate | None) -> tuple[tuple[Effect, float], ...]:
    if found is None or base is None:
        return ()
    here = question.number(base)
    steps = [(effect, question.number(effect.variant.candidate) - here) for effect in found.effects]
    return tuple((e, step) for e, step in steps if e.variant.choice in question.choices and step)


def rows_of(trials: Sequence[TrialRecord]) -> list[tuple[TrialRecord, int, float]]:
    """A row for each trial and each epoch at which any trial has ended, with the logarithm of its loss there."""
    trained = [trial for trial in trials if trial.curve and not trial.diverged]
    ends = sorted({trial.epochs for trial in trained})
    return [
        (trial, epoch, math.log(trial.curve[epoch - 1]["val_loss"]))
        for trial in trained
        for epoch in ends
        if epoch <= trial.epochs and trial.curve[epoch - 1]["val_loss"]
    ]


def _measured(question: Question, trials: Sequence[TrialRecord]) -> Seen | None:
    """None when the trials are too few, or do not differ in what is asked beyond their size."""
    rows = rows_of(trials)
    clusters = np.array([trial.number for trial, _, _ in rows])
    if len(set(clusters.tolist())) < MIN_TRIALS:
        return None
    x = np.array([question.number(trial.candidate) for trial, _, _ in rows])
    loss = np.array([value for _, _, value in rows])
    epochs = np.array([epoch for _, epoch, _ in rows])
    known = [np.array(epochs == epoch, dtype=np.float64) for epoch in sorted(set(epochs.tolist()))]
    if question.adjusted:
        known.append(np.log([trial.params for trial, _, _ in rows]))
    fitted = regressed(loss, x, np.stack(known, axis=1), clusters)
    if fitted is None:
        return None
    slope, error, residuals = fitted
    trained = len(set(clusters.tolist()))
    reach = t_quantile(trained - 1) * error
    relative = np.exp(residuals + slope * (x - x.mean()))
    points = zip(x.tolist(), relative.tolist(), epochs.tolist(), clusters.tolist(), strict=True)
    return Seen(
        ratio=math.exp(slope),
        low=math.exp(slope - reach),
        high=math.exp(slope + reach),
        p=two_sided(slope, error, trained - 1),
        trials=trained,
        visible=False,
        points=tuple(points),
    )


def regressed(y: Vector, x: Vector, others: Vector, clusters: Vector) -> tuple[float, float, Vector] | None:
    """Least squares of y (N,) on x (N,) and others (N, K): the slope of x, its clustered standard error, the residuals.

    The errors' small-sample factor is that of Cameron and Miller (J. Human Resources, 2015, equation 12). None when x
    is a combination of the others.
    """
    design = np.column_stack([x, others])
    n, k = design.shape
    if n <= k or np.linalg.matrix_rank(design) < k:
        return None
    bread = np.linalg.inv(design.T @ design)
    slopes = bread @ design.T @ y
    residuals = y - design @ slopes
    names = np.unique(clusters)
    scores = np.array([design[clusters == name].T @ residuals[clusters == name] for name in names])
    factor = len(names) / (len(names) - 1) * (n - 1) / (n - k)
    covariance = factor * bread @ (scores.T @ scores) @ bread
    return float(slopes[0]), math.sqrt(covariance[0, 0]), residuals
