"""A tiny made-up task: an image folder "digits" in the working directory, networks that train in a second."""

from nas.network.architecture import Architecture
from nas.network.layers import Conv, Head, Layer, MaxPool
from nas.network.limits import Constraints
from nas.space.candidate import Candidate
from nas.space.recipe import Recipe
from nas.space.search_space import SearchSpace
from nas.space.suggestions import Trial

RECIPE = Recipe(epochs=4, batch_size=32)


def sample(trial: Trial) -> Candidate:
    """One or two cells, each after a pooling."""
    cells = trial.suggest_int("cells", 1, 2)
    layers: list[Layer] = []
    for i in (1, 2):
        kernels = trial.suggest_int(f"kernels{i}", 4, 16, step=4)
        pool = trial.suggest_categorical(f"pool{i}", (2, 3, 4))
        dropout = trial.suggest_categorical(f"dropout{i}", (0.0, 0.05))
        if i <= cells:
            layers += [MaxPool(kernel_size=pool), Conv(out_channels=kernels, dropout=dropout)]
    head = Head(kind=trial.suggest_categorical("head", ("pool_conv", "conv_pool", "linear")))
    architecture = Architecture(input_shape=(1, 28, 28), num_classes=10, layers=tuple(layers), head=head)
    return Candidate(architecture=architecture, recipe=RECIPE)


SPACE = SearchSpace(
    sample=sample,
    constraints=Constraints(max_params=1_500, max_epochs=4, forbid=("linear",)),
    dataset="digits",
    recipe=RECIPE,
)
