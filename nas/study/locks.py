"""One writer at a time: the locks of a study."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from filelock import AcquireReturnProxy, FileLock, Timeout

from nas.study.location import DATABASE, LOCK, StudyLocation, parse_url, sqlite_file

PROBE_SECONDS = 1.0  # that a run waits for a lock: `is_being_worked_on` holds it for much less


class HeldError(Exception):
    """Another run holds the lock."""


def acquire(lock: Path) -> AcquireReturnProxy[FileLock]:
    """Take a lock, which is held until its `with` ends; when a run dies, the operating system lets go of it.

    Raises:
        HeldError: another run holds it.
    """
    try:
        return FileLock(lock).acquire(timeout=PROBE_SECONDS)
    except Timeout as error:
        raise HeldError from error


def is_being_worked_on(location: StudyLocation) -> bool:
    """Whether a run is alive that writes the study.

    The locks are held for a moment to find out; a run that is just starting waits that long.
    """
    try:
        with locked_in_server(location, 0):
            pass
    except HeldError:
        return True
    for lock in lock_files(location):
        if lock.exists():
            try:
                FileLock(lock).acquire(timeout=0).lock.release()
            except Timeout:
                return True
            except OSError:  # who may not write there cannot tell
                continue
    return False


@contextmanager
def locked_in_server(location: StudyLocation, timeout: float = PROBE_SECONDS) -> Iterator[None]:
    """Take a lock of this study in PostgreSQL, as runs on other machines share no folder; it ends with the connection.

    Raises:
        HeldError: another run holds it, for so many seconds: the server takes a moment to notice that one was killed.
    """
    from sqlalchemy import create_engine, text

    url = parse_url(location.storage)
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
                    raise HeldError
                sleep(0.05)
            yield
    finally:
        engine.dispose()


def lock_files(location: StudyLocation) -> list[Path]:
    """The files that a run locks while it writes the study: in its folder, and beside a SQLite database elsewhere.

    Runs with other output folders may share that database, which may be another study's own one.
    """
    locks, database = [location.folder / LOCK], sqlite_file(location)
    if database is not None and database.parent.is_dir():
        database = database.resolve()
        own = (database.parent.name, database.name) == (location.name, DATABASE)
        beside = database.with_name(LOCK if own else f"{database.name}-{location.name}.{LOCK}")
        if beside != locks[0].resolve():
            locks.append(beside)
    return locks
