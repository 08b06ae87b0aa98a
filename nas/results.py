"""The end of a search: the winner, its one reading of the test set, its files, and a table of all trials."""

import csv
import io
import math
from dataclasses import dataclass

import optuna
import safetensors.torch
import torch
import torchinfo
from optuna.trial import TrialState
from rich import box
from rich.console import Console
from rich.table import Table

from nas.console import duration
from nas.cost import cost
from nas.data import load_test, load_training
from nas.export import MODEL, WEIGHTS, export_trial, trial_weights, versions
from nas.files import write_whole
from nas.network import build
from nas.readers import Dataset
from nas.space import SearchSpace
from nas.storage import StudyLocation
from nas.study import FinalScore, TrialRecord, add_test_score, ranked, records, scores_on_test, total_ledger
from nas.training import evaluate

SUMMARY = "summary.txt"
TRIALS = "trials.csv"
SUMMARY_WIDTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """The best trial and its score on the test images."""

    record: TrialRecord
    test: FinalScore


def _read_test_set(location: StudyLocation, trial: TrialRecord, dataset: Dataset) -> FinalScore:
    network = build(trial.candidate.architecture)
    network.load_state_dict(safetensors.torch.load(trial_weights(location, trial)))
    score = evaluate(network, load_test(dataset), load_training(dataset), torch.device("cpu"))
    return FinalScore(trial=trial.number, loss=score.loss, accuracy=score.accuracy, n=score.n)


def choose(study: optuna.Study, location: StudyLocation, dataset: Dataset) -> Winner | None:
    """The best trial that was trained to the end, and its score on the test images, which are read for it once.

    They are read again only when a longer search has found a better trial; the study keeps every reading. None when no
    trial was trained to the end.
    """
    best = next(iter(ranked(records(study))), None)
    if best is None:
        return None
    test = scores_on_test(study).get(best.number)
    if test is None:
        test = _read_test_set(location, best, dataset)
        add_test_score(study, test)
    return Winner(record=best, test=test)


def trials_csv(trials: list[TrialRecord]) -> str:
    """One row a trial: what it was, how it ended, and its parameters as they were suggested."""
    names = sorted({name for trial in trials for name in trial.suggestions})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fixed = ["number", "state", "epochs", "val_accuracy", "val_loss", "params", "macs", "receptive_field"]
    writer.writerow([*fixed, "seed", "precision", "rejected_before", "seconds", "reason", "notation", *names])
    for t in trials:
        values = [t.number, t.state.name, t.epochs, t.val_accuracy, t.val_loss, t.params, t.macs, t.receptive_field]
        values += [t.seed, t.precision, t.ledger.rejected, t.seconds, t.reason, t.notation]
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


def verdict(test: FinalScore, target: float | None) -> str:
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
    ledger, best = total_ledger(study), winner.record
    trained = [trial for trial in records(study) if trial.trained]
    stopped = sum(trial.state is TrialState.PRUNED for trial in trained)
    epochs, seconds = sum(trial.epochs for trial in trained), sum(trial.seconds or 0 for trial in trained)
    readings = list(scores_on_test(study))
    architecture, recipe = best.candidate.architecture, best.candidate.recipe
    shape = (1, *architecture.input_shape)
    columns = ("output_size", "num_params", "mult_adds")  # of a width that a terminal of 100 columns shows whole
    layers = torchinfo.summary(build(architecture), shape, col_names=columns, col_width=17, verbose=0)
    return "\n".join(
        [
            f"Study {location.name!r} on {space.dataset!r}: {len(trained)} networks trained, {stopped} of them stopped",
            f"early; {epochs} epochs, {duration(seconds)} of training on one worker.",
            f"{ledger.rejected:,} of {ledger.proposals:,} proposals rejected before training "
            f"({ledger.acceptance:.1%} accepted).",
            "",
            f"Winner: trial {best.number}, {best.notation}",
            str(layers),
            _plain_text(_comparison(best, space)),
            f"Validation accuracy {best.val_accuracy:.2%} ({n_val:,} images; epoch {best.epochs} of {recipe.epochs}; "
            f"seed {best.seed}; trained in {best.precision}).",
            "It chose the winner, so it flatters.",
            f"Test accuracy {winner.test.accuracy:.2%} ({winner.test.n:,} images, read once, after the choice).",
            *([f"The test images were read before, for trials {readings[:-1]}."] if len(readings) > 1 else []),
            verdict(winner.test, space.target),
            versions(),
            "",
        ]
    )


def _plain_text(table: Table) -> str:
    console = Console(file=io.StringIO(), width=SUMMARY_WIDTH, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


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
