"""What the commands share that train networks of a study again, outside its search."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import optuna
from rich.console import Console

from nas.analysis.finalists import Winner, winner_of
from nas.cli.live_view import follow
from nas.cli.options import existing_location, fleet_of
from nas.cli.terminal import command_line, resumable
from nas.codegen.exporting import export_winner
from nas.codegen.proof import MODEL, WEIGHTS
from nas.data.datasets import Dataset
from nas.data.images import load_training
from nas.errors import UserError
from nas.reporting.notes import annotate_runs, annotate_study
from nas.reporting.page import write_report
from nas.reporting.summary import summary
from nas.reporting.tables import write_tables
from nas.study.commands import this_command
from nas.study.history import History, read_history
from nas.study.location import StudyLocation
from nas.study.opening import open_study, writing
from nas.study.records import TrialRecord, ranked, records
from nas.study.runs import Run
from nas.study.settings import choice_of, constraints_of, dataset_of, settings_of
from nas.system.files import write_whole
from nas.training.training import TrainingJob
from nas.tuner.progress import Progress, Show
from nas.tuner.reruns import train_runs
from nas.tuner.selection import FinalSettings, TestSet, choose
from nas.tuner.trials import Plan

SUMMARY = "summary.txt"


def finish(
    study: optuna.Study,
    location: StudyLocation,
    plan: Plan,
    final: FinalSettings,
    console: Console,
    show: Show,
) -> Winner | None:
    """Choose, read the test set, write the winner's files, the tables and the report; None without a winner."""
    history, test = read_history(study), TestSet(plan.dataset)
    n_val = len(load_training(plan.dataset).validation)
    write_tables(history, location, n_val)
    history, winner = choose(study, location, history, plan, final, test, show)
    annotate_runs(study, history)
    written = write_tables(history, location, n_val)
    if winner is not None:
        best = location.folder / "best"
        export_winner(history, location, winner, plan.dataset, best)
        text = write_summary(study, location, history, winner, plan.dataset)
        written = [best / MODEL, best / WEIGHTS, best / SUMMARY, *written]
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    written.append(write_report(history, location, plan.dataset, test, running=False))
    console.print("written: " + ", ".join(map(str, written)), markup=False, highlight=False, soft_wrap=True)
    return winner


def write_summary(
    study: optuna.Study, location: StudyLocation, history: History, winner: Winner, dataset: Dataset
) -> str:
    """Write what was found, into the winner's folder and for the dashboard; the text."""
    data = load_training(dataset)
    text = summary(history, winner, data)
    write_whole(location.folder / "best" / SUMMARY, text)
    annotate_study(study, location, history, winner, text, len(data.validation))
    return text


def write_anew(study: optuna.Study, location: StudyLocation, history: History, dataset: Dataset) -> None:
    """Write the tables, the summary of a winner and the report, as the study now stands."""
    write_tables(history, location, len(load_training(dataset).validation))
    if (winner := winner_of(history)) is not None:
        write_summary(study, location, history, winner, dataset)
    write_report(history, location, dataset, TestSet(dataset), running=False)


def chosen(study: optuna.Study, location: StudyLocation, number: int | None) -> TrialRecord:
    """The trial of this number, by default the winner of the search, or the best so far when there is none yet.

    Raises:
        UserError: there is no such trial.
    """
    trials = records(study)
    if number is None:
        best = [trial.number for trial in ranked(trials)]
        if not best:
            raise UserError(f"study {location.name!r} has no trial that was trained to the end; name one with --trial")
        choice = choice_of(study)
        number = best[0] if choice is None else choice.winner
    found = next((trial for trial in trials if trial.number == number), None)
    if found is None:
        held = f"0 to {trials[-1].number}" if trials else "none"
        raise UserError(f"--trial {number}: study {location.name!r} has no such trial; it has {held}")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A study, the trial that is asked about, and what to train with what."""

    study: optuna.Study
    location: StudyLocation
    trial: TrialRecord
    plan: Plan
    console: Console


def work_of(args: argparse.Namespace) -> Work:
    """What the options name, to be read.

    Raises:
        UserError: no such study or trial, or an unknown device.
    """
    location = existing_location(args)
    study = open_study(location)
    trial = chosen(study, location, args.trial)
    limits, dataset = constraints_of(study), dataset_of(study, args.data_dir)
    job = TrainingJob(candidate=trial.candidate, constraints=limits, dataset=dataset, seed=trial.seed)
    plan = Plan(
        trials=0,
        fleet=fleet_of(args, lambda: job),
        dataset=dataset,
        constraints=limits,
        seed=settings_of(study)["seed"],
        epoch_timeout=args.epoch_timeout,
    )
    return Work(study=study, location=location, trial=trial, plan=plan, console=Console(highlight=False))


def train(module: str, work: Work, wanted: Sequence[Run], title: str, verbosity: int) -> History:
    """Train what is missing of the runs, and write the results anew; an interrupted command goes on later.

    The history is that with the runs.
    """
    location = work.location
    command = this_command(command_line(module, location), work.plan.fleet.devices, {})
    with resumable(module, location) as interruption, writing(location, None, command) as study:

        def show(events: Iterator[Progress], title: str) -> None:
            follow(interruption.heeding(events), title, work.console, verbosity)

        history = train_runs(study, location, read_history(study), wanted, work.plan, show, title)
        annotate_runs(study, history)
        write_anew(study, location, history, work.plan.dataset)
        return history
