"""What stopping trials early saves and what it loses, replayed on candidates that were all trained to the end.

They are the random ones of `benchmarks.table`, each with its first seed. A replay trains them in random order, two at a
time, with the pruner deciding after each epoch: each candidate once, or as many as a default search trains, drawn with
replacement. The regret is how far the final log loss of the best network that was kept lies above that of the best of
the replay. What a replay stops does not change what comes next.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import log
from multiprocessing import get_context
from operator import mul
from statistics import fmean, median

import optuna
from optuna.pruners import BasePruner, SuccessiveHalvingPruner
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.networks import job
from benchmarks.table import RANDOM, Row, load
from benchmarks.throughput import images_per_second
from benchmarks.usual import UsualTraining
from nas.cli.options import positive
from nas.cli.terminal import run
from nas.optuna_internals.studies import new_study
from nas.optuna_internals.trials import is_hopeless, report_epoch
from nas.system.processes import process_pool
from nas.training.training import seconds_per_epoch
from nas.tuner.names import DEFAULT_PRUNER, PRUNERS
from nas.tuner.pruning import make_pruner
from nas.workers.local import devices

WORKERS = 2
NEAR = 0.05  # of log loss: as much as the seed of one candidate moves it
CORRELATED_EPOCHS = (1, 2, 4, 8, 12)
TRIALS = 50
OVERHEAD = 0.2  # seconds a trial, more than `benchmarks.overhead` measures
TYPICAL = "10k"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One replay: the shares that it spent of all epochs and of all arithmetic, and what that lost."""

    epochs: float
    macs: float
    regret: float  # by how much the log loss of the best kept is above that of the best of all


def candidates() -> list[Row]:
    """The random candidates of the table, each once."""
    return [row for row in load() if row.arm == RANDOM and row.repeat == 0]


def replay(table: Sequence[Row], pruner: BasePruner, seed: int) -> Replay:
    """Train the candidates one after the other, as many at a time as there are workers."""
    study = new_study(f"replay {seed}", pruner=pruner)
    order = list(range(len(table)))[::-1]
    curves = [[{"epoch": e, "val_loss": loss} for e, loss in enumerate(row.loss, 1)] for row in table]
    epochs = [0] * len(table)
    kept: list[float] = []
    flying: list[tuple[int, optuna.Trial]] = []
    while order or flying:
        while order and len(flying) < WORKERS:
            flying.append((order.pop(), study.ask()))
        for flight in tuple(flying):
            candidate, trial = flight
            epochs[candidate] += 1
            report_epoch(trial, curves[candidate][: epochs[candidate]])
            if epochs[candidate] == len(curves[candidate]):
                study.tell(trial, table[candidate].loss[-1])
                kept.append(table[candidate].loss[-1])
                flying.remove(flight)
            elif is_hopeless(trial):
                study.tell(trial, state=TrialState.PRUNED)
                flying.remove(flight)
    full, macs = [len(row.loss) for row in table], [row.macs for row in table]
    return Replay(
        epochs=sum(epochs) / sum(full),
        macs=sum(map(mul, macs, epochs)) / sum(map(mul, macs, full)),
        regret=log(min(kept) / min(row.loss[-1] for row in table)),
    )


def orders(table: Sequence[Row], seed: int, drawn: int | None) -> list[Row]:
    """The candidates in random order, each once, or so many drawn with replacement."""
    rng = random.Random(seed)
    return rng.sample(table, len(table)) if drawn is None else rng.choices(table, k=drawn)


def pruners(epochs: int) -> dict[str, Callable[[], BasePruner]]:
    """Those of `nas.search`, and Optuna's successive halving; all look at the loss."""
    named: dict[str, Callable[[], BasePruner]] = {name: partial(make_pruner, name, epochs) for name in PRUNERS}
    for factor in (2, 3, 4):
        halving = partial(SuccessiveHalvingPruner, min_resource=1, reduction_factor=factor)
        named[f"successive halving, 1/{factor}"] = halving
    return named


