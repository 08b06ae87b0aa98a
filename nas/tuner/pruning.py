"""Who stops trials early: Optuna's pruners by name, and one that looks at the loss after a few epochs."""

import math
from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self, assert_never

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from nas.tuner.names import PrunerName

FIRST_SHARE = 0.08  # of all trials goes on after epoch 1; chosen by `benchmarks.budget`


class RungPruner(BasePruner):
    """Asynchronous successive halving: from each rung those of the lowest losses go on, a share of all trials so far.

    The losses are those that trials report after each epoch, to a study that minimises. All trials are those that have
    come to the first rung. The first one to reach a rung always goes on. A study's trials are read once: whoever
    reaches a rung later is asked about here.

    Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020.
    """

    def __init__(self, rungs: Mapping[int, float]) -> None:
        self._rungs = rungs
        self._study: optuna.Study | None = None
        self._reached: dict[int, _Reached] = {}

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        epoch = trial.last_step or 0
        share = self._rungs.get(epoch)
        if share is None:
            return False
        if study is not self._study:
            others = study.get_trials(deepcopy=False)
            self._study, self._reached = study, {rung: _Reached.by(others, rung) for rung in self._rungs}
        here, everyone = self._reached[epoch], self._reached[min(self._rungs)]
        here.add(trial, epoch)
        kept = max(1, int(share * len(everyone.losses)))
        return trial.intermediate_values[epoch] > here.losses[min(kept, len(here.losses)) - 1]


@dataclass(frozen=True, slots=True)
class _Reached:
    """The trials that have reached a rung, and their losses there in ascending order."""

    numbers: set[int] = field(default_factory=set)
    losses: list[float] = field(default_factory=list)

    @classmethod
    def by(cls, trials: Iterable[FrozenTrial], epoch: int) -> Self:
        """Those of these trials that have."""
        reached = cls()
        for trial in trials:
            reached.add(trial, epoch)
        return reached

    def add(self, trial: FrozenTrial, epoch: int) -> None:
        loss = trial.intermediate_values.get(epoch, math.nan)
        if trial.number not in self.numbers and not math.isnan(loss):
            self.numbers.add(trial.number)
            insort(self.losses, loss)


def rungs(epochs: int) -> dict[int, float]:
    """After which epochs which share of all trials goes on: epochs 1, 3, 7, … of the first half of a training.

    From rung to rung the epochs double and the share halves, so that each takes about as many epochs in all.
    """
    doubling = ((2 << place) - 1 for place in range(epochs.bit_length()))
    return {epoch: 2 * FIRST_SHARE / (epoch + 1) for epoch in doubling if 2 * epoch <= epochs}


def make_pruner(name: PrunerName, epochs: int) -> BasePruner:
    """The pruner of this name for trainings of so many epochs."""
    match name:
        case "rungs":
            return RungPruner(rungs(epochs))
        case "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
        case "none":
            return optuna.pruners.NopPruner()
        case _:
            assert_never(name)
