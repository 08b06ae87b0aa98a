"""What follows a search: finalists on fresh seeds, the choice, final models, and the one reading of the test set."""

from dataclasses import dataclass
from functools import cached_property

import optuna
import torch

from nas.analysis.finalists import Winner, best_of, compared, final_runs, finalists, rival_of, runs_of, winner_of
from nas.analysis.statistics import binomial_sd, least_difference
from nas.data.datasets import Dataset
from nas.data.images import load_test, load_training
from nas.data.split import Images
from nas.network.module import with_weights
from nas.space.candidate import Candidate
from nas.study.location import StudyLocation, read_weights
from nas.study.records import add_test_score, ranked, records, scores_on_test
from nas.study.settings import Choice, remember_choice
from nas.training.score import Score
from nas.training.training import evaluate
from nas.tuner.progress import Show
from nas.tuner.reruns import train_runs
from nas.tuner.trials import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What follows the search: how many finalists, on how many seeds, and whether the network to beat is trained, too.

    With no finalists the best trial is judged as it is.
    """

    finalists: int
    seeds: int
    baseline: bool


class Exam:
    """The test images, opened when the first weights are judged."""

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


def choose(
    study: optuna.Study, location: StudyLocation, plan: Plan, effort: Effort, test: Exam, show: Show
) -> Winner | None:
    """The best network, and what it is worth on the test images, which are opened once and after the choice.

    What the study knows already is neither trained nor read again. None when no trial was trained to the end, or when
    every run on fresh seeds failed.
    """
    trials = records(study)
    best = next(iter(ranked(trials)), None)
    if best is None or best.val_accuracy is None:
        return None
    if not effort.finalists:
        remember_choice(study, Choice(winner=best.number))
        if best.number not in scores_on_test(study):
            weights = read_weights(location.weights_path(best.number), best.title)
            add_test_score(study, best.number, test.judge(weights, best.candidate, hold_out=True))
        return winner_of(study)
    one_score = binomial_sd(best.val_accuracy, len(load_training(plan.dataset).validation))
    tied = least_difference(one_score)
    chosen = finalists(trials, effort.finalists, tied)
    title = (
        f"finalists: {len(chosen)} of up to {effort.finalists}, within {100 * tied:.2f} points of the best score; "
        f"each is trained to the end on fresh seeds: {effort.seeds}"
    )
    reruns = train_runs(study, location, runs_of(chosen, "finalist", effort.seeds, plan.seed), plan, show, title)
    contenders = compared(chosen, reruns)
    if not contenders:
        return None
    winner = best_of(contenders, one_score).record
    numbers = tuple(trial.number for trial in chosen)
    remember_choice(study, Choice(winner=winner.number, finalists=numbers, seeds=effort.seeds))
    rival = rival_of(study, winner) if effort.baseline else None
    wanted = final_runs(winner, rival, effort.seeds, plan.seed)
    title = f"trial {winner.number} is the winner: now trained on all training images, then judged on the test images"
    train_runs(study, location, wanted, plan, show, title, judge=test.judge)
    return winner_of(study)
