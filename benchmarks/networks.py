"""What the benchmarks train: three networks of three sizes and the published winner, on MNIST by the default recipe."""

from dataclasses import replace

from nas.datasets.dataset import Dataset
from nas.network.architecture import Architecture
from nas.network.layers import Conv, Head, Layer, MaxPool, Transition
from nas.network.limits import Constraints
from nas.space.candidate import Candidate
from nas.training.job import TrainingJob
from search_spaces.mnist import RECIPE, SEED

MNIST = Dataset(name="mnist", input_shape=(1, 28, 28))


def _plain(*layers: Layer) -> Architecture:
    return Architecture(input_shape=(1, 28, 28), num_classes=10, layers=layers, head=Head(kind="pool_conv"))


def _cell(kernels: int, padding: int = 1) -> Conv:
    return Conv(out_channels=kernels, padding=padding, dropout=0.05)


NETWORKS = {
    "seed": SEED,
    "10k": _plain(_cell(16), MaxPool(), _cell(16), _cell(16), MaxPool(), _cell(16), _cell(16, padding=0)),
    "3k": _plain(_cell(8), MaxPool(), _cell(12), MaxPool(), _cell(16, padding=0)),
}
WINNER = _plain(  # of the published search
    *(Conv(out_channels=20, kernel_size=5, padding=2), Transition(out_channels=8), MaxPool()),
    *(Conv(out_channels=20), MaxPool(), Conv(out_channels=32, padding=0, dropout=0.1)),
    *(Conv(out_channels=24, padding=0), MaxPool()),
)
TRAINED = {**NETWORKS, "winner": WINNER}


def job(name: str, *, seed: int = 0, epochs: int = RECIPE.epochs, mixed_precision: bool = True) -> TrainingJob:
    """A training of one of the networks."""
    recipe = replace(RECIPE, epochs=epochs, mixed_precision=mixed_precision)
    candidate = Candidate(architecture=TRAINED[name], recipe=recipe)
    return TrainingJob(candidate=candidate, constraints=Constraints(), dataset=MNIST, seed=seed)
