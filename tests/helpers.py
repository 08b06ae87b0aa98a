"""What several tests share: real images as a folder of class folders, a small space over them, architectures."""

import random
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from nas.architecture import Architecture, Candidate, Conv, Head, MaxPool
from nas.constraints import Constraints
from nas.cost import Cost, MapTooSmallError, cost
from nas.data import load_test, load_training
from nas.readers import Dataset, Images
from nas.recipe import Recipe
from nas.space import SearchSpace, Trial, load_space

SHAPE = (1, 28, 28)
MNIST = Dataset(name="mnist", input_shape=SHAPE)


def write_mnist_folder(folder: Path, *, train: int = 360, test: int = 120) -> Dataset:
    """The first images of MNIST's two parts as PNG files in `folder`/train/0..9 and `folder`/test/0..9."""
    for part, images, count in (("train", load_training(MNIST).train, train), ("test", load_test(MNIST), test)):
        for path, image in _named(folder / part, images, count):
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    return Dataset(name=str(folder), input_shape=SHAPE)


def _named(folder: Path, images: Images, count: int) -> Iterator[tuple[Path, Image.Image]]:
    for i in range(count):
        yield folder / str(int(images.labels[i])) / f"{i:04}.png", Image.fromarray(images.images[i, 0].numpy())


def small_architecture(first: int = 8, second: int = 8, *, dropout: float = 0.1) -> Architecture:
    """Two convolution cells, each pooled at once, so that it trains in milliseconds."""
    layers = (
        *(MaxPool(), Conv(out_channels=first, dropout=dropout), MaxPool()),
        *(Conv(out_channels=second), MaxPool()),
    )
    return Architecture(input_shape=SHAPE, num_classes=10, layers=layers, head=Head())


def small_space(
    dataset: Dataset, *, most: int = 8, epochs: int = 3, max_params: int = 400, batch_size: int = 16
) -> SearchSpace:
    """Two kernel counts from 2 to `most`: with 8, 49 candidates, of which 32 have at most 400 parameters."""
    recipe = Recipe(epochs=epochs, batch_size=batch_size)

    def sample(trial: Trial) -> Candidate:
        first, second = (trial.suggest_int(name, 2, most) for name in ("first", "second"))
        return Candidate(architecture=small_architecture(first, second), recipe=recipe)

    return SearchSpace(
        sample=sample, constraints=Constraints(max_params=max_params), dataset=dataset.name, recipe=recipe
    )


def sampled(count: int, seed: int = 0) -> list[tuple[Architecture, Cost]]:
    """Architectures of the default space that fit on their maps, whatever the limits, and their described costs."""
    space, rng = load_space("mnist"), random.Random(seed)
    found: list[tuple[Architecture, Cost]] = []
    while len(found) < count:
        architecture = space.decode(space.draw(rng)).architecture
        try:
            found.append((architecture, cost(architecture)))
        except MapTooSmallError:
            continue
    return found
