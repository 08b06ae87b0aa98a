"""A sampler that looks at what its suggestions build, and learns from trials that ended at any epoch."""

import random
from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.samplers.forecast import Forecaster
from nas.samplers.surrogate import Floats
from nas.space.search_space import SearchSpace
from nas.space.seeds import derive_seed
from nas.space.suggestions import draw_value

STARTUP = 16  # trials with a score, before which candidates are drawn ...
DRAWN = 2  # ... and after which every second still is, whatever the model makes of it; measured: no worse
GENERATIONS = 5  # of small changes, first of the trials that are expected to end best, then of what looks promising
MUTANTS = 50  # in each, of ...
PARENTS = 8  # so many


class BlueprintSampler(BaseSampler):
    """Proposes the feasible candidate of which the largest improvement at the last epoch is expected.

    It knows the space, and so what is built from its suggestions. Candidates are fresh draws, small changes of the best
    trials, and small changes of the most promising of these. What they will score is told by a `Surrogate`. Every
    second candidate is a uniform draw: from the choices of a model alone, it does not learn where it is wrong. Trials
    of the study that are none of the space, or outside its limits, teach nothing.
    """

    def __init__(self, space: SearchSpace, *, seed: int | None = None) -> None:
        self._space = space
        self._seed = random.randrange(2**32) if seed is None else seed
        self._forecaster = Forecaster(space, self._seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._space.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The most promising one or a feasible draw, in turn; nothing where there is neither."""
        tried = {draft.candidate for draft in self._forecaster.drafts_of(_others(study, trial)).values()}
        drawn = self._forecaster.drafts.drawn(self._rng(trial))
        either = [(dict(d.params) for d in drawn if d.candidate not in tried), self.ranked(study, trial)]
        return next(chain(*(either if is_drawn(trial.number) else reversed(either))), {})

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return draw_value(param_distribution, random.Random(derive_seed(self._seed, trial.number, param_name)))

    def ranked(self, study: Study, trial: FrozenTrial) -> Iterator[dict[str, Any]]:
        """Feasible candidates that no trial has had, the most promising first; none while little is known."""
        others, forecaster = _others(study, trial), self._forecaster
        forecast = forecaster.fit(others, study.direction, STARTUP)
        if forecast is None:
            return
        drafts, model = forecaster.drafts_of(others), forecast.model
        running = [other.number for other in others if other.state is TrialState.RUNNING]
        pending = forecaster.describe([drafts[n] for n in running if n in drafts and n not in forecast.trials])
        seen = {draft.candidate for draft in drafts.values()}
        fresh = [place for place, draft in enumerate(forecaster.examples) if draft.candidate not in seen]
        found = [forecaster.examples[place] for place in fresh]
        gains = model.improvement(self._described_examples[fresh], pending)
        parents, rng = [drafts[forecast.trials[i]] for i in np.argsort(model.known)[:PARENTS]], self._rng(trial)
        for _ in range(GENERATIONS):
            mutants = forecaster.drafts.mutants(parents, seen | {draft.candidate for draft in found}, MUTANTS, rng)
            found += mutants
            gains = np.append(gains, model.improvement(forecaster.describe(mutants), pending))
            best_first = np.argsort(-gains, kind="stable")
            parents = [found[i] for i in best_first[:PARENTS]] or parents
        yield from (dict(found[i].params) for i in best_first)

    def _rng(self, trial: FrozenTrial) -> random.Random:
        return random.Random(derive_seed(self._seed, "blueprint", trial.number))

    @cached_property
    def _described_examples(self) -> Floats:
        return self._forecaster.describe(self._forecaster.examples)


def is_drawn(number: int) -> bool:
    """Whether the trial of this number is a draw."""
    return number % DRAWN == 1


def _others(study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
    return [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
