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

from nas.samplers.description import Describer
from nas.samplers.mutation import mutated
from nas.samplers.surrogate import Floats, Scores, Surrogate
from nas.space.candidate import Candidate
from nas.space.rejections import Ledger, derive_seed
from nas.space.search_space import Feasible, Rejected, SearchSpace
from nas.space.suggestions import draw_value

LEARNED = 150  # trials, at most: those that came furthest and scored best, and others at even distances
STARTUP = 6  # trials with a score, before which candidates are drawn
DRAWN = 256  # feasible candidates that are looked at for every proposal, and ...
DRAWS = 20_000  # ... from at most so many draws
MUTANTS = 200  # feasible ones of good trials that are looked at beside them, and ...
TRIES = 2_000  # ... from at most so many
PARENTS = 8  # the most promising trials


class BlueprintSampler(BaseSampler):
    """Proposes the feasible candidate of which the largest improvement at the last epoch is expected.

    It knows the space, and so what is built from its suggestions. Candidates are fresh draws and mutations of the most
    promising trials. What they will score is told by a `Surrogate`.
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
        ranked, _ = self.ranked(study, trial)
        tried = {self._space.decode(other.params) for other in _others(study, trial)}
        drawn = (params for params in self._drawn(self._rng(trial)) if self._space.decode(params) not in tried)
        return next(chain(ranked, drawn), {})

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return draw_value(param_distribution, random.Random(derive_seed(self._seed, trial.number, param_name)))

    def ranked(self, study: Study, trial: FrozenTrial) -> tuple[list[dict[str, Any]], Ledger]:
        """Feasible candidates that no trial has had, the most promising first, and the mutations that were rejected.

        None while there is too little to learn from.
        """
        trials = _others(study, trial)
        curves = [_curve(other, study.direction, self._space.recipe.epochs) for other in trials]
        informative = _informative(curves)
        if len(informative) < STARTUP or not self._examples:
            return [], Ledger()
        describe, known = self._describer.describe, [trials[i].params for i in informative]
        scores = _scores(describe(known), [curves[i] for i in informative])
        model = Surrogate(scores, math.log(self._space.recipe.epochs))
        parents = [known[i] for i in np.argsort(model.known)[:PARENTS]]
        tried = {self._space.decode(other.params) for other in trials}
        mutants, ledger = self._mutants(parents, tried, self._rng(trial))
        pending = [other.params for other, curve in zip(trials, curves, strict=True) if not curve]
        features = np.concatenate([self._described_examples, describe(mutants)])
        gains = model.improvement(features, describe(pending))
        found = [*self._examples, *mutants]
        best_first = (found[i] for i in np.argsort(-gains, kind="stable"))
        return [params for params in best_first if self._space.decode(params) not in tried], ledger

    def _mutants(
        self, parents: Sequence[dict[str, Any]], tried: Set[Candidate], rng: random.Random
    ) -> tuple[list[dict[str, Any]], Ledger]:
        """Small changes of the parents that are within the limits and new, and those that are not within the limits."""
        mutants: dict[Candidate, dict[str, Any]] = {}
        ledger = Ledger()
        for _ in range(TRIES):
            params = mutated(rng.choice(parents), self._space.distributions, rng)
            candidate = self._space.decode(params)
            match self._space.check(candidate):
                case Rejected() as rejected:
                    ledger = ledger.reject(rejected, candidate.architecture)
                case Feasible() if candidate not in tried:
                    mutants.setdefault(candidate, params)
            if len(mutants) == MUTANTS:
                break
        return [*mutants.values()], ledger

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
        return Describer(self._space, self._examples)


def _others(study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
    """The trials that have been proposed, but this one."""
    return [other for other in study.get_trials(deepcopy=False) if other.params and other.number != trial.number]


def _curve(trial: FrozenTrial, direction: StudyDirection, last_epoch: int) -> Mapping[int, float]:
    """A trial's scores after each epoch that it reported, turned so that less is better."""
    known = {step: value for step, value in trial.intermediate_values.items() if step > 0}
    if not known and trial.state is TrialState.COMPLETE and trial.value is not None:
        known = {last_epoch: trial.value}
    turned = {step: -value if direction is StudyDirection.MAXIMIZE else value for step, value in known.items()}
    return {step: value for step, value in turned.items() if math.isfinite(value)}


def _informative(curves: Sequence[Mapping[int, float]]) -> list[int]:
    """Which trials to learn from, in order."""
    scored = [i for i, curve in enumerate(curves) if curve]
    if len(scored) <= LEARNED:
        return scored
    best_first = sorted(scored, key=lambda i: (-max(curves[i]), curves[i][max(curves[i])]))
    best, others = best_first[: LEARNED // 2], sorted(best_first[LEARNED // 2 :])
    count = LEARNED - len(best)
    return sorted([*best, *(others[i * len(others) // count] for i in range(count))])


def _scores(features: Floats, curves: Sequence[Mapping[int, float]]) -> Scores:
    """The first and the last score of each curve, as logarithms where all are above 0: losses fall by factors."""
    rows = [(i, epoch, curve[epoch]) for i, curve in enumerate(curves) for epoch in sorted({min(curve), max(curve)})]
    trial, epoch, value = (np.array(column) for column in zip(*rows, strict=True))
    return Scores(
        features=features,
        trial=trial.astype(np.intp),
        log_epoch=np.log(epoch),
        value=np.log(value) if (value > 0).all() else value.astype(float),
    )
