"""What the trials of a study tell of the candidates of its space: how they would score at the last epoch."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.network.cost import is_built
from nas.samplers.description import Describer
from nas.samplers.drafts import Draft, Drafts
from nas.samplers.surrogate import Floats, Scores, Surrogate
from nas.space.search_space import SearchSpace
from nas.space.seeds import derive_seed

LEARNED = 150  # trials, at most: those that came furthest and scored best, and others at even distances
EXAMPLES = 256  # feasible draws, by which features are scaled
FEW = 20  # of them that are too few to say how features vary


@dataclass(frozen=True, slots=True)
class Forecast:
    """Fitted to the scores of some trials."""

    model: Surrogate
    trials: Sequence[int]  # the numbers of those that it was fitted to, in the order of `model.known`


class Forecaster:
    """Fits forecasts to trials of a space; those that are none of the space, or outside its limits, teach nothing."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space, self._seed = space, seed
        self.drafts = Drafts(space)

    def drafts_of(self, trials: Sequence[FrozenTrial]) -> dict[int, Draft]:
        """The candidates of trials, by number, that are of the space and within its limits."""
        drafts = {trial.number: self.drafts.known(trial.params) for trial in trials}
        return {number: draft for number, draft in drafts.items() if draft is not None}

    def fit(self, trials: Sequence[FrozenTrial], direction: StudyDirection, least: int) -> Forecast | None:
        """What the scores of trials tell; None where fewer than `least` of them have a score."""
        drafts, epochs = self.drafts_of(trials), self._space.recipe.epochs
        curves = {trial.number: _curve(trial, direction, epochs) for trial in trials if trial.number in drafts}
        learned = _informative({number: curve for number, curve in curves.items() if curve})
        if len(learned) < least:
            return None
        features = self.describe([drafts[number] for number in learned])
        scores = _scores(features, [curves[number] for number in learned], self._describer.slopes)
        return Forecast(Surrogate(scores, math.log(epochs)), learned)

    def describe(self, drafts: Sequence[Draft]) -> Floats:
        """Their features, a row each."""
        return self._describer.describe(drafts)

    @cached_property
    def examples(self) -> list[Draft]:
        """The same draws for every forecast, each candidate once: where few are within the limits, they are dear."""
        drawn = islice(self.drafts.drawn(random.Random(derive_seed(self._seed, "examples"))), EXAMPLES)
        return [*{draft.candidate: draft for draft in drawn}.values()]

    @cached_property
    def _describer(self) -> Describer:
        """Made with the examples, or with any draws where these are too few to tell what varies."""
        rng = random.Random(derive_seed(self._seed, "scale"))
        draws = (self.drafts.of(self._space.draw(rng)) for _ in range(EXAMPLES))
        built = [d for d in draws if is_built(d.candidate.architecture)] if len(self.examples) < FEW else []
        return Describer(self._space.distributions, [*self.examples, *built])


def _curve(trial: FrozenTrial, direction: StudyDirection, last_epoch: int) -> Mapping[int, float]:
    """A trial's scores after each epoch that it reported, counted from 1, turned so that less is better."""
    known = {step: value for step, value in trial.intermediate_values.items() if step > 0 and math.isfinite(value)}
    told = trial.value if trial.state is TrialState.COMPLETE else None
    if not known and told is not None and math.isfinite(told):
        known = {last_epoch: told}
    return {step: -value if direction is StudyDirection.MAXIMIZE else value for step, value in known.items()}


def _informative(curves: Mapping[int, Mapping[int, float]]) -> list[int]:
    """The numbers of the trials to learn from, in order."""
    if len(curves) <= LEARNED:
        return [*curves]
    best_first = sorted(curves, key=lambda number: (-max(curves[number]), curves[number][max(curves[number])]))
    best, others = best_first[: LEARNED // 2], sorted(best_first[LEARNED // 2 :])
    count = LEARNED - len(best)
    return sorted([*best, *(others[i * len(others) // count] for i in range(count))])


def _scores(features: Floats, curves: Sequence[Mapping[int, float]], slopes: Floats) -> Scores:
    """Of each curve the last score and earlier ones, as logarithms where all are above 0: losses fall by factors.

    The slopes are those of logarithms; of other scores nothing is expected beforehand.
    """
    rows = [(i, epoch, curve[epoch]) for i, curve in enumerate(curves) for epoch in _compared(curve)]
    trial, epoch, value = (np.array(column) for column in zip(*rows, strict=True))
    falling = bool((value > 0).all())
    return Scores(
        features=features,
        trial=trial.astype(np.intp),
        log_epoch=np.log(epoch),
        value=np.log(value) if falling else value.astype(float),
        slopes=slopes if falling else np.zeros_like(slopes),
    )


def _compared(curve: Mapping[int, float]) -> list[int]:
    """The last epoch and those after 1, 2, 4, … of them, at which curves of any length can be compared."""
    last = max(curve)
    return [epoch for epoch in sorted(curve) if epoch == last or (epoch.bit_count() == 1 and 2 * epoch <= last)]