def pruner_table(table: Sequence[Row], replays: int, drawn: int | None) -> tuple[Table, float]:
    """The table, and the share of the epochs that the default pruner spends."""
    which = "each once" if drawn is None else f"{drawn} drawn with replacement"
    shown, spent = Table(title=f"{len(table)} candidates trained to the end, {which}; {replays:,} replays"), 1.0
    shown.add_column("pruner")
    for column in ("epochs", "MACs", "keeps the best", f"or within {NEAR}", "regret"):
        shown.add_column(column, justify="right")
    for name, make in pruners(len(table[0].loss)).items():
        done = [replay(orders(table, seed, drawn), make(), seed) for seed in range(replays)]
        epochs = fmean(r.epochs for r in done)
        if name == DEFAULT_PRUNER:
            spent = epochs
        shown.add_row(
            f"{name} (default)" if name == DEFAULT_PRUNER else name,
            f"{epochs:.1%}",
            f"{fmean(r.macs for r in done):.1%}",
            f"{fmean(r.regret < 1e-9 for r in done):.1%}",
            f"{fmean(r.regret < NEAR + 1e-9 for r in done):.1%}",
            f"{fmean(r.regret for r in done):.3f}",
        )
    return shown, spent


def correlation_table(table: Sequence[Row]) -> Table:
    """How well an early score ranks the candidates by their final loss."""
    final = [row.loss[-1] for row in table]
    shown = Table(title="Spearman's rank correlation with the final loss")
    for column in ("epoch", "loss", "accuracy"):
        shown.add_column(column, justify="right")
    for epoch in CORRELATED_EPOCHS:
        early = [[row.loss[epoch - 1] for row in table], [-row.accuracy[epoch - 1] for row in table]]
        shown.add_row(str(epoch), *(f"{spearmanr(scores, final).statistic:.2f}" for scores in early))
    return shown


def usual_epoch(seconds: float) -> float:
    """Seconds of an epoch in the usual way: training, from its rate, and one evaluation."""
    images_per_second(UsualTraining, job(TYPICAL), 0)
    training = UsualTraining(job(TYPICAL))
    started = time.perf_counter()
    training.evaluate()
    evaluation = time.perf_counter() - started
    images = len(training.batches) * training.recipe.batch_size
    return images / images_per_second(UsualTraining, job(TYPICAL), seconds) + evaluation


def epochs_in_pairs(pairs: int) -> tuple[float, float]:
    """Seconds of an epoch of one worker beside the others, and in the usual way: medians of alternating pairs."""
    count = len(devices("cpu", None))
    ours: list[float] = []
    usual: list[float] = []
    with (
        process_pool(count) as workers,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other,
    ):
        for _ in range(pairs):
            ours.append(fmean(workers.map(seconds_per_epoch, [job(TYPICAL)] * count)))
            usual.append(other.submit(usual_epoch, 4.0).result())
    return median(ours), median(usual)


def main() -> int:
    """Replay, measure an epoch both ways, and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.search_cost", description=__doc__)
    options.add_argument("--replays", type=positive, default=2_000, help="of each pruner (default: 2000)")
    options.add_argument("--pairs", type=positive, default=5, help="of measured epochs (default: 5)")
    args = options.parse_args()
    console = Console()
    table = candidates()
    console.print(pruner_table(table, args.replays, None)[0])
    shown, spent = pruner_table(table, args.replays, TRIALS)
    console.print(shown)
    console.print(correlation_table(table))
    ours, usual = epochs_in_pairs(args.pairs)
    workers, epochs = len(devices("cpu", None)), len(table[0].loss)
    all_ours, all_usual = TRIALS * epochs * ours / workers, TRIALS * epochs * usual
    idle_end = epochs * ours / 2  # of one worker, on average at most
    search = spent * all_ours + TRIALS * OVERHEAD + idle_end
    console.print(
        f"An epoch of the {TYPICAL} network: {ours:.1f} s in each of {workers} workers at once, {usual:.1f} s in the "
        f"usual way.\nComputed from these parts, {TRIALS} trials of it: {all_usual / 60:.0f} minutes in the usual way, "
        f"{all_ours / 60:.0f} with the workers, {search / 60:.0f} with the default pruner, overhead and idle end.",
        soft_wrap=True,
    )
    console.print(
        f"usual way / default search, computed: {all_usual / search:.0f} × "
        f"({all_usual / all_ours:.1f} × faster epochs, {all_ours / search:.1f} × fewer of them)",
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
