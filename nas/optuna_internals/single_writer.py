"""An Optuna storage for the one process that writes a study: trials are read once, and many values written at a time.

Optuna's own asks the database for every unfinished trial whenever all are listed, since others may have written, and
commits each value by itself. Here what is written is known at once in this process; within `batch` it is committed
together, so that the database holds all of it or nothing.
"""

import copy
import json
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection

from nas.optuna_internals import tables
from nas.optuna_internals.batches import Batches
from nas.system.interrupts import interrupts_wait


@dataclass(frozen=True, slots=True)
class _Known:
    """The trials of a study, by number."""

    trials: dict[int, FrozenTrial]
    ids: dict[int, int]
    unfinished: dict[int, None]


class SingleWriterStorage(BaseStorage, Batches):
    """What Optuna's storages do, where nobody else writes the trials of the studies that are asked for."""

    def __init__(self, backend: RDBStorage) -> None:
        self._backend = backend
        self.engine = backend.engine
        self._known: dict[int, _Known] = {}  # by study
        self._places: dict[int, tuple[int, int]] = {}  # by the id of a known trial: its study and number
        self._batches = 0  # entered and not left
        self._unwritten: dict[str, dict[int, dict[str | int, tables.Row]]] = {}  # by field and trial
        self._notes: dict[tuple[int, str], str] = {}  # a study's attributes
        self._states: dict[int, FrozenTrial] = {}
        self._params: list[tables.Row] = []  # of new trials
        self._connection: Connection | None = None  # with the new trials, which the database numbers
        self._ready: Callable[[], None] = lambda: None

    # what is written together

    @contextmanager
    def batch(self, ready: Callable[[], None] = lambda: None) -> Iterator[None]:
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
        if self._connection is None and not (self._unwritten or self._notes or self._states or self._params):
            return
        with interrupts_wait():
            try:
                self._ready()
                self._commit(self._connected())
            finally:
                self._forget()

    def _commit(self, connection: Connection) -> None:
        tables.write_params(connection, self._params)
        for field, changed in self._unwritten.items():
            tables.write_field(connection, field, changed)
        tables.write_notes(connection, self._notes)
        for trial_id, trial in self._states.items():
            tables.write_state(connection, trial_id, trial)
        connection.commit()

    def _connected(self) -> Connection:
        """What the batch is written through."""
        if self._connection is None:
            self._connection = self.engine.connect()
        return self._connection

    def _written(self) -> None:
        if not self._batches:
            self.flush()

    def _forget(self) -> None:
        """Have nothing to commit any more."""
        for unwritten in (self._params, self._unwritten, self._notes, self._states):
            unwritten.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # trials

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        known = self._read(study_id)
        if template_trial is None or template_trial.state is not TrialState.RUNNING:
            self.flush()
            trial_id = self._backend.create_new_trial(study_id, template_trial)
            self._add(study_id, trial_id, self._backend.get_trial(trial_id))
            return trial_id
        number = len(known.trials)
        try:
            trial_id = tables.insert_trial(self._connected(), study_id, number, template_trial)
            self._params += tables.params_rows(trial_id, template_trial)
        except BaseException:  # such as Ctrl+C; the trials of this batch are there whole or not at all
            self._forget()
            raise
        self._add(study_id, trial_id, self._begun(template_trial, number, trial_id))
        self._written()
        return trial_id

    def _begun(self, template: FrozenTrial, number: int, trial_id: int) -> FrozenTrial:
        """A new trial as the database gives it back; its attributes are to be written."""
        kept: dict[str, dict[str, Any]] = {}
        for field in ("user_attrs", "system_attrs"):
            rows = tables.as_json(getattr(template, field))
            self._unwritten.setdefault(field, {})[trial_id] = rows
            kept[field] = {str(name): json.loads(row["value_json"]) for name, row in rows.items()}
        return FrozenTrial(
            number=number,
            state=template.state,
            value=None,
            datetime_start=template.datetime_start,
            datetime_complete=None,
            params=dict(template.params),
            distributions=dict(template.distributions),
            user_attrs=kept["user_attrs"],
            system_attrs=kept["system_attrs"],
            intermediate_values={},
            trial_id=trial_id,
        )

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        trial = copy.copy(self._updatable(trial_id))
        trial.params = {**trial.params, param_name: distribution.to_external_repr(param_value_internal)}
        trial.distributions = {**trial.distributions, param_name: distribution}
        self._params.append(tables.param_row(trial_id, param_name, param_value_internal, distribution))
        self._keep(trial_id, trial)
        self._written()

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        row = tables.intermediate_row(intermediate_value)
        self._change(trial_id, "intermediate_values", step, intermediate_value, row)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._set_attribute(trial_id, "user_attrs", key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._set_attribute(trial_id, "system_attrs", key, value)

    def _set_attribute(self, trial_id: int, field: str, key: str, value: Any) -> None:
        text = json.dumps(value)
        self._change(trial_id, field, key, json.loads(text), {"value_json": text})

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        trial = copy.copy(self._updatable(trial_id))
        if state is TrialState.RUNNING and trial.state is not TrialState.WAITING:
            return False
        trial.state = state
        if state is TrialState.RUNNING:
            trial.datetime_start = datetime.now()
        if values is not None:
            trial.values = list(values)
            self._unwritten.setdefault("values", {})[trial_id] = dict(enumerate(map(tables.value_row, values)))
        if state.is_finished():
            trial.datetime_complete = datetime.now()
        self._states[trial_id] = trial
        self._keep(trial_id, trial)
        self._written()
        return True

    def _change(self, trial_id: int, field: str, key: str | int, value: Any, row: tables.Row) -> None:
        trial = copy.copy(self._updatable(trial_id))
        setattr(trial, field, {**getattr(trial, field), key: value})
        self._unwritten.setdefault(field, {}).setdefault(trial_id, {})[key] = row
        self._keep(trial_id, trial)
        self._written()

    def _updatable(self, trial_id: int) -> FrozenTrial:
        trial = self.get_trial(trial_id)
        self.check_trial_is_updatable(trial_id, trial.state)
        return trial

    # what is known

    def _read(self, study_id: int) -> _Known:
        if study_id not in self._known:
            self.flush()
            trials = self._backend.get_all_trials(study_id, deepcopy=False)
            with self.engine.connect() as connection:
                ids = tables.ids_of(connection, study_id)
            self._known[study_id] = _Known(trials={}, ids={}, unfinished={})
            for trial in trials:
                self._add(study_id, ids[trial.number], trial)
        return self._known[study_id]

    def _add(self, study_id: int, trial_id: int, trial: FrozenTrial) -> None:
        self._places[trial_id] = study_id, trial.number
        self._known[study_id].ids[trial.number] = trial_id
        self._known[study_id].unfinished[trial.number] = None
        self._keep(trial_id, trial)

    def _keep(self, trial_id: int, trial: FrozenTrial) -> None:
        study_id, number = self._places[trial_id]
        self._known[study_id].trials[number] = trial
        if trial.state.is_finished():
            self._known[study_id].unfinished.pop(number, None)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if trial_id not in self._places:
            return self._backend.get_trial(trial_id)
        study_id, number = self._places[trial_id]
        return self._known[study_id].trials[number]

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return self._read(study_id).ids[trial_number]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        known = self._read(study_id)
        if states is None:
            found = list(known.trials.values())  # in order of number, since ids are
        elif not any(state in states for state in TrialState if state.is_finished()):
            found = [known.trials[number] for number in known.unfinished if known.trials[number].state in states]
        else:
            found = [trial for trial in known.trials.values() if trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def get_n_trials(self, study_id: int, state: tuple[TrialState, ...] | TrialState | None = None) -> int:
        return len(self._read(study_id).trials) if state is None else super().get_n_trials(study_id, state)

    # studies: a transaction of ours would lock out Optuna's

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._notes[study_id, key] = json.dumps(value)
        self._written()

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        self.flush()
        return self._backend.get_study_system_attrs(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self.flush()
        self._backend.set_study_user_attr(study_id, key, value)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        self.flush()
        return self._backend.get_study_user_attrs(study_id)

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        self.flush()
        return self._backend.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self.flush()
        self._backend.delete_study(study_id)
        self._known.pop(study_id, None)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._backend.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._backend.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._backend.get_study_directions(study_id)

    def get_all_studies(self) -> list[Any]:  # of what Optuna keeps private
        return self._backend.get_all_studies()
