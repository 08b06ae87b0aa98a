"""python -m nas.retrain: train a trial again, and compare it with what the study says, epoch by epoch."""

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import replace
from time import sleep

from nas.cli.options import Parser, add_data_dir, add_device, add_location, existing_location, fleet_of, natural
from nas.cli.terminal import DONE, run
from nas.errors import UserError
from nas.study.curves import Epoch
from nas.study.location import StudyLocation
from nas.study.opening import open_study
from nas.study.records import Record, records
from nas.study.runs import RunRecord, run_records
from nas.study.settings import constraints_of, dataset_of
from nas.system.files import reason_of
from nas.training.environment import differences
from nas.training.training import DivergedError, EpochReport, OutOfMemoryError, TrainingJob
from nas.workers.protocol import Fleet

DIFFERENT = 1
TICK = 0.1  # seconds between two questions for a worker
TELLING = 600  # of them, after which it is said, and again
NUMBERS = ("train_loss", "val_loss", "val_accuracy")
DESCRIPTION = """\
Train a trial again with its own seed, and compare every epoch with what the study says: equal to the last digit on the
same machine with the same versions, or else it says what is not the same. Nothing is written.

exit status: 0 equal, 1 not equal, 2 bad input, 141 nobody reads the output
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog="python -m nas.retrain", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--study-name", metavar="NAME", default="mnist", help="the study (default: mnist)")
    which = options.add_mutually_exclusive_group(required=True)
    which.add_argument("--trial", metavar="N", type=natural, help="number of the trial")
    which.add_argument("--final-run", metavar="N", type=natural, help="number of the final run, as in final_runs.csv")
    add_device(options)
    options.set_defaults(jobs=1, jobs_per_gpu=None)
    add_location(options)
    add_data_dir(options)
    return options


def chosen(known: list[Record], number: int, option: str, location: StudyLocation) -> Record:
    """The training of this number, of which at least one epoch is known.

    Raises:
        UserError: there is none.
    """
    found = next((record for record in known if record.number == number and record.curve), None)
    if found is None:
        numbers = [record.number for record in known if record.curve]
        held = f"{min(numbers)} to {max(numbers)}" if numbers else "none"
        raise UserError(f"{option} {number}: study {location.name!r} has no such training; it has {held}")
    return found


def retrained(job: TrainingJob, epochs: int, fleet: Fleet) -> Iterator[EpochReport]:
    """The first epochs of a training, in a worker of its own."""
    waiting = 0
    while (worker := next(iter(fleet.hire(1)), None)) is None:
        sleep(TICK)
        while fleet.news:
            print(fleet.news.popleft(), file=sys.stderr)
        waiting += 1
        if waiting % TELLING == 0:
            print("there is no worker to be had; waiting for one", file=sys.stderr)
    try:
        yield worker.start(job).result()
        for _ in range(1, epochs):
            yield worker.next().result()
    finally:
        fleet.dismiss(worker)


def _line(before: Epoch, now: EpochReport) -> str:
    """An epoch in words: its numbers, and where they are not as they were."""
    accuracy = "" if now.val_accuracy is None else f", validation accuracy {now.val_accuracy:.2%}"
    said = f"epoch {now.epoch}: training loss {now.train_loss:.6f}{accuracy}"
    changed = [
        f"{name} was {getattr(before, name)!r} and is {getattr(now, name)!r}" for name in changed_numbers(before, now)
    ]
    return f"{said}: {'; '.join(changed) or 'equal'}"


def changed_numbers(before: Epoch, now: EpochReport) -> list[str]:
    """The names of an epoch's numbers that differ in any digit."""
    return [name for name in NUMBERS if getattr(before, name) != getattr(now, name)]


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    location = existing_location(args)
    study = open_study(location)
    is_trial = args.trial is not None
    known: list[Record] = [*records(study)] if is_trial else [*run_records(study)]
    number, option = (args.trial, "--trial") if is_trial else (args.final_run, "--final-run")
    record = chosen(known, number, option, location)
    limits, dataset = constraints_of(study), dataset_of(study, args.data_dir)
    if isinstance(record, RunRecord):
        job = record.run.job(limits, dataset)
    else:
        job = TrainingJob(candidate=record.candidate, constraints=limits, dataset=dataset, seed=record.seed)
    job = replace(job, micro_batches=record.micro_batches)
    fleet = fleet_of(args, lambda: job)
    what = f"trial {number}, seed {record.seed}" if is_trial else f"final run {number} ({record.title})"
    print(f"{what}, again to epoch {record.epochs}: {record.notation}", flush=True)
    equal, now = 0, record.environment
    try:
        for before, report in zip(record.curve, retrained(job, record.epochs, fleet), strict=True):
            print(_line(before, report), flush=True)
            equal += not changed_numbers(before, report)
            now = report.environment
    except DivergedError as error:
        print(f"It diverged: {error}.", file=sys.stderr)
    except (BrokenExecutor, OutOfMemoryError) as error:
        raise UserError(f"the worker was lost after {equal} equal epochs ({reason_of(error)}); try again") from error
    if equal == record.epochs:
        print(f"{record.epochs} of {record.epochs} epochs are equal to the last digit.")
        return DONE
    print(f"{record.epochs - equal} of {record.epochs} epochs differ.", file=sys.stderr)
    if changed := list(differences(record.environment, now)):
        print(f"Not the same as then: {'; '.join(changed)}.", file=sys.stderr)
    else:
        print("Versions, processor and device are the same as then; have the images changed?", file=sys.stderr)
    return DIFFERENT


if __name__ == "__main__":
    run(main)
