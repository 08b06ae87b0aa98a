"""Regularized evolution: a small change of the best of a few trials, drawn from the latest ones."""

import random
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.samplers.mutation import mutated
from nas.space.suggestions import draw_value

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


class EvolutionSampler(BaseSampler):
    """Real et al., Regularized Evolution for Image Classifier Architecture Search, AAAI 2019, for trials of any length.

    Until `population` trials have ended, it draws. Then it changes the best of a `tournament` among the latest ones.
    The best is the one with the best score after the last epoch that all of the tournament have reached.
    """

    def __init__(self, *, seed: int | None = None, population: int = 20, tournament: int = 5) -> None:
        self._rng = random.Random(seed)
        self._population = population
        self._tournament = tournament

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return intersection_search_space(study.get_trials(deepcopy=False, states=ENDED))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        ended = [other for other in study.get_trials(deepcopy=False, states=ENDED) if other.intermediate_values]
        if len(ended) < max(self._population, self._tournament) or not search_space:
            return {}
        rivals = self._rng.sample(ended[-max(self._population, self._tournament) :], self._tournament)
        parent = _best(rivals, study.direction)
        return mutated({name: parent.params[name] for name in search_space}, search_space, self._rng)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return draw_value(param_distribution, self._rng)


def _best(rivals: Sequence[FrozenTrial], direction: StudyDirection) -> FrozenTrial:
    """By the scores after the last epoch that all have reached, or by those after their own last ones."""
    shared = set.intersection(*(set(rival.intermediate_values) for rival in rivals))
    sign = -1 if direction is StudyDirection.MAXIMIZE else 1
    return min(rivals, key=lambda r: sign * r.intermediate_values[max(shared or r.intermediate_values)])
