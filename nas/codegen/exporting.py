"""Writing a trained network as source code and weights. The files appear only after their proof."""

import tempfile
from pathlib import Path

from nas.analysis.finalists import Winner
from nas.codegen.card import ModelCard, trial_card, winner_card
from nas.codegen.proof import MODEL, WEIGHTS, prove
from nas.codegen.source import model_source
from nas.datasets.dataset import Dataset
from nas.network.architecture import Architecture
from nas.network.limits import Constraints
from nas.study.history import History
from nas.study.location import StudyLocation, read_weights
from nas.study.records import TrialRecord
from nas.system.files import PARTIAL, write_whole


def export(folder: Path, architecture: Architecture, weights: bytes, card: ModelCard, constraints: Constraints) -> None:
    """Prove model.py and weights.safetensors in a draft folder, then write them into `folder`.

    `weights` are the safetensors bytes of the state of `nas.network.module.build(architecture)`.

    Raises:
        UserError: the weights do not fit.
        ExportError: as `prove` does.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", suffix=PARTIAL) as name:
        draft = Path(name)
        (draft / MODEL).write_text(model_source(architecture, card), encoding="utf-8", newline="\n")
        (draft / WEIGHTS).write_bytes(weights)
        prove(draft, architecture, weights, card, constraints)
        folder.mkdir(exist_ok=True)
        for file in (WEIGHTS, MODEL):
            write_whole(folder / file, (draft / file).read_bytes())


def export_trial(history: History, location: StudyLocation, trial: TrialRecord, dataset: Dataset, folder: Path) -> None:
    """Write a trial's network; the file states its test score where the test images were read for it.

    Raises:
        UserError: the trial has no weights.
        ExportError: as `prove` does.
    """
    card = trial_card(location, trial, dataset, history.test_scores.get(trial.number))
    weights = read_weights(location.weights_path(trial.number), trial.title)
    export(folder, trial.candidate.architecture, weights, card, history.constraints)


def export_winner(history: History, location: StudyLocation, winner: Winner, dataset: Dataset, folder: Path) -> None:
    """Write the winner's first final model, or its trial's network where there are no final models.

    Raises:
        UserError, ExportError: as `export_trial` does.
    """
    trial = winner.record
    if not winner.models:
        export_trial(history, location, trial, dataset, folder)
        return
    first = winner.models[0]
    weights = read_weights(location.run_weights_path(first.number), first.title)
    card = winner_card(location, winner, dataset)
    export(folder, trial.candidate.architecture, weights, card, history.constraints)
