"""Which images, as a value that needs no torch."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from nas.errors import UserError
from nas.space.objective import MetricName
from nas.space.pictures import Pictures

DATA_DIR = "~/.cache/nas"
MOST_FOR_RECIPES = 5_000  # training images, held out or not
IN_MEMORY = "in memory"  # how the name of images that a caller hands over begins


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Which images, and how answers to them are judged: a small value that a worker loads the images from."""

    name: str  # "mnist", one of torchvision's, what begins with IN_MEMORY, or the path of a folder or a table of files
    input_shape: tuple[int, int, int]  # C, H, W
    data_dir: str | None = (
        None  # for torchvision's data sets and kept pixels (None: DATA_DIR), or with what was given in memory
    )
    pictures: Pictures = field(default_factory=Pictures)  # of files
    metric: MetricName = "accuracy"
    cross_validation: int = 0  # rounds; 0: one part is held out
    at_most: int = 0  # training images of which about so many are used; 0: all
    files: str = ""  # under which name the pixels of its files are kept; "" where it is whatever is there


def for_recipes(dataset: Dataset) -> Dataset:
    """The same data set as recipes are tried on: some of many images, and few in one round of cross-validation."""
    return replace(dataset, at_most=MOST_FOR_RECIPES, cross_validation=min(1, dataset.cross_validation))


def only_images(dataset: Dataset) -> Dataset:
    """The same images, whatever they are used for."""
    return replace(dataset, metric="accuracy", cross_validation=0, at_most=0)


def data_folder(dataset: Dataset) -> Path:
    """Where what is downloaded or decoded is kept. Raises UserError where there is no such home folder."""
    try:
        return Path(dataset.data_dir or DATA_DIR).expanduser()
    except RuntimeError as error:
        raise UserError(f"--data-dir {dataset.data_dir or DATA_DIR}: no such home folder; give another") from error
