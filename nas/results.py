"""The end of a search: the winner, its one reading of the test set, its files, and a table of all trials."""

import csv
import io
import math
import platform
from dataclasses import dataclass
from pathlib import Path

import optuna
import safetensors.torch
import torch
import torchinfo
from optuna.trial import TrialState
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import nas
from nas.cost import cost
from nas.data import TrainingData, load_test, load_training
from nas.errors import UserError
from nas.export import MODEL, WEIGHTS, export
from nas.files import write_whole
from nas.model_source import ModelCard
from nas.network import build
from nas.readers import Dataset
from nas.space import SearchSpace
from nas.study import StudyLocation, TrialRecord, constraints_of, ranked, records, total_ledger
from nas.training import Score, evaluate

SUMMARY = "summary.txt"
TRIALS = "trials.csv"
WINNER = "winner"  # the study's user attribute: which trial the test set was read for, and what it said
SUMMARY_WIDTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """The best trial and its score on the test images."""

    record: TrialRecord
    test: Score


def versions() -> str:
    """The versions that numbers depend on."""
    python = platform.python_version()
    return f"nas {nas.__version__}, torch {torch.__version__}, optuna {optuna.__version__}, Python {python}"


def _weights(location: StudyLocation, trial: TrialRecord) -> bytes:
    path = location.weights_path(trial.number)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"trial {trial.number} has no weights: {path} cannot be read ({error.strerror})") from error


def _read_test_set(location: StudyLocation, trial: TrialRecord, dataset: Dataset, data: TrainingData) -> Score:
    network = build(trial.candidate.architecture)
    network.load_state_dict(safetensors.torch.load(_weights(location, trial)))
    torch.set_num_threads(1)
    return evaluate(network, load_test(dataset), data, torch.device("cpu"))


def choose(study: optuna.Study, location: StudyLocation, dataset: Dataset) -> Winner | None:
    """The best trial that was trained to the end; the test set is opened for it, once in the study's life.

    None when no trial was trained to the end.
    """
    best = next(iter(ranked(records(study))), None)
    if best is None:
        return None
    stored = study.user_attrs.get(WINNER)
    if stored is None or stored["trial"] != best.number:
        score = _read_test_set(location, best, dataset, load_training(dataset))
        stored = {"trial": best.number, "test_loss": score.loss, "test_accuracy": score.accuracy, "test_n": score.n}
        study.set_user_attr(WINNER, stored)
    score = Score(loss=stored["test_loss"], accuracy=stored["test_accuracy"], n=stored["test_n"])
    return Winner(record=best, test=score)


def export_trial(
    study: optuna.Study, location: StudyLocation, trial: TrialRecord, dataset: Dataset, folder: Path
) -> None:
    """Write a trial's source file and weights, proven; the test score only where the study has it.

    Raises:
        UserError: the trial has no weights.
    """
    data = load_training(dataset)
    tested = study.user_attrs.get(WINNER)
    if tested is not None and tested["trial"] != trial.number:
        tested = None
    assert trial.val_accuracy is not None
    card = ModelCard(
        study=location.name,
        trial=trial.number,
        dataset=dataset.name,
        seed=trial.seed,
        epochs=trial.epochs,
        recipe=trial.candidate.recipe,
        val_accuracy=trial.val_accuracy,
        n_val=len(data.validation),
        test_accuracy=tested["test_accuracy"] if tested else None,
        n_test=tested["test_n"] if tested else None,
        mean=data.mean,
        std=data.std,
        classes=data.classes,
        versions=versions(),
    )
    export(folder, trial.candidate.architecture, _weights(location, trial), card, constraints_of(study))


def trials_csv(trials: list[TrialRecord]) -> str:
    """One row a trial: what it was, how it ended, and its parameters as they were suggested."""
    names = sorted({name for trial in trials for name in trial.suggestions})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fixed = ["number", "state", "epochs", "val_accuracy", "val_loss", "params", "macs", "receptive_field"]
    writer.writerow([*fixed, "seed", "rejected_before", "seconds", "reason", "notation", *names])
    for t in trials:
        values = [t.number, t.state.name, t.epochs, t.val_accuracy, t.val_loss, t.params, t.macs, t.receptive_field]
        values += [t.seed, t.rejected_before, t.seconds, t.reason, t.notation]
        writer.writerow([*values, *(t.suggestions.get(name) for name in names)])
    return text.getvalue()


