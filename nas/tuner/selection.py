"""What follows a search: finalists on fresh seeds, the choice, final models, and the one reading of the test set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import optuna
import torch

from nas.analysis.finalists import (
    Winner,
    better_half,
    compared,
    final_runs,
    finalists,
    fresh_seeds,
    rival_of,
    rounds_of_race,
    runs_of,
    winner_of,
)
from nas.analysis.statistics import least_difference
from nas.datasets.dataset import Dataset
from nas.datasets.images import fingerprint, load_test, load_training
from nas.datasets.split import Images
from nas.network.module import with_weights
from nas.space.candidate import Candidate
from nas.study.baselines import recall, remember
from nas.study.history import History
from nas.study.location import StudyLocation, read_weights
from nas.study.records import TrialRecord, add_test_score
from nas.study.runs import Run, RunRecord
from nas.study.settings import Choice, remember_choice
from nas.training.environment import source_digest
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
    """The test images, opened after the choice."""

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
    proven: TrialRecord | None = None,
) -> tuple[History, Winner | None]:
    """The best network, and what it is worth on the test images, which are opened once and after the choice.

    What the study knows already is neither trained nor read again. The history is that after all this. There is no
    winner when no trial was trained to the end, or when every run on fresh seeds failed. A trial that is `proven` to
    reach the target is chosen without rivals.
    """

    def train(history: History, wanted: Sequence[Run], title: str) -> History:
        return train_runs(study, location, history, wanted, plan, show, title, judge=test.judge)

    best = history.best
    if best is None or best.val_accuracy is None:
        return history, None
    if not final.finalists:
        history = _judged_as_it_is(study, location, history, best, test)
        return history, winner_of(history)
    one_score = load_training(plan.dataset).evaluation.standard_error(best.val_accuracy)
    chosen = [proven] if proven else finalists(history.trials, final.finalists, least_difference(one_score))
    history, winner = (history, proven) if proven else _raced(train, history, chosen, final.seeds)
    if winner is None:
        return history, None
    numbers = tuple(trial.number for trial in chosen)
    history = _remembered(study, history, Choice(winner=winner.number, finalists=numbers, seeds=final.seeds))
    history = _with_final_models(study, train, history, plan.dataset, final, winner, test)
    return history, winner_of(history)


def _raced(
    train: Train, history: History, chosen: Sequence[TrialRecord], seeds: int
) -> tuple[History, TrialRecord | None]:
    """Train the finalists on one fresh seed after the other, after each of which the worse half is out.

    There is no winner if all of their runs failed.
    """
    left, fresh = list(chosen), fresh_seeds("finalist", seeds, history.seed)
    several = len(rounds_of_race(len(chosen), seeds)) > 1
    for number, seed in enumerate(fresh, 1):
        if len(left) < 2:
            break
        title = f"{len(left)} finalists, trained to the end on a fresh seed" + (f", round {number}" if several else "")
        history = train(history, runs_of(left, "finalist", [seed]), title)
        left = [finalist.record for finalist in better_half(compared(left, _latest(history, left, fresh[:number])))]
    return history, left[0] if left else None


def _latest(history: History, trials: Sequence[TrialRecord], seeds: Sequence[int]) -> list[RunRecord]:
    """The latest run of each of these trials on each of these fresh seeds."""
    known = {run.key: run for run in history.runs_of("finalist")}
    return [known[run.key] for run in runs_of(trials, "finalist", seeds)]


def _with_final_models(
    study: optuna.Study,
    train: Train,
    history: History,
    dataset: Dataset,
    final: FinalSettings,
    winner: TrialRecord,
    test: TestSet,
) -> History:
    """Train the winner on all training images, and judge its models; the network to beat beside it, where asked for."""
    rival = rival_of(history.task, winner) if final.baseline else None
    wanted = final_runs(winner, rival, final.seeds, history.seed)
    title = f"trial {winner.number} is the winner: now trained on all training images, then judged on the test images"
    rivals = {run.key: run for run in wanted if run.trial is None}
    settled = {run.key for run in history.runs if run.settled}
    if not rivals or settled >= {run.key for run in wanted}:
        return train(history, wanted, title)
    images = fingerprint(load_training(dataset, hold_out=False).train, test.images)
    same_source = winner.environment.get("source") == source_digest()
    begun = settled | {run.key for run in history.runs if not run.state.is_finished()}
    missing = [run for key, run in rivals.items() if same_source and key not in begun]
    known = [record for run in missing if (record := recall(study, run, images, winner.environment)) is not None]
    if known:
        title += f"; of the network to beat, {len(known)} trainings are known from an earlier search"
    history = train(history.with_runs(known), wanted, title)
    for record in history.runs:
        if record.key in rivals and record.accuracy is not None:
            remember(study, record, images)
    return history


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
