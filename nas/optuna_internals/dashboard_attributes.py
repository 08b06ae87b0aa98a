"""Notes and artifacts as optuna-dashboard and Optuna keep them: among the attributes of studies and trials."""

import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, TypeAlias
from uuid import uuid4

import optuna
from optuna.artifacts import ArtifactMeta, upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound

from nas.optuna_internals.studies import id_of, trial_id
from nas.system.files import write_whole

with warnings.catch_warnings():  # the dashboard's own use of experimental parts of Optuna
    warnings.simplefilter("ignore")
    from optuna_dashboard import save_note

NoteAttributes: TypeAlias = Callable[[str, int], dict[str, str | int]]  # of a study, for a text and a trial's id


def _note_attributes() -> NoteAttributes | None:
    """What the dashboard keeps of the first note of a trial; None where it does not say."""
    try:
        from optuna_dashboard._note import note_ver_key, split_body

        split_body("", 0)[note_ver_key(0)] = ""
    except (ImportError, TypeError):
        return None
    return lambda text, trial: {note_ver_key(trial): 1, **split_body(text, trial)}


def _artifact_prefix() -> str | None:
    """What the names of attributes begin with that tell of artifacts; None where Optuna does not say."""
    try:
        from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX
    except ImportError:
        return None
    return ARTIFACTS_ATTR_PREFIX


NOTE_ATTRIBUTES = _note_attributes()
ARTIFACT_PREFIX = _artifact_prefix()


def save_first_note(trial: optuna.Trial, text: str) -> None:
    """Do what `save_note` does, for a trial without a note; `save_note` would read the notes of all trials first."""
    if NOTE_ATTRIBUTES is None:
        save_note(trial, text)
        return
    for name, value in NOTE_ATTRIBUTES(text, trial_id(trial)).items():
        trial.storage.set_study_system_attr(id_of(trial.study), name, value)


class WholeArtifactStore:
    """A folder of artifacts, one file each, which are written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, artifact_id: str) -> Path:
        """Where an artifact of this name lies. Raises ArtifactNotFound where it would be outside the folder."""
        if Path(artifact_id).name != artifact_id:
            raise ArtifactNotFound(f"{artifact_id!r} names no artifact")
        return self._folder / artifact_id

    def holds(self, artifact_id: str) -> bool:
        """Whether there is such a file."""
        return self.path(artifact_id).exists()

    def open_reader(self, artifact_id: str) -> BinaryIO:
        try:
            return self.path(artifact_id).open("rb")
        except FileNotFoundError as error:
            raise ArtifactNotFound("not found") from error

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        write_whole(self.path(artifact_id), content_body.read())

    def remove(self, artifact_id: str) -> None:
        try:
            self.path(artifact_id).unlink()
        except FileNotFoundError as error:
            raise ArtifactNotFound("not found") from error


def add_artifact(trial: optuna.Trial, store: WholeArtifactStore, name: str, text: str) -> dict[Path, str]:
    """Give a trial a text as an artifact; the file that is yet to be written, if any.

    `upload_artifact` writes it at once, one after the other, and from a file.
    """
    if ARTIFACT_PREFIX is None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / name
            file.write_text(text, encoding="utf-8")
            upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=trial, mimetype="text/plain")
        return {}
    meta = ArtifactMeta(artifact_id=str(uuid4()), filename=name, mimetype="text/plain", encoding=None)
    told = json.dumps(asdict(meta))
    trial.storage.set_trial_system_attr(trial_id(trial), ARTIFACT_PREFIX + meta.artifact_id, told)
    return {store.path(meta.artifact_id): text}
