"""Samplers that rank what they draw."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, TypeAlias

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

DRAWN = 64  # for a proposal; Optuna draws 24, of which few may be within the limits
Fitted: TypeAlias = dict[tuple[str, ...], dict[bool, Any]]  # by parameters, estimators; True: of the good trials


class RankingSampler(BaseSampler):
    """A sampler that fits its estimators once, and ranks all that it draws for one proposal."""

    fitted: Fitted

    @abstractmethod
    def ranked(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Iterator[dict[str, Any]]:
        """All that were drawn for one proposal, the most promising first: that is the one that Optuna would take.

        The others serve where it is outside the limits. One proposal without any parameter while there are too few
        trials to learn from.
        """
