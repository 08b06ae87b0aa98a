"""What an exported file says about itself."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nas.analysis.finalists import Winner
from nas.analysis.statistics import Spread, spread
from nas.data.datasets import Dataset
from nas.data.images import load_training
from nas.space.recipe import Recipe
from nas.study.location import StudyLocation
from nas.study.records import TrialRecord
from nas.training.score import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What the exported file says about itself; accuracies are fractions."""

    study: str
    trial: int
    dataset: str
    seeds: tuple[int, ...]  # of the trainings that were judged on the test images; the first is that of the weights
    epochs: int  # trained
    recipe: Recipe
    environment: Mapping[str, str]  # in which the weights were trained; see nas.training.environment
    n_train: int  # images that the weights were trained on
    search_accuracy: float  # on the validation images, in the search
    rerun: Spread | None  # on the validation images, on fresh seeds
    n_val: int
    test: Spread | None  # None, as the next: the test set was not read for this network
    judged: Score | None  # what it said of the weights
    mean: tuple[float, ...]  # per channel, pixels scaled to 0..1
    std: tuple[float, ...]
    classes: tuple[str, ...]


def winner_card(location: StudyLocation, winner: Winner, dataset: Dataset) -> ModelCard:
    """What the winner's file says about itself."""
    card, data = trial_card(location, winner.record, dataset, winner.judged), load_training(dataset, hold_out=False)
    if not winner.models:
        return card
    return replace(
        card,
        seeds=tuple(model.seed for model in winner.models),
        environment=winner.environment,
        n_train=len(data.train),
        rerun=winner.rerun,
        test=winner.test,
        mean=data.mean,
        std=data.std,
    )


def trial_card(location: StudyLocation, trial: TrialRecord, dataset: Dataset, score: Score | None) -> ModelCard:
    """What the file of a trial, as the search has trained it, says about itself; `score` is on the test images."""
    assert trial.val_accuracy is not None
    data = load_training(dataset)
    return ModelCard(
        study=location.name,
        trial=trial.number,
        dataset=dataset.name,
        seeds=(trial.seed,),
        epochs=trial.epochs,
        recipe=trial.candidate.recipe,
        environment=trial.environment,
        n_train=len(data.train),
        search_accuracy=trial.val_accuracy,
        rerun=None,
        n_val=len(data.validation),
        test=spread([score.accuracy]) if score else None,
        judged=score,
        mean=data.mean,
        std=data.std,
        classes=data.classes,
    )
