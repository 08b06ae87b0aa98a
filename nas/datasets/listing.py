"""Which image files belong to a data set: folders of class folders, with or without splits, or a table that lists them.

Only names are looked at; no image is opened.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nas.datasets.pixels import EXTENSIONS
from nas.errors import UserError

Part = Literal["train", "validation", "test"]
PARTS: dict[Part, tuple[str, ...]] = {  # the words that name them
    "train": ("train", "training", "trn", "trainset", "traindata"),
    "validation": ("val", "valid", "validate", "validation", "dev", "devel", "development", "eval", "evaluation"),
    "test": ("test", "testing", "tst", "testset", "testdata", "holdout", "heldout"),
}
HIDDEN = "hidden, or left behind by a program"
CLUTTER = ("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information", "__pycache__")
COLUMNS = {  # of a table, by what else they are called
    "path": ("path", "file", "filename", "filepath", "image", "imagepath", "img", "imagefile"),
    "label": ("label", "labels", "class", "classname", "target", "category", "y"),
    "split": ("split", "subset", "part", "partition", "set"),
    "group": ("group", "groupid", "patient", "patientid", "subject", "subjectid"),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """An image file, which class it is of, and what was said of it."""

    path: str
    label: int
    part: Part | None = None  # None where a part is still to be drawn for it
    group: str = ""  # of images that must stay together; "" of one that stands alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The files of a data set, in an order that does not depend on the machine, and those that were passed over."""

    kind: Literal["folder", "table"]
    name: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    given: tuple[Part, ...] = ()  # the parts that it names, also where they are empty
    skipped: Mapping[str, Sequence[str]] = field(default_factory=dict)  # paths, by the reason

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def part_named(name: str) -> Part | None:
    """The part of a data set that a folder or an entry of a table means by its name; None for any other name."""
    words = [word for word in re.split(r"[^a-z]+", name.casefold().replace("hold-out", "holdout")) if word]
    meant = [part for part, names in PARTS.items() if any(word in names for word in words)]
    joined = "".join(words)
    meant = meant or [part for part, names in PARTS.items() if joined in names]
    return meant[0] if len(meant) == 1 else None


def listed(name: str) -> Listing:
    """The files of a folder of class folders, or of a table.

    Raises:
        UserError: neither, or one whose meaning is not clear: what it seems to be, and what to do.
    """
    root = Path(name).expanduser()
    return _listed_table(root) if root.is_file() else _listed_folder(root)


def _clutter(name: str) -> bool:
    """Whether systems and programs leave files or folders of this name behind."""
    return name.startswith(".") or name.casefold() in CLUTTER


def _folders(place: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in place.iterdir() if entry.is_dir() and not _clutter(entry.name))
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> UserError:
    return UserError(f"folder {error.filename} cannot be read ({error.strerror}); mend that, or give another")


def _told(names: Sequence[str], most: int = 4) -> str:
    """Names of folders, the first few of them."""
    few = [f"{name}/" for name in names[:most]]
    more = len(names) - len(few)
    return ", ".join([*few, f"and {more} more"] if more > 0 else few)


def _listed_folder(root: Path) -> Listing:
    tops = _folders(root)
    parts = {name: part_named(name) for name in tops}
    named = [name for name, part in parts.items() if part]
    found = Counter(part for part in parts.values() if part)
    if found["train"] and (len(named) > 1 or tops == named):
        if len(named) < len(tops):
            odd = [name for name in tops if name not in named]
            raise UserError(
                f"folder {root}: {_told(named)} seem to be splits, but {_told(odd)} stand beside them; move those away"
            )
        if twice := [part for part, count in found.items() if count > 1]:
            both = [name for name, part in parts.items() if part == twice[0]]
            raise UserError(f"folder {root}: {_told(both)} all seem to be {twice[0]} images; put them into one folder")
        return _listed_parts(root, {part: name for name, part in parts.items() if part})
    if found["train"] and _holds_classes_alone(root, named[0], tops):
        odd = [name for name in tops if name not in named]
        raise UserError(
            f"folder {root}: {named[0]}/ seems to hold the classes, but {_told(odd)} stand beside it; move those away"
        )
    if len(named) > 1 and tops == named:
        raise UserError(
            f"folder {root}: {_told(named)} seem to be splits, but none is of training images; name one train/"
        )
    classes = _classes(root)
    _refuse_equal_subfolders(root, classes)
    skipped = _Skipped([root, *(root / name for name in classes)])
    samples = [sample for label, name in enumerate(classes) for sample in _samples(root / name, label, None, skipped)]
    skipped.loose(root)
    return Listing(kind="folder", name=str(root), classes=classes, samples=tuple(samples), skipped=skipped.by_reason)


