"""Which images, as a value that needs no torch."""

from dataclasses import dataclass

DATA_DIR = "~/.cache/nas"
IN_MEMORY = "in memory"  # how the name of images that a caller hands over begins


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Which images: a small value that a worker process is sent and loads the images from."""

    name: str  # "mnist", one of torchvision's, what begins with IN_MEMORY, or the path of a folder of class folders
    input_shape: tuple[int, int, int]  # C, H, W
    data_dir: str | None = None  # where torchvision's data sets are kept (None: DATA_DIR), or those given from memory
