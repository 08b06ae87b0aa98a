"""How long a search takes: epochs of a trial under a pruner, seconds of an epoch."""

from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from random import Random
from statistics import fmean

import optuna

from nas.errors import UserError
from nas.optuna_internals.trials import report_epoch
from nas.space.search_space import Feasible
from nas.system.interrupts import without_interrupts
from nas.system.processes import process_pool
from nas.training.training import TrainingJob, seconds_per_epoch
from nas.tuner.pruning import PrunerName, make_pruner
from nas.tuner.trials import Plan
from nas.workers.local import LocalFleet, devices

TIMED = 6  # candidates, evenly spread over the sizes that were drawn


def expected_epochs(pruner: PrunerName, trials: int, epochs: int) -> float:
    """Epochs a trial trains on average under a pruner: replayed on made-up learning curves that never cross."""
    study = optuna.create_study(direction="maximize", pruner=make_pruner(pruner, epochs), study_name="replay")
    rng, total = Random(0), 0
    for _ in range(trials):
        trial, quality = study.ask(), rng.random()
        curve: list[dict[str, float]] = []
        for epoch in range(1, epochs + 1):
            total += 1
            curve.append({"epoch": epoch, "val_accuracy": quality, "val_loss": 1 - quality})
            report_epoch(trial, curve)
            if epoch < epochs and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, quality)
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
        with without_interrupts():  # it starts the processes
            times = pool.map(seconds_per_epoch, jobs)
        try:
            return fmean(times)
        except BrokenExecutor as error:
            raise UserError(
                "a process died that timed a few steps; if memory ran out, close other programs, or give fewer --jobs"
            ) from error
