"""Has nothing to search."""

from nas.network.architecture import Architecture
from nas.network.layers import Conv, Head
from nas.network.limits import Constraints
from nas.space.candidate import Candidate
from nas.space.recipe import Recipe
from nas.space.search_space import SearchSpace
from nas.space.suggestions import Trial

RECIPE = Recipe(epochs=2)


def sample(_trial: Trial) -> Candidate:
    kernels = 8
    architecture = Architecture(
        input_shape=(1, 28, 28), num_classes=10, layers=(Conv(out_channels=kernels),), head=Head()
    )
    return Candidate(architecture=architecture, recipe=RECIPE)


SPACE = SearchSpace(sample=sample, constraints=Constraints(), dataset="mnist", recipe=RECIPE)
