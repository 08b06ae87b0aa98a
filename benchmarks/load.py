"""Thousands of trials in one study: seconds, memory and what the dashboard says, per hundred trials.

A real scheduler with real workers searches the default space; in place of the training stands one that takes no time.
Meanwhile a dashboard is open, and somebody keeps looking at it.
"""

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.networks import MNIST
from benchmarks.overhead import SEED, TimedSampler, make_worker
from nas.cli.options import positive
from nas.cli.terminal import run
from nas.optuna_internals.studies import id_of
from nas.reporting.notes import annotate_trial
from nas.samplers.feasible import make_sampler
from nas.samplers.names import DEFAULT_SAMPLER
from nas.space.loading import load_space
from nas.study.location import StudyLocation, locate
from nas.study.opening import writing
from nas.study.records import TrialRecord, digests, records
from nas.study.settings import settings
from nas.tuner.names import DEFAULT_PRUNER
from nas.tuner.pruning import make_pruner
from nas.tuner.trials import Plan, Search, train_all
from nas.workers.local import LocalFleet, devices

STEP = 100  # trials a row
PAUSE = 2.0  # seconds between two looks at the dashboard
PATIENCE = 600.0  # seconds for its answer


def resident_bytes() -> int:
    """Memory of this process now."""
    match = re.search(r"^VmRSS:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match is not None
    return 1024 * int(match[1])


@dataclass
class Looks:
    """What a dashboard has answered."""

    answers: int = 0
    errors: int = 0
    longest: float = 0.0  # seconds
    stopped: threading.Event = field(default_factory=threading.Event)


@contextmanager
def dashboard(study: optuna.Study, location: StudyLocation) -> Iterator[Looks]:
    """Open it, and keep looking at the list of trials.

    Raises:
        RuntimeError: it never answered.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "nas.dashboard", "--study-name", location.name, "--no-browser"]
    command += ["--output-dir", str(location.folder.parent), "--port", str(port)]
    environment = {**os.environ, "OPTUNA_STORAGE": location.storage}  # a password has no place in a command line
    trials = f"http://127.0.0.1:{port}/api/studies/{id_of(study)}?after=0"
    seen = Looks()

    def look() -> None:
        while not seen.stopped.wait(PAUSE):
            began = time.perf_counter()
            try:
                with urllib.request.urlopen(trials, timeout=PATIENCE) as answer:
                    answer.read()
                    seen.answers += 1
            except urllib.error.HTTPError:
                seen.errors += 1
            except OSError:
                continue  # it is still starting
            seen.longest = max(seen.longest, time.perf_counter() - began)

    nowhere = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=nowhere, stderr=nowhere, env=environment) as server:
        looking = threading.Thread(target=look)
        looking.start()
        try:
            yield seen
        finally:
            seen.stopped.set()
            server.kill()
            looking.join()
    if not seen.answers:
        raise RuntimeError(f"the dashboard did not answer once, and had {seen.errors} errors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A hundred trials: seconds for each, with the sampler's proposals and without, and the scheduler's memory then."""

    trials: int
    proposing: float
    rest: float
    resident: int


def load(location: StudyLocation, trials: int) -> tuple[list[Row], Looks]:
    """Search until there are so many trials, while the dashboard is open."""
    space = load_space("mnist")
    rows: list[Row] = []
    with writing(location, settings(space, seed=SEED, sampler=DEFAULT_SAMPLER, pruner=DEFAULT_PRUNER)) as study:
        study.pruner = make_pruner(DEFAULT_PRUNER, space.recipe.epochs)
        sampler = TimedSampler(make_sampler(DEFAULT_SAMPLER, space, SEED), space, SEED, digests(records(study)))
        plan = Plan(
            trials=trials,
            fleet=LocalFleet(devices("cpu", None), make_worker),
            dataset=MNIST,
            constraints=space.constraints,
            seed=SEED,
        )

        def annotate(trial: optuna.Trial, record: TrialRecord) -> dict[Path, str]:
            return annotate_trial(study, location, plan.dataset, trial, record)

        began = time.perf_counter()
        with dashboard(study, location) as seen:
            for progress in train_all(Search(study, location, records(study), plan, sampler, annotate), plan):
                if progress.done >= STEP * (len(rows) + 1):
                    now = time.perf_counter()
                    proposing = sum(sampler.seconds) / STEP
                    rest = (now - began) / STEP - proposing
                    row = Row(trials=progress.done, proposing=proposing, rest=rest, resident=resident_bytes())
                    rows.append(row)
                    told = f"{row.trials:,} trials: proposing {proposing:.3f} s each, the rest {rest:.3f} s"
                    print(f"{told}, {row.resident >> 20} MiB", flush=True)
                    sampler.seconds.clear()
                    began = now
    return rows, seen


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    options.add_argument("--trials", type=positive, default=2_000, help="in the study (default: 2000)")
    options.add_argument(
        "--storage",
        metavar="URL",
        default=os.environ.get("OPTUNA_STORAGE"),
        help="Optuna storage (default: $OPTUNA_STORAGE, else SQLite in a temporary folder)",
    )
    args = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        location = locate("load", Path(folder), args.storage)
        rows, seen = load(location, args.trials)
    backend = location.storage.partition(":")[0]
    table = Table(title=f"{args.trials:,} trials in one study ({backend}), per {STEP}")
    for column in ("trials", "proposing, s a trial", "the rest, s a trial", "resident MiB"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(f"{row.trials:,}", f"{row.proposing:.3f}", f"{row.rest:.3f}", f"{row.resident >> 20:,}")
    console = Console()
    console.print(table)
    console.print(
        f"dashboard meanwhile: {seen.answers} answers, {seen.errors} errors, the longest took {seen.longest:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
