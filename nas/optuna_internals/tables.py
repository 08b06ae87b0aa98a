"""Optuna's tables, which it keeps private: what one transaction writes into them.

Importing this raises ImportError where they are not as they were when this was written, since nothing may be written
then into what others read.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy import Connection, Table, bindparam, select

FIELDS: Mapping[str, tuple[Table, str]] = {  # of a trial: where it is kept, under which key
    "user_attrs": (models.TrialUserAttributeModel.__table__, "key"),
    "system_attrs": (models.TrialSystemAttributeModel.__table__, "key"),
    "intermediate_values": (models.TrialIntermediateValueModel.__table__, "step"),
    "values": (models.TrialValueModel.__table__, "objective"),
}
NOTES: Table = models.StudySystemAttributeModel.__table__
TRIALS: Table = models.TrialModel.__table__
PARAMS: Table = models.TrialParamModel.__table__
KNOWN_VERSION = 12  # of all the tables, and the columns of those that are written
KNOWN = {
    "trial_user_attributes": {"trial_user_attribute_id", "trial_id", "key", "value_json"},
    "trial_system_attributes": {"trial_system_attribute_id", "trial_id", "key", "value_json"},
    "trial_intermediate_values": {
        *("trial_intermediate_value_id", "trial_id", "step"),
        *("intermediate_value", "intermediate_value_type"),
    },
    "trial_values": {"trial_value_id", "trial_id", "objective", "value", "value_type"},
    "study_system_attributes": {"study_system_attribute_id", "study_id", "key", "value_json"},
    "trials": {"trial_id", "number", "study_id", "state", "datetime_start", "datetime_complete"},
    "trial_params": {"param_id", "trial_id", "param_name", "param_value", "distribution_json"},
}
_WRITTEN = (*(table for table, _ in FIELDS.values()), NOTES, TRIALS, PARAMS)
if models.SCHEMA_VERSION != KNOWN_VERSION or {table.name: {*table.columns.keys()} for table in _WRITTEN} != KNOWN:
    raise ImportError(f"Optuna's tables, version {models.SCHEMA_VERSION}, are not those of version {KNOWN_VERSION}")

Row = dict[str, Any]


def intermediate_row(value: float) -> Row:
    """A reported value as it is stored."""
    number, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
    return {"intermediate_value": number, "intermediate_value_type": kind}


def value_row(value: float) -> Row:
    """A trial's value as it is stored."""
    number, kind = models.TrialValueModel.value_to_stored_repr(value)
    return {"value": number, "value_type": kind}


def ids_of(connection: Connection, study_id: int) -> dict[int, int]:
    """The ids of a study's trials by number."""
    rows = connection.execute(
        select(TRIALS.c.number, TRIALS.c.trial_id).where(TRIALS.c.study_id == study_id).order_by(TRIALS.c.trial_id)
    )
    return {row.number: row.trial_id for row in rows}


def insert_trial(connection: Connection, study_id: int, number: int, trial: FrozenTrial) -> int:
    """Write a new trial without its parameters and attributes; its id, which the database gives."""
    begun = {"study_id": study_id, "number": number, "state": trial.state}
    values = {**begun, "datetime_start": _utc(trial.datetime_start)}
    (trial_id,) = connection.execute(TRIALS.insert().values(values)).inserted_primary_key or (0,)
    return int(trial_id)


def params_rows(trial_id: int, trial: FrozenTrial) -> Iterator[Row]:
    """A trial's parameters as they are stored."""
    for name, value in trial.params.items():
        distribution = trial.distributions[name]
        yield param_row(trial_id, name, distribution.to_internal_repr(value), distribution)


def param_row(trial_id: int, name: str, internal: float, distribution: BaseDistribution) -> Row:
    """A parameter as it is stored."""
    return {
        "trial_id": trial_id,
        "param_name": name,
        "param_value": internal,
        "distribution_json": distribution_to_json(distribution),
    }


def write_params(connection: Connection, rows: Sequence[Row]) -> None:
    """Write parameters of trials."""
    _replace(connection, PARAMS, ("trial_id", "param_name"), rows)


def write_field(connection: Connection, field: str, changed: Mapping[int, Mapping[str | int, Row]]) -> None:
    """Write the values of one field of trials: by trial, by key."""
    table, key = FIELDS[field]
    rows = [{"trial_id": trial_id, key: k, **v} for trial_id, new in changed.items() for k, v in new.items()]
    _replace(connection, table, ("trial_id", key), rows)


def write_notes(connection: Connection, notes: Mapping[tuple[int, str], str]) -> None:
    """Write attributes of studies: JSON by study and name."""
    rows = [{"study_id": study, "key": key, "value_json": text} for (study, key), text in notes.items()]
    _replace(connection, NOTES, ("study_id", "key"), rows)


def write_state(connection: Connection, trial_id: int, trial: FrozenTrial) -> None:
    """Write where a trial stands."""
    times = {"datetime_start": _utc(trial.datetime_start), "datetime_complete": _utc(trial.datetime_complete)}
    stands = {"state": trial.state, **times}
    connection.execute(TRIALS.update().where(TRIALS.c.trial_id == trial_id).values(stands))


def as_json(values: Mapping[str, Any]) -> dict[str | int, Row]:
    """Attributes as they are stored."""
    return {name: {"value_json": json.dumps(value)} for name, value in values.items()}


def _insert(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    if rows:
        connection.execute(table.insert(), rows)


def _replace(connection: Connection, table: Table, key: tuple[str, str], rows: Sequence[Row]) -> None:
    """Rows in place of those of the same key; every database can do this, while each has an upsert of its own."""
    if rows:
        owner, name = key
        same = (table.c[owner] == bindparam("its_owner"), table.c[name] == bindparam("its_name"))
        connection.execute(table.delete().where(*same), [{"its_owner": r[owner], "its_name": r[name]} for r in rows])
        _insert(connection, table, rows)


def _utc(local: datetime | None) -> datetime | None:
    """As Optuna keeps it: without a time zone."""
    return None if local is None else local.astimezone(UTC).replace(tzinfo=None)
