"""The trials that a proposal is learned from, as a study that reads them once and keeps nothing."""

import copy
import math
from collections.abc import Container, Sequence
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.optuna_internals.studies import id_of, storage_of

MAX_LEARNED = 500  # ended trials that a sampler learns from; TPE takes longer with each, and GP with its cube
BEST_LEARNED = 25  # of them: as many as TPE takes for good, at most


def learned_from(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """All that did not fail, or the best and others at even distances, so that a proposal takes no longer."""
    ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if len(ended) <= MAX_LEARNED:
        return ended
    ordered = sorted(ended, key=_rank)
    best, others = ordered[:BEST_LEARNED], sorted(ordered[BEST_LEARNED:], key=lambda trial: trial.number)
    count = MAX_LEARNED - BEST_LEARNED
    return sorted(best + [others[i * len(others) // count] for i in range(count)], key=lambda trial: trial.number)


def _rank(trial: FrozenTrial) -> tuple[bool, float, float]:
    """As TPE ranks the trials of a study that minimises: the pruned ones after all others, the latest first."""
    if trial.state is TrialState.COMPLETE:
        assert trial.value is not None
        return False, trial.value, 0.0
    step, value = max(trial.intermediate_values.items(), default=(-1, 0.0))
    return True, -step, math.inf if math.isnan(value) else value


class Snapshot(InMemoryStorage):
    """A storage as it stands while a trial is proposed: its trials are read once, and a proposal is not written there.

    TPE and GP tell other processes of their proposals that way; here a trial in flight is stored with all of it, and a
    proposal may be rejected.
    """

    def __init__(self, trials: Sequence[FrozenTrial], kept_in: Study | None) -> None:
        super().__init__()
        self._snapshot = list(trials)
        self._kept_in = kept_in  # whose attributes tell how far a sequence of draws has come

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        found = [trial for trial in self._snapshot if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        pass

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        if self._kept_in is None:
            return super().get_study_system_attrs(study_id)
        return storage_of(self._kept_in).get_study_system_attrs(id_of(self._kept_in))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        if self._kept_in is not None:
            storage_of(self._kept_in).set_study_system_attr(id_of(self._kept_in), key, value)


def as_study(trials: Sequence[FrozenTrial], kept_in: Study | None = None) -> Study:
    """A study of these trials for a sampler to learn from; what it keeps for its next proposal goes to `kept_in`."""
    storage: BaseStorage = Snapshot(trials, kept_in)
    return optuna.create_study(
        study_name="snapshot", storage=storage, direction="minimize", sampler=optuna.samplers.RandomSampler()
    )
