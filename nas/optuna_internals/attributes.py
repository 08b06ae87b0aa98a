"""What a trial or study keeps for this program rather than for a person: its architecture, its curve, and the like.

They stand among Optuna's system attributes. The dashboard shows each user attribute in one unbroken line, in the order
of the alphabet; long values among them would bury what a person wants to read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial

from nas.errors import UserError
from nas.optuna_internals.studies import id_of, storage_of, trial_id
from nas.system.files import reason_of

PREFIX = "nas:"
Value = TypeVar("Value")


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turns values that this program cannot have written, or that cannot be read at all, into a UserError.

    The two have different ways out: a storage that does not answer may be whole.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        from sqlalchemy.exc import SQLAlchemyError  # here, as --help needs none of it

        if isinstance(error, StorageInternalError | SQLAlchemyError):
            raise UserError(
                f"{what} cannot be read ({reason_of(error)}); try again, or look after its storage"
            ) from error
        if not isinstance(error, TypeError | LookupError | AttributeError | ValueError | OverflowError):
            raise
        raise UserError(
            f"{what} is not as this program writes it ({type(error).__name__}: {reason_of(error)}); "
            "put a copy of its storage in its place, or begin anew with another --study-name"
        ) from error


def expected(value: Any, *kinds: type[Value]) -> Value:
    """The value, if it is of one of these kinds, as JSON gives them. Raises TypeError otherwise.

    A text must be printable, or what is said of a study could steer the terminal; else ValueError.
    """
    if type(value) not in kinds:
        raise TypeError(f"{value!r} is no {' or '.join(kind.__name__ for kind in kinds)}")
    if isinstance(value, str) and not value.isprintable():
        raise ValueError(f"{value!r} is not printable")
    return value  # type: ignore[no-any-return]  # it is one of them


def own_attributes(trial: FrozenTrial) -> dict[str, Any]:
    """All that a trial keeps, by name."""
    kept = trial.system_attrs.items()
    return {key.removeprefix(PREFIX): value for key, value in kept if key.startswith(PREFIX)}


def as_system_attributes(kept: dict[str, Any]) -> dict[str, Any]:
    """The same for a trial that is yet to be made."""
    return {PREFIX + name: value for name, value in kept.items()}


def set_own_attribute(trial: optuna.Trial, name: str, value: Any) -> None:
    """Keep a value that JSON can hold."""
    trial.storage.set_trial_system_attr(trial_id(trial), PREFIX + name, value)


def own_study_attribute(study: optuna.Study, name: str, default: Any) -> Any:
    """A value that a study keeps."""
    return storage_of(study).get_study_system_attrs(id_of(study)).get(PREFIX + name, default)


def set_own_study_attribute(study: optuna.Study, name: str, value: Any) -> None:
    """Keep a value that JSON can hold."""
    storage_of(study).set_study_system_attr(id_of(study), PREFIX + name, value)
