"""Where a search stands, as values: what the scheduler tells and the console shows."""

from dataclasses import dataclass

from nas.sampling import Ledger
from nas.study import TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A trial in a worker; the accuracy is that of its last finished epoch."""

    number: int
    notation: str
    params: int
    epoch: int
    epochs: int
    val_accuracy: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a search stands; `news` is what just happened: a milestone, or an epoch of a trial that goes on."""

    trained: int
    total: int
    stopped_early: int
    failed: int
    epochs: int  # trained so far, in the whole study
    ledger: Ledger
    running: tuple[Running, ...]
    best: tuple[TrialRecord, ...]
    seconds_left: float | None
    news: str
    milestone: bool
