"""What follows a search: finalists on fresh seeds, the choice, final models, and the one reading of the test set."""

from dataclasses import dataclass, replace
from functools import cached_property

import optuna
import safetensors.torch
import torch

from nas.architecture import Candidate
from nas.data import load_test, load_training
from nas.finalists import Winner, best_of, compared, final_runs, finalists, runs_of
from nas.network import build
from nas.progress import Show
from nas.readers import Dataset, Images
from nas.runs import accuracies, run_records, train_runs
from nas.score import Score
from nas.space import SearchSpace
from nas.spread import binomial_sd, least_difference, spread
from nas.storage import StudyLocation, read_weights
from nas.study import TrialRecord, add_test_score, ranked, records, scores_on_test, set_winner
from nas.training import evaluate
from nas.trials import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What follows the search: how many finalists, on how many seeds, and whether the network to beat is trained, too.

    With no finalists the best trial is judged as it is.
    """

    finalists: int
    seeds: int
    baseline: bool


class TestSet:
    """The test images, opened when the first weights are judged."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    @cached_property
    def images(self) -> Images:
        """The images and labels."""
        return load_test(self._dataset)

    def judge(self, weights: bytes, candidate: Candidate, *, hold_out: bool = False) -> Score:
        """What weights are worth that were trained with or without the validation images."""
        network = build(candidate.architecture)
        network.load_state_dict(safetensors.torch.load(weights))
        data = load_training(self._dataset, hold_out=hold_out)
        return evaluate(network, self.images, data, torch.device("cpu"))


def choose(
    study: optuna.Study, location: StudyLocation, space: SearchSpace, plan: Plan, effort: Effort, show: Show
) -> Winner | None:
    """The best network, and what it is worth on the test images, which are opened once and after the choice.

    What the study knows already is neither trained nor read again. None when no trial was trained to the end, or when
    every run on fresh seeds failed.
    """
    trials, test = records(study), TestSet(plan.dataset)
    best = next(iter(ranked(trials)), None)
    if best is None or best.val_accuracy is None:
        return None
    if not effort.finalists:
        set_winner(study, best.number)
        score = scores_on_test(study).get(best.number) or _read_test_set(study, location, test, best)
        return Winner(record=best, test=spread([score.accuracy]), n_test=score.n)
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
    set_winner(study, winner.number)
    rival = None if space.baseline is None else replace(winner.candidate, architecture=space.baseline)
    wanted = final_runs(winner, rival if effort.baseline else None, effort.seeds, plan.seed)
    title = f"trial {winner.number} is the winner: now trained on all training images, then judged on the test images"
    trained = train_runs(study, location, wanted, plan, show, title, judge=test.judge)
    models = [run for run in trained if run.candidate == winner.candidate and run.test is not None]
    if not models or models[0].test is None:
        return None
    seeds = {run.seed for run in wanted}
    known = [run for run in run_records(study) if run.run.stage == "final" and run.seed in seeds]
    rivals = accuracies(known, rival) if rival else []
    return Winner(
        record=winner,
        finalists=tuple(contenders),
        models=tuple(models),
        diverged=effort.seeds - len(models),
        test=spread(accuracies(models, winner.candidate)),
        n_test=models[0].test.n,
        baseline=spread(rivals) if rivals else None,
    )


def _read_test_set(study: optuna.Study, location: StudyLocation, test: TestSet, trial: TrialRecord) -> Score:
    """Of a trial as it is, for the first time."""
    weights = read_weights(location.weights_path(trial.number), trial.title)
    score = test.judge(weights, trial.candidate, hold_out=True)
    add_test_score(study, trial.number, score)
    return score
