"""Image files, decoded once a machine: what they hold is kept as one file of pixels, which all later commands read.

The kept file is named after everything that its content follows from: the files with their sizes and times of change,
the classes, the parts and groups, the input shape and how pictures are prepared. The oldest of them are removed when
they would take more than MOST_KEPT together; the whole folder may be removed at any time.
"""

import hashlib
import json
import logging
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from filelock import FileLock

from nas.datasets.dataset import Dataset, data_folder
from nas.datasets.duplicates import Groups, equal_images, joined, near_images
from nas.datasets.listing import Listing, Part, Sample, listed
from nas.datasets.pixels import read_image
from nas.datasets.sheet import PART_NAMES, DataSheet
from nas.datasets.split import MIN_IMAGES, Images, Mask, Numbers, Pool, stratified_sixth
from nas.errors import UserError
from nas.system.cores import usable_cores
from nas.system.files import remove_partial, writable, write_whole

VERSION = 2  # of how files become pixels and parts
MOST_KEPT = 8 << 30  # bytes
KEPT = ("images", "labels", "held_out", "groups")  # of a part
DIGITS = 24  # of a name
MOST_ALIKE = 20  # images that look the same and are kept together; where more do, looks tell nothing
CHUNK = 16  # files that a thread reads before it tells of them
Told: TypeAlias = Callable[[int, int], None]  # how many files have been read, of how many


def nobody(done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class _Picture:
    """A file that was read, or why it cannot be."""

    pixels: npt.NDArray[np.uint8] | None
    reason: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)


def read_files(dataset: Dataset, *, train: bool) -> Pool:
    """The training images of a folder or table, those for validation marked, or the test images.

    Raises:
        UserError: a folder, table, class or file that cannot be used.
    """
    part = "train" if train else "test"
    with _opened(_kept(dataset, dataset.files or keep_files(dataset))) as file:
        images, labels, held_out, groups = (file.get_tensor(f"{part}.{of}") for of in KEPT)
        classes, given = (json.loads(file.metadata()[of]) for of in ("classes", "given"))
    return Pool(
        images=Images(images=images, labels=labels),
        held_out=held_out.numpy(),
        classes=tuple(classes),
        drawn="validation" not in given,
        groups=groups.numpy(),
    )


def sheet_of_files(dataset: Dataset, tell: Told = nobody) -> DataSheet:
    """What is known of a folder or table.

    Raises:
        UnreadableError: files that cannot be read; it holds the sheet.
        UserError: as `read_files` does.
    """
    listing, files = _kept_now(dataset, tell)
    with _opened(_kept(dataset, files)) as file:
        sheet = DataSheet.from_json(file.get_tensor("sheet").numpy().tobytes().decode())
    return replace(sheet, name=listing.name, skipped=listing.skipped)


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


def keep_files(dataset: Dataset, tell: Told = nobody) -> str:
    """Make sure that the pixels are kept, and give the name under which they are: `Dataset.files`.

    Raises:
        UserError: as `read_files` does; also where the files have changed since they had the name that is given.
    """
    return _kept_now(dataset, tell)[1]


def _kept(dataset: Dataset, files: str) -> Path:
    """The file of pixels of this name; where it is gone, it is made again. Raises UserError as `keep_files` does."""
    path = _folder(dataset) / f"{files}.safetensors"
    if not path.exists():
        _kept_now(dataset, nobody)
    return path


def _folder(dataset: Dataset) -> Path:
    return data_folder(dataset) / "pictures"


def _kept_now(dataset: Dataset, tell: Told) -> tuple[Listing, str]:
    """What the data set holds now, and the name of its pixels, which are made where they are missing."""
    if dataset.input_shape[0] not in (1, 3):
        raise UserError(
            f"folder {dataset.name}: input_shape {dataset.input_shape} must have 1 channel (grey) or 3 (colour)"
        )
    listing = listed(dataset.name)
    files, folder = _digest(dataset, listing), _folder(dataset)
    if dataset.files and dataset.files != files:
        raise UserError(f"{listing}: its files have changed since this began; begin anew, or bring the old ones back")
    path, trouble = folder / f"{files}.safetensors", "give another with --data-dir"
    if not path.exists():
        with writable(f"the folder of pixels {folder}", trouble):
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / "lock")
            lock.acquire()  # one process reads, the others wait
        try:
            if not path.exists():
                content = _content(dataset, listing, tell)
                with writable(f"the folder of pixels {folder}", trouble):
                    _make_room(folder, len(content))
                    write_whole(path, content)
        finally:
            lock.release()
    with suppress(OSError):  # it is somebody else's
        os.utime(path)  # it was of use
    return listing, files


def _digest(dataset: Dataset, listing: Listing) -> str:
    """What the content follows from, as hexadecimal digits."""
    found = hashlib.sha256()
    facts = [VERSION, dataset.input_shape, asdict(dataset.pictures), listing.classes]
    found.update(json.dumps(facts).encode())
    for sample in listing.samples:
        path = Path(sample.path).absolute()
        try:
            state = path.stat()
            fact = (state.st_size, state.st_mtime_ns)
        except (OSError, ValueError):  # such as a null character
            fact = (0, 0)
        found.update(json.dumps([str(path), sample.label, sample.part, sample.group, *fact]).encode())
    return found.hexdigest()[:DIGITS]


