"""Telling Optuna of a trial without the copies that its own calls make."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.optuna_internals.attributes import keep_detail


def report_epoch(trial: optuna.Trial, curve: Sequence[Mapping[str, Any]]) -> None:
    """Tell the study of a trial's latest epoch; `curve` holds all so far, each with the numbers of an EpochReport.

    Epochs beyond it, of an earlier try, have no value any more.
    """
    keep_detail(trial, "curve", list(curve))
    known = trial._cached_frozen_trial.intermediate_values
    values = dict.fromkeys(known, math.nan) | {epoch["epoch"]: epoch["val_accuracy"] for epoch in curve}
    for step, value in values.items():
        if value is not None and known.get(step) != value:
            trial.storage.set_trial_intermediate_value(trial._trial_id, step, value)  # `report` leaves a known one ...
            known[step] = value  # ... as it is, and else does this, too


def tell(trial: optuna.Trial, state: TrialState, value: float | None) -> None:
    """What `Study.tell` does, which copies all of the trial meanwhile; a pruned one has its last value."""
    trial.storage.set_trial_state_values(trial._trial_id, state, None if value is None else [value])


def stored(trial: optuna.Trial) -> FrozenTrial:
    """As it stands in the storage."""
    return trial.storage.get_trial(trial._trial_id)


def trial_numbered(study: optuna.Study, number: int) -> optuna.Trial:
    """The trial of this number, to be written to; no other one is read."""
    return optuna.Trial(study, study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number))
