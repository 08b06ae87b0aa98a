"""Who stops trials early: Optuna's pruners by name, and one that looks at the loss after a few epochs."""

import math
from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from nas.tuner.names import PrunerName

GOES_ON = 1 / 10  # of the trials that came to a rung; chosen by `benchmarks.budget`, as the places of the rungs


class RungPruner(BasePruner):
    """Asynchronous successive halving: at a rung the share with the lowest losses so far goes on.

    The losses are those that trials report after each epoch, to a study that minimises. The first trial to reach a rung
    always goes on. A study's trials are read once: whoever reaches a rung later is asked about here.
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
            self._study, self._reached = study, {}
        if epoch not in self._reached:
            self._reached[epoch] = _Reached()
            for other in study.get_trials(deepcopy=False):
                self._reached[epoch].add(other, epoch)
        reached = self._reached[epoch]
        reached.add(trial, epoch)
        return trial.intermediate_values[epoch] > reached.losses[max(1, int(share * len(reached.losses))) - 1]


@dataclass(frozen=True, slots=True)
class _Reached:
    """The trials that have reached a rung, and their losses there in ascending order."""

    numbers: set[int] = field(default_factory=set)
    losses: list[float] = field(default_factory=list)

    def add(self, trial: FrozenTrial, epoch: int) -> None:
        loss = trial.intermediate_values.get(epoch, math.nan)
        if trial.number not in self.numbers and not math.isnan(loss):
            self.numbers.add(trial.number)
            insort(self.losses, loss)


def rungs(epochs: int) -> list[int]:
    """After which of so many epochs a trial is judged: 1, 2, 4 and so on, in the first half of its training."""
    return [1 << place for place in range(epochs.bit_length()) if 2 << place <= epochs]


def make_pruner(name: PrunerName, epochs: int) -> BasePruner:
    """The pruner of this name for trainings of so many epochs."""
    match name:
        case "rungs":
            return RungPruner(dict.fromkeys(rungs(epochs), GOES_ON))
        case "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
        case "none":
            return optuna.pruners.NopPruner()
        case _:
            assert_never(name)