def _holds_classes_alone(root: Path, name: str, tops: Sequence[str]) -> bool:
    """Whether this folder, and none beside it, holds several folders."""
    several = [top for top in tops if len(_folders(root / top)) > 1]
    return several == [name]


def _listed_parts(root: Path, names: Mapping[Part, str]) -> Listing:
    """Folders of class folders, one for each part."""
    classes = _classes(root / names["train"])
    skipped = _Skipped([root, *(root / name / of for name in names.values() for of in classes)])
    samples: list[Sample] = []
    for part, name in sorted(names.items()):
        if (others := _classes(root / name)) != classes:
            odd = ", ".join(sorted(set(classes) ^ set(others)))
            raise UserError(
                f"folder {root}: {names['train']}/ and {name}/ must have the same class folders, but differ in {odd}"
            )
        _refuse_equal_subfolders(root / name, classes)
        for label, of in enumerate(classes):
            samples += _samples(root / name / of, label, part, skipped)
        skipped.loose(root / name)
    skipped.loose(root)
    return Listing(
        kind="folder",
        name=str(root),
        classes=classes,
        samples=tuple(samples),
        given=tuple(names),
        skipped=skipped.by_reason,
    )


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(_folders(folder))
    if odd := [name for name in classes if not name.isprintable()]:
        raise UserError(f"folder {folder}: the class folder {odd[0]!r} must have a name of printable characters")
    if len(classes) < 2:
        found = f"only the class folder {classes[0]!r}" if classes else "no class folders"
        hint = (
            f"; if its classes are in it, give {folder / classes[0]}"
            if classes and _folders(folder / classes[0])
            else ""
        )
        raise UserError(f"folder {folder}: has {found}; it needs at least 2, one for each class{hint}")
    return classes


def _refuse_equal_subfolders(root: Path, classes: Sequence[str]) -> None:
    """Raise UserError where every class holds splits, or the same several folders: then those are the classes."""
    below = [set(_folders(root / name)) for name in classes]
    common = sorted(set.intersection(*below))
    if parts := [name for name in common if part_named(name)]:
        raise UserError(
            f"folder {root}: each of {_told(classes)} holds {_told(parts)}, which seem to be splits; put the class "
            "folders into folders of splits, such as train/CLASS, or list the files in a table with a column split"
        )
    if len(common) > 1:
        raise UserError(
            f"folder {root}: each of {_told(classes)} holds {_told(common)}; give one of these folders if those are "
            "the classes, or list the files in a table: path,label,group"
        )


class _Skipped:
    """What is passed over, by the reason; `own` are the class folders, and what they lie in."""

    def __init__(self, own: Sequence[Path]) -> None:
        self.own = {folder.resolve() for folder in own}
        self.above = {place for folder in self.own for place in folder.parents}
        self.by_reason: dict[str, list[str]] = {}

    def add(self, reason: str, path: str) -> None:
        self.by_reason.setdefault(reason, []).append(path)

    def loose(self, folder: Path) -> None:
        """Note what lies beside the class folders."""
        for entry in sorted(folder.iterdir()):
            if _clutter(entry.name):
                self.add(HIDDEN, str(entry))
            elif not entry.is_dir():
                self.add("in no class folder", str(entry))

    def leads_back(self, real: Path, top: Path) -> bool:
        """Whether a folder below the class folder `top` is, holds or lies in another folder of the data set."""
        if real in self.above or real in self.own:
            return True
        return any(place in self.own for place in real.parents if place != top and place not in top.parents)


def _samples(folder: Path, label: int, part: Part | None, skipped: _Skipped) -> Iterator[Sample]:
    for path in _files_below(folder, skipped):
        name = Path(path).name
        if _clutter(name):
            skipped.add(HIDDEN, path)
        elif not name.lower().endswith(EXTENSIONS):
            skipped.add("no image by its name", path)
        else:
            yield Sample(path, label, part)


