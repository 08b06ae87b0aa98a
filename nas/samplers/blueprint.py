"""A sampler that looks at what its suggestions build, and learns from trials that ended at any epoch."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import cached_property
from itertools import chain, islice
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.network.cost import is_built
from nas.samplers.description import Describer
from nas.samplers.mutation import mutated
from nas.samplers.surrogate import Floats, Scores, Surrogate
from nas.space.candidate import Candidate
from nas.space.rejections import derive_seed
from nas.space.search_space import Feasible, SearchSpace
from nas.space.suggestions import draw_value

LEARNED = 150  # trials, at most: those that came furthest and scored best, and others at even distances
STARTUP = 6  # trials with a score, before which candidates are drawn
DRAWN = 256  # feasible candidates that are looked at for every proposal, and ...
DRAWS = 20_000  # ... from at most so many draws
MUTANTS = 200  # feasible ones of good trials that are looked at beside them, and ...
TRIES = 2_000  # ... from at most so many
FEW = 20  # feasible draws that are too few to say how features vary
PARENTS = 8  # the most promising trials


class BlueprintSampler(BaseSampler):
    """Proposes the feasible candidate of which the largest improvement at the last epoch is expected.

    It knows the space, and so what is built from its suggestions. Candidates are fresh draws and mutations of the most
    promising trials. What they will score is told by a `Surrogate`. Trials of the study that are none of the space, or
    outside its limits, teach nothing.
    """

    def __init__(self, space: SearchSpace, *, seed: int | None = None) -> None:
        self._space = space
        self._seed = random.randrange(2**32) if seed is None else seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._space.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The most promising one, or else a feasible draw; nothing where draws are not feasible either."""
        tried = {self._space.decode(other.params) for other in self._others(study, trial)}
        drawn = (params for params in self._drawn(self._rng(trial)) if self._space.decode(params) not in tried)
        return next(chain(self.ranked(study, trial), drawn), {})

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return draw_value(param_distribution, random.Random(derive_seed(self._seed, trial.number, param_name)))

    def ranked(self, study: Study, trial: FrozenTrial) -> Iterator[dict[str, Any]]:
        """Feasible candidates that no trial has had, the most promising first; none while little is known."""
        trials = self._others(study, trial)
        curves = [_curve(other, study.direction, self._space.recipe.epochs) for other in trials]
        informative = _informative(curves)
        if len(informative) < STARTUP:
            return
        describe, known = self._describer.describe, [trials[i].params for i in informative]
        scores = _scores(describe(known), [curves[i] for i in informative], self._describer.slopes)
        model = Surrogate(scores, math.log(self._space.recipe.epochs))
        tried = {self._space.decode(other.params) for other in trials}
        best_first = [known[i] for i in np.argsort(model.known)]
        mutants = self._mutants(best_first[:PARENTS], tried, self._rng(trial))
        running = [t.params for t, c in zip(trials, curves, strict=True) if t.state is TrialState.RUNNING and not c]
        features = np.concatenate([self._described_examples, describe(mutants)])
        gains = model.improvement(features, describe(running))
        found = [*self._examples, *mutants]
        for i in np.argsort(-gains, kind="stable"):
            if self._space.decode(found[i]) not in tried:
                yield found[i]

    def _mutants(
        self, parents: Sequence[dict[str, Any]], tried: Set[Candidate], rng: random.Random
    ) -> list[dict[str, Any]]:
        """Small changes of the parents that are within the limits and new."""
        mutants: dict[Candidate, dict[str, Any]] = {}
        for _ in range(TRIES):
            params = mutated(rng.choice(parents), self._space.distributions, rng)
            candidate = self._space.decode(params)
            if candidate not in tried and isinstance(self._space.check(candidate), Feasible):
                mutants.setdefault(candidate, params)
            if len(mutants) == MUTANTS:
                break
        return [*mutants.values()]

    def _others(self, study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
        """The trials of whole candidates within the limits, but this one."""
        names = self._space.distributions.keys()
        return [
            other
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number
            and other.params.keys() >= names
            and isinstance(self._space.check(self._space.decode(other.params)), Feasible)
        ]

    def _rng(self, trial: FrozenTrial) -> random.Random:
        return random.Random(derive_seed(self._seed, "blueprint", trial.number))

    def _drawn(self, rng: random.Random) -> Iterator[dict[str, Any]]:
        """Draws within the limits."""
        for _ in range(DRAWS):
            params = self._space.draw(rng)
            if isinstance(self._space.check(self._space.decode(params)), Feasible):
                yield params

    @cached_property
    def _examples(self) -> list[dict[str, Any]]:
        """The same draws for every proposal: where few are within the limits, they are dear."""
        return [*islice(self._drawn(random.Random(derive_seed(self._seed, "examples"))), DRAWN)]

    @cached_property
    def _described_examples(self) -> Floats:
        return self._describer.describe(self._examples)

    @cached_property
    def _describer(self) -> Describer:
        """Made with the examples, or with any draws where these are too few to tell what varies."""
        rng = random.Random(derive_seed(self._seed, "scale"))
        draws = (self._space.draw(rng) for _ in range(DRAWN))
        built = [p for p in draws if is_built(self._space.decode(p).architecture)] if len(self._examples) < FEW else []
        return Describer(self._space, [*self._examples, *built])


def _curve(trial: FrozenTrial, direction: StudyDirection, last_epoch: int) -> Mapping[int, float]:
    """A trial's scores after each epoch that it reported, counted from 1, turned so that less is better."""
    known = {step: value for step, value in trial.intermediate_values.items() if step > 0 and math.isfinite(value)}
    if not known and trial.state is TrialState.COMPLETE and trial.value is not None:
        known = {last_epoch: trial.value}
    return {step: -value if direction is StudyDirection.MAXIMIZE else value for step, value in known.items()}


def _informative(curves: Sequence[Mapping[int, float]]) -> list[int]:
    """Which trials to learn from, in order."""
    scored = [i for i, curve in enumerate(curves) if curve]
    if len(scored) <= LEARNED:
        return scored
    best_first = sorted(scored, key=lambda i: (-max(curves[i]), curves[i][max(curves[i])]))
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
