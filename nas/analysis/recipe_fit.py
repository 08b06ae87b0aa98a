"""Whether another recipe fits the pictures better: what is to be trained to tell, and what the trainings say.

Each change is tried on two networks. Those that make both better are combined, and the combination is compared with the
recipe as it is on fresh seeds, so that no luck of the first comparison counts. It is taken where its log loss is lower
with 90 % certainty (Student's t, one side).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean, stdev
from typing import TypeAlias

from nas.analysis.finalists import fresh_seeds
from nas.analysis.statistics import two_sided
from nas.network.architecture import Architecture
from nas.space.candidate import Candidate
from nas.space.recipe import Recipe
from nas.space.recipe_change import GROUPS, UNCHANGED, RecipeChange, combined
from nas.study.history import History
from nas.study.runs import Run, RunRecord

_Key: TypeAlias = tuple[Architecture, int]  # a network and a seed

LEAST = 0.05  # of a gain in log loss; a smaller one is not worth fresh seeds
CONFIRMATIONS = 2  # fresh seeds
ONE_SIDE = 0.9
TRAININGS = 1 + sum(map(len, GROUPS)) + 2 * CONFIRMATIONS  # of a network, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeFit:
    """What the trainings have said: the change to make, and what it was tried against."""

    change: RecipeChange  # UNCHANGED where nothing was better with certainty
    tried: RecipeChange  # that was compared on fresh seeds; UNCHANGED where no change made both networks better
    differences: tuple[float, ...]  # of log losses on fresh seeds, tried minus as it is
    trainings: int
    epochs: int

    def __str__(self) -> str:
        done = f"Recipe, from {self.trainings} trainings, {self.epochs:,} epochs in all"
        if self.tried == UNCHANGED:
            return f"{done}: as it is, for no change was better for both of two networks."
        if len(self.differences) < 2:
            return f"{done}: as it is, for too few of the trainings on fresh seeds came to their end."
        error = stdev(self.differences) / math.sqrt(len(self.differences))
        found = f"log loss {fmean(self.differences):+.2f} ± {error:.2f} on fresh seeds, n = {len(self.differences)}"
        if self.change == UNCHANGED:
            return f"{done}: as it is, for another ({self.tried}) was not better beyond chance ({found})."
        return f"{done}: {self.change} ({found})."


def first_runs(networks: Sequence[Architecture], recipe: Recipe, seed: int) -> list[Run]:
    """Each network by the recipe as it is, and by each change that makes another of it; `seed` is that of the study."""
    changes = {recipe: UNCHANGED}
    for change in chain.from_iterable(GROUPS):
        changes.setdefault(change(recipe), change)
    return [_run(network, recipe, change, _seeds(seed)[0]) for change in changes.values() for network in networks]


def further_runs(networks: Sequence[Architecture], recipe: Recipe, change: RecipeChange, seed: int) -> list[Run]:
    """Each network on fresh seeds, with the change and without; none for no change."""
    if change == UNCHANGED:
        return []
    several = (UNCHANGED, change)
    return [_run(net, recipe, one, fresh) for fresh in _seeds(seed)[1:] for net in networks for one in several]


def _run(network: Architecture, recipe: Recipe, change: RecipeChange, seed: int) -> Run:
    candidate = Candidate(architecture=network, recipe=change(recipe))
    return Run(stage="recipe", trial=None, candidate=candidate, seed=seed, change=str(change))


def _seeds(seed: int) -> list[int]:
    return fresh_seeds("recipe", 1 + CONFIRMATIONS, seed)


def promising(runs: Iterable[RunRecord], seed: int) -> RecipeChange:
    """Of each group the change that makes every network better, and on average most and by LEAST; all together."""
    losses = _log_losses(runs, _seeds(seed)[:1])
    usual, better = losses.get(str(UNCHANGED), {}), list[RecipeChange]()
    for group in GROUPS:
        gains = {change: _gains(losses.get(str(change), {}), usual) for change in group}
        means = {change: fmean(of) for change, of in gains.items() if len(of) > 1 and min(of) > 0}
        helpful = {change: mean for change, mean in means.items() if mean > LEAST}
        if helpful:
            better.append(max(helpful, key=lambda change: helpful[change]))
    return combined(better)


def fit_of(history: History) -> RecipeFit | None:
    """What the trainings of a study have said; None where there were none, or before the last has ended."""
    runs, further = history.runs_of("recipe"), _seeds(history.seed)[1:]
    tried, begun = promising(runs, history.seed), any(run.seed in further for run in runs)
    ended = all(run.state.is_finished() for run in runs)
    if not runs or not ended or (tried != UNCHANGED and not begun):
        return None
    losses = _log_losses(runs, further)
    gains = [] if tried == UNCHANGED else _gains(losses.get(str(tried), {}), losses.get(str(UNCHANGED), {}))
    return RecipeFit(
        change=tried if _certain(gains) else UNCHANGED,
        tried=tried,
        differences=tuple(-gain for gain in gains),
        trainings=len(runs),
        epochs=sum(run.epochs for run in runs),
    )


def _certain(gains: Sequence[float]) -> bool:
    """Whether the mean is above 0."""
    if len(gains) < 2 or fmean(gains) <= 0:
        return False
    return two_sided(fmean(gains), stdev(gains) / math.sqrt(len(gains)), len(gains) - 1) < 2 * (1 - ONE_SIDE)


def _log_losses(runs: Iterable[RunRecord], seeds: Sequence[int]) -> dict[str, dict[_Key, float]]:
    """By change, of the networks and seeds that were trained to the end."""
    found: dict[str, dict[_Key, float]] = {}
    for run in runs:
        if run.stage == "recipe" and run.run.seed in seeds and run.loss:
            found.setdefault(run.change, {})[run.candidate.architecture, run.run.seed] = math.log(run.loss)
    return found


def _gains(changed: Mapping[_Key, float], usual: Mapping[_Key, float]) -> list[float]:
    return [usual[key] - loss for key, loss in changed.items() if key in usual]
