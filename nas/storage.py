"""Where a study lives, and opening it: one SQLite file in its folder, or any storage that Optuna knows.

Passwords in storage URLs are never shown.
"""

import json
import re
import shlex
import shutil
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import random
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import optuna
from filelock import AcquireReturnProxy, FileLock, Timeout
from optuna.exceptions import ExperimentalWarning, StorageInternalError

from nas.commands import Command, commands, remember
from nas.errors import UserError, without_passwords
from nas.files import reason_of, remove_partial, writable

if TYPE_CHECKING:  # SQLAlchemy takes half the time of --help, which needs none of it
    from sqlalchemy.engine import URL

optuna.logging.set_verbosity(optuna.logging.ERROR)  # what it warns of, it quotes as it stands in the database

DATABASE, LOCK = "study.db", "lock"
ARTIFACTS = "artifacts"  # the folder, beside the other files of a study
TRIALS, RUNS, ABLATION = TABLES = ("trials.csv", "final_runs.csv", "ablation.csv")
DEFAULT_OUTPUT = Path("results")
FINAL_RUNS = " (final runs)"  # after its name: the study that holds the runs of a search; see nas.runs
MAX_COLLISIONS = 10  # of programs that make the tables of one database
PROBE_SECONDS = 1.0  # that a run waits for a lock: `is_being_worked_on` holds it for much less


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyLocation:
    """Where a study lives: its name, its storage's URL, and the folder of its files."""

    name: str
    storage: str
    folder: Path

    @property
    def public_storage(self) -> str:
        """The URL as it may be shown: without its password, and without the query, which may hold one."""
        return _parse(self.storage).set(query={}).render_as_string(hide_password=True)

    def weights_path(self, trial: int) -> Path:
        """The averaged weights of a trial after its last epoch."""
        return self.folder / "weights" / f"{trial:05d}.safetensors"

    def run_weights_path(self, run: int) -> Path:
        """The same of a final run."""
        return self.folder / "weights" / f"final-{run:05d}.safetensors"


def locate(name: str, output_dir: Path, storage: str | None) -> StudyLocation:
    """Where a study of this name lives; without a storage URL, in a SQLite file in its folder.

    Raises:
        UserError: a name that is not a plain file name.
    """
    if name.endswith(FINAL_RUNS):
        raise UserError(f"--study-name {name!r} must not end with {FINAL_RUNS!r}, which names the runs of another")
    if (
        not name
        or name in {".", ".."}
        or any(c in '/\\:*?"<>|' or not c.isprintable() for c in name)
        or len(name) > 100
    ):
        raise UserError(
            f"--study-name {name!r} must be a plain name of at most 100 characters, without path separators"
        )
    folder = output_dir / name
    return StudyLocation(name=name, storage=_sqlite(folder / DATABASE) if storage is None else storage, folder=folder)


def location_options(location: StudyLocation) -> list[str]:
    """The options that say where a study lives, where that is not the default; a password is left out."""
    options: list[str] = []
    if location.folder.parent != DEFAULT_OUTPUT:
        options += ["--output-dir", str(location.folder.parent)]
    if not _is_in_its_folder(location):
        options += ["--storage", location.public_storage]
    return options


@lru_cache  # every trial's note asks
def _is_in_its_folder(location: StudyLocation) -> bool:
    return location.storage == _sqlite(location.folder / DATABASE)


