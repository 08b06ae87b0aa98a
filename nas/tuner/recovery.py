"""What to do after a fault: a worker died or hung, memory ran out, or a training raised an exception.

A decision is a value: the scheduler carries it out.
"""

from collections import Counter
from dataclasses import dataclass
from typing import TypeAlias

from nas.errors import UserError, printable
from nas.training.job import OutOfMemoryError

MAX_RERUNS = 2  # of a training whose worker was lost
MAX_ALIKE = 3  # trainings that failed for the same reason, with none that ended well between them: then it is a bug
PATIENCE = 20  # times as long as the slowest network known would take for an epoch, at equal seconds per MAC ...
LEAST_PATIENCE = 300.0  # ... but at least so many seconds ...
FIRST_PATIENCE = 3600.0  # ... and so many before the first epoch
HALVES = 2  # parts of a batch, when a whole one takes too much memory
WORKER_LOST = "its worker was lost"


@dataclass(frozen=True, slots=True)
class TrainAgain:
    """Train again in another worker, from the first epoch."""

    news: str
    micro_batches: int | None = None  # None: as before


@dataclass(frozen=True, slots=True)
class EndFailed:
    """End the training as failed, and go on with others."""

    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the training as failed, and the whole loop with an error."""

    reason: str
    error: Exception


Decision: TypeAlias = TrainAgain | EndFailed | GiveUp


class Recovery:
    """Decides after each fault; counts those of a kind until a training ends well.

    It also says how long a worker may take for an epoch: `epoch_timeout` seconds, or by default much longer than
    expected.
    """

    def __init__(self, epoch_timeout: float | None = None) -> None:
        self._epoch_timeout = epoch_timeout
        self._slowest: float | None = None  # seconds per MAC of an epoch
        self._failures: Counter[str] = Counter()  # by reason, since a training ended well

    def note_epoch(self, seconds: float, macs: int) -> None:
        """Remember how long an epoch of a network took."""
        self._slowest = max(self._slowest or 0.0, seconds / macs)

    def note_good_end(self) -> None:
        """Forget the faults so far: a training ended well."""
        self._failures.clear()

    def patience(self, macs: int) -> float:
        """Seconds that a worker may take for an epoch of a network."""
        if self._epoch_timeout is not None:
            return self._epoch_timeout
        if self._slowest is None:
            return FIRST_PATIENCE
        return max(LEAST_PATIENCE, PATIENCE * self._slowest * macs)

    def after_lost_worker(self, how: str, lost: Counter[str]) -> Decision:
        """What to do with a training that lost a worker now; `lost` counts all that it lost by how: "died", "hung"."""
        if lost.total() <= MAX_RERUNS:
            return TrainAgain(f"its worker {how}; it is trained again")
        ways = ", ".join(f"{way} {_times(count)}" for way, count in lost.items())
        reason = f"its worker {ways}"
        return GiveUp(reason, _workers_lost(ways, lost)) if self._is_last(WORKER_LOST) else EndFailed(reason)

    def after_error(self, error: Exception, micro_batches: int) -> Decision:
        """What to do with a training that raised an exception; its batches were cut into so many parts."""
        if isinstance(error, OutOfMemoryError) and micro_batches < HALVES:
            return TrainAgain("out of memory; it is trained again with half a batch at a time", HALVES)
        reason = printable(f"{type(error).__name__}: {error}")
        return GiveUp(reason, _for_person(error)) if self._is_last(type(error).__name__) else EndFailed(reason)

    def _is_last(self, kind: str) -> bool:
        """Count a fault of a kind; whether it is one too many."""
        self._failures[kind] += 1
        return self._failures[kind] == MAX_ALIKE


def _workers_lost(ways: str, lost: Counter[str]) -> UserError:
    way_out = "a longer --epoch-timeout" if lost["hung"] else "fewer --jobs or lower limits, if memory ran out"
    return UserError(
        f"the workers of {MAX_ALIKE} trainings were lost {MAX_RERUNS + 1} times each, none that ended well "
        f"between; the last one's {ways}: give {way_out}"
    )


def _for_person(error: Exception) -> Exception:
    """The error that the person at the terminal gets: a bug as it is, and of memory a way out."""
    if not isinstance(error, OutOfMemoryError):
        return error
    mendable = UserError(
        f"{MAX_ALIKE} trainings were out of memory, even with half a batch at a time ({error}); give fewer "
        "--jobs, lower limits, or a recipe with smaller batches"
    )
    mendable.__cause__ = error
    return mendable


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
