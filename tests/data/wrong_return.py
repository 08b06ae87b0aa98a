"""Its sample returns an architecture instead of a candidate."""

from typing import Any

from nas.network.architecture import Architecture
from nas.network.layers import Head
from nas.network.limits import Constraints
from nas.space.recipe import Recipe
from nas.space.search_space import SearchSpace
from nas.space.suggestions import Trial


def sample(trial: Trial) -> Any:
    channels = trial.suggest_categorical("channels", (1,))
    return Architecture(input_shape=(channels, 28, 28), num_classes=10, layers=(), head=Head())


SPACE = SearchSpace(sample=sample, constraints=Constraints(), dataset="mnist", recipe=Recipe())
