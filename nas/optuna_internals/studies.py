"""Studies that say where they are stored: Optuna's own keep that private, though the calls of a storage are public."""

from typing import Literal

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage, InMemoryStorage


class StoredStudy(optuna.Study):
    """A study that holds its storage, and its id there. Its sampler is never asked: trials come with parameters."""

    def __init__(self, name: str, storage: BaseStorage, pruner: BasePruner | None = None) -> None:
        super().__init__(name, storage, sampler=RandomSampler(), pruner=pruner or NopPruner())
        self.home = storage
        self.home_id = storage.get_study_id_from_name(name)


def new_study(
    name: str,
    storage: BaseStorage | None = None,
    pruner: BasePruner | None = None,
    direction: Literal["maximize", "minimize"] = "minimize",
) -> StoredStudy:
    """A study, made if its storage has none of this name; by default in memory."""
    home = InMemoryStorage() if storage is None else storage
    optuna.create_study(study_name=name, storage=home, direction=direction, load_if_exists=True)
    return StoredStudy(name, home, pruner)


def storage_of(study: optuna.Study) -> BaseStorage:
    """Where a study of this program is stored."""
    return _stored(study).home


def id_of(study: optuna.Study) -> int:
    """What its storage calls a study of this program."""
    return _stored(study).home_id


def trial_id(trial: optuna.Trial) -> int:
    """What its storage calls a trial of such a study."""
    return trial.storage.get_trial_id_from_study_id_trial_number(id_of(trial.study), trial.number)


def _stored(study: optuna.Study) -> StoredStudy:
    if not isinstance(study, StoredStudy):
        raise TypeError(f"study {study.study_name!r} does not say where it is stored; open it as a StoredStudy")
    return study
