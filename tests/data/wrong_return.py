"""Its sample returns an architecture instead of a candidate."""

from typing import Any

from nas.architecture import Architecture, Head
from nas.constraints import Constraints
from nas.recipe import Recipe
from nas.space import SearchSpace, Trial


def sample(trial: Trial) -> Any:
    channels = trial.suggest_categorical("channels", (1,))
    return Architecture(input_shape=(channels, 28, 28), num_classes=10, layers=(), head=Head())


SPACE = SearchSpace(sample=sample, constraints=Constraints(), dataset="mnist", recipe=Recipe())