def read_weights(path: Path, title: str) -> bytes:
    """The averaged weights of a training after its last epoch, as safetensors bytes.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{title} has no weights: {path} cannot be read ({error.strerror})") from error


def _sqlite(path: Path) -> str:
    from sqlalchemy.engine import URL

    # written by SQLAlchemy, because a path may hold what means something in a URL, and braces, which Optuna fills in
    return URL.create("sqlite", database=str(path.resolve())).render_as_string()


def _parse(storage: str) -> "URL":
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(storage)
    except (ArgumentError, ValueError) as error:  # the text is not shown: it may hold a password
        raise UserError(
            "--storage (or $OPTUNA_STORAGE) is no database URL; give one such as sqlite:///study.db"
        ) from error
    if "@" in (url.host or ""):
        raise UserError("--storage (or $OPTUNA_STORAGE) has a user or a password with an @; write %40 in its place")
    return url


def has_password(storage: str) -> bool:
    """Whether a storage URL holds one, or a query, which may hold one."""
    url = _parse(storage)
    return url.password is not None or bool(url.query)


def _sqlite_file(location: StudyLocation) -> Path | None:
    url = _parse(location.storage)
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:":
        raise UserError(f"storage {location.storage} is kept in memory and would be lost; give one with a file's path")
    return Path(url.database)


def command_line(module: str, location: StudyLocation) -> str:
    """What was typed, without the passwords that storage URLs may hold; of several, the last one is in use."""
    arguments = (argument.replace(location.storage, location.public_storage) for argument in sys.argv[1:])
    return shlex.join(["python", "-m", module, *map(without_passwords, arguments)])


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
        if _parse(location.storage).host is not None:
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


@contextmanager
def together(study: optuna.Study, ready: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Within it, what is written of a study that this process works on is committed at the end, or by `commit`.

    That is after `ready`; where it raises, nothing is committed.
    """
    from nas.single_writer import SingleWriterStorage

    if isinstance(study._storage, SingleWriterStorage):
        with study._storage.batch(ready):
            yield
    else:
        yield
        ready()


def commit(study: optuna.Study) -> None:
    """Write what is not written yet."""
    from nas.single_writer import SingleWriterStorage

    if isinstance(study._storage, SingleWriterStorage):
        study._storage.flush()


def close(study: optuna.Study) -> None:
    """Let go of the connections to its database; what is done with the study later opens them again."""
    if isinstance(study._storage, optuna.storages._CachedStorage):
        study._storage._backend.engine.dispose()


def _is_made(location: StudyLocation) -> bool:
    """Whether Optuna has made all of its tables; to open a storage earlier would make them a second time."""
    from sqlalchemy import create_engine, inspect, text

    file = _sqlite_file(location)
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
    options = {"connect_args": {"timeout": 60}} if _sqlite_file(location) else {}
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
    from nas.single_writer import SingleWriterStorage

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
                "or say where it is with --output-dir or --storage"
            )
        return optuna.load_study(
            study_name=location.name, storage=SingleWriterStorage(storage) if to_write else storage
        )


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted(old.keys() | new.keys()):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            yield from _differences(before, now, f"{prefix}{key}.")
        elif before != now:
            name = re.sub(r"^parameters\.(.+)\.attributes\.", r"parameter \1: ", f"{prefix}{key}")
            yield f"{name} was {json.dumps(before)} and is {json.dumps(now)}"


def _all_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    plain = list(_differences({**old, "candidates": ""}, {**new, "candidates": ""}))
    if not plain and old.get("candidates") != new.get("candidates"):
        return ["the space's sample makes other candidates of the same parameters"]
    return plain


