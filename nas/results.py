"""The end of a search: the winner's files, and tables of all trials and runs."""

import csv
import io
from pathlib import Path

import optuna
from rich.console import Console

from nas.ablation import ablation_csv, ablations
from nas.choice import Effort, Exam, choose
from nas.data import load_training
from nas.export import MODEL, WEIGHTS, export_winner
from nas.files import write_whole
from nas.finalists import Winner, winner_of
from nas.findings import findings_of
from nas.notes import annotate_runs, annotate_study
from nas.progress import Show
from nas.readers import Dataset
from nas.report import write_report
from nas.runs import RunRecord, run_records
from nas.storage import ABLATION, RUNS, TRIALS, StudyLocation
from nas.study import TrialRecord, records
from nas.summary import summary
from nas.trials import Plan

SUMMARY = "summary.txt"


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


def finish(
    study: optuna.Study,
    location: StudyLocation,
    plan: Plan,
    effort: Effort,
    console: Console,
    show: Show,
) -> Winner | None:
    """Choose, read the test set, write the winner's files, the tables and the report; None without a winner."""
    n_val = len(load_training(plan.dataset).validation)
    write_tables(study, location, n_val)
    exam = Exam(plan.dataset)
    winner = choose(study, location, plan, effort, exam, show)
    annotate_runs(study)
    written = write_tables(study, location, n_val)
    if winner is not None:
        best = location.folder / "best"
        export_winner(study, location, winner, plan.dataset, best)
        text = write_summary(study, location, plan.dataset, winner)
        written = [best / MODEL, best / WEIGHTS, best / SUMMARY, *written]
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    written.append(write_report(study, location, plan.dataset, exam, running=False))
    console.print("written: " + ", ".join(map(str, written)), markup=False, highlight=False, soft_wrap=True)
    return winner


def write_summary(study: optuna.Study, location: StudyLocation, dataset: Dataset, winner: Winner) -> str:
    """Write what was found, into the winner's folder and for the dashboard; the text."""
    found = findings_of(study, location, load_training(dataset))
    text = summary(found, winner)
    write_whole(location.folder / "best" / SUMMARY, text)
    annotate_study(found, location, text)
    return text


def write_anew(study: optuna.Study, location: StudyLocation, dataset: Dataset) -> None:
    """Write the tables, the summary of a winner and the report, as the study now stands."""
    write_tables(study, location, len(load_training(dataset).validation))
    if (winner := winner_of(study)) is not None:
        write_summary(study, location, dataset, winner)
    write_report(study, location, dataset, Exam(dataset), running=False)
