"""How long a search takes: epochs of a trial under a pruner, seconds of an epoch."""

import time
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from random import Random
from statistics import fmean

import optuna

from nas.datasets.images import load_training
from nas.errors import UserError
from nas.optuna_internals.studies import new_study
from nas.optuna_internals.trials import is_hopeless, report_epoch
from nas.space.rejections import Ledger, probe
from nas.space.search_space import Feasible, SearchSpace
from nas.system.processes import process_pool, starting_processes
from nas.training.job import TrainingJob
from nas.training.kernels import kernels
from nas.training.training import seconds_per_epoch
from nas.tuner.names import PrunerName
from nas.tuner.pruning import make_pruner
from nas.tuner.recipe_fitting import recipe_epochs
from nas.tuner.trials import Plan
from nas.workers.local import LocalFleet, devices

DRAWS = 10_000
TIMED = 6  # candidates, evenly spread over the sizes that were drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Candidates drawn uniformly: those within the limits, and why the others are not."""

    feasible: tuple[Feasible, ...]
    ledger: Ledger
    per_second: float  # drawn and checked

    @property
    def smallest(self) -> Feasible:
        """The feasible one with the fewest parameters."""
        return min(self.feasible, key=lambda found: found.cost.params)

    @property
    def largest(self) -> Feasible:
        """The feasible one with the most parameters."""
        return max(self.feasible, key=lambda found: found.cost.params)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Preview:
    """What a space holds, and what a search of it would take; nothing was trained but a few steps, to time them."""

    draws: Draws
    dataset: str
    n_train: int  # images that a network is trained on in the search
    n_val: int  # that judge it; with cross-validation all images, by several networks
    networks: int  # that a candidate is trained as: 1 without cross-validation
    trials: int
    workers: int
    here: bool  # whether the workers are of this machine, which was timed
    epoch_seconds: float  # of typical candidates, with all workers at work
    epochs_per_trial: float  # on average, under the pruner
    search_seconds: float
    recipe_seconds: float  # of what finds the recipe, before the search
    final_seconds: float  # of what follows the search
    kernels: str  # whose this machine trains with; see nas.training.kernels

    @property
    def acceptance(self) -> float:
        """The part of the draws that is within the limits."""
        return self.draws.ledger.acceptance

    @property
    def rejected(self) -> dict[str, int]:
        """How many draws each limit rejects; a draw may break several."""
        return {str(reason): count for reason, count in self.draws.ledger.reasons.items()}

    @property
    def sizes(self) -> tuple[int, int]:
        """The fewest and the most parameters of a draw within the limits."""
        return self.draws.smallest.cost.params, self.draws.largest.cost.params

    def __repr__(self) -> str:
        low, high = self.sizes
        recipe = f"finding the recipe takes {self.recipe_seconds:,.0f} s at most, " if self.recipe_seconds else ""
        return (
            f"{self.acceptance:.1%} of {self.draws.ledger.proposals:,} draws are within the limits, with {low:,} to "
            f"{high:,} parameters; {recipe}{self.trials} trials take about {self.search_seconds:,.0f} s on "
            f"{self.workers} workers, the final runs about {self.final_seconds:,.0f} s more"
        )


def draw(space: SearchSpace, seed: int) -> Draws:
    """Candidates drawn uniformly and checked."""
    started = time.perf_counter()
    feasible, ledger = probe(space, seed, draws=DRAWS, until_feasible=False)
    return Draws(feasible=tuple(feasible), ledger=ledger, per_second=DRAWS / (time.perf_counter() - started))


def previewed(space: SearchSpace, draws: Draws, plan: Plan, pruner: PrunerName) -> Preview:
    """What a search would take, by timing a few steps of typical draws, of which at least one is feasible.

    Raises:
        UserError: a process died that timed the steps.
    """
    data = load_training(plan.dataset)
    seconds, workers = epoch_seconds(draws.feasible, plan), max(1, len(plan.fleet.devices))  # of a cluster: none yet
    epochs = expected_epochs(pruner, plan.trials, space.recipe.epochs)
    return Preview(
        draws=draws,
        dataset=space.dataset,
        n_train=len(data.train),
        n_val=data.evaluation.images,
        networks=len(data.folds),
        trials=plan.trials,
        workers=workers,
        here=isinstance(plan.fleet, LocalFleet),
        epoch_seconds=seconds,
        epochs_per_trial=epochs,
        search_seconds=plan.trials * epochs * seconds / workers,
        recipe_seconds=recipe_epochs(space, plan.dataset) * seconds / workers,
        final_seconds=plan.later_epochs * seconds / workers,
        kernels=kernels().said,
    )


def expected_epochs(pruner: PrunerName, trials: int, epochs: int) -> float:
    """Epochs a trial trains on average under a pruner: replayed on made-up learning curves that never cross."""
    study = new_study("replay", pruner=make_pruner(pruner, epochs))
    rng, total = Random(0), 0
    for _ in range(trials):
        trial, quality = study.ask(), rng.random()
        curve: list[dict[str, float]] = []
        for epoch in range(1, epochs + 1):
            total += 1
            curve.append({"epoch": epoch, "val_loss": 1 - quality})
            report_epoch(trial, curve)
            if epoch < epochs and is_hopeless(trial):
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, 1 - quality)
    return total / trials


def epoch_seconds(feasible: Sequence[Feasible], plan: Plan) -> float:
    """Mean time of an epoch over typical candidates, timed here in as many processes as this machine would train in."""
    here = plan.fleet.devices if isinstance(plan.fleet, LocalFleet) else devices("auto", None)
    by_cost = sorted(feasible, key=lambda candidate: candidate.cost.macs)
    typical = [by_cost[(2 * i + 1) * len(by_cost) // (2 * TIMED)] for i in range(TIMED)]
    jobs = [
        TrainingJob(
            candidate=chosen.candidate,
            constraints=plan.constraints,
            dataset=plan.dataset,
            seed=plan.seed,
            device=here[i % len(here)],
        )
        for i, chosen in enumerate(typical)
    ]
    with process_pool(len(here)) as pool:
        with starting_processes():
            times = pool.map(seconds_per_epoch, jobs)
        try:
            return fmean(times)
        except BrokenExecutor as error:
            raise UserError(
                "a process died that timed a few steps; if memory ran out, close other programs, or give fewer --jobs"
            ) from error
