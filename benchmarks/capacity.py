"""How many decisions a scheduler takes a second, by the number of workers and of trials in the study.

A decision is the answer to an epoch report: to go on, or to stop; about two of five end a trial, and the next one is
then proposed and begun. The real scheduler, sampler, pruner and SQLite storage go on with a study of so many trials of
the default space; in place of the workers stand some that answer after `--seconds-per-epoch`, by default at once, so
that the scheduler never waits.
"""

import argparse
import heapq
import itertools
import shutil
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.load import resident_bytes
from benchmarks.networks import MNIST
from benchmarks.overhead import SEED, curve, fill
from nas.cli.options import positive, positive_seconds
from nas.cli.terminal import run
from nas.optuna_internals.batched_storage import batch
from nas.reporting.notes import annotate_trial
from nas.samplers.feasible import FeasibleSampler, make_sampler
from nas.samplers.names import DEFAULT_SAMPLER
from nas.space.loading import load_space
from nas.space.search_space import SearchSpace
from nas.study.location import StudyLocation, locate
from nas.study.opening import writing
from nas.study.records import TrialRecord, digests, records
from nas.study.settings import settings
from nas.training.job import EpochReport, TrainingJob
from nas.tuner.names import DEFAULT_PRUNER
from nas.tuner.pruning import make_pruner
from nas.tuner.trials import Plan, Search, train_all
from nas.workers.protocol import Worker

WORKERS = (2, 16, 64, 256)
TRIALS = (100, 1_000, 10_000)
WEIGHTS = bytes(64 << 10)  # as many as 16,000 parameters take


class Clock(threading.Thread):
    """Answers futures when their time has come."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._due: list[tuple[float, int, Future[EpochReport], EpochReport]] = []
        self._counter = itertools.count()
        self._changed = threading.Condition()
        self.start()

    def answer(self, seconds: float, report: EpochReport) -> Future[EpochReport]:
        """After so many seconds."""
        future: Future[EpochReport] = Future()
        if not seconds:
            future.set_result(report)
            return future
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._counter), future, report))
            self._changed.notify()
        return future

    def run(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.monotonic():
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                _, _, future, report = heapq.heappop(self._due)
            future.set_result(report)


class StandIn:
    """A worker that trains nothing."""

    node = "here"

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds

    def start(self, job: TrainingJob) -> Future[EpochReport]:
        self._accuracies = iter(enumerate(curve(job.seed, job.candidate.recipe.epochs), 1))
        return self.next()

    def next(self) -> Future[EpochReport]:
        epoch, accuracy = next(self._accuracies)
        report = EpochReport(
            epoch=epoch,
            train_loss=1 - accuracy,
            val_loss=1 - accuracy,
            val_accuracy=accuracy,
            seconds=self._seconds,
            environment={},
            weights=WEIGHTS,
        )
        return self._clock.answer(self._seconds, report)

    def stop(self) -> None:
        pass


class StandInFleet:
    """So many of them."""

    def __init__(self, workers: int, seconds: float) -> None:
        self.devices = ("cpu",) * workers
        self.news: deque[str] = deque()
        clock = Clock()
        self._waiting: list[Worker] = [StandIn(clock, seconds) for _ in range(workers)]

    def hire(self, most: int) -> Sequence[Worker]:
        hired, self._waiting = self._waiting, []
        return hired

    def dismiss(self, worker: Worker) -> None:
        worker.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a scheduler did in the time it was watched."""

    trials: int  # in the study when counting began
    workers: int
    decisions: float  # a second
    begun: float  # trials a second
    busy: float  # cores
    resident: int  # bytes


def measure(location: StudyLocation, space: SearchSpace, workers: int, seconds: float, watched: float) -> Measured:
    """Go on with a study: until every worker has something to do, and then for so many seconds."""
    with writing(location, settings(space, seed=SEED, sampler=DEFAULT_SAMPLER, pruner=DEFAULT_PRUNER)) as study:
        study.pruner = make_pruner(DEFAULT_PRUNER, space.recipe.epochs)
        held = records(study)
        sampler = FeasibleSampler(make_sampler(DEFAULT_SAMPLER, space, SEED), space, SEED, digests(held))
        fleet = StandInFleet(workers, seconds)
        plan = Plan(trials=10**9, fleet=fleet, dataset=MNIST, constraints=space.constraints, seed=SEED)

        def annotate(trial: optuna.Trial, record: TrialRecord) -> dict[Path, str]:
            return annotate_trial(study, location, plan.dataset, trial, record)

        events = train_all(Search(study, location, held, plan, sampler, annotate=annotate), plan)
        decisions = begun = known = 0
        started = computed = 0.0
        for progress in events:
            if not progress.milestone or "stopped after" in progress.news or "trained to the end" in progress.news:
                decisions += 1
            begun += " begins: " in progress.news
            if not started and begun >= workers:
                started, computed = time.monotonic(), time.process_time()
                decisions = begun = 0
                known = len(study.get_trials(deepcopy=False))
            if started and time.monotonic() - started >= watched:
                break
        elapsed, computed = time.monotonic() - started, time.process_time() - computed
        events.close()  # type: ignore[attr-defined]  # it is a generator
    return Measured(
        trials=known,
        workers=workers,
        decisions=decisions / elapsed,
        begun=begun / elapsed,
        busy=computed / elapsed,
        resident=resident_bytes(),
    )


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    options.add_argument("--workers", type=positive, nargs="+", default=WORKERS, help="default: 2 16 64 256")
    options.add_argument("--trials", type=positive, nargs="+", default=TRIALS, help="default: 100 1000 10000")
    options.add_argument(
        "--seconds-per-epoch", type=positive_seconds, default=0.0, help="of a worker (default: at once)"
    )
    options.add_argument("--seconds", type=positive_seconds, default=15.0, help="of each measurement (default: 15)")
    args = options.parse_args()
    torch.set_num_threads(1)
    space = load_space("mnist")
    console = Console()
    table = Table(title="decisions of the scheduler")
    for column in ("trials in the study", "workers", "decisions a second", "trials begun a second", "cores", "MiB"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        for trials in sorted(args.trials):
            filled = locate("capacity", Path(folder) / f"{trials}", None)
            with writing(filled, settings(space, seed=SEED, sampler=DEFAULT_SAMPLER, pruner=DEFAULT_PRUNER)) as study:
                study.pruner = make_pruner(DEFAULT_PRUNER, space.recipe.epochs)
                with batch(study):
                    fill(study, space, trials)
            for workers in args.workers:
                location = locate("capacity", Path(folder) / f"{trials} {workers}", None)
                shutil.copytree(filled.folder, location.folder)
                row = measure(location, space, workers, args.seconds_per_epoch, args.seconds)
                cells = (f"{row.trials:,}", str(workers), f"{row.decisions:.0f}", f"{row.begun:.0f}", f"{row.busy:.1f}")
                table.add_row(*cells, f"{row.resident >> 20:,}")
                print(*cells, f"{row.resident >> 20} MiB", sep="  ", flush=True)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
