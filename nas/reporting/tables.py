"""Tables of all trials, runs and ablations of a study, as CSV files."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from nas.analysis.ablation import ablation_csv, ablations
from nas.study.history import History
from nas.study.location import ABLATION, RUNS, TRIALS, StudyLocation
from nas.study.records import TrialRecord
from nas.study.runs import RunRecord
from nas.system.files import write_whole


def trials_csv(trials: Sequence[TrialRecord]) -> str:
    """One row a trial, as CSV: what it was, how it ended, and its parameters as they were suggested."""
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


def runs_csv(runs: Sequence[RunRecord]) -> str:
    """One row a run outside the search, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["number", "stage", "trial", "state", "epochs", "val_accuracy", "val_loss", "test_accuracy", "test_loss"]
    writer.writerow([*names, "params", "macs", "seed", "precision", "seconds", "reason", "notation", "change"])
    for r in runs:
        test = (r.test.accuracy, r.test.loss) if r.test else (None, None)
        values = [r.number, r.stage, r.trial, r.state.name, r.epochs, r.val_accuracy, r.val_loss, *test]
        writer.writerow([*values, r.params, r.macs, r.seed, r.precision, r.seconds, r.reason, r.notation, r.change])
    return text.getvalue()


def write_tables(history: History, location: StudyLocation, n_val: int) -> list[Path]:
    """Write every trial and, where there are any, every run and what ablations have found; the files.

    The runs of ablations were judged on `n_val` validation images.
    """
    tables = {TRIALS: trials_csv(history.trials)}
    if history.runs:
        tables[RUNS] = runs_csv(history.runs)
    if found := ablations(history, n_val):
        tables[ABLATION] = ablation_csv(found)
    for name, text in tables.items():
        write_whole(location.folder / name, text)
    return [location.folder / name for name in tables]
