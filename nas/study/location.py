"""Where a study lives: its name, its storage's URL, the folder of its files.

Passwords in storage URLs are never shown.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import UserError, require

if TYPE_CHECKING:  # torch takes seconds to import, and --help needs none of it
    from sqlalchemy.engine import URL


DATABASE, LOCK = "study.db", "lock"
ARTIFACTS = "artifacts"  # the folder, beside the other files of a study
TRIALS, RUNS, ABLATION = TABLES = ("trials.csv", "final_runs.csv", "ablation.csv")
DEFAULT_OUTPUT = Path("results")
FINAL_RUNS = " (final runs)"  # after its name: the study that holds the runs of a search; see nas.tuner.reruns


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyLocation:
    """Where a study lives: its name, its storage's URL, and the folder of its files."""

    name: str
    storage: str
    folder: Path

    @property
    def public_storage(self) -> str:
        """The URL as it may be shown: without its password, and without the query, which may hold one."""
        return parse_url(self.storage).set(query={}).render_as_string(hide_password=True)

    def weights_path(self, trial: int) -> Path:
        """The averaged weights of a trial after its last epoch."""
        return self.folder / "weights" / f"{trial:05d}.safetensors"

    def run_weights_path(self, run: int) -> Path:
        """The averaged weights of a run after its last epoch."""
        return self.folder / "weights" / f"final-{run:05d}.safetensors"


def locate(name: str, output_dir: Path, storage: str | None) -> StudyLocation:
    """Where a study of this name lives; without a storage URL, in a SQLite file in its folder.

    Raises:
        UserError: a name that is not a plain file name.
    """
    require(isinstance(name, str), "study", "name", name, "text, such as 'demo'")
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


def default_storage() -> str | None:
    """The storage that $OPTUNA_STORAGE names; None for a SQLite file in the study's folder."""
    return os.environ.get("OPTUNA_STORAGE") or None


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


def parse_url(storage: str) -> "URL":
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
    """Whether a storage URL holds a password, or a query, which may hold one."""
    url = parse_url(storage)
    return url.password is not None or bool(url.query)


def sqlite_file(location: StudyLocation) -> Path | None:
    url = parse_url(location.storage)
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:":
        raise UserError(f"storage {location.storage} is kept in memory and would be lost; give one with a file's path")
    return Path(url.database)
