"""What follows a search: finalists on fresh seeds, the choice, final models, and the one reading of the test set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import optuna
import torch

from nas.analysis.finalists import (
    Finalist,
    Winner,
    best_of,
    compared,
    final_runs,
    finalists,
    rival_of,
    runs_of,
    winner_of,
)
from nas.analysis.statistics import least_difference
from nas.data.dataset import Dataset
from nas.data.images import load_test, load_training
from nas.data.split import Images
from nas.network.module import with_weights
from nas.space.candidate import Candidate
from nas.study.history import History
from nas.study.location import StudyLocation, read_weights
from nas.study.records import TrialRecord, add_test_score
from nas.study.runs import Run, RunRecord
from nas.study.settings import Choice, remember_choice
from nas.training.metrics import ACCURACY
from nas.training.score import Score
from nas.training.training import evaluate
from nas.tuner.progress import Show
from nas.tuner.reruns import train_runs
from nas.tuner.trials import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalSettings:
    """What follows the search: how many finalists, on how many seeds, and whether the network to beat is trained, too.

    With no finalists the best trial is judged as it is.
    """

    finalists: int
    seeds: int
    baseline: bool


class TestSet:
    """The test images, opened when the first weights are judged."""

    __test__ = False  # pytest takes the name for that of a test

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    @cached_property
    def images(self) -> Images:
        """The images and labels."""
        return load_test(self._dataset)

    def judge(self, weights: bytes, candidate: Candidate, *, hold_out: bool = False) -> Score:
        """What weights are worth that were trained with or without the validation images."""
        network = with_weights(candidate.architecture, weights)
        data = load_training(self._dataset, hold_out=hold_out)
        return evaluate(network, self.images, data, torch.device("cpu"))


Train: TypeAlias = Callable[[History, Sequence[Run], str], History]  # under a title; the history with these runs


def choose(
    study: optuna.Study,
    location: StudyLocation,
    history: History,
    plan: Plan,
    final: FinalSettings,
    test: TestSet,
    show: Show,
) -> tuple[History, Winner | None]:
    """The best network, and what it is worth on the test images, which are opened once and after the choice.

    What the study knows already is neither trained nor read again. The history is that after all this. There is no
    winner when no trial was trained to the end, or when every run on fresh seeds failed.
    """

    def train(history: History, wanted: Sequence[Run], title: str) -> History:
        return train_runs(study, location, history, wanted, plan, show, title, judge=test.judge)

    best = history.best
    if best is None or best.val_accuracy is None:
        return history, None
    if not final.finalists:
        history = _judged_as_it_is(study, location, history, best, test)
        return history, winner_of(history)
    one_score = ACCURACY.standard_error(best.val_accuracy, len(load_training(plan.dataset).validation))
    history, contenders = _contest(train, history, final, one_score)
    if not contenders:
        return history, None
    winner = best_of(contenders).record
    numbers = tuple(trial.number for trial in _finalists(history, final, one_score))
    history = _remembered(study, history, Choice(winner=winner.number, finalists=numbers, seeds=final.seeds))
    history = _with_final_models(train, history, final, winner)
    return history, winner_of(history)


def _finalists(history: History, final: FinalSettings, one_score: float) -> list[TrialRecord]:
    """The trials that cannot be told apart from the best one; `one_score` is the deviation of a single score."""
    return finalists(history.trials, final.finalists, least_difference(one_score))


def _contest(train: Train, history: History, final: FinalSettings, one_score: float) -> tuple[History, list[Finalist]]:
    """Train the finalists on fresh seeds, and compare them, best mean first; those whose runs all failed are out."""
    chosen = _finalists(history, final, one_score)
    title = (
        f"finalists: {len(chosen)} of up to {final.finalists}, within {100 * least_difference(one_score):.2f} points "
        f"of the accuracy of the lowest loss; each is trained to the end on fresh seeds: {final.seeds}"
    )
    wanted = runs_of(chosen, "finalist", final.seeds, history.seed)
    history = train(history, wanted, title)
    return history, compared(chosen, _latest(history, wanted))


def _with_final_models(train: Train, history: History, final: FinalSettings, winner: TrialRecord) -> History:
    """Train the winner on all training images, and judge its models; the network to beat beside it, where asked for."""
    rival = rival_of(history.task, winner) if final.baseline else None
    title = f"trial {winner.number} is the winner: now trained on all training images, then judged on the test images"
    return train(history, final_runs(winner, rival, final.seeds, history.seed), title)


def _latest(history: History, wanted: Sequence[Run]) -> list[RunRecord]:
    """The latest record of each of these runs."""
    known = {run.key: run for run in history.runs}
    return [known[run.key] for run in wanted]


def _remembered(study: optuna.Study, history: History, choice: Choice) -> History:
    """Keep a choice; the history with it."""
    remember_choice(study, choice)
    return replace(history, choice=choice)


def _judged_as_it_is(
    study: optuna.Study, location: StudyLocation, history: History, best: TrialRecord, test: TestSet
) -> History:
    """Choose the best trial without finalists, and judge its weights once in the study's life."""
    history = _remembered(study, history, Choice(winner=best.number))
    if best.number in history.test_scores:
        return history
    weights = read_weights(location.weights_path(best.number), best.title)
    score = test.judge(weights, best.candidate, hold_out=True)
    add_test_score(study, best.number, score)
    return replace(history, test_scores={**history.test_scores, best.number: score})
