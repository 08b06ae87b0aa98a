"""What a trial costs outside its training: proposing with rejection, storage, scheduling, and the start of workers.

A real scheduler with real workers and a SQLite file continues a study of so many trials; in place of the training
stands one that takes no time.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import optuna
import torch
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from benchmarks.networks import MNIST
from nas.cli.options import positive
from nas.cli.terminal import run
from nas.errors import UserError
from nas.network.module import build
from nas.optuna_internals.trials import is_hopeless, report_epoch
from nas.reporting.notes import annotate_trial
from nas.samplers.feasible import FeasibleSampler, Proposal, ask, make_sampler
from nas.samplers.names import DEFAULT_SAMPLER
from nas.space.loading import load_space
from nas.space.search_space import SearchSpace
from nas.study.location import StudyLocation, locate
from nas.study.opening import writing
from nas.study.records import TrialRecord, digests, records
from nas.study.settings import settings
from nas.training.job import EpochReport, TrainingJob
from nas.training.training import weights_of
from nas.tuner.names import DEFAULT_PRUNER
from nas.tuner.pruning import make_pruner
from nas.tuner.trials import Plan, Search, train_all
from nas.workers.local import LocalFleet, LocalWorker, devices

SEED = 0
FEWEST = 20  # trials measured; the first of each worker wait for its start


def curve(seed: int, epochs: int) -> list[float]:
    """Accuracies like those of real candidates: quickly up, then slowly, differing by more early than late."""
    rng = random.Random(seed)
    quality = rng.random()
    accuracies = (0.995 - (0.03 * quality + rng.gauss(0, 0.002)) / epoch for epoch in range(1, epochs + 1))
    return [min(accuracy, 0.9999) for accuracy in accuracies]


def instantly(job: TrainingJob) -> Iterator[EpochReport]:
    """Reports of a training that takes no time."""
    weights = weights_of(build(job.candidate.architecture))
    for epoch, accuracy in enumerate(curve(job.seed, job.candidate.recipe.epochs), 1):
        yield EpochReport(
            epoch=epoch,
            train_loss=1 - accuracy,
            val_loss=1 - accuracy,
            val_accuracy=accuracy,
            seconds=0.0,
            environment={},
            weights=weights,
        )


class TimedSampler(FeasibleSampler):
    """Remembers how long each proposal took."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seconds: list[float] = []

    def propose(self, study: optuna.Study) -> Proposal:
        started = time.perf_counter()
        try:
            return super().propose(study)
        finally:
            self.seconds.append(time.perf_counter() - started)


def make_worker(device: str) -> LocalWorker:
    import benchmarks.overhead as by_name  # where this is the program, a worker does not know its main module

    return LocalWorker(device, by_name.instantly)


def fill(study: optuna.Study, space: SearchSpace, trials: int) -> None:
    """Bring a study to so many trials, proposed at random and ended as the pruner says."""
    sampler = FeasibleSampler(make_sampler("random", space, SEED), space, SEED, seen=digests(records(study)))
    while len(study.get_trials(deepcopy=False)) < trials:
        trial = ask(study, sampler, SEED)
        accuracies = curve(trial.number, space.recipe.epochs)
        epochs: list[dict[str, float]] = []
        for epoch, accuracy in enumerate(accuracies, 1):
            epochs.append({"epoch": epoch, "val_accuracy": accuracy, "val_loss": 1 - accuracy})
            report_epoch(trial, epochs)
            if is_hopeless(trial):
                break
        if len(epochs) == len(accuracies):
            study.tell(trial, 1 - accuracies[-1])
        else:
            study.tell(trial, state=TrialState.PRUNED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """Seconds a trial: means over the trials measured."""

    trials: int
    proposing: float
    together: float


def measure(location: StudyLocation, space: SearchSpace, trials: int, measured: int) -> Overhead:
    """Fill a study and run the real search loop for a few trials more."""
    wanted = settings(space, seed=SEED, sampler=DEFAULT_SAMPLER, pruner=DEFAULT_PRUNER)
    with writing(location, wanted) as study:
        study.pruner = make_pruner(DEFAULT_PRUNER, space.recipe.epochs)
        fill(study, space, trials)
        sampler = TimedSampler(make_sampler(DEFAULT_SAMPLER, space, SEED), space, SEED, digests(records(study)))
        plan = Plan(
            trials=trials + measured,
            fleet=LocalFleet(devices("cpu", None), make_worker),
            dataset=MNIST,
            constraints=space.constraints,
            seed=SEED,
        )

        def annotate(trial: optuna.Trial, record: TrialRecord) -> dict[Path, str]:
            return annotate_trial(study, location, plan.dataset, trial, record)

        ends: list[float] = []
        for progress in train_all(Search(study, location, records(study), plan, sampler, annotate), plan):
            if progress.done > trials + len(ends):
                ends.append(time.perf_counter())
    first = len(plan.fleet.devices)  # they wait for the start of the workers
    return Overhead(
        trials=trials,
        proposing=fmean(sampler.seconds[first:]),
        together=(ends[-1] - ends[first]) / (len(ends) - 1 - first),
    )


def worker_start() -> float:
    """Seconds until a new worker has answered for the first time."""
    started = time.perf_counter()
    worker = make_worker("cpu")
    worker.next().exception()
    seconds = time.perf_counter() - started
    worker.stop()
    return seconds


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    options.add_argument("--measured", type=positive, default=60, help="trials (default: 60)")
    measured = options.parse_args().measured
    if measured < FEWEST:
        raise UserError(f"--measured {measured} is too few for a mean; give at least {FEWEST}")
    torch.set_num_threads(1)
    space = load_space("mnist")
    first, *others = (worker_start() for _ in range(6))
    table = Table(title=f"Overhead of a trial in seconds, {measured} trials measured")
    for column in ("trials in the study", "proposing", "storage and scheduling", "together"):
        table.add_column(column, justify="right")
    results = []
    for trials in (50, 1000):
        with tempfile.TemporaryDirectory() as folder:
            result = measure(locate("overhead", Path(folder), None), space, trials, measured)
        rest = result.together - result.proposing
        table.add_row(f"{trials:,}", f"{result.proposing:.3f}", f"{rest:.3f}", f"{result.together:.3f}")
        results.append(result)
    console = Console()
    console.print(table)
    console.print(f"The first worker starts in {first:.1f} s, another in {median(others):.2f} s.")
    few, many = results
    console.print(
        f"overhead: {few.together:.3f} s a trial at {few.trials} trials, {many.together:.3f} at {many.trials:,}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
