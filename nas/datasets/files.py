"""Image files, decoded once a machine: what they hold is kept as one file of pixels, which all later commands read.

The kept file is named after everything that its content follows from: the files with their sizes and times of change,
the classes, the parts and groups, the input shape and how pictures are prepared. The oldest of them are removed when
they take more than MOST_KEPT together; the whole folder may be removed at any time.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from filelock import FileLock

from nas.datasets.dataset import Dataset, data_folder
from nas.datasets.duplicates import equal_images, joined, near_images
from nas.datasets.listing import Listing, Part, Sample, listed
from nas.datasets.pixels import read_image
from nas.datasets.sheet import PART_NAMES, DataSheet
from nas.datasets.split import MIN_IMAGES, Images, Pool, stratified_sixth
from nas.errors import UserError
from nas.system.cores import usable_cores
from nas.system.files import writable, write_whole

VERSION = 1  # of how files become pixels and parts
MOST_KEPT = 8 << 30  # bytes
CHUNK = 16  # files that a thread reads before it tells of them
Told: TypeAlias = Callable[[int, int], None]  # how many files have been read, of how many
Mask: TypeAlias = npt.NDArray[np.bool_]


def nobody(done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class _Picture:
    """A file that was read, or why it cannot be."""

    pixels: npt.NDArray[np.uint8] | None
    reason: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)


def read_files(dataset: Dataset, *, train: bool, tell: Told = nobody) -> Pool:
    """The training images of a folder or table, those for validation marked, or the test images.

    Raises:
        UserError: a folder, table, class or file that cannot be used.
    """
    part = "train" if train else "test"
    with _opened(keep_files(dataset, tell)) as file:
        images, labels, held_out = (file.get_tensor(f"{part}.{of}") for of in ("images", "labels", "held_out"))
        classes = tuple(json.loads(file.metadata()["classes"]))
    return Pool(images=Images(images=images, labels=labels), held_out=held_out.numpy(), classes=classes)


def sheet_of_files(dataset: Dataset, tell: Told = nobody) -> DataSheet:
    """What is known of a folder or table.

    Raises:
        UnreadableError: files that cannot be read; it holds the sheet.
        UserError: as `read_files` does.
    """
    with _opened(keep_files(dataset, tell)) as file:
        return DataSheet.from_json(file.metadata()["sheet"])


class UnreadableError(UserError):
    """Files that cannot be read, with what is known of the data set otherwise."""

    def __init__(self, message: str, sheet: DataSheet) -> None:
        super().__init__(message)
        self.sheet = sheet


@contextmanager
def _opened(kept: Path) -> Iterator[Any]:
    """A file of pixels. Raises UserError where it is damaged."""
    try:
        with safetensors.safe_open(str(kept), "pt") as file:
            yield file
    except Exception as error:  # whatever a damaged file makes the library raise
        raise UserError(f"the kept pixels {kept} cannot be read ({error}); remove that file") from error


def keep_files(dataset: Dataset, tell: Told = nobody) -> Path:
    """The file of pixels, made where it is missing. Raises UserError as `read_files` does."""
    if dataset.input_shape[0] not in (1, 3):
        raise UserError(
            f"folder {dataset.name}: input_shape {dataset.input_shape} must have 1 channel (grey) or 3 (colour)"
        )
    listing = listed(dataset.name)
    folder = data_folder(dataset) / "pictures"
    kept = folder / f"{_digest(dataset, listing)}.safetensors"
    with writable(f"the folder of pixels {folder}", "give another with --data-dir"):
        if not kept.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "lock"):  # one process reads, the others wait
                if not kept.exists():
                    content = _content(dataset, listing, tell)
                    _make_room(folder, len(content))
                    write_whole(kept, content)
        os.utime(kept)  # it was of use
    return kept


def _digest(dataset: Dataset, listing: Listing) -> str:
    """What the content follows from, as hexadecimal digits."""
    found = hashlib.sha256()
    facts = [VERSION, dataset.input_shape, asdict(dataset.pictures), listing.classes]
    found.update(json.dumps(facts).encode())
    for sample in listing.samples:
        try:
            state = Path(sample.path).stat()
            fact = (state.st_size, state.st_mtime_ns)
        except OSError:
            fact = (0, 0)
        found.update(json.dumps([sample.path, sample.label, sample.part, sample.group, *fact]).encode())
    return found.hexdigest()[:24]


def _make_room(folder: Path, needed: int) -> None:
    """Remove what was of no use for longest."""
    kept = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    total = needed + sum(path.stat().st_size for path in kept)
    while kept and total > MOST_KEPT:
        oldest = kept.pop(0)
        total -= oldest.stat().st_size
        oldest.unlink(missing_ok=True)


def _content(dataset: Dataset, listing: Listing, tell: Told) -> bytes:
    sheet, pools = _examined(dataset, listing, tell)
    if sheet.unreadable:
        few = "; ".join(f"{path} ({reason})" for path, reason in sheet.unreadable[:3])
        more = len(sheet.unreadable) - 3
        raise UnreadableError(
            f"{listing}: {len(sheet.unreadable):,} of {len(listing.samples):,} images cannot be read: {few}"
            f"{f'; and {more:,} more' if more > 0 else ''}; replace or remove them",
            sheet,
        )
    tensors = {}
    for part, pool in pools.items():
        tensors[f"{part}.images"] = pool.images.images
        tensors[f"{part}.labels"] = pool.images.labels
        tensors[f"{part}.held_out"] = torch.from_numpy(pool.held_out)
    return safetensors.torch.save(tensors, {"classes": json.dumps(listing.classes), "sheet": sheet.json})


def _examined(dataset: Dataset, listing: Listing, tell: Told) -> tuple[DataSheet, dict[str, Pool]]:
    """Read and look at every file; the pools are empty where files cannot be read."""
    _require_enough(listing)
    pictures = _read(dataset, listing.samples, tell)
    unreadable = [
        (sample.path, picture.reason)
        for sample, picture in zip(listing.samples, pictures, strict=True)
        if picture.pixels is None
    ]
    whole = [i for i, picture in enumerate(pictures) if picture.pixels is not None]
    samples = [listing.samples[i] for i in whole]
    read = [picture.pixels for picture in pictures if picture.pixels is not None]
    pixels = np.stack(read) if read else np.zeros((0, *dataset.input_shape), np.uint8)
    labels = np.array([sample.label for sample in samples], dtype=np.int64)
    equal = equal_images(pixels)
    near = near_images(pixels)
    copied = joined(equal, near)
    parts, leaks = _parts(labels, copied, joined(copied, _said_groups(samples)), [sample.part for sample in samples])
    if not unreadable:
        _require_all(listing, labels, parts)
    first: dict[int, int] = {}
    copies = [(i, first[number]) for i, number in enumerate(equal.tolist()) if first.setdefault(number, i) != i]

    def paths(pairs: Sequence[tuple[int, int]]) -> list[tuple[str, str]]:
        return [(samples[i].path, samples[j].path) for i, j in pairs]

    sizes = sorted((picture.size for picture in pictures if picture.pixels is not None), key=lambda of: of[0] * of[1])
    counts = {
        part: tuple(np.bincount(labels[parts == part], minlength=len(listing.classes)).tolist()) for part in PART_NAMES
    }
    sheet = DataSheet(
        name=listing.name,
        classes=listing.classes,
        counts=counts,
        given=tuple(part for part in PART_NAMES if any(sample.part == part for sample in listing.samples)),
        sizes=(sizes[0], sizes[-1]) if sizes else None,
        modes=dict(Counter(picture.mode for picture in pictures if picture.mode)),
        skipped=listing.skipped,
        unreadable=unreadable,
        copies=paths([(i, j) for i, j in copies if labels[i] == labels[j]]),
        alike=paths(near),
        leaks=paths(leaks),
        conflicts=paths([(i, j) for i, j in copies if labels[i] != labels[j]]),
    )
    test, training = parts == "test", (parts == "train") | (parts == "validation")
    return sheet, {
        "train": _pool(pixels, labels, training, parts == "validation", listing.classes),
        "test": _pool(pixels, labels, test, parts == "validation", listing.classes),
    }


def _pool(
    pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], of: Mask, held_out: Mask, classes: tuple[str, ...]
) -> Pool:
    images = Images(images=torch.from_numpy(pixels[of]), labels=torch.from_numpy(labels[of]))
    return Pool(images=images, held_out=held_out[of], classes=classes)


def _read(dataset: Dataset, samples: Sequence[Sample], tell: Told) -> list[_Picture]:
    """Every file, in order."""

    def read(chunk: Sequence[Sample]) -> list[_Picture]:
        return [_picture(dataset, sample.path) for sample in chunk]

    chunks = [samples[i : i + CHUNK] for i in range(0, len(samples), CHUNK)]
    found: list[_Picture] = []
    with ThreadPoolExecutor(usable_cores()) as threads:  # Pillow lets other threads run while it decodes
        for pictures in threads.map(read, chunks):
            found += pictures
            tell(len(found), len(samples))
    return found


def _picture(dataset: Dataset, path: str) -> _Picture:
    try:
        image, mode, size = read_image(path, dataset.input_shape, dataset.pictures)
    except ValueError as error:
        return _Picture(None, str(error))
    channels, height, width = dataset.input_shape
    pixels = np.asarray(image, dtype=np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
    return _Picture(np.ascontiguousarray(pixels), mode=mode, size=size)


def _said_groups(samples: Sequence[Sample]) -> list[tuple[int, int]]:
    """Pairs of places of samples of one group, as it was given."""
    first: dict[str, int] = {}
    return [(first.setdefault(sample.group, i), i) for i, sample in enumerate(samples) if sample.group]


def _require_enough(listing: Listing) -> None:
    """Raise UserError where a class has too few images for the parts that are given or drawn from it."""
    given = {sample.part for sample in listing.samples}
    drawn = {part for part in PART_NAMES if part not in given}
    least = {
        "train": 1 + (MIN_IMAGES - 1) * ("validation" in drawn) + 2 * ("test" in drawn),
        "validation": 1,
        "test": 1,
    }
    for part in PART_NAMES:
        if part == "train" or part in given:
            of = [sample.label for sample in listing.samples if (sample.part or "train") == part]
            counts = np.bincount(of, minlength=len(listing.classes))
            if (fewest := int(counts.min())) < least[part]:
                what = "images" if None in given else f"{part} images"
                raise UserError(
                    f"{listing}: class {listing.classes[int(counts.argmin())]!r} has {fewest} {what}; every class "
                    f"needs at least {least[part]}"
                )
    parts: dict[str, Part] = {}
    for sample in listing.samples:
        if sample.group and sample.part and parts.setdefault(sample.group, sample.part) != sample.part:
            raise UserError(
                f"{listing}: group {sample.group!r} is in {parts[sample.group]} and in {sample.part}; the images "
                "of a group must be in one part"
            )


def _parts(
    labels: npt.NDArray[np.int64],
    copied: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    given: Sequence[Part | None],
) -> tuple[npt.NDArray[np.str_], list[tuple[int, int]]]:
    """The part of every image (N,), "" for one that is left out, and pairs: such an image and its copy elsewhere.

    Copies of test images are in no other part, and those of validation images are not trained on.
    """
    parts = np.array([part or "train" for part in given], dtype="<U10")
    leaks = []
    for part, others in (("test", ("train", "validation")), ("validation", ("train",))):
        if part in given:
            there = {int(copied[i]): i for i in np.flatnonzero(parts == part).tolist()}
            for i in np.flatnonzero(np.isin(parts, others)).tolist():
                if int(copied[i]) in there:
                    leaks.append((i, there[int(copied[i])]))
                    parts[i] = ""
        else:
            of = np.flatnonzero(parts == "train")
            parts[of[stratified_sixth(labels[of], groups[of])]] = part
    return parts, leaks


def _require_all(listing: Listing, labels: npt.NDArray[np.int64], parts: npt.NDArray[np.str_]) -> None:
    """Raise UserError where a part has no image of a class, because copies and groups stay together."""
    for part in PART_NAMES:
        counts = np.bincount(labels[parts == part], minlength=len(listing.classes))
        if not counts.min():
            raise UserError(
                f"{listing}: class {listing.classes[int(counts.argmin())]!r} has no {part} images, since copies "
                "of a picture and images of a group stay together; give it more different ones"
            )