def _comparison(winner: TrialRecord, space: SearchSpace) -> Table:
    """The winner's costs beside those of the network to beat and the limits."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("", "winner", *(["network to beat"] if space.baseline else []), "limit"):
        table.add_column(column, justify="right" if column else "left")
    limits = space.constraints
    baseline = cost(space.baseline) if space.baseline else None
    ours = cost(winner.candidate.architecture)
    field = f"at least {limits.min_receptive_field}" if limits.min_receptive_field else "–"

    def row(label: str, name: str, limit: str) -> None:
        values = [f"{getattr(price, name):,}" for price in (ours, baseline) if price is not None]
        table.add_row(label, *values, limit)

    def maximum(limit: int | None) -> str:
        return "–" if limit is None else f"{limit:,}"

    row("parameters", "params", maximum(limits.max_params))
    row("MACs", "macs", maximum(limits.max_macs))
    row("peak activation bytes", "peak_activation_bytes", maximum(limits.max_activation_bytes))
    row("receptive field", "receptive_field", field)
    row("fully connected layers", "linear_layers", "0" if "linear" in limits.forbid else "–")
    return table


def verdict(test: Score, target: float | None) -> str:
    """Whether one run reached the target, and how sure that is (binomial standard error of one score)."""
    if target is None:
        return "No target was set."
    error = math.sqrt(test.accuracy * (1 - test.accuracy) / test.n)
    distance = f"{abs(test.accuracy - target) / error:.1f} standard errors" if error else "no standard error to be had"
    side = "reached" if test.accuracy >= target else "missed"
    place = "above" if test.accuracy >= target else "below"
    return f"Target {target:.2%}: {side} in this one run (n = 1), {distance} {place} it."


def summary(study: optuna.Study, location: StudyLocation, winner: Winner, space: SearchSpace, n_val: int) -> str:
    """What was found, in plain text, with torchinfo's table of the winner."""
    trials, ledger, best = records(study), total_ledger(study), winner.record
    trained = [trial for trial in trials if trial.trained]
    stopped = sum(trial.state is TrialState.PRUNED for trial in trained)
    epochs = sum(trial.epochs for trial in trained)
    console = Console(file=io.StringIO(), width=SUMMARY_WIDTH, color_system=None, record=True)
    console.print(
        f"Study {location.name!r}: {len(trained)} networks trained, {stopped} of them stopped early; {epochs} epochs; "
        f"{ledger.rejected:,} of {ledger.proposals:,} proposals rejected before training.\n",
        markup=False,
        highlight=False,
    )
    console.print(f"Winner: trial {best.number}, {escape(best.notation)}", highlight=False)
    console.print(_comparison(best, space))
    console.print(
        f"Validation accuracy {best.val_accuracy:.2%} ({n_val:,} images, epoch {best.epochs} of "
        f"{best.candidate.recipe.epochs}, seed {best.seed}); it chose the winner, so it flatters.\n"
        f"Test accuracy {winner.test.accuracy:.2%} ({winner.test.n:,} images, read once, after the choice).\n"
        f"{verdict(winner.test, space.target)}\n",
        highlight=False,
    )
    architecture = best.candidate.architecture
    columns = ("output_size", "num_params", "kernel_size", "mult_adds")
    table = torchinfo.summary(
        build(architecture), input_size=(1, *architecture.input_shape), verbose=0, col_names=columns
    )
    console.print(f"{table}\n{versions()}", markup=False, highlight=False)
    return console.export_text()


def finish(
    study: optuna.Study, location: StudyLocation, space: SearchSpace, dataset: Dataset, console: Console
) -> Winner | None:
    """Choose, read the test set, export, and write the tables; None when nothing was trained to the end."""
    write_whole(location.folder / TRIALS, trials_csv(records(study)))
    winner = choose(study, location, dataset)
    if winner is None:
        return None
    best = location.folder / "best"
    export_trial(study, location, winner.record, dataset, best)
    text = summary(study, location, winner, space, len(load_training(dataset).validation))
    write_whole(best / SUMMARY, text)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    written = [best / MODEL, best / WEIGHTS, best / SUMMARY, location.folder / TRIALS]
    console.print("written: " + ", ".join(map(str, written)), markup=False, highlight=False, soft_wrap=True)
    return winner
