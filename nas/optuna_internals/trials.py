"""Telling Optuna of a trial without the copies that its own calls make."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.optuna_internals.attributes import set_own_attribute
from nas.optuna_internals.studies import id_of, storage_of, trial_id


def report_epoch(trial: optuna.Trial, curve: Sequence[Mapping[str, Any]]) -> None:
    """Tell the study of a trial's latest epoch; `curve` holds all so far, each with the numbers of an EpochReport.

    Epochs beyond it, of an earlier try, have no value any more. `Trial.report` would leave a known one as it is.
    """
    set_own_attribute(trial, "curve", list(curve))
    known = stored(trial).intermediate_values
    values = dict.fromkeys(known, math.nan) | {epoch["epoch"]: epoch["val_loss"] for epoch in curve}
    for step, value in values.items():
        if value is not None and known.get(step) != value:
            trial.storage.set_trial_intermediate_value(trial_id(trial), step, value)


def is_hopeless(trial: optuna.Trial) -> bool:
    """Whether the study's pruner ends a trial, by what was reported; what `Trial.should_prune` asks of a copy."""
    return trial.study.pruner.prune(trial.study, stored(trial))


def tell(trial: optuna.Trial, state: TrialState, value: float | None) -> None:
    """What `Study.tell` does, which copies all of the trial meanwhile; a pruned one has its last value."""
    trial.storage.set_trial_state_values(trial_id(trial), state, None if value is None else [value])


def stored(trial: optuna.Trial) -> FrozenTrial:
    """As it stands in the storage."""
    return trial.storage.get_trial(trial_id(trial))


def trial_numbered(study: optuna.Study, number: int) -> optuna.Trial:
    """The trial of this number, to be written to; no other one is read."""
    return optuna.Trial(study, storage_of(study).get_trial_id_from_study_id_trial_number(id_of(study), number))


def begin(study: optuna.Study, template: FrozenTrial) -> optuna.Trial:
    """A new trial with all that the template holds, which is written whole or not at all."""
    return optuna.Trial(study, storage_of(study).create_new_trial(id_of(study), template))


def enqueued(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that `Study.enqueue_trial` left for whoever goes on with the study."""
    return study.get_trials(deepcopy=False, states=(TrialState.WAITING,))


def asked_for(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that an enqueued trial is to have."""
    return dict(trial.system_attrs.get("fixed_params", {}))


def run_enqueued(trial: optuna.Trial, template: FrozenTrial) -> None:
    """Let an enqueued trial run with all that the template holds; that it runs is written last."""
    storage, of = trial.storage, trial_id(trial)
    for name, value in template.params.items():
        distribution = template.distributions[name]
        storage.set_trial_param(of, name, distribution.to_internal_repr(value), distribution)
    for key, kept in template.user_attrs.items():
        storage.set_trial_user_attr(of, key, kept)
    for key, kept in template.system_attrs.items():
        storage.set_trial_system_attr(of, key, kept)
    storage.set_trial_state_values(of, TrialState.RUNNING)
