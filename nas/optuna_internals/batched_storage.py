"""An Optuna storage for the one process that writes a study: trials are read once, and many values written at a time.

Optuna's own asks the database for every unfinished trial whenever all are listed, since others may have written, and
commits each value by itself. Here what is written is known at once in this process; within `batch` it is committed
together, so that the database holds all of it or nothing.
"""

import copy
import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage, _CachedStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Table, bindparam

from nas.system.interrupts import interrupts_wait

FIELDS: Mapping[str, tuple[Table, str]] = {  # of a trial: where it is kept, under which key
    "user_attrs": (models.TrialUserAttributeModel.__table__, "key"),
    "system_attrs": (models.TrialSystemAttributeModel.__table__, "key"),
    "intermediate_values": (models.TrialIntermediateValueModel.__table__, "step"),
    "values": (models.TrialValueModel.__table__, "objective"),
}
NOTES: Table = models.StudySystemAttributeModel.__table__
TRIALS: Table = models.TrialModel.__table__
PARAMS: Table = models.TrialParamModel.__table__


class SingleWriterStorage(_CachedStorage):
    """What Optuna's storages do, where nobody else writes the trials of the studies that are asked for."""

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._unfinished: dict[int, dict[int, None]] = {}  # by study, once all of its trials are known: numbers
        self._batches = 0  # entered and not left
        self._unwritten: dict[tuple[str, int], dict[str | int, dict[str, Any]]] = {}  # by field and trial
        self._notes: dict[tuple[int, str], str] = {}  # a study's attributes
        self._states: dict[int, FrozenTrial] = {}
        self._params: list[dict[str, Any]] = []  # of new trials
        self._connection: Connection | None = None  # with the new trials, which the database numbers
        self._ready: Callable[[], None] = lambda: None

    @contextmanager
    def batch(self, ready: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Commit at the end, together, what is written meanwhile; `flush` does it earlier.

        `ready` is called before each commit; where it raises, nothing is committed.
        """
        self._batches += 1
        outer, self._ready = self._ready, ready
        try:
            yield
        finally:
            self._batches -= 1
            try:
                self._written()
            finally:
                self._ready = outer

    def flush(self) -> None:
        """Commit what is not written yet, all of it or nothing: what fails now is not tried again later."""
        if self._connection is None and not (self._unwritten or self._notes or self._states):
            return
        with interrupts_wait():
            try:
                self._ready()
                self._commit(self._connected())
            finally:
                self._forget()

    def _commit(self, connection: Connection) -> None:
        _insert(connection, PARAMS, self._params)
        for field, (table, key) in FIELDS.items():
            changed = [(trial, new) for (name, trial), new in self._unwritten.items() if name == field]
            rows = [{"trial_id": trial, key: k, **v} for trial, new in changed for k, v in new.items()]
            _replace(connection, table, ("trial_id", key), rows)
        notes = [{"study_id": study, "key": key, "value_json": text} for (study, key), text in self._notes.items()]
        _replace(connection, NOTES, ("study_id", "key"), notes)
        for trial_id, trial in self._states.items():
            stands = {"state": trial.state, "datetime_complete": _utc(trial.datetime_complete)}
            connection.execute(TRIALS.update().where(TRIALS.c.trial_id == trial_id).values(stands))
        connection.commit()

    def _connected(self) -> Connection:
        """What the batch is written through."""
        if self._connection is None:
            self._connection = self._backend.engine.connect()
        return self._connection

    def _written(self) -> None:
        if not self._batches:
            self.flush()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        if template_trial is None or template_trial.state is not TrialState.RUNNING:
            self.flush()
            return super().create_new_trial(study_id, template_trial)
        trial = copy.copy(template_trial)
        trial.params, trial.distributions = dict(trial.params), dict(trial.distributions)
        trial.intermediate_values = {}
        self._read_trials_from_remote_storage(study_id)
        trial.number = len(self._studies[study_id].trials)
        try:
            self._insert_trial(study_id, trial)
        except BaseException:  # such as Ctrl+C; the trials of this batch are there whole or not at all
            self._forget()
            raise
        self._add_trials_to_cache(study_id, [trial])
        self._unfinished[study_id][trial.number] = None
        self._written()
        return trial._trial_id

    def _insert_trial(self, study_id: int, trial: FrozenTrial) -> None:
        begun = {"study_id": study_id, "number": trial.number, "state": trial.state}
        values = {**begun, "datetime_start": _utc(trial.datetime_start)}
        (trial._trial_id,) = self._connected().execute(TRIALS.insert().values(values)).inserted_primary_key or (0,)
        self._params += [{"trial_id": trial._trial_id, **row} for row in _params(trial)]
        for field in ("user_attrs", "system_attrs"):
            texts = {name: json.dumps(value) for name, value in getattr(trial, field).items()}
            self._unwritten[field, trial._trial_id] = {name: {"value_json": text} for name, text in texts.items()}
            setattr(trial, field, {name: json.loads(text) for name, text in texts.items()})

    def _forget(self) -> None:
        """Have nothing to commit any more."""
        for unwritten in (self._params, self._unwritten, self._notes, self._states):
            unwritten.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        number, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(intermediate_value)
        stored = {"intermediate_value": number, "intermediate_value_type": kind}
        self._change(trial_id, "intermediate_values", step, intermediate_value, stored)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._set_attribute(trial_id, "user_attrs", key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._set_attribute(trial_id, "system_attrs", key, value)

    def _set_attribute(self, trial_id: int, field: str, key: str, value: Any) -> None:
        text = json.dumps(value)
        self._change(trial_id, field, key, json.loads(text), {"value_json": text})

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._notes[study_id, key] = json.dumps(value)
        self._written()

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        trial = copy.copy(self._updatable(trial_id))
        if state is TrialState.RUNNING and trial.state is not TrialState.WAITING:
            return False
        trial.state = state
        if values is not None:
            trial.values = list(values)
            pairs = enumerate(map(models.TrialValueModel.value_to_stored_repr, values))
            stored: dict[str | int, Any] = {i: {"value": number, "value_type": kind} for i, (number, kind) in pairs}
            self._unwritten["values", trial_id] = stored
        if state.is_finished():
            trial.datetime_complete = datetime.now()
        self._states[trial_id] = trial
        self._keep(trial)
        self._written()
        return True

    def _change(self, trial_id: int, field: str, key: str | int, value: Any, stored: dict[str, Any]) -> None:
        trial = copy.copy(self._updatable(trial_id))
        setattr(trial, field, {**getattr(trial, field), key: value})
        self._unwritten.setdefault((field, trial_id), {})[key] = stored
        self._keep(trial)
        self._written()

    def _updatable(self, trial_id: int) -> FrozenTrial:
        trial = self.get_trial(trial_id)
        self.check_trial_is_updatable(trial_id, trial.state)
        return trial

    def _keep(self, trial: FrozenTrial) -> None:
        study_id, number = self._trial_id_to_study_id_and_number[trial._trial_id]
        self._studies[study_id].trials[number] = trial
        if trial.state.is_finished() and study_id in self._unfinished:
            self._unfinished[study_id].pop(number, None)

    def _get_cached_trial(self, trial_id: int) -> FrozenTrial | None:
        known = self._trial_id_to_study_id_and_number.get(trial_id)
        return None if known is None else self._studies[known[0]].trials[known[1]]

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if study_id not in self._unfinished:
            self.flush()
            super()._read_trials_from_remote_storage(study_id)
            trials = self._studies[study_id].trials.values()
            self._unfinished[study_id] = {trial.number: None for trial in trials if not trial.state.is_finished()}

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        self._read_trials_from_remote_storage(study_id)
        trials = self._studies[study_id].trials  # in order of number, since ids are
        if states is None:
            found = list(trials.values())
        elif not any(state in states for state in TrialState if state.is_finished()):
            found = [trials[number] for number in self._unfinished[study_id] if trials[number].state in states]
        else:
            found = [trial for trial in trials.values() if trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def get_n_trials(self, study_id: int, state: tuple[TrialState, ...] | TrialState | None = None) -> int:
        self._read_trials_from_remote_storage(study_id)
        return super().get_n_trials(study_id, state) if state is not None else len(self._studies[study_id].trials)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self.flush()  # a transaction of ours would lock out Optuna's
        super().set_study_user_attr(study_id, key, value)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        self.flush()
        return super().get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        self.flush()
        return super().get_study_system_attrs(study_id)


def _params(trial: FrozenTrial) -> Iterator[dict[str, Any]]:
    for name, value in trial.params.items():
        distribution = trial.distributions[name]
        yield {
            "param_name": name,
            "param_value": distribution.to_internal_repr(value),
            "distribution_json": distribution_to_json(distribution),
        }


def _insert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(table.insert(), rows)


def _replace(connection: Connection, table: Table, key: tuple[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows in place of those of the same key; every database can do this, while each has an upsert of its own."""
    if rows:
        owner, name = key
        same = (table.c[owner] == bindparam("its_owner"), table.c[name] == bindparam("its_name"))
        connection.execute(table.delete().where(*same), [{"its_owner": r[owner], "its_name": r[name]} for r in rows])
        _insert(connection, table, rows)


def _utc(local: datetime | None) -> datetime | None:
    """As Optuna keeps it: without a time zone."""
    return None if local is None else local.astimezone(UTC).replace(tzinfo=None)


@contextmanager
def together(study: optuna.Study, ready: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Within it, what is written of a study that this process works on is committed at the end, or by `commit`.

    That is after `ready`; where it raises, nothing is committed.
    """
    if isinstance(study._storage, SingleWriterStorage):
        with study._storage.batch(ready):
            yield
    else:
        yield
        ready()


def commit(study: optuna.Study) -> None:
    """Write what is not written yet."""
    if isinstance(study._storage, SingleWriterStorage):
        study._storage.flush()


def close(study: optuna.Study) -> None:
    """Let go of the connections to its database; what is done with the study later opens them again."""
    if isinstance(study._storage, optuna.storages._CachedStorage):
        study._storage._backend.engine.dispose()
