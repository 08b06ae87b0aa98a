"""Where a search stands, as values: what a scheduler tells and the console shows."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from nas.analysis.statistics import Spread
from nas.space.rejections import Ledger
from nas.study.records import TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A training in a worker; the accuracy is that of its last finished epoch."""

    label: str  # such as its trial's number
    notation: str
    params: int
    epoch: int
    epochs: int
    val_accuracy: float | None
    node: str = ""  # of the cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What has been trained and what is left; `news` is what just happened: a milestone, or an epoch of a training."""

    done: int
    total: int
    failed: int
    epochs: int  # trained so far, in the whole study
    running: tuple[Running, ...]
    seconds_left: float | None
    news: str
    milestone: bool = True
    nodes: Mapping[str, int] = field(default_factory=dict)  # of the cluster, with their workers


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchProgress(Progress):
    """Of the trials of a search."""

    stopped_early: int
    ledger: Ledger
    best: tuple[TrialRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What one network's runs on several seeds have come to; no accuracy before the first has finished."""

    label: str
    notation: str
    params: int
    accuracy: Spread | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress(Progress):
    """Of full trainings outside the search."""

    standings: tuple[Standing, ...]


Show = Callable[[Iterator[Progress], str], None]  # shows a person what is being trained, to its end, under a title
