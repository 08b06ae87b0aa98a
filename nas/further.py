"""What the commands share that train networks of a study again, outside its search."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import optuna
from rich.console import Console

from nas.commands import this_command
from nas.console import follow
from nas.errors import UserError
from nas.notes import annotate_runs
from nas.options import (
    add_data_dir,
    add_location,
    add_loudness,
    add_workers,
    existing_location,
    fleet_of,
    natural,
    resumable,
)
from nas.progress import Progress
from nas.results import write_anew
from nas.runs import Run, train_runs
from nas.storage import StudyLocation, command_line, open_study, writing
from nas.study import TrialRecord, choice_of, constraints_of, ranked, records, settings_of
from nas.training import TrainingJob
from nas.trials import Plan, dataset_of


def add_options(options: argparse.ArgumentParser) -> None:
    """The study, the trial, and all that says how to train."""
    options.add_argument("--study-name", metavar="NAME", default="mnist", help="the study (default: mnist)")
    options.add_argument("--trial", metavar="N", type=natural, help="whose network (default: the winner's)")
    add_workers(options)
    add_location(options)
    add_data_dir(options)
    add_loudness(options)


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


def train(module: str, work: Work, wanted: Sequence[Run], title: str, verbosity: int) -> None:
    """Train what is missing of the runs, and write the results anew; an interrupted command goes on later."""
    location = work.location
    command = this_command(command_line(module, location), work.plan.fleet.devices, {})
    with resumable(module, location) as interruption, writing(location, None, command) as study:

        def show(events: Iterator[Progress], title: str) -> None:
            follow(interruption.heeding(events), title, work.console, verbosity)

        train_runs(study, location, wanted, work.plan, show, title)
        annotate_runs(study)
        write_anew(study, location, work.plan.dataset)
