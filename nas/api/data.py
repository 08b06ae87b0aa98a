"""`check_data`: what a data set holds, and what is odd about it, before anything is trained."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from nas.datasets.dataset import Dataset
from nas.datasets.files import Told, nobody, sheet_of_files
from nas.datasets.images import load_training, training_pool
from nas.datasets.reading import extent, is_of_files, own_shape
from nas.datasets.sheet import PART_NAMES, DataSheet
from nas.errors import UserError
from nas.network.layers import Shape
from nas.space.pictures import Pictures
from nas.space.search_space import SearchSpace

SHAPE: Shape = (3, 32, 32)
SHOWN = 10  # images of a class in a picture
LARGE = 3  # pixels on the screen for each of a small image's
SMALL = 64  # pixels, below which images are shown enlarged


def check_data(
    data: str | Path | SearchSpace,
    *,
    input_shape: Shape | None = None,
    pictures: Pictures | None = None,
    data_dir: str | None = None,
    tell: Callable[[int, int], None] = nobody,
) -> DataSheet:
    """What a data set holds: classes, parts, copies, files that were passed over; nothing is trained.

    `data` is the name or path of a data set, or a search space, which says its shape and how pictures are prepared.
    Without an `input_shape`, pictures are looked at as (3, 32, 32).
    `tell` takes how many files have been read, of how many.

    Raises:
        UnreadableError: files that cannot be read, all of them in its `sheet`.
        UserError: a data set that cannot be used.
    """
    return sheet_of(dataset_from(data, input_shape, pictures, data_dir), tell)


def dataset_from(
    data: str | Path | SearchSpace, input_shape: Shape | None, pictures: Pictures | None, data_dir: str | None
) -> Dataset:
    """The data set that `check_data` is asked about."""
    if isinstance(data, SearchSpace):
        return Dataset(name=data.dataset, input_shape=data.input_shape, data_dir=data_dir, pictures=data.pictures)
    name = str(data)
    shape = input_shape or own_shape(name) or SHAPE
    return Dataset(name=name, input_shape=shape, data_dir=data_dir, pictures=pictures or Pictures())


def space_on(space: SearchSpace, data: str | Path, input_shape: Shape | None) -> SearchSpace:
    """The networks of a space for a data set by name or path, whose pictures they see in their own shape or as SHAPE.

    A space that is for this data set stays as it is.

    Raises:
        UserError: there is no such data set, or no network of the space fits the shape.
    """
    known = own_shape(str(data))
    found, name = extent(str(data)), str(data if known else Path(data))
    shape = input_shape or known or SHAPE
    if (name, shape, found.classes) == (space.dataset, space.input_shape, space.num_classes):
        return space
    called = name if known else _called(Path(data).expanduser().resolve())
    moved = space.on(name, shape, found.classes, called=called)
    return moved if found.images is None else moved.for_few(found.images, own_validation=found.own_validation)


def _called(path: Path) -> str:
    """What a study of a folder or a table is called."""
    return path.name if path.is_dir() else path.stem


def sheet_of(dataset: Dataset, tell: Told = nobody) -> DataSheet:
    """What is known of a data set; of one that is no folder or table, the classes and counts of its training images."""
    if is_of_files(dataset):
        return sheet_of_files(dataset, tell)
    data = load_training(dataset)
    parts = {"train": data.train.labels, "validation": data.validation.labels}
    counts = {
        part: tuple(np.bincount(parts[part].numpy(), minlength=len(data.classes)).tolist()) if part in parts else ()
        for part in PART_NAMES
    }
    given = ("train", "test") if training_pool(dataset).drawn else PART_NAMES
    return DataSheet(name=dataset.name, classes=data.classes, counts=counts, given=given)


def picture_of(dataset: Dataset) -> Image.Image:
    """A row of training images of each class, as a network sees them."""
    data = load_training(dataset)
    channels, height, width = dataset.input_shape
    if channels not in (1, 3):
        raise UserError(
            f"data set {dataset.name}: images of {channels} channels cannot be shown; leave the picture out"
        )
    rows = [_row(data.train.images[data.train.labels == label][:SHOWN].numpy()) for label in range(len(data.classes))]
    whole = Image.fromarray(np.concatenate(rows).squeeze(2) if channels == 1 else np.concatenate(rows))
    scale = LARGE if max(height, width) < SMALL else 1
    return whole.resize((whole.width * scale, whole.height * scale), Image.Resampling.NEAREST)


def _row(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Images (N, C, H, W) beside each other, (H + 1, SHOWN · (W + 1), C), with lines between."""
    _, channels, height, width = images.shape
    row = np.full((height + 1, SHOWN * (width + 1), channels), 128, dtype=np.uint8)
    for place, image in enumerate(images):
        left = place * (width + 1)
        row[:height, left : left + width] = image.transpose(1, 2, 0)
    return row
