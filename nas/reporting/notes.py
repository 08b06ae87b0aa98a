"""What optuna-dashboard shows beside a trial's numbers: a note, and its files as artifacts.

They are written by those who write the study, so that the dashboard has only to read them.
"""

import csv
import io
import json
import shlex
import warnings
from collections.abc import Iterable
from pathlib import Path

import optuna
from optuna.artifacts import get_all_artifact_meta

from nas.analysis.finalists import Winner, measured_noise
from nas.codegen.card import trial_card
from nas.codegen.proof import MODEL
from nas.codegen.source import model_source
from nas.datasets.dataset import Dataset
from nas.datasets.metrics import ACCURACY, EvaluationSet
from nas.network.architecture import Architecture, names
from nas.network.cost import cost
from nas.optuna_internals.dashboard_attributes import WholeArtifactStore, add_artifact, save_first_note
from nas.optuna_internals.studies import id_of
from nas.optuna_internals.trials import trial_numbered
from nas.reporting.conclusions import verdict
from nas.reporting.figures.costs import accuracy_against
from nas.space.candidate import to_json
from nas.study.curves import Epoch
from nas.study.history import History
from nas.study.location import ARTIFACTS, StudyLocation, location_options
from nas.study.records import Record, TrialRecord
from nas.study.runs import RunRecord, final_study

with warnings.catch_warnings():  # the dashboard's own use of experimental parts of Optuna
    warnings.simplefilter("ignore")
    from optuna_dashboard import get_note, save_note, save_plotly_graph_object


def artifact_store(location: StudyLocation) -> WholeArtifactStore:
    """Where the files of the trials lie; the folder is made if missing."""
    folder = location.folder / ARTIFACTS
    folder.mkdir(exist_ok=True)
    return WholeArtifactStore(folder)


def _address(study: optuna.Study, trial: int) -> str:
    """The address of a trial in the dashboard."""
    return f"/dashboard/studies/{id_of(study)}/trials?numbers={trial}"


def layer_table(architecture: Architecture) -> str:
    """The layers in Markdown."""
    price = cost(architecture)
    lines = ["| layer | output | parameters | MACs | receptive field |", "|---|---|---:|---:|---:|"]
    for name, row in zip(names(architecture), price.rows, strict=True):
        shape = "×".join(map(str, row.output_shape))
        lines.append(f"| {name} | {shape} | {row.params:,} | {row.macs:,} | {row.receptive_field} |")
    return "\n".join(lines)


def _ended(record: Record) -> str:
    """How far a training came, and why it went no further."""
    epochs = record.candidate.recipe.epochs
    if record.val_accuracy is None:
        return record.reason or f"trained for {record.epochs} of {epochs} epochs"
    said = f"**{ACCURACY.shown(record.val_accuracy)}** of the validation images (loss {record.val_loss:.4f})"
    said += f" after epoch {record.epochs} of {epochs}"
    return f"{said}: {record.reason}" if record.reason else said


def trial_note(study: optuna.Study, location: StudyLocation, record: TrialRecord) -> str:
    """A trial in Markdown: the network, how it ended, its layers, and what to do with it."""
    options = ["--study-name", location.name, "--trial", str(record.number), *location_options(location)]
    commands = [shlex.join(["python", "-m", f"nas.{what}", *options]) for what in COMMANDS]
    table = layer_table(record.candidate.architecture)
    return (
        f"`{record.notation}`\n\n{_ended(record)}.\n\n{table}\n\n"
        f"{record.params:,} parameters, {record.macs:,} MACs; seed {record.seed}. {record.ledger.rejected:,} proposals "
        f"were rejected before it. [All trials](/dashboard/studies/{id_of(study)}/trialTable)\n\n"
        + "\n".join(f"    {command}" for command in commands)
    )


COMMANDS = ("export", "retrain", "noise", "ablate")


