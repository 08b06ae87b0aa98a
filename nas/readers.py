"""Reading images: embedded MNIST, torchvision's data sets, folders of class folders; each as one uint8 tensor."""

import gzip
import hashlib
import importlib.resources
import math
import os
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import Tensor

from nas.errors import UserError

MOST_PIXELS = 50_000_000  # of an image, which is unpacked before it is resized
MOST_BYTES = 96 << 20  # of an unpacked file; EMNIST's training images have 88 million
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # as in torchvision
IMAGE_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # whatever the file is called; others run programs
DATA_DIR = "~/.cache/nas"
SPLIT_SEED = 0
HOLDOUT = 6  # one image in so many is held out
MIN_IMAGES = 6  # a class this large has a validation image (HOLDOUT) ...
MIN_IMAGES_BEFORE_TEST = 8  # ... and one this large still has MIN_IMAGES after the test images are taken

MNIST_SHA256 = {  # of the uncompressed files, as in nas/datasets/mnist/README.md
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Images uint8 (N, C, H, W) and their labels int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Which images: a small value that a worker process is sent and loads the images from."""

    name: str  # "mnist", one of TORCHVISION, or the path of a folder of class folders
    input_shape: tuple[int, int, int]  # C, H, W
    data_dir: str | None = None  # where torchvision's data sets are kept; None is DATA_DIR


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
    training_files: int = 2  # so many of them, the first ones; the others are the test files
    other_folder: str | None = None  # of the files that torchvision reads, where those are others

    @property
    def exported_folder(self) -> str:
        """Of the files that exported source reads, with torchvision."""
        return self.other_folder or self.folder


MNIST = TorchvisionSet(constructor="MNIST", folder="MNIST/raw")  # for whoever has not this package
CIFAR10 = TorchvisionSet(
    constructor="CIFAR10",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    input_shape=(3, 32, 32),
    folder="cifar-10-batches-bin",
    files=(*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
    training_files=5,
    other_folder="cifar-10-batches-py",
)
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"  # torchvision has the one made of pickles
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


def stratified_sixth(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Mask (N,) of a sixth of the images, rounded up, shared among the classes by largest remainder.

    RandomState and not default_rng: NumPy has frozen its stream for good (NEP 19), so the split is the same anywhere.
    """
    total = math.ceil(len(labels) / HOLDOUT)
    counts = np.bincount(labels)
    quotas, remainders = np.divmod(counts * total, len(labels))
    quotas[np.argsort(-remainders, kind="stable")[: total - quotas.sum()]] += 1
    shuffled = np.lexsort((np.random.RandomState(SPLIT_SEED).random_sample(len(labels)), labels))
    rank_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    mask = np.zeros(len(labels), dtype=np.bool_)
    mask[shuffled] = rank_in_class < np.repeat(quotas, counts)
    return mask


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


def read_images(dataset: Dataset, *, train: bool) -> tuple[Images, tuple[str, ...]]:
    """The training or the test images of a data set, and the names of its classes.

    Raises:
        UserError: an unknown data set, another input shape, or files that are missing or damaged.
    """
    if dataset.name == "mnist":
        _require_shape(dataset, MNIST.input_shape)
        return load_mnist(importlib.resources.files("nas.datasets.mnist"), "train" if train else "t10k"), MNIST.classes
    if dataset.name in TORCHVISION:
        return _load_torchvision(dataset, TORCHVISION[dataset.name], train=train)
    return _load_folder(_folder_named(dataset.name), dataset.input_shape, train=train)


def _folder_named(name: str) -> Path:
    try:
        root = Path(name).expanduser()
        if root.is_dir():
            return root
        found = f"there is no folder {root.resolve()}"
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null character, no such user
        found = f"that can be no folder here ({getattr(error, 'strerror', None) or error})"
    known = ", ".join(("mnist", *TORCHVISION))
    raise UserError(f"unknown data set {name!r}: known are {known}, or the path of a folder of class folders; {found}")


def _require_shape(dataset: Dataset, shape: tuple[int, int, int]) -> None:
    if dataset.input_shape != shape:
        raise UserError(
            f"data set {dataset.name!r}: input_shape {dataset.input_shape} must be {shape}, as its images are"
        )


def _load_torchvision(dataset: Dataset, source: TorchvisionSet, *, train: bool) -> tuple[Images, tuple[str, ...]]:
    _require_shape(dataset, source.input_shape)
    try:
        data_dir = Path(dataset.data_dir or DATA_DIR).expanduser()
    except RuntimeError as error:
        raise UserError(f"--data-dir {dataset.data_dir or DATA_DIR}: no such home folder; give another") from error
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
    """Raises ValueError for what no such data set holds."""
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
    """Download what is missing; a folder with the files may be read-only."""

    def missing() -> bool:
        return not all((data_dir / source.folder / name).is_file() for name in source.files)

    if missing():
        data_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(data_dir / f"{source.constructor}.lock"):  # one process downloads, the others wait
            if missing():
                _download(data_dir, source, train=train)


def _download(data_dir: Path, source: TorchvisionSet, *, train: bool) -> None:
    import torchvision.datasets  # here, because reading needs none of it: seconds in every worker process

    if source is CIFAR10:
        torchvision.datasets.utils.download_and_extract_archive(CIFAR10_URL, str(data_dir), md5=CIFAR10_MD5)
        return
    made = getattr(torchvision.datasets, source.constructor)
    bare = made.__new__(made)  # its constructor would hand some files to torch.load
    vars(bare).update(root=str(data_dir), train=train, **dict(source.options))
    bare.download()


def _load_folder(root: Path, shape: tuple[int, int, int], *, train: bool) -> tuple[Images, tuple[str, ...]]:
    if shape[0] not in (1, 3):
        raise UserError(f"folder {root}: input_shape {shape} must have 1 channel (grey) or 3 (colour)")
    if (root / "train").is_dir() and (root / "test").is_dir():
        samples, classes = _list_samples(root / "train", min_images=MIN_IMAGES)
        test_samples, test_classes = _list_samples(root / "test", min_images=1)
        if test_classes != classes:
            odd = ", ".join(sorted(set(classes) ^ set(test_classes)))
            raise UserError(f"folder {root}: train/ and test/ must have the same class folders, but differ in {odd}")
        samples = samples if train else test_samples
    else:
        samples, classes = _list_samples(root, min_images=MIN_IMAGES_BEFORE_TEST)
        held_out = stratified_sixth(np.array([label for _, label in samples], dtype=np.int64))
        samples = [sample for sample, is_test in zip(samples, held_out, strict=True) if is_test != train]
    pixels = np.stack([_read_image(path, shape) for path, _ in samples])
    labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
    return Images(images=torch.from_numpy(pixels), labels=labels), classes


def _list_samples(folder: Path, *, min_images: int) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    """The image files of a folder of class folders, with their labels; lists names and opens nothing."""
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."))
    if odd := [name for name in classes if not name.isprintable()]:
        raise UserError(f"folder {folder}: the class folder {odd[0]!r} must have a name of printable characters")
    if len(classes) < 2:
        found = f"only the class folder {classes[0]!r}" if classes else "no class folders"
        raise UserError(f"folder {folder}: has {found}; it needs at least 2, one for each class")
    samples = [
        (path, label)
        for label, name in enumerate(classes)
        for path in _files_below(folder / name)
        if path.lower().endswith(IMAGE_EXTENSIONS)
    ]
    counts = np.bincount([label for _, label in samples], minlength=len(classes))
    if (fewest := int(counts.min())) < min_images:
        name = classes[int(counts.argmin())]
        raise UserError(
            f"folder {folder}: class {name!r} has {fewest} images; every class needs at least {min_images}"
            f" ({', '.join(IMAGE_EXTENSIONS)})"
        )
    return samples, classes


def _files_below(folder: Path) -> Iterator[str]:
    """In torchvision's order, on which splits depend; unlike there, links to folders are left alone: they may loop."""
    for place, _, names in sorted(os.walk(folder)):
        yield from (str(Path(place) / name) for name in sorted(names))


def _read_image(path: str, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """One file as uint8 (C, H, W): grey or colour, resized."""
    from PIL import Image

    channels, height, width = shape
    try:
        if not Path(path).is_file():  # a pipe would be waited for, a device read without end
            raise ValueError("it is no file")
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=IMAGE_FORMATS) as image:
            if image.mode[0] in "IF":  # Pillow would clip them, mostly to white
                raise ValueError(f"mode {image.mode} has more than 8 bits a channel")
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it has {image.width:,} × {image.height:,} pixels, more than {MOST_PIXELS:,}")
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # of a photograph, the others are previews
                raise ValueError("it has several frames")
            resized = image.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)
    except Exception as error:  # whatever a damaged file makes a decoder raise
        raise UserError(
            f"image {path} cannot be read ({error}); replace it, or remove it before a study begins"
        ) from error
    return np.asarray(resized, dtype=np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
