"""Writing a trained network as source code and weights, proven before they appear."""

import tempfile
from pathlib import Path

import optuna

from nas.analysis.finalists import Winner
from nas.codegen.card import ModelCard, trial_card, winner_card
from nas.codegen.proof import MODEL, WEIGHTS, ExportError, in_fresh_process, own_check, trained_scores, written_scores
from nas.codegen.source import model_source
from nas.data.datasets import Dataset
from nas.network.architecture import Architecture
from nas.network.limits import Constraints
from nas.study.location import StudyLocation, read_weights
from nas.study.records import TrialRecord, scores_on_test
from nas.study.settings import constraints_of
from nas.system.files import PARTIAL, write_whole


def export(folder: Path, architecture: Architecture, weights: bytes, card: ModelCard, constraints: Constraints) -> None:
    """Write model.py and weights.safetensors into `folder`, each whole, and neither unless the proof succeeds.

    `weights` are the safetensors bytes of the state of `nas.network.module.build(architecture)`.

    Raises:
        UserError: the weights do not fit.
        ExportError: a limit is broken, or the written files are not the trained network.
    """
    expected = trained_scores(architecture, weights, card)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", suffix=PARTIAL) as name:
        draft = Path(name)
        (draft / MODEL).write_text(model_source(architecture, card), encoding="utf-8", newline="\n")
        (draft / WEIGHTS).write_bytes(weights)
        if in_fresh_process(written_scores, draft, architecture, constraints, card.recipe.epochs) != expected:
            raise ExportError(f"{MODEL} gives other class scores than the trained network for the same images, or NaN")
        if complaint := in_fresh_process(own_check, draft):
            raise ExportError(f"{MODEL} does not pass its own check: {complaint}")
        folder.mkdir(exist_ok=True)
        for file in (WEIGHTS, MODEL):
            write_whole(folder / file, (draft / file).read_bytes())


def export_trial(
    study: optuna.Study, location: StudyLocation, trial: TrialRecord, dataset: Dataset, folder: Path
) -> None:
    """Write a trial's source file and weights, proven; with its test score where the test images were read for it.

    Raises:
        UserError: the trial has no weights.
        ExportError: as `export` does.
    """
    card = trial_card(location, trial, dataset, scores_on_test(study).get(trial.number))
    weights = read_weights(location.weights_path(trial.number), trial.title)
    export(folder, trial.candidate.architecture, weights, card, constraints_of(study))


def export_winner(study: optuna.Study, location: StudyLocation, winner: Winner, dataset: Dataset, folder: Path) -> None:
    """Write the winner's source file and the weights of the first of its final models, or its own without any.

    Raises:
        UserError, ExportError: as `export_trial` does.
    """
    trial = winner.record
    if not winner.models:
        export_trial(study, location, trial, dataset, folder)
        return
    first = winner.models[0]
    weights = read_weights(location.run_weights_path(first.number), first.title)
    card = winner_card(location, winner, dataset)
    export(folder, trial.candidate.architecture, weights, card, constraints_of(study))
