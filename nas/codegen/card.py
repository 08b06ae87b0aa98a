"""What an exported file says about itself."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nas.analysis.finalists import Winner
from nas.analysis.statistics import Spread, spread
from nas.datasets.dataset import Dataset
from nas.datasets.images import load_training
from nas.datasets.metrics import Metric
from nas.space.pictures import Pictures
from nas.space.recipe import Recipe
from nas.study.location import StudyLocation
from nas.study.records import TrialRecord
from nas.training.score import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """The facts that an exported file states; accuracies are fractions."""

    study: str
    trial: int
    dataset: str
    pictures: Pictures  # how files became pixels
    metric: Metric
    seeds: tuple[int, ...]  # the first is that of the weights; the others are of further trainings, judged with them
    epochs: int  # that the weights were trained for
    recipe: Recipe
    environment: Mapping[str, str]  # of the weights' training; see nas.training.environment
    n_train: int  # images that the weights were trained on
    search_accuracy: float  # on the validation images, in the search
    rerun: Spread | None  # on the validation images, with fresh seeds
    n_val: int
    folds: int = 1  # networks that were judged on these, each on some of them
    test: Spread | None  # over the seeds; None, with `judged`, where the test set was not read for this network
    judged: Score | None  # of the weights on the test images
    mean: tuple[float, ...]  # of each channel, pixels scaled to 0..1
    std: tuple[float, ...]
    classes: tuple[str, ...]


def winner_card(location: StudyLocation, winner: Winner, dataset: Dataset) -> ModelCard:
    """The card of the winner's first final model, or of its trial where there are no final models."""
    card = trial_card(location, winner.record, dataset, winner.judged)
    if not winner.models:
        return card
    data = load_training(dataset, hold_out=False)
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
    """The card of a trial's network as the search trained it; `score` is its score on the test images."""
    assert trial.val_accuracy is not None
    data = load_training(dataset)
    return ModelCard(
        study=location.name,
        trial=trial.number,
        dataset=dataset.name,
        pictures=dataset.pictures,
        metric=data.metric,
        seeds=(trial.seed,),
        epochs=trial.epochs,
        recipe=trial.candidate.recipe,
        environment=trial.environment,
        n_train=len(data.train),
        search_accuracy=trial.val_accuracy,
        rerun=None,
        n_val=data.evaluation.images,
        folds=len(data.folds),
        test=spread([score.accuracy]) if score else None,
        judged=score,
        mean=data.mean,
        std=data.std,
        classes=data.classes,
    )
