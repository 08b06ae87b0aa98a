"""Opening a study, to be read or as its one writer, in one SQLite file or in any storage that Optuna knows."""

import shutil
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from random import random
from time import sleep
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError

from nas.errors import UserError, did_you_mean
from nas.optuna_internals.batched_storage import close, for_writer
from nas.optuna_internals.studies import StoredStudy, new_study
from nas.space.objective import LOSS_FIRST
from nas.study.commands import Command, commands, remember
from nas.study.location import DATABASE, FINAL_RUNS, LOCK, StudyLocation, parse_url, sqlite_file
from nas.study.locks import HeldError, acquire, lock_files, locked_in_server
from nas.study.settings import difference
from nas.system.files import reason_of, remove_partial, writable

optuna.logging.set_verbosity(optuna.logging.ERROR)  # what it warns of, it quotes as it stands in the database
MAX_COLLISIONS = 10  # of programs that make the tables of one database


@contextmanager
def _told_of_storage_errors(location: StudyLocation) -> Iterator[None]:
    from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

    shown = location.public_storage
    try:
        yield
    except (ImportError, NoSuchModuleError) as error:
        raise UserError(
            f"storage {shown}: no driver for it is installed ({error.__cause__ or error}); "
            "install one, or give a URL such as sqlite:///study.db to --storage"
        ) from error
    except UserError:
        raise
    except (SQLAlchemyError, StorageInternalError, OSError, RuntimeError, ValueError, LookupError) as error:
        way_out = "give a URL such as sqlite:///study.db to --storage"
        if parse_url(location.storage).host is not None:
            way_out = "give the same command again once its server answers"
        raise UserError(f"storage {shown} cannot be used ({reason_of(error)}); {way_out}") from error


def _is_missed(file: Path, location: StudyLocation) -> bool:
    """Whether a study's own database must have been there: weights beside one elsewhere may be of another storage."""
    weights = location.folder / "weights"
    return file.resolve() == (location.folder / DATABASE).resolve() and weights.is_dir() and any(weights.iterdir())


