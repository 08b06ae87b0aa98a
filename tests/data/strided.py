"""A task with layers that the package does not have: a strided convolution and a separable one, as values."""

from nas.network.architecture import Architecture
from nas.network.layers import Block, Conv, Head
from nas.network.limits import Constraints
from nas.network.operations import Activation, BatchNorm, Convolution, Depthwise
from nas.space.candidate import Candidate
from nas.space.recipe import Recipe
from nas.space.search_space import SearchSpace
from nas.space.suggestions import Trial

RECIPE = Recipe(epochs=2, batch_size=32)


def strided(kernels: int) -> Block:
    """Half as high and wide, without a pool."""
    convolution = Convolution(out_channels=kernels, kernel_size=3, stride=2, padding=1, bias=False)
    return Block(name="strided 3×3", notation=f"s{kernels}", operations=(convolution, BatchNorm(), Activation()))


def separable(kernels: int) -> Block:
    """One kernel for each channel, then a 1×1 convolution; dilated."""
    depthwise = Depthwise(kernel_size=3, padding=2, dilation=2, bias=False)
    pointwise = Convolution(out_channels=kernels, kernel_size=1, bias=False)
    operations = (depthwise, pointwise, BatchNorm(), Activation(function="silu"))
    return Block(name="separable", notation=f"ds{kernels}", operations=operations)


def sample(trial: Trial) -> Candidate:
    first, second = (trial.suggest_int(name, 4, 12, step=4) for name in ("first", "second"))
    layers = (strided(first), strided(second), separable(16), Conv(out_channels=8))
    architecture = Architecture(input_shape=(1, 28, 28), num_classes=10, layers=layers, head=Head())
    return Candidate(architecture=architecture, recipe=RECIPE)


SPACE = SearchSpace(
    sample=sample,
    constraints=Constraints(max_params=4_000, forbid=("linear",)),
    dataset="digits",
    recipe=RECIPE,
)
