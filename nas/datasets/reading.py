"""Reading images: embedded MNIST, torchvision's data sets, folders of class folders; each as one uint8 tensor."""

import gzip
import hashlib
import importlib.resources
import math
import zlib
from dataclasses import dataclass, replace
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock

from nas.datasets.dataset import IN_MEMORY, Dataset, data_folder
from nas.datasets.files import Told, keep_files, read_files
from nas.datasets.listing import listed
from nas.datasets.memory import read_given
from nas.datasets.split import HOLDOUT, Images, Pool, drawn_pool
from nas.errors import UserError

MOST_BYTES = 96 << 20  # of an unpacked file; EMNIST's training images have 88 million
MNIST_SHA256 = {  # of the uncompressed files, as in nas/datasets/mnist/README.md
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchvisionSet:
    """One of torchvision's data sets: what it is called there and where its files lie below the data folder."""

    constructor: str
    options: tuple[tuple[str, str], ...] = ()
    classes: tuple[str, ...] = tuple("0123456789")
    input_shape: tuple[int, int, int] = (1, 28, 28)
    on_their_side: bool = False  # images that are transposed
    folder: str
    files: tuple[str, ...] = tuple(MNIST_SHA256)
    training_files: int = 2  # the first so many files; the others are the test files
    other_folder: str | None = None  # of torchvision's own files, where it reads others

    @property
    def exported_folder(self) -> str:
        """The folder of the files that exported source reads, with torchvision."""
        return self.other_folder or self.folder


MNIST = TorchvisionSet(constructor="MNIST", folder="MNIST/raw")  # for exported source, which has no embedded MNIST
CIFAR10 = TorchvisionSet(
    constructor="CIFAR10",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    input_shape=(3, 32, 32),
    folder="cifar-10-batches-bin",
    files=(*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
    training_files=5,
    other_folder="cifar-10-batches-py",
)
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"  # torchvision's own archive holds pickles
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
TORCHVISION = {
    "fashion_mnist": TorchvisionSet(
        constructor="FashionMNIST",
        classes=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        folder="FashionMNIST/raw",
    ),
    "kmnist": TorchvisionSet(
        constructor="KMNIST",
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        folder="KMNIST/raw",
    ),
    "emnist": TorchvisionSet(
        constructor="EMNIST",
        options=(("split", "balanced"),),
        classes=tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"),
        on_their_side=True,
        folder="EMNIST/raw",
        files=tuple(f"emnist-balanced-{name}".replace("t10k", "test") for name in MNIST_SHA256),
    ),
    "cifar10": CIFAR10,
}

KNOWN = {"mnist": MNIST, **TORCHVISION}  # data sets that torchvision has


def load_mnist(folder: Traversable, split: str) -> Images:
    """The "train" or "t10k" part of MNIST from the gzipped IDX files in `folder`."""
    images = _read_checked(folder / f"{split}-images-idx3-ubyte.gz")
    labels = _read_checked(folder / f"{split}-labels-idx1-ubyte.gz")
    return _as_images(_from_idx(images, "images", 28, 28)[:, None], _from_idx(labels, "labels"))


def _from_idx(content: bytes, name: str, *shape: int) -> npt.NDArray[np.uint8]:
    """The bytes (N, *shape) of an IDX file: 0, 0, 8 for bytes, the number of sizes, the sizes, all else.

    The format is that of Y. LeCun, C. Cortes, C. Burges, "The MNIST database". Raises ValueError for another one.
    """
    count = int.from_bytes(content[4:8], "big")
    sizes = (count, *shape)
    header = bytes([0, 0, 8, len(sizes)]) + b"".join(size.to_bytes(4, "big") for size in sizes)
    if content[: len(header)] != header:
        raise ValueError(f"{name} is no IDX file of bytes of shape ({', '.join(map(str, ('N', *shape)))})")
    if len(content) != len(header) + math.prod(sizes):
        raise ValueError(
            f"{name} has {len(content):,} bytes, where its header means {len(header) + math.prod(sizes):,}"
        )
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(sizes)


def _as_images(pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> Images:
    return Images(images=torch.from_numpy(pixels.copy()), labels=torch.from_numpy(labels.astype(np.int64)))


def _read_checked(path: Traversable) -> bytes:
    try:
        with path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as file:
            content = file.read(MOST_BYTES)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; reinstall nas") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); reinstall nas") from error
    expected, found = MNIST_SHA256[path.name.removesuffix(".gz")], hashlib.sha256(content).hexdigest()
    if found != expected:
        raise UserError(f"{path} is damaged: the SHA-256 of its contents is {found}, not {expected}; reinstall nas")
    return content


def read_once(dataset: Dataset, tell: Told) -> Dataset:
    """Read the files of a data set that is a folder or a table, unless they have been read before.

    The data set that is returned stays as it is: where its files change, it is an error.

    Raises:
        UserError: as `read_images` does.
    """
    return replace(dataset, files=keep_files(dataset, tell)) if is_of_files(dataset) else dataset


def own_shape(name: str) -> tuple[int, int, int] | None:
    """The shape of the images of a data set that is known by its name; None for any other."""
    return KNOWN[name].input_shape if name in KNOWN else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """What is known of a data set before an image is opened."""

    classes: int
    images: int | None = None  # about as many to train on; None for a data set that is known by its name
    own_validation: bool = False  # whether it says which images are for validation


def extent(name: str) -> Extent:
    """The extent of a data set. Raises UserError as `read_images` does."""
    if name in KNOWN:
        return Extent(classes=len(KNOWN[name].classes))
    _require_path(name)
    listing = listed(name)
    drawn = sum(part not in listing.given for part in ("validation", "test"))
    own = sum(sample.part in (None, "train") for sample in listing.samples)
    return Extent(
        classes=len(listing.classes),
        images=round(own * (1 - 1 / HOLDOUT) ** drawn),
        own_validation="validation" in listing.given,
    )


def is_of_files(dataset: Dataset) -> bool:
    """Whether its name is a path. Raises UserError where nothing is there."""
    if dataset.name in KNOWN or dataset.name.startswith(IN_MEMORY):
        return False
    _require_path(dataset.name)
    return True


def read_images(dataset: Dataset, *, train: bool) -> Pool:
    """The training or the test images of a data set.

    Raises:
        UserError: an unknown data set, another input shape, or files that are missing or damaged.
    """
    if dataset.name == "mnist":
        _require_shape(dataset, MNIST.input_shape)
        images = load_mnist(importlib.resources.files("nas.datasets.mnist"), "train" if train else "t10k")
        return drawn_pool(images, MNIST.classes)
    if dataset.name.startswith(IN_MEMORY):
        return read_given(Path(dataset.data_dir or "."), dataset.name, train=train)
    if is_of_files(dataset):
        return read_files(dataset, train=train)
    return drawn_pool(*_load_torchvision(dataset, TORCHVISION[dataset.name], train=train))


def _require_path(name: str) -> None:
    try:
        root = Path(name).expanduser()
        if name and (root.is_dir() or root.is_file()):
            return
        found = f"there is no folder or file {root.resolve()}"
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null character, no such user
        found = f"that can be no folder here ({getattr(error, 'strerror', None) or error})"
    known = ", ".join(KNOWN)
    raise UserError(
        f"unknown data set {name!r}: known are {known}, or the path of a folder of class folders, or of a table of "
        f"files; {found}"
    )


def _require_shape(dataset: Dataset, shape: tuple[int, int, int]) -> None:
    if dataset.input_shape != shape:
        raise UserError(
            f"data set {dataset.name!r}: input_shape {dataset.input_shape} must be {shape}, as its images are"
        )


def _load_torchvision(dataset: Dataset, source: TorchvisionSet, *, train: bool) -> tuple[Images, tuple[str, ...]]:
    _require_shape(dataset, source.input_shape)
    data_dir = data_folder(dataset)
    try:
        _require_files(data_dir, source, train=train)
        images = _read_files(data_dir / source.folder, source, train=train)
    except Exception as error:  # network, MD5, a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"data set {dataset.name!r} can be neither read nor downloaded ({reason}); connect to the network, "
            f"or put {', '.join(source.files)} into {data_dir / source.folder} (--data-dir DIR chooses {data_dir})"
        ) from error
    return images, source.classes


def _read_files(folder: Path, source: TorchvisionSet, *, train: bool) -> Images:
    """Read the images; raise ValueError if the files cannot be this data set's."""
    names = source.files[: source.training_files] if train else source.files[source.training_files :]
    contents = [_read_file(folder / name) for name in names]
    if source is CIFAR10:
        records = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, 1 + math.prod(source.input_shape))
        pixels, labels = records[:, 1:].reshape(-1, *source.input_shape), records[:, 0]
    else:
        pixels = _from_idx(contents[0], names[0], *source.input_shape[1:])[:, None]
        labels = _from_idx(contents[1], names[1])
    if not len(pixels) or len(pixels) != len(labels):
        raise ValueError(f"{len(pixels)} images and {len(labels)} labels; there must be as many, and some")
    if labels.max() >= len(source.classes):
        raise ValueError(f"labels from {labels.min()} to {labels.max()} for {len(source.classes)} classes")
    return _as_images(pixels.swapaxes(2, 3) if source.on_their_side else pixels, labels)


def _read_file(path: Path) -> bytes:
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path.name} is larger than {MOST_BYTES >> 20} MiB")
    with path.open("rb") as file:
        return file.read(MOST_BYTES)


def _require_files(data_dir: Path, source: TorchvisionSet, *, train: bool) -> None:
    """Download the files unless all are there; a folder that has them may be read-only."""

    def missing() -> bool:
        return not all((data_dir / source.folder / name).is_file() for name in source.files)

    if missing():
        data_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(data_dir / f"{source.constructor}.lock"):  # one process downloads, the others wait
            if missing():
                _download(data_dir, source, train=train)


def _download(data_dir: Path, source: TorchvisionSet, *, train: bool) -> None:
    import torchvision.datasets  # only here: it takes each worker seconds, and reading needs none of it

    if source is CIFAR10:
        torchvision.datasets.utils.download_and_extract_archive(CIFAR10_URL, str(data_dir), md5=CIFAR10_MD5)
        return
    made = getattr(torchvision.datasets, source.constructor)
    bare = made.__new__(made)  # its constructor would hand some files to torch.load
    vars(bare).update(root=str(data_dir), train=train, **dict(source.options))
    bare.download()
