"""What a trial or study keeps for this program rather than for a person: its architecture, its curve, and the like.

They stand among Optuna's system attributes. The dashboard shows each user attribute in one unbroken line, in the order
of the alphabet; long values among them would bury what a person wants to read.
"""

from typing import Any

import optuna
from optuna.trial import FrozenTrial

PREFIX = "nas:"


def details(trial: FrozenTrial) -> dict[str, Any]:
    """All that a trial keeps, by name."""
    kept = trial.system_attrs.items()
    return {key.removeprefix(PREFIX): value for key, value in kept if key.startswith(PREFIX)}


def as_system_attributes(kept: dict[str, Any]) -> dict[str, Any]:
    """The same for a trial that is yet to be made."""
    return {PREFIX + name: value for name, value in kept.items()}


def keep_detail(trial: optuna.Trial, name: str, value: Any) -> None:
    """Keep a value that JSON can hold."""
    trial.storage.set_trial_system_attr(trial._trial_id, PREFIX + name, value)


def study_detail(study: optuna.Study, name: str, default: Any) -> Any:
    """A value that a study keeps."""
    return study._storage.get_study_system_attrs(study._study_id).get(PREFIX + name, default)


def keep_study_detail(study: optuna.Study, name: str, value: Any) -> None:
    """Keep a value that JSON can hold."""
    study._storage.set_study_system_attr(study._study_id, PREFIX + name, value)
