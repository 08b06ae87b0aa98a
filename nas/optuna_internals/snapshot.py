"""The trials that a proposal is learned from, as a storage that reads them once and keeps nothing."""

import copy
from collections.abc import Container
from typing import Any

from optuna.samplers._tpe.sampler import _split_trials
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

MAX_LEARNED = 500  # ended trials that a sampler learns from; TPE takes longer with each, and GP with its cube
BEST_LEARNED = 25  # of them: as many as TPE takes for good, at most


def learned_from(study: Study, trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """All that did not fail, or the best and others at even distances, so that a proposal takes no longer."""
    ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if len(ended) <= MAX_LEARNED:
        return ended
    best, others = _split_trials(study, ended, BEST_LEARNED)
    count = MAX_LEARNED - BEST_LEARNED
    return sorted(best + [others[i * len(others) // count] for i in range(count)], key=lambda trial: trial.number)


class Snapshot:
    """A storage as it stands while a trial is proposed: its trials are read once, and a proposal is not written there.

    TPE and GP tell other processes of their proposals that way; here a trial in flight is stored with all of it, and a
    proposal may be rejected.
    """

    def __init__(self, storage: BaseStorage, trials: list[FrozenTrial]) -> None:
        self._storage = storage
        self._trials = trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        found = [trial for trial in self._trials if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def set_trial_system_attr(self, *_: object) -> None:
        pass
