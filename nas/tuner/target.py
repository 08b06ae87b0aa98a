"""Ending a search early: when the mean of a network over fresh seeds is sure to be at the target."""

from collections.abc import Sequence
from dataclasses import dataclass

import optuna

from nas.analysis.finalists import fresh_seeds, runs_of
from nas.analysis.statistics import Spread, error_of_mean, spread, t_quantile
from nas.datasets.metrics import EvaluationSet
from nas.space.objective import reached
from nas.study.history import History
from nas.study.location import StudyLocation
from nas.study.records import TrialRecord
from nas.study.runs import Run, accuracies
from nas.tuner.progress import Show
from nas.tuner.reruns import train_runs
from nas.tuner.trials import Plan

SURE = 0.9  # the confidence of the interval whose lower end must be at the target


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A trial whose network reaches the target, and its accuracies on fresh seeds."""

    trial: TrialRecord
    accuracies: Spread
    at_least: float  # the lower end of the interval

    def __str__(self) -> str:
        return (
            f"{self.trial.title} reaches the target: {self.accuracies} of the validation images on "
            f"n = {self.accuracies.n} fresh seeds, at least {self.at_least:.2%} ({SURE:.0%}); the search ends here"
        )


def lowest_mean(found: Spread, validation: EvaluationSet) -> float | None:
    """Below it the mean over seeds is not, as far as these images can tell; None for one accuracy."""
    error = error_of_mean(found, validation.standard_error(found.mean))
    return None if error is None else found.mean - t_quantile(found.n - 1, SURE) * error


def prove(
    study: optuna.Study,
    location: StudyLocation,
    history: History,
    plan: Plan,
    seeds: int,
    validation: EvaluationSet,
    show: Show,
) -> tuple[History, Proof | None]:
    """Train on fresh seeds the trials whose score is at the target, best first, until one is proven.

    What was trained before, also as a finalist, is not trained again. The `validation` images judge.
    """
    for trial in history.ranked:
        if trial.val_accuracy is None or not reached(trial.val_accuracy, history.task.target):
            continue
        wanted = runs_of([trial], "finalist", fresh_seeds("finalist", seeds, history.seed))
        history = _trained(study, location, history, wanted, plan, show)
        known = accuracies(history.runs_of("finalist"), trial.candidate)
        at_least = lowest_mean(spread(known), validation) if known else None
        if at_least is not None and reached(at_least, history.task.target):
            return history, Proof(trial=trial, accuracies=spread(known), at_least=at_least)
    return history, None


def _trained(
    study: optuna.Study, location: StudyLocation, history: History, wanted: Sequence[Run], plan: Plan, show: Show
) -> History:
    settled = {run.key for run in history.runs if run.settled}
    if settled.issuperset(run.key for run in wanted):
        return history
    title = f"trial {wanted[0].trial} has the accuracy asked for; is it there on fresh seeds, too?"
    return train_runs(study, location, history, wanted, plan, show, title)
