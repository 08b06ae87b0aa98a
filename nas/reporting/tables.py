"""The end of a search: the winner's files, and tables of all trials and runs."""

import csv
import io
from pathlib import Path

import optuna

from nas.analysis.ablation import ablation_csv, ablations
from nas.study.location import ABLATION, RUNS, TRIALS, StudyLocation
from nas.study.records import TrialRecord, records
from nas.study.runs import RunRecord, run_records
from nas.system.files import write_whole


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


def runs_csv(runs: list[RunRecord]) -> str:
    """One row a run outside the search."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["number", "stage", "trial", "state", "epochs", "val_accuracy", "val_loss", "test_accuracy", "test_loss"]
    writer.writerow([*names, "params", "macs", "seed", "precision", "seconds", "reason", "notation", "change"])
    for r in runs:
        test = (r.test.accuracy, r.test.loss) if r.test else (None, None)
        values = [r.number, r.run.stage, r.run.trial, r.state.name, r.epochs, r.val_accuracy, r.val_loss, *test]
        writer.writerow([*values, r.params, r.macs, r.seed, r.precision, r.seconds, r.reason, r.notation, r.run.change])
    return text.getvalue()


def write_tables(study: optuna.Study, location: StudyLocation, n_val: int) -> list[Path]:
    """Every trial and, where there are any, every final run and what ablations have found; the files."""
    write_whole(location.folder / TRIALS, trials_csv(records(study)))
    runs = run_records(study)
    if not runs:
        return [location.folder / TRIALS]
    write_whole(location.folder / RUNS, runs_csv(runs))
    found = ablations(study, n_val)
    if not found:
        return [location.folder / TRIALS, location.folder / RUNS]
    write_whole(location.folder / ABLATION, ablation_csv(found))
    return [location.folder / TRIALS, location.folder / RUNS, location.folder / ABLATION]
