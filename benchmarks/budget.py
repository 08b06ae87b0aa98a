"""Where the epochs of a default search are best spent: on trials or on finalists; searches replayed on an emulator.

Each search has 50 trials and stops most of them at rungs. Then its best trials are trained on fresh seeds; after each
seed the worse ones are out. The default sampler, rungs and finalists are compared with others. The regret is how far
the expected final log loss of the chosen network lies above that of the best of many random feasible ones; it is
negative where the search has found a better one. Searches of the same number share an emulator. Where fewer trials
were trained to the end than there are to be finalists, all of them are.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.emulator import Emulator
from benchmarks.rivals import EPOCHS
from benchmarks.search_quality import EMULATORS, WIDTH, emulator_of, mean_and_error, trials_of
from nas.analysis.finalists import SEARCH_SCORE, rounds_of_race
from nas.cli.options import positive
from nas.cli.terminal import run
from nas.errors import UserError
from nas.samplers.names import DEFAULT_SAMPLER, SamplerName
from nas.space.seeds import derive_seed
from nas.system.processes import process_pool
from nas.tuner.pruning import RungPruner, rungs
from nas.workers.local import devices

TRIALS = 50
RACES = 40  # of each search, on other seeds
SEEDS = 3  # of a finalist, at most
Rungs = Mapping[int, float]  # after which epoch which part of the trials goes on


class Way(NamedTuple):
    """A way to search."""

    sampler: SamplerName
    rungs: Rungs


NOW = rungs(EPOCHS)
BEFORE = {1: 1 / 5, 7: 1 / 25}  # about as it was
WAYS = (
    Way(DEFAULT_SAMPLER, NOW),
    Way("random", NOW),
    Way("tpe", BEFORE),
    Way(DEFAULT_SAMPLER, BEFORE),
    Way(DEFAULT_SAMPLER, {1: 1 / 10, 2: 1 / 20, 4: 1 / 40, 8: 1 / 80}),
)
# How many finalists are trained on each fresh seed; without any, the best score wins.
ENDS: tuple[list[int], ...] = ([], [2], [3], rounds_of_race(4, SEEDS), [4] * SEEDS)


class Found(NamedTuple):
    """A trial that was trained to the end: its log loss in the search, and the expected one."""

    score: float
    expected: float
    fresh: tuple[tuple[float, ...], ...]  # log losses: RACES × fresh seeds


@dataclass(frozen=True, slots=True)
class Search:
    """What a search has spent and found, best score first, and the log loss of the best random candidate."""

    epochs: int
    found: tuple[Found, ...]
    best: float


def search(way: Way, number: int) -> Search:
    """One search on the emulator of one bootstrap sample."""
    emulator, pool = emulator_of(number % EMULATORS)
    trials = [*trials_of(way.sampler, RungPruner(way.rungs), emulator, number, TRIALS)]
    seeds = [[derive_seed("race", number, race, seed) for seed in range(SEEDS)] for race in range(RACES)]
    found = [
        Found(
            score=float(np.log(trial.loss)),
            expected=float(np.log(emulator.expected(trial.params).loss[-1])),
            fresh=tuple(tuple(_last(emulator, trial.params, seed) for seed in of) for of in seeds),
        )
        for trial in trials
        if trial.complete
    ]
    return Search(trials[-1].spent, tuple(sorted(found)), float(pool.min()))


def _last(emulator: Emulator, params: Mapping[str, object], seed: int) -> float:
    return float(np.log(emulator.train(params, seed).loss[-1]))


def regret(of: Search, end: Sequence[int]) -> float:
    """Of what the search chooses with so many finalists on each seed, on average over the races."""
    return fmean(_won(of.found, race, end).expected for race in range(RACES)) - of.best


def _won(left: Sequence[Found], race: int, end: Sequence[int]) -> Found:
    def score(one: Found, seen: int) -> float:
        return (sum(one.fresh[race][:seen]) + SEARCH_SCORE * one.score) / (seen + SEARCH_SCORE)

    for seen, count in enumerate(end, 1):
        left = sorted(left[:count], key=partial(score, seen=seen))
    return left[0]


def table_of(searches: Iterable[tuple[Way, Sequence[Search]]]) -> Table:
    """Mean regrets ± standard errors over the searches, by the way to search and the finalists."""
    title = f"Regret in log loss of searches of {TRIALS} trials, by the finalists of each seed (and their epochs)"
    ends = [f"{', '.join(map(str, end)) or 'none'} (+{EPOCHS * sum(end)})" for end in ENDS]
    table = Table("sampler", "goes on after epoch", "n", "epochs", "complete", *ends, title=title)
    for way, done in searches:
        places = ", ".join(f"{epoch}: 1/{1 / share:.3g}" for epoch, share in way.rungs.items())
        told = [mean_and_error([regret(one, end) for one in done]) for end in ENDS]
        epochs, complete = fmean(one.epochs for one in done), fmean(len(one.found) for one in done)
        table.add_row(way.sampler, places, str(len(done)), f"{epochs:.0f}", f"{complete:.1f}", *told)
    return table


def main() -> int:
    """Replay, and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.budget", description=__doc__)
    options.add_argument("--searches", type=positive, default=40, help="of each way (default: 40)")
    args = options.parse_args()
    if args.searches < 2:
        raise UserError(f"--searches {args.searches} gives no standard error; give at least 2")
    searches: dict[int, list[Search]] = {place: [] for place in range(len(WAYS))}
    with process_pool(len(devices("cpu", None))) as pool:
        futures = {
            pool.submit(search, way, number): place for number in range(args.searches) for place, way in enumerate(WAYS)
        }
        for done, future in enumerate(as_completed(futures), 1):
            searches[futures[future]].append(future.result())
            print(f"\r{done} of {len(futures)} searches", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    Console(width=WIDTH).print(table_of([(WAYS[place], done) for place, done in searches.items()]))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