def _create_or_resume(location: StudyLocation, wanted: dict[str, Any]) -> optuna.Study:
    from nas.single_writer import SingleWriterStorage

    study = optuna.create_study(
        study_name=location.name,
        storage=SingleWriterStorage(_made(location)),
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(),  # never asked: trials come with their parameters
    )
    stored = study.user_attrs.get("settings")
    if stored is None:
        if study.directions != [optuna.study.StudyDirection.MAXIMIZE] or study.get_trials(deepcopy=False):
            raise UserError(
                f"study {location.name!r} in {location.public_storage} was made by another program; "
                "give another --study-name"
            )
        study.set_user_attr("settings", wanted)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # a name in the dashboard's plots, nothing more
            study.set_metric_names(["validation accuracy"])
    elif not isinstance(stored, dict):
        raise UserError(f"study {location.name!r} was made by another program; give another --study-name")
    elif differences := _all_differences(stored, wanted):
        raise UserError(
            f"study {location.name!r} cannot go on with other settings: {'; '.join(differences)}; "
            "use the old ones, or begin anew with another --study-name"
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


def _acquire(lock: Path, location: StudyLocation) -> AcquireReturnProxy[FileLock]:
    """Held until the `with` of it ends; the operating system lets go of it when a run dies."""
    try:
        return FileLock(lock).acquire(timeout=PROBE_SECONDS)
    except Timeout as error:
        raise UserError(_being_worked_on(location)) from error


def _being_worked_on(location: StudyLocation) -> str:
    return f"study {location.name!r} is being worked on by {_owner(location)}; wait for it or stop it"


def _owner(location: StudyLocation) -> str:
    """Who holds the lock, which is whose command came last."""
    with suppress(UserError):  # it has not made the study yet
        study = open_study(location)
        known = commands(study)
        close(study)
        return str(known[-1]) if known else "another run"
    return "another run"


def is_being_worked_on(location: StudyLocation) -> bool:
    """Whether a run is alive that writes the study.

    It tries the locks for a moment, for which a run that is just starting waits.
    """
    try:
        with _locked_in_server(location, 0):
            pass
    except UserError:
        return True
    for lock in _locks(location):
        if lock.exists():
            try:
                FileLock(lock).acquire(timeout=0).lock.release()
            except Timeout:
                return True
            except OSError:  # who may not write there cannot tell
                continue
    return False


@contextmanager
def _locked_in_server(location: StudyLocation, timeout: float = PROBE_SECONDS) -> Iterator[None]:
    """A lock of this study that PostgreSQL holds as long as the connection, for runs on other machines share no folder.

    Raises:
        UserError: another run holds it, for so many seconds: the server takes a moment to notice that one was killed.
    """
    from sqlalchemy import create_engine, text

    url = _parse(location.storage)
    if url.get_backend_name() != "postgresql":
        yield
        return
    if url.get_driver_name().startswith("psycopg"):  # a router may drop a connection on which nothing is said
        url = url.update_query_dict({"keepalives_idle": "30"})
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            ask = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
            deadline = monotonic() + timeout
            while not connection.execute(ask, {"name": f"nas {location.name}"}).scalar():
                if monotonic() > deadline:
                    raise UserError(_being_worked_on(location))
                sleep(0.05)
            yield
    finally:
        engine.dispose()


def _locks(location: StudyLocation) -> list[Path]:
    """Files that a run which writes the study holds: of its folder, and of a SQLite database that lies elsewhere.

    Runs with other output folders may share that database, which may be another study's own one.
    """
    locks, database = [location.folder / LOCK], _sqlite_file(location)
    if database is not None and database.parent.is_dir():
        database = database.resolve()
        own = (database.parent.name, database.name) == (location.name, DATABASE)
        beside = database.with_name(LOCK if own else f"{database.name}-{location.name}.{LOCK}")
        if beside != locks[0].resolve():
            locks.append(beside)
    return locks


@contextmanager
def writing(
    location: StudyLocation, wanted: dict[str, Any] | None, command: Command | None = None
) -> Iterator[optuna.Study]:
    """The study of this name, for the one command that may write it and that it will remember.

    It is made if missing, unless `wanted`, the settings, is None.

    Raises:
        UserError: the folder cannot be written, the storage cannot be used, the study was made with other settings or
            by another program, or another run works on it; a folder made for it is removed again.
    """
    if wanted is None:
        open_study(location)
    with ExitStack() as held:
        with ExitStack() as undo:
            with writable(f"--output-dir {location.folder.parent}: {location.folder}", "give a folder that can"):
                created = [folder for folder in (location.folder, *location.folder.parents) if not folder.exists()]
                for folder in reversed(created):
                    undo.callback(_remove_if_empty, folder)
                location.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(_acquire(location.folder / LOCK, location))
                if created:
                    undo.callback(shutil.rmtree, location.folder)
            with _told_of_storage_errors(location):
                for lock in _locks(location)[1:]:
                    made = not lock.exists()
                    held.enter_context(_acquire(lock, location))
                    if made:  # only now, as another run may have been the first to take it
                        undo.callback(lock.unlink, missing_ok=True)
                held.enter_context(_locked_in_server(location))
                study = open_study(location, to_write=True) if wanted is None else _create_or_resume(location, wanted)
                if command is not None:
                    remember(study, command)
            undo.pop_all()
        held.callback(close, study)
        with _told_of_losses(location):
            remove_partial(location.folder)
            yield study
