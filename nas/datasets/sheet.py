"""What is known of a data set before anything is trained."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nas.datasets.listing import Part
from nas.errors import escaped
from nas.space.recipe import FEW_IMAGES

FEW = 20  # training images of a class, below which its recall is a matter of luck
FEW_TO_JUDGE = 100  # validation images, below which one of them moves an accuracy by more than a point
EXAMPLES = 3  # of files that are told


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSheet:
    """What a data set holds, and what is odd about it; `str()` of it is a page for a person.

    Paths are those of files, or of a table's rows.
    """

    name: str
    classes: tuple[str, ...]
    counts: Mapping[Part, tuple[int, ...]]  # images of each class, by part
    given: tuple[Part, ...]  # the parts that the data set says itself; the others were drawn
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None  # width and height of the smallest and largest image
    modes: Mapping[str, int] = field(default_factory=dict)  # images by Pillow's mode
    skipped: Mapping[str, Sequence[str]] = field(default_factory=dict)  # files by why they were passed over
    unreadable: Sequence[tuple[str, str]] = ()  # files, and why they cannot be read
    copies: Sequence[tuple[str, str]] = ()  # images, and an earlier one that is equal
    alike: Sequence[tuple[str, str]] = ()  # images that look like one in another part
    leaks: Sequence[tuple[str, str]] = ()  # images that are left out, and the equal one in another part
    conflicts: Sequence[tuple[str, str]] = ()  # equal images of different classes

    @property
    def json(self) -> str:
        """All of it as text, for `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "DataSheet":
        """What `json` has written."""
        return cls(**{name: _tuples(value) for name, value in json.loads(text).items()})

    @property
    def majority(self) -> tuple[str, float]:
        """The largest class of the validation images, and the accuracy of always answering with it."""
        counts = self.counts["validation"]
        return self.classes[counts.index(max(counts))], max(counts) / max(1, sum(counts))

    @property
    def warnings(self) -> list[str]:
        """What a person should look at, one sentence each."""
        found = (
            [
                f"{_many(len(self.leaks), 'image')} left out: copies of images in another part, such as "
                f"{_pair(self.leaks)}"
            ]
            if self.leaks
            else []
        )
        if self.conflicts:
            found.append(f"{_many(len(self.conflicts), 'picture')} in two classes, such as {_pair(self.conflicts)}")
        if self.copies:
            found.append(f"{_many(len(self.copies), 'image')} equal to an earlier one, such as {_pair(self.copies)}")
        if self.alike:
            found.append(
                f"{_many(len(self.alike), 'pair')} of images of two parts that look alike, such as {_pair(self.alike)}"
            )
        if few := [count for count in self.counts["train"] if count < FEW]:
            name = self.classes[self.counts["train"].index(min(few))]
            found.append(
                f"{_many(len(few), 'class', 'es')} of fewer than {FEW} training images; {name!r} has {min(few)}"
            )
        if "validation" in self.given:
            found += few_to_judge(sum(self.counts["validation"]))
        name, share = self.majority
        if share > 2 / max(2, len(self.classes)) or share > 0.8:
            found.append(f"always answering {name!r} is right for {share:.1%} of the validation images")
        return found

    def __str__(self) -> str:
        total = sum(map(sum, self.counts.values()))
        lines = [f"{self.name}: {total:,} images of {len(self.classes)} classes", ""]
        lines += _table(self._rows())
        lines.append("")
        if drawn := [part for part in PART_NAMES[1:] if part not in self.given]:
            lines.append(f"drawn from the training images: {' and '.join(drawn)}; copies and groups stay together")
            if "validation" in drawn and sum(self.counts["train"]) < FEW_IMAGES:
                lines.append("these are few: a search with --data holds every sixth image out in turn")
        if self.sizes:
            (w, h), (x, y) = self.sizes
            modes = ", ".join(f"{count:,} {mode}" for mode, count in Counter(self.modes).most_common())
            lines.append(f"sizes: {w}×{h} to {x}×{y} pixels; kinds: {modes}")
        for reason, paths in self.skipped.items():
            lines.append(f"passed over, {reason}: {len(paths):,} ({_few(paths)})")
        lines += [f"warning: {text}" for text in self.warnings]
        lines += [f"cannot be read: {path} ({reason})" for path, reason in self.unreadable]
        return "\n".join(map(escaped, lines))

    def _rows(self) -> list[tuple[str, ...]]:
        """Counts by class and part, of the parts that are known."""
        known = [part for part in PART_NAMES if self.counts[part]]
        rows = [(name, *(f"{self.counts[part][i]:,}" for part in known)) for i, name in enumerate(self.classes)]
        return [("class", *known), *rows, ("all", *(f"{sum(self.counts[part]):,}" for part in known))]


PART_NAMES: tuple[Part, ...] = ("train", "validation", "test")


def _tuples(value: Any) -> Any:
    """Lists as tuples, at every depth."""
    if isinstance(value, dict):
        return {name: _tuples(of) for name, of in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _many(count: int, what: str, plural: str = "s") -> str:
    return f"{count:,} {what}{plural if count != 1 else ''}"


def _pair(pairs: Sequence[tuple[str, str]]) -> str:
    one, other = pairs[0]
    return f"{one} and {other}"


def few_to_judge(images: int) -> list[str]:
    """The warning of few images to judge a network on, where they are."""
    if not 0 < images < FEW_TO_JUDGE:
        return []
    moved = 100 / images
    return [f"{_many(images, 'validation image')}: one of them moves an accuracy by {moved:.1f} points"]


def _few(paths: Sequence[str]) -> str:
    return ", ".join([*paths[:EXAMPLES], *["…"] * (len(paths) > EXAMPLES)])


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