def _make_room(folder: Path, needed: int) -> None:
    """Remove what was of no use for longest, and what killed programs left half written."""
    remove_partial(folder)
    ours = [path for path in folder.glob("*.safetensors") if re.fullmatch(f"[0-9a-f]{{{DIGITS}}}", path.stem)]
    kept = sorted(ours, key=lambda path: path.stat().st_mtime)
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
    tensors = {"sheet": torch.frombuffer(bytearray(sheet.json.encode()), dtype=torch.uint8)}
    for part, pool in pools.items():
        values = (pool.images.images, pool.images.labels, *map(torch.from_numpy, (pool.held_out, pool.groups)))
        tensors |= {f"{part}.{of}": value for of, value in zip(KEPT, values, strict=True)}
    facts = {"classes": json.dumps(listing.classes), "given": json.dumps(sorted(listing.given))}
    return safetensors.torch.save(tensors, facts)


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
    near = near_images(pixels, equal)
    groups = joined(joined(equal, _few_alike(equal, near)), _said_groups(samples))
    parts, leaks = _parts(listing, samples, labels, equal, groups)
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
        given=tuple(part for part in PART_NAMES if part in listing.given),
        sizes=(sizes[0], sizes[-1]) if sizes else None,
        modes=dict(Counter(picture.mode for picture in pictures if picture.mode)),
        skipped=listing.skipped,
        unreadable=unreadable,
        copies=paths([(i, j) for i, j in copies if labels[i] == labels[j]]),
        alike=paths([(i, j) for i, j in near if parts[i] != parts[j] and parts[i] and parts[j]]),
        leaks=paths(leaks),
        conflicts=paths([(i, j) for i, j in copies if labels[i] != labels[j]]),
    )
    test, training = parts == "test", (parts == "train") | (parts == "validation")
    return sheet, {
        "train": _pool(pixels, labels, training, parts == "validation", groups, listing.classes),
        "test": _pool(pixels, labels, test, parts == "validation", groups, listing.classes),
    }


def _pool(
    pixels: npt.NDArray[np.uint8], labels: Numbers, of: Mask, held_out: Mask, groups: Groups, classes: tuple[str, ...]
) -> Pool:
    images = Images(images=torch.from_numpy(pixels[of]), labels=torch.from_numpy(labels[of]))
    return Pool(images=images, held_out=held_out[of], classes=classes, groups=groups[of])


def _read(dataset: Dataset, samples: Sequence[Sample], tell: Told) -> list[_Picture]:
    """Every file, in order."""

    def read(chunk: Sequence[Sample]) -> list[_Picture]:
        return [_picture(dataset, sample.path) for sample in chunk]

    chunks = [samples[i : i + CHUNK] for i in range(0, len(samples), CHUNK)]
    found: list[_Picture] = []
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what is wrong with a file is told in its own sentence
    with (
        warnings.catch_warnings(action="ignore"),
        ThreadPoolExecutor(usable_cores()) as threads,
    ):  # Pillow lets others run
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
    drawn = {part for part in PART_NAMES if part not in listing.given}
    least = {
        "train": 1 + (MIN_IMAGES - 1) * ("validation" in drawn) + 2 * ("test" in drawn),
        "validation": 1,
        "test": 1,
    }
    for part in PART_NAMES:
        if part == "train" or part in listing.given:
            of = [sample.label for sample in listing.samples if (sample.part or "train") == part]
            counts = np.bincount(of, minlength=len(listing.classes))
            if (fewest := int(counts.min())) < least[part]:
                what = f"{part} images" if listing.given else "images"
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


def _few_alike(equal: Groups, near: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pairs of images that look the same, but those of many: frames of one camera may differ in what counts."""
    together = joined(equal, near)
    sizes = np.bincount(together[np.unique(equal, return_index=True)[1]])
    return [(i, j) for i, j in near if sizes[together[i]] <= MOST_ALIKE]


def _parts(
    listing: Listing, samples: Sequence[Sample], labels: Numbers, equal: Groups, groups: Groups
) -> tuple[npt.NDArray[np.str_], list[tuple[int, int]]]:
    """The part of every image (N,), "" for one that is left out, and pairs: such an image and its copy elsewhere.

    Copies of test images are in no other part, and those of validation images are not trained on.
    """
    parts = np.array([sample.part or "train" for sample in samples], dtype="<U10")
    leaks = []
    for part, others in (("test", ("train", "validation")), ("validation", ("train",))):
        if part in listing.given:
            there = {int(equal[i]): i for i in np.flatnonzero(parts == part).tolist()}
            for i in np.flatnonzero(np.isin(parts, others)).tolist():
                if int(equal[i]) in there:
                    leaks.append((i, there[int(equal[i])]))
                    parts[i] = ""
    for part in ("test", "validation"):
        of = np.flatnonzero(parts == "train")
        if part not in listing.given and len(of):
            parts[of[stratified_sixth(labels[of], groups[of])]] = part
    return parts, leaks


def _require_all(listing: Listing, labels: Numbers, parts: npt.NDArray[np.str_]) -> None:
    """Raise UserError where a part has no image of a class, because copies and groups stay together."""
    for part in PART_NAMES:
        counts = np.bincount(labels[parts == part], minlength=len(listing.classes))
        if not counts.min():
            raise UserError(
                f"{listing}: class {listing.classes[int(counts.argmin())]!r} has no {part} images, since copies "
                "of a picture and images of a group stay together; give it more different ones"
            )