def _files_below(folder: Path, skipped: _Skipped) -> list[str]:
    """The files in torchvision's order, on which splits depend; links may loop or lead to another class's folder."""
    found: list[tuple[str, list[str]]] = []
    top = folder.resolve()
    seen = {top}

    def fail(error: OSError) -> None:
        raise _unreadable(error) from error

    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        folders.sort()  # which of two links to one folder is followed must not depend on the machine
        for name in tuple(folders):
            below = Path(place, name)
            real = below.resolve()
            if _clutter(name):
                skipped.add(HIDDEN, str(below))
                folders.remove(name)
            elif real in seen or skipped.leads_back(real, top):
                skipped.add("a link to a folder of the data set", str(below))
                folders.remove(name)
            else:
                seen.add(real)
        found.append((place, names))
    return [str(Path(place, name)) for place, names in sorted(found) for name in sorted(names)]


def _listed_table(file: Path) -> Listing:
    """Files that a table lists: path,label[,split][,group], with commas, semicolons or tabs."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file} is no table that can be read ({error}); give a folder, or a CSV file in UTF-8"
        ) from error
    first = text.strip().splitlines()[0] if text.strip() else ""
    rows = csv.reader(text.splitlines(), delimiter=max(",;\t", key=first.count), strict=True)
    try:
        told = [(rows.line_num, [cell.strip() for cell in row]) for row in rows]
        (_, header), *lines = [(number, cells) for number, cells in told if any(cells)]
    except (csv.Error, ValueError) as error:
        raise UserError(f"table {file} is no table ({error}); its first line names the columns: path,label") from error
    columns = _columns(file, header)
    samples, labels = [], []
    for number, row in lines:
        if len(row) != len(header):
            raise UserError(f"table {file}: line {number} has {len(row)} cells, and the first line {len(header)}")
        cells = {name: row[place] for name, place in columns.items()}
        if not (cells["path"] and cells["label"] and cells["label"].isprintable()):
            raise UserError(f"table {file}: line {number} has no path or no label; give both, or remove it")
        part = None
        if said := cells.get("split", ""):
            part = part_named(said)
            if part is None:
                raise UserError(f"table {file}: line {number} has the split {said!r}; give train, validation or test")
        labels.append(cells["label"])
        samples.append((str(file.parent / cells["path"]), part, cells.get("group", "")))
    classes = tuple(sorted(set(labels), key=_by_number))
    if len(classes) < 2:
        raise UserError(f"table {file}: has {len(classes)} classes; it needs at least 2")
    twice = [path for path, count in Counter(path for path, _, _ in samples).items() if count > 1]
    if twice:
        raise UserError(f"table {file}: {twice[0]} stands in several rows; leave one of them")
    if "split" in columns and any(part is None for _, part, _ in samples) and any(part for _, part, _ in samples):
        raise UserError(f"table {file}: some rows have a split and some have none; give every row one, or none")
    number_of = {name: number for number, name in enumerate(classes)}
    return Listing(
        kind="table",
        name=str(file),
        classes=classes,
        given=tuple(part for part in PARTS if any(part == of for _, of, _ in samples)),
        samples=tuple(
            Sample(path, number_of[label], part, group)
            for (path, part, group), label in zip(samples, labels, strict=True)
        ),
    )


def _columns(file: Path, header: Sequence[str]) -> dict[str, int]:
    """Where each column stands, by its name."""
    found: dict[str, int] = {}
    for place, title in enumerate(header):
        word = re.sub(r"[^a-z]", "", title.casefold())
        for name, others in COLUMNS.items():
            if word in others and name not in found:
                found[name] = place
    for name in ("path", "label"):
        if name not in found:
            raise UserError(
                f"table {file}: no column {name!r} among {', '.join(header)}; name one so, or {COLUMNS[name][1]}"
            )
    return found


def _by_number(name: str) -> tuple[bool, float, str]:
    """Numbers in their order, then words in theirs."""
    return (False, float(name), name) if re.fullmatch(r"-?\d+(\.\d+)?", name) else (True, 0.0, name)
