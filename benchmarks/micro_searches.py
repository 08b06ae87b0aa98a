"""Searches that are small and real: 60 trials of one epoch each, at the end of which the learning rate is 0.

Every sampler searches the default space on the same seeds, one trial after the other; nothing is stopped early. A trial
takes about 7 seconds of a core, and is written as soon as it has ended; interrupted, the same command goes on. It ends
with a table of what the samplers have found.
"""

import argparse
import json
import sys
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from benchmarks.search_quality import mean_and_error
from benchmarks.table import SPACE, appending, objects
from nas.cli.options import positive
from nas.cli.terminal import run
from nas.datasets.dataset import Dataset
from nas.errors import UserError
from nas.network.architecture import notation
from nas.optuna_internals.studies import new_study
from nas.optuna_internals.trials import report_epoch, tell
from nas.samplers.feasible import FeasibleSampler, ask, make_sampler
from nas.samplers.names import SamplerName
from nas.space.loading import load_space
from nas.space.search_space import SearchSpace
from nas.space.seeds import derive_seed
from nas.system.processes import process_pool
from nas.training.environment import versions
from nas.training.job import TrainingJob
from nas.training.training import train
from nas.workers.local import devices

FILE = Path(__file__).parent / "data" / "micro_searches.jsonl"
ARMS: tuple[SamplerName, ...] = ("random", "tpe", "gp", "evolution", "blueprint")
SEEDS = 5
TRIALS = 60
LATE = 20  # the last trials, which show what a sampler has learned


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A trial."""

    arm: SamplerName
    seed: int  # of the search
    number: int
    suggestions: dict[str, Any]
    notation: str
    params: int
    loss: float  # of the validation images, after the one epoch
    accuracy: float
    seconds: float
    versions: str

    @property
    def place(self) -> tuple[str, int, int]:
        """What tells it from other rows."""
        return self.arm, self.seed, self.number


def micro_space() -> SearchSpace:
    """The default space, with one epoch."""
    return load_space(SPACE).restrict(epochs=1)


def searching(arm: SamplerName, seed: int) -> Generator[tuple[int, dict[str, Any]], float]:
    """What a sampler proposes, trial by trial, when it is sent the loss of each."""
    space = micro_space()
    study = new_study("micro")
    proposing = FeasibleSampler(make_sampler(arm, space, seed), space, seed, set())
    while True:
        trial = ask(study, proposing, seed)
        loss = yield trial.number, trial.params
        report_epoch(trial, [{"epoch": 1, "val_loss": loss}])
        tell(trial, TrialState.COMPLETE, loss)


def trained(arm: SamplerName, seed: int, number: int, suggestions: dict[str, Any]) -> Row:
    """Train a candidate in this process; the same trial of all arms has the same seed."""
    space = micro_space()
    candidate = space.decode(suggestions)
    job = TrainingJob(
        candidate=candidate,
        constraints=space.constraints,
        dataset=Dataset(name=space.dataset, input_shape=space.input_shape),
        seed=derive_seed("micro", seed, number),
    )
    (report,) = train(job)
    assert report.val_loss is not None
    assert report.val_accuracy is not None
    return Row(
        arm=arm,
        seed=seed,
        number=number,
        suggestions=suggestions,
        notation=notation(candidate.architecture),
        params=space.check(candidate).cost.params,  # type: ignore[union-attr]  # only feasible ones are proposed
        loss=round(report.val_loss, 6),
        accuracy=round(report.val_accuracy, 4),
        seconds=round(report.seconds, 1),
        versions=versions(report.environment),
    )


def load(file: Path) -> list[Row]:
    """The rows so far, in order."""
    return sorted((Row(**found) for found in objects(file)), key=lambda row: row.place)


def make(arms: Sequence[SamplerName], seeds: int) -> None:
    """Run what is missing of all searches, as many at a time as there are cores."""
    known = {row.place: row for row in load(FILE)}
    searches = [(arm, seed) for seed in range(seeds) for arm in arms if (arm, seed, TRIALS - 1) not in known]
    with process_pool(len(devices("cpu", None))) as pool, appending(FILE) as file:
        left, active = iter(searches), dict[Future[Row], Generator[tuple[int, dict[str, Any]], float]]()

        def begin(arm: SamplerName, seed: int) -> None:
            search = searching(arm, seed)
            number, suggestions = next(search)
            while (row := known.get((arm, seed, number))) is not None:
                if row.suggestions != suggestions:
                    raise UserError(f"{arm} proposes otherwise than when {FILE.name} was begun; remove its rows there")
                number, suggestions = search.send(row.loss)
            active[pool.submit(trained, arm, seed, number, suggestions)] = search

        for arm, seed in islice(left, len(devices("cpu", None))):
            begin(arm, seed)
        while active:
            for future in wait(active, return_when=FIRST_COMPLETED).done:
                search, row = active.pop(future), future.result()
                print(json.dumps(asdict(row), ensure_ascii=False), file=file, flush=True)
                if row.number < TRIALS - 1:
                    number, suggestions = search.send(row.loss)
                    active[pool.submit(trained, row.arm, row.seed, number, suggestions)] = search
                    continue
                print(f"{row.arm}, seed {row.seed}: done", flush=True)
                for arm, seed in islice(left, 1):
                    begin(arm, seed)


def table_of(rows: Iterable[Row]) -> Table:
    """Mean ± standard error over the searches."""
    searches: dict[str, dict[int, list[Row]]] = {}
    for row in rows:
        searches.setdefault(row.arm, {}).setdefault(row.seed, []).append(row)
    titles = ("mean loss", f"of the last {LATE} trials", "mean accuracy", f"of the last {LATE}", "lowest loss")
    table = Table("arm", "searches", *titles, title=f"Searches of {TRIALS} trials of one epoch: mean ± standard error")
    for arm, by_seed in searches.items():
        whole = [trials for trials in by_seed.values() if len(trials) == TRIALS]
        if len(whole) < 2:
            continue
        columns = [
            [fmean(row.loss for row in trials) for trials in whole],
            [fmean(row.loss for row in trials[-LATE:]) for trials in whole],
            [fmean(100 * row.accuracy for row in trials) for trials in whole],
            [fmean(100 * row.accuracy for row in trials[-LATE:]) for trials in whole],
            [min(row.loss for row in trials) for trials in whole],
        ]
        table.add_row(
            arm, str(len(whole)), *(mean_and_error(column, 2 if max(column) > 1 else 4) for column in columns)
        )
    return table


def main() -> int:
    """Run what is missing, and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.micro_searches", description=__doc__)
    options.add_argument("--seeds", type=positive, default=SEEDS, help=f"searches of each (default: {SEEDS})")
    options.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, metavar="ARM", help="(default: all)")
    args = options.parse_args()
    make(args.arms, args.seeds)
    Console().print(table_of(load(FILE)))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