def _curve_csv(curve: Iterable[Epoch]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fields = ("epoch", "train_loss", "val_loss", "val_accuracy", "seconds")
    writer.writerow(fields)
    writer.writerows([getattr(epoch, name) for name in fields] for epoch in curve)
    return text.getvalue()


def annotate_trial(
    study: optuna.Study, location: StudyLocation, dataset: Dataset, trial: optuna.Trial, record: TrialRecord
) -> dict[Path, str]:
    """Give a trial its note, and declare its artifacts; their texts are to be written before the study is told its end.

    Artifacts that the trial has from a run that was killed at this point are not written again.
    """
    save_first_note(trial, trial_note(study, location, record))
    pretty = json.dumps(json.loads(to_json(record.candidate)), indent=2)
    files = {"architecture.json": pretty, "curve.csv": _curve_csv(record.curve)}
    if record.val_accuracy is not None:
        files[MODEL] = model_source(record.candidate.architecture, trial_card(location, record, dataset, None))
    store = artifact_store(location)
    known = {a.filename for a in get_all_artifact_meta(trial) if store.holds(a.artifact_id)}
    missing = {file: text for file, text in files.items() if file not in known}
    return {path: t for name, text in missing.items() for path, t in add_artifact(trial, store, name, text).items()}


def run_note(study: optuna.Study, record: RunRecord) -> str:
    """A final run in Markdown, with the way to the trial whose network it trains."""
    said = f"`{record.notation}`\n\n{record.title[0].upper()}{record.title[1:]}: {_ended(record)}."
    if record.test is not None:
        said += f" **{ACCURACY.shown(record.test.accuracy)}** of {record.test.n:,} test images."
    if record.trial is not None:
        said += f"\n\n[Trial {record.trial} in the search]({_address(study, record.trial)})"
    return f"{said}\n\n{layer_table(record.candidate.architecture)}"


def annotate_runs(study: optuna.Study, history: History) -> None:
    """Give every run that has ended its note."""
    ended = [run for run in history.runs if run.state.is_finished()]
    if ended:
        runs = final_study(study)
        for run in ended:
            _save_note(trial_numbered(runs, run.number), run_note(study, run))


def _save_note(noted: optuna.Trial | optuna.Study, note: str) -> None:
    """Give a trial or a study this note, unless it has it already."""
    if get_note(noted) != note:
        save_note(noted, note)


def annotate_study(
    study: optuna.Study, location: StudyLocation, history: History, winner: Winner, text: str, validation: EvaluationSet
) -> None:
    """Give a study its summary as the note, and the plot of accuracy against parameters; and the finalists their part.

    The dashboard calls the trial of the lowest loss the best one; its note says what became of it.
    """
    fates = _fates(history, winner)
    for record in history.trials:
        if record.number in fates:
            note = f"{fates[record.number]}\n\n{trial_note(study, location, record)}"
            _save_note(trial_numbered(study, record.number), note)
    _save_note(study, _study_note(study, history, winner, text, validation))
    figure = accuracy_against(history, winner, validation, "params")
    save_plotly_graph_object(study, figure, graph_object_id="accuracy-against-parameters")


def _fates(history: History, winner: Winner) -> dict[int | None, str]:
    """What became of the trials that were chosen, now or before."""
    chosen = {run.trial for run in history.runs_of("final")}
    fates = dict.fromkeys(chosen, "Chosen before, and not any more.")
    for finalist in winner.finalists:
        fates[finalist.record.number] = (
            f"A finalist: {finalist.rerun} of the validation images, n = {finalist.rerun.n}."
        )
    fates[winner.record.number] = f"**The winner**: {winner.test} of the test images, n = {winner.test.n}."
    return fates


def _study_note(study: optuna.Study, history: History, winner: Winner, text: str, validation: EvaluationSet) -> str:
    """The winner, the way to the final runs, and the summary."""
    number = winner.record.number
    lines = [
        f"**[Trial {number}]({_address(study, number)}) is the winner**: {winner.test} of the test images, "
        f"n = {winner.test.n}. {verdict(winner, measured_noise(history.runs, validation), history.task.target)}"
    ]
    if history.runs:
        lines.append(f"[The final runs](/dashboard/studies/{id_of(final_study(study))})")
    lines.append("\n".join(f"    {line}" for line in text.splitlines()))
    return "\n\n".join(lines)
