"""What stopping trials early saves and what it loses, replayed on candidates that were all trained to the end.

The table is `benchmarks/data/curves.json`, written by `python -m benchmarks.curves`. A replay trains its candidates
in random order, two at a time, with the pruner deciding after each epoch. The regret is what the best network kept
lacks in final validation accuracy to the best of the table.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.pruners import BasePruner
from optuna.trial import TrialState

from benchmarks.curves import Curves

WORKERS = 2
NEAR = 0.0005  # as good as the best: half a standard error of one score on 10,000 images
CORRELATED_EPOCHS = (1, 2, 3, 6, 9)
TRIALS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One replay: the shares of epochs and of training time that it spent, and the best final accuracy it kept."""

    epochs: float
    seconds: float
    best: float


def replay(table: Sequence[Curves], scores: Sequence[Sequence[float]], pruner: BasePruner, seed: int) -> Replay:
    """Train the candidates in the seed's order; `scores` is what the pruner sees of each, greater being better."""
    study = optuna.create_study(direction="maximize", pruner=pruner, study_name=f"replay {seed}")
    order = random.Random(seed).sample(range(len(table)), len(table))
    epochs = [0] * len(table)
    kept: list[float] = []
    flying: list[tuple[int, optuna.Trial]] = []
    while order or flying:
        while order and len(flying) < WORKERS:
            flying.append((order.pop(), study.ask()))
        for flight in tuple(flying):
            candidate, trial = flight
            trial.report(scores[candidate][epochs[candidate]], epochs[candidate] + 1)
            epochs[candidate] += 1
            if epochs[candidate] == len(scores[candidate]):
                study.tell(trial, scores[candidate][-1])
                kept.append(table[candidate].accuracy[-1])
                flying.remove(flight)
            elif trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                flying.remove(flight)
    full = [len(curves.accuracy) for curves in table]
    times = [curves.seconds for curves in table]
    return Replay(
        epochs=sum(epochs) / sum(full),
        seconds=sum(map(float.__mul__, times, map(float, epochs))) / sum(map(float.__mul__, times, map(float, full))),
        best=max(kept, default=0.0),
    )
