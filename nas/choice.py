"""What follows a search: finalists on fresh seeds, the choice, final models, and the one reading of the test set."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import optuna
import safetensors.torch
import torch

from nas.architecture import Candidate
from nas.data import load_test, load_training
from nas.finalists import Winner, best_of, compared, final_runs, finalists, noise, runs_of
from nas.network import build
from nas.progress import Progress
from nas.readers import Dataset, Images
from nas.runs import Run, RunRecord, Runs, accuracies, paces, run_records
from nas.space import SearchSpace
from nas.spread import spread
from nas.storage import StudyLocation, read_weights
from nas.study import FinalScore, TrialRecord, add_test_score, ranked, records, scores_on_test
from nas.training import Score, evaluate
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


Show = Callable[[Iterator[Progress], str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stages:
    """What trains the runs after a search."""

    study: optuna.Study
    location: StudyLocation
    plan: Plan
    test: TestSet
    show: Show

    def train(self, wanted: list[Run], title: str) -> list[RunRecord]:
        """The wanted runs, trained where they were not yet; those that failed are left out."""
        known = [*records(self.study), *run_records(self.study)]
        runs = Runs(
            self.study,
            self.location,
            wanted,
            dataset=self.plan.dataset,
            constraints=self.plan.constraints,
            devices=self.plan.devices,
            judge=self.test.judge,
            paces=paces(known),
        )
        self.show(runs.events(), title)
        found = {record.run.key: record for record in run_records(self.study)}
        return [found[run.key] for run in wanted if found[run.key].accuracy is not None]


def choose(
    study: optuna.Study, location: StudyLocation, space: SearchSpace, plan: Plan, effort: Effort, show: Show
) -> Winner | None:
    """The best network, and what it is worth on the test images, which are opened once and after the choice.

    What the study knows already is neither trained nor read again. None when no trial was trained to the end, or when
    every run on fresh seeds failed.
    """
    trials = records(study)
    best = next(iter(ranked(trials)), None)
    if best is None or best.val_accuracy is None:
        return None
    stages = _Stages(study=study, location=location, plan=plan, test=TestSet(plan.dataset), show=show)
    error = noise(run_records(study), best.val_accuracy, len(load_training(plan.dataset).validation))
    if not effort.finalists:
        score = scores_on_test(study).get(best.number) or _read_test_set(stages, best)
        test = spread([score.accuracy])
        return Winner(record=best, finalists=(), models=(), test=test, n_test=score.n, baseline=None, noise=error)
    chosen = finalists(trials, effort.finalists, error.least_difference)
    title = f"finalists: {len(chosen)}, each trained to the end on fresh seeds: {effort.seeds}"
    reruns = stages.train(runs_of(chosen, "finalist", effort.seeds, plan.seed), title)
    contenders = compared(chosen, reruns)
    if not contenders:
        return None
    winner = best_of(contenders, error).record
    rival = None
    if effort.baseline and space.baseline is not None:
        rival = Candidate(architecture=space.baseline, recipe=winner.candidate.recipe)
    wanted = final_runs(winner, rival, effort.seeds, plan.seed)
    title = f"trial {winner.number} is the winner: trained on all the training images, judged on the test images"
    trained = stages.train(wanted, title)
    models = [run for run in trained if run.candidate == winner.candidate]
    if not models:
        return None
    assert models[0].test is not None
    rivals = accuracies(trained, rival) if rival else []
    return Winner(
        record=winner,
        finalists=tuple(contenders),
        models=tuple(models),
        test=spread(accuracies(models, winner.candidate)),
        n_test=models[0].test.n,
        baseline=spread(rivals) if rivals else None,
        noise=error,
    )


def _read_test_set(stages: _Stages, trial: TrialRecord) -> FinalScore:
    """Of a trial as it is, for the first time."""
    weights = read_weights(stages.location.weights_path(trial.number), trial.title)
    score = stages.test.judge(weights, trial.candidate, hold_out=True)
    read = FinalScore(trial=trial.number, loss=score.loss, accuracy=score.accuracy, n=score.n)
    add_test_score(stages.study, read)
    return read