def _require_whole(file: Path, location: StudyLocation) -> None:
    """Raise UserError if a database is damaged, before anything is written into it."""
    if not file.exists():
        found = "it is missing, but in its place lie the weights of a study, whose --storage may be another"
    elif not file.stat().st_size and (location.folder / "weights").exists():
        found = "it is empty, but beside it lie the weights of a study"
    else:
        try:
            with closing(sqlite3.connect(file)) as database:
                (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError:  # it cannot be opened: SQLAlchemy will say so
            return
        except sqlite3.DatabaseError as error:
            found = str(error)
    if found != "ok":
        raise UserError(
            f"storage {location.public_storage} is damaged ({' '.join(found.split())}) and left as it is; "
            "put a copy in its place, or begin anew with another --study-name"
        )


def _is_made(location: StudyLocation) -> bool:
    """Whether Optuna has made all of its tables; to open a storage earlier would make them a second time."""
    from sqlalchemy import create_engine, inspect, text

    file = sqlite_file(location)
    if file is not None:
        if not file.exists() and not _is_missed(file, location):
            return False
        _require_whole(file, location)
    engine = create_engine(location.storage)
    try:
        with engine.connect() as connection:
            known = inspect(connection).has_table("alembic_version")  # the last one, and its row the last step
            return known and connection.execute(text("SELECT count(*) FROM alembic_version")).scalar() == 1
    finally:
        engine.dispose()


def _opened(location: StudyLocation) -> optuna.storages.RDBStorage:
    """A storage that is whole; its tables are made where there are none."""
    # A dashboard that reads makes a writer wait; it gives up after a minute, not after SQLite's five seconds.
    options = {"connect_args": {"timeout": 60}} if sqlite_file(location) else {}
    return optuna.storages.RDBStorage(location.storage, engine_kwargs=options)


def _made(location: StudyLocation) -> optuna.storages.RDBStorage:
    """A storage, new or not; other programs may be making the tables of the same one at this moment."""
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    for _ in range(0 if _is_made(location) else MAX_COLLISIONS):
        with suppress(SQLAlchemyError):
            optuna.storages.RDBStorage(location.storage, engine_kwargs={"poolclass": NullPool})
            break
        sleep(random() / MAX_COLLISIONS)
    return _opened(location)


def open_study(location: StudyLocation, *, to_write: bool = False) -> optuna.Study:
    """A study that exists, to be read, or by the only one who may, to be written.

    Raises:
        UserError: there is no such study, or the storage cannot be opened.
    """
    with _told_of_storage_errors(location):
        storage = _opened(location) if _is_made(location) else None
        names = [] if storage is None else optuna.get_all_study_names(storage)
        if storage is None or location.name not in names:
            shown = [name for name in names if not name.endswith(FINAL_RUNS)]
            known = f"; known are {', '.join(shown)}" if shown else ""
            if storage is not None:
                storage.engine.dispose()
            raise UserError(
                f"there is no study {location.name!r} in {location.public_storage}{known}; run a search first, "
                f"or say where it is with --output-dir or --storage{_meant(location, shown)}"
            )
        return StoredStudy(location.name, for_writer(storage) if to_write else storage)


def _meant(location: StudyLocation, names: list[str]) -> str:
    """The study that a wrong name looks like, of this storage or this output folder."""
    beside = [file.parent.name for file in location.folder.parent.glob(f"*/{DATABASE}")]
    return did_you_mean(location.name, {*names, *beside} - {location.name})


def study_names(location: StudyLocation) -> list[str]:
    """The names of the studies in a storage, those of final runs among them; of a database not yet made, none.

    Raises:
        UserError: the storage cannot be opened.
    """
    with _told_of_storage_errors(location):
        if not _is_made(location):
            return []
        storage = _opened(location)
        try:
            return sorted(optuna.get_all_study_names(storage))
        finally:
            storage.engine.dispose()


def _create_or_resume(location: StudyLocation, wanted: dict[str, Any]) -> optuna.Study:
    study = new_study(location.name, for_writer(_made(location)), direction=LOSS_FIRST.direction)
    stored = study.user_attrs.get("settings")
    if stored is None:
        directions = [direction.name.lower() for direction in study.directions]
        if directions != [LOSS_FIRST.direction] or study.get_trials(deepcopy=False):
            raise UserError(
                f"study {location.name!r} in {location.public_storage} was made by another program; "
                "give another --study-name"
            )
        study.set_user_attr("settings", wanted)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # a name in the dashboard's plots, nothing more
            study.set_metric_names([LOSS_FIRST.name])
    elif not isinstance(stored, dict):
        raise UserError(f"study {location.name!r} was made by another program; give another --study-name")
    elif found := difference(stored, wanted):
        raise UserError(
            f"study {location.name!r} cannot go on with other settings: {found}, "
            "or begin anew with another --study-name"
        )
    return study


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def _told_of_losses(location: StudyLocation) -> Iterator[None]:
    """Turns a disk or a database that fails a command at work into a UserError."""
    from sqlalchemy.exc import SQLAlchemyError

    way_out = "what is finished is safe; mend that and give the same command again"
    try:
        with writable(str(location.folder), way_out):
            yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise UserError(
            f"storage {location.public_storage} cannot be written ({reason_of(error)}); {way_out}"
        ) from error


class BusyError(UserError):
    """Another run works on the study."""


@contextmanager
def _told_of_holders(location: StudyLocation) -> Iterator[None]:
    """Says who holds a lock of the study."""
    try:
        yield
    except HeldError as error:
        raise BusyError(
            f"study {location.name!r} is being worked on by {_owner(location)}; wait for it or stop it"
        ) from error


def _owner(location: StudyLocation) -> str:
    """Who holds the lock, which is whose command came last."""
    with suppress(UserError):  # it has not made the study yet
        study = open_study(location)
        known = commands(study)
        close(study)
        return str(known[-1]) if known else "another run"
    return "another run"


@contextmanager
def writing(
    location: StudyLocation, wanted: dict[str, Any] | None, command: Command | None = None
) -> Iterator[optuna.Study]:
    """The study of this name, for the one command that may write it and that it will remember.

    It is made if missing, unless `wanted`, the settings, is None.

    Raises:
        BusyError: another run works on it.
        UserError: the folder cannot be written, the storage cannot be used, or the study was made with other settings
            or by another program; a folder made for it is removed again.
    """
    if wanted is None:
        close(open_study(location))
    with ExitStack() as held:
        with _told_of_holders(location), ExitStack() as undo:
            with writable(f"--output-dir {location.folder.parent}: {location.folder}", "give a folder that can"):
                created = [folder for folder in (location.folder, *location.folder.parents) if not folder.exists()]
                for folder in reversed(created):
                    undo.callback(_remove_if_empty, folder)
                location.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(acquire(location.folder / LOCK))
                if created:
                    undo.callback(shutil.rmtree, location.folder)
            with _told_of_storage_errors(location):
                for lock in lock_files(location)[1:]:
                    made = not lock.exists()
                    held.enter_context(acquire(lock))
                    if made:  # only now, as another run may have been the first to take it
                        undo.callback(lock.unlink, missing_ok=True)
                held.enter_context(locked_in_server(location))
                study = open_study(location, to_write=True) if wanted is None else _create_or_resume(location, wanted)
                if command is not None:
                    remember(study, command)
            undo.pop_all()
        held.callback(close, study)
        with _told_of_losses(location):
            remove_partial(location.folder)
            yield study
