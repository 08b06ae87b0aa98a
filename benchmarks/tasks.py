"""Tasks that are not MNIST, of images that packages bring along: digits, letters, textures and colour photographs.

They need scikit-learn, scikit-image and matplotlib (`pip install -e .[benchmarks]`). Every draw has one seed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits

from nas.datasets.dataset import Dataset
from nas.datasets.images import hand_over
from nas.datasets.memory import GivenImages, given_images
from nas.network.layers import Shape
from nas.space.loading import load_space
from nas.space.search_space import SearchSpace

Pixels = NDArray[np.uint8]  # (N, H, W) or (N, H, W, 3)
Labelled = tuple[Pixels, NDArray[np.int64]]

SIDE = 512  # pixels of a picture that patches are cut from
BLOCKS = 4  # of patches along it; a block is trained on or tested on as a whole
TRAINED_ON = 10  # of the 16 blocks
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "ihc", "motorcycle_left", "rocket")
SURFACES = ("brick", "camera", "cell", "coins", "grass", "gravel", "moon", "page")
NO_LETTERS = ("cmex", "cmsy", "Display", "NonUni", "STIXSiz")  # parts of the names of fonts that lack some


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Images to train on, images to test on, and the networks of the MNIST space for them."""

    train: Labelled
    test: Labelled
    input_shape: Shape

    @property
    def given(self) -> GivenImages:
        """The images as a data set."""
        return given_images(self.train, self.test, self.input_shape)

    def space(self, given: GivenImages) -> SearchSpace:
        """The networks, within the limits of the MNIST space; only MACs grow and shrink with the pixels."""
        return load_space("mnist").on(given.name, self.input_shape, len(given.classes))


def dataset_in_this_process(given: GivenImages, input_shape: Shape, cross_validation: int = 0) -> Dataset:
    """The data set under its name, for trainings of this process."""
    dataset = Dataset(name=given.name, input_shape=input_shape, cross_validation=cross_validation)
    hand_over(dataset, given.pool)
    return dataset


def digits() -> Task:
    """Handwritten digits of 8×8 pixels, doubled; two thirds to train on."""
    data = load_digits()
    grey = (data.images * (255 / 16)).astype(np.uint8)
    images = np.stack([np.asarray(Image.fromarray(one).resize((16, 16), Image.Resampling.BILINEAR)) for one in grey])
    return _shared_out(images, data.target.astype(np.int64))


def faces() -> Task:
    """A hundred faces and a hundred other pictures of 25×25 pixels; two thirds to train on."""
    pictures = np.load(Path(skimage.data.__file__).parent / "lfw_subset.npy")
    images = (255 * pictures).round().clip(0, 255).astype(np.uint8)
    return _shared_out(images, np.repeat(np.array([1, 0]), len(images) // 2))


def _shared_out(images: Pixels, labels: NDArray[np.int64]) -> Task:
    """Grey images, of which two thirds are trained on."""
    order = np.random.default_rng(0).permutation(len(images))
    train, test = np.split(order, [len(images) * 2 // 3])
    height, width = images.shape[1:]
    return Task(train=(images[train], labels[train]), test=(images[test], labels[test]), input_shape=(1, height, width))


def letters() -> Task:
    """Large and small letters of the fonts of matplotlib, a little turned, with noise; a third of the fonts to test."""
    rng = np.random.default_rng(0)
    files = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("*.ttf"))
    fonts = [file for file in files if not any(part in file.name for part in NO_LETTERS)]
    shuffled = [fonts[place] for place in rng.permutation(len(fonts))]
    several = len(fonts) * 2 // 3
    train, test = (_written(part, copies, rng) for part, copies in ((shuffled[:several], 5), (shuffled[several:], 3)))
    return Task(train=train, test=test, input_shape=(1, 28, 28))


def _written(fonts: Sequence[Path], copies: int, rng: np.random.Generator) -> Labelled:
    """Each letter in each font, so many times."""
    labels = [letter for _ in range(len(fonts) * copies) for letter in range(26)]
    many = [font for font in fonts for _ in range(26 * copies)]
    images = np.stack([_letter(font, letter, rng) for font, letter in zip(many, labels, strict=True)])
    noisy = images + rng.normal(0, 30, images.shape)
    return noisy.clip(0, 255).astype(np.uint8), np.array(labels)


def _letter(font: Path, letter: int, rng: np.random.Generator) -> Pixels:
    first, size, turn = rng.choice([ord("A"), ord("a")]), int(rng.integers(64, 88)), rng.uniform(-12, 12)
    paper, middle = Image.new("L", (112, 112)), rng.uniform(46, 66, 2)
    written = ImageFont.truetype(font, size)
    ImageDraw.Draw(paper).text((middle[0], middle[1]), chr(first + letter), 255, font=written, anchor="mm")
    return np.asarray(paper.rotate(turn, Image.Resampling.BICUBIC).resize((28, 28), Image.Resampling.BOX))


def textures() -> Task:
    """Which surface a grey patch of 32×32 pixels is of."""
    return _patches(SURFACES, "L")


def colour() -> Task:
    """Which photograph a patch of 32×32 pixels is of."""
    return _patches(PHOTOGRAPHS, "RGB")


def _patches(names: Sequence[str], mode: str) -> Task:
    rng = np.random.default_rng(0)
    parts: tuple[list[Pixels], list[Pixels]] = ([], [])
    for name in names:
        (file,) = Path(skimage.data.__file__).parent.glob(f"{name}.*")
        picture = Image.open(file).convert(mode).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        blocks = _tiles(np.asarray(picture), SIDE // BLOCKS)
        for place, block in enumerate(rng.permutation(len(blocks))):
            parts[place >= TRAINED_ON].append(_tiles(blocks[block], 32))
    train, test = ((np.concatenate(part), np.repeat(np.arange(len(names)), _each(part, names))) for part in parts)
    return Task(train=train, test=test, input_shape=(3 if mode == "RGB" else 1, 32, 32))


def _each(patches: Sequence[Pixels], names: Sequence[str]) -> int:
    """How many images there are of each class."""
    return sum(map(len, patches)) // len(names)


def _tiles(picture: Pixels, size: int) -> Pixels:
    """A picture (H, W, …) cut into squares, (N, size, size, …)."""
    rows = [picture[top : top + size] for top in range(0, len(picture), size)]
    return np.stack([row[:, left : left + size] for row in rows for left in range(0, picture.shape[1], size)])


TASKS: dict[str, Callable[[], Task]] = {"digits": digits, "letters": letters, "textures": textures, "colour": colour}
