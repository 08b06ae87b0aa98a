"""The loop that keeps workers busy: it hands out trainings, reports their epochs, and ends the hopeless ones.

Only the scheduler writes the study. Trainings in flight when it ends stay RUNNING there; the next one takes them up
again under their own numbers, with their own parameters and seeds.
"""

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Generic, TypeAlias, TypeVar

import optuna
from optuna.trial import TrialState

from nas.errors import UserError, printable
from nas.optuna_internals.attributes import keep_detail
from nas.optuna_internals.batched_storage import together
from nas.optuna_internals.trials import report_epoch
from nas.study.curves import Epoch
from nas.study.records import DIVERGED, Record
from nas.system.files import Writer
from nas.training.training import DivergedError, EpochReport, OutOfMemoryError, TrainingJob
from nas.tuner.progress import Progress, Running
from nas.workers.protocol import Fleet, Worker

MAX_RERUNS = 2  # of a training whose worker was lost
MAX_ALIKE = 3  # trainings that failed for the same reason, with none that ended well between them: then it is a bug
PATIENCE = 20  # times as long as the slowest network known would take for an epoch, at equal seconds per MAC ...
LEAST_PATIENCE = 300.0  # ... but at least so many seconds ...
FIRST_PATIENCE = 3600.0  # ... and so many before the first epoch
BEGINNING = 60.0  # seconds more for the first epoch of a worker, which has to start and to load the images
TICK = 1.0  # seconds that the loop waits for an answer, and that count when it looks later: the machine may have slept
TELLING = 60.0  # seconds without any worker, after which it is said, and again
MOMENT = 0.25  # seconds of finding trainings to begin, before those found are begun and answers are looked at
AnyRecord = TypeVar("AnyRecord", bound=Record)
News: TypeAlias = tuple[str, bool]  # what has happened, and whether it is a milestone


@dataclass(slots=True)
class Flight(Generic[AnyRecord]):
    """A training in a worker, and the Optuna trial that is told of it."""

    trial: optuna.Trial
    record: AnyRecord
    job: TrainingJob
    reported: int  # epochs that the study knows of, from an earlier run or a worker that died
    reports: list[EpochReport] = field(default_factory=list)
    seconds: float = 0.0  # trained so far
    lost: Counter[str] = field(default_factory=Counter)  # workers, by how: "died", "hung"
    _running: Running | None = None

    def running(self, node: str) -> Running:
        """What a person sees of it; made once an epoch, while everybody's is told of with every epoch of anybody's."""
        known, epoch = self._running, len(self.reports)
        if known is None or (known.epoch, known.node) != (epoch, node):
            known = self._running = Running(
                label=self.record.label,
                notation=self.record.notation,
                params=self.record.params,
                epoch=epoch,
                epochs=self.record.candidate.recipe.epochs,
                val_accuracy=self.reports[-1].val_accuracy if self.reports else None,
                node=node,
            )
        return known


@dataclass(slots=True, eq=False)
class _Slot(Generic[AnyRecord]):
    """A worker, and what it trains."""

    worker: Worker
    flight: Flight[AnyRecord] | None = None
    silent: float = -BEGINNING  # seconds since it was given something to do


class Scheduler(ABC, Generic[AnyRecord]):
    """Workers of a fleet, and the loop over their answers; what they train is up to the subclass.

    A worker that takes longer than `epoch_timeout` seconds for an epoch is given up; by default, much longer than
    expected.
    """

    def __init__(self, study: optuna.Study, fleet: Fleet, epoch_timeout: float | None = None) -> None:
        self._study = study
        self._fleet = fleet
        self._epoch_timeout = epoch_timeout
        self._slots: list[_Slot[AnyRecord]] = []
        self._lost: deque[Flight[AnyRecord]] = deque()  # trainings without a worker, to be trained again
        self._slowest: float | None = None  # seconds per MAC of an epoch
        self._failures: Counter[str] = Counter()  # by reason, since a training ended well
        self._without = monotonic()  # workers, since then
        self._noticed = monotonic()  # who is silent, up to then
        self._writer = Writer()  # of the files of trainings that end, before the study says that they have

    @abstractmethod
    def _left(self) -> int:
        """How many trainings are left, those in flight among them."""

    def _done(self) -> bool:
        """Whether nothing is to begin any more."""
        return not self._left()

    @abstractmethod
    def _next_flight(self) -> Flight[AnyRecord] | None:
        """What an idle worker trains next, if anything."""

    @abstractmethod
    def _hopeless(self, flight: Flight[AnyRecord]) -> bool:
        """Whether a training ends before its last epoch."""

    @abstractmethod
    def _tell(self, flight: Flight[AnyRecord], state: TrialState, reason: str) -> str:
        """Keep what has become of a training; the news of it."""

    @abstractmethod
    def _progress(self, news: str) -> Progress:
        """Where things stand."""

    @abstractmethod
    def _leave(self) -> Iterator[Progress]:
        """What there is to do and say when all workers are idle."""

    def events(self) -> Iterator[Progress]:
        """Train until nothing is left, telling of every epoch; closing the iterator ends the workers."""
        pending: dict[Future[EpochReport], _Slot[AnyRecord]] = {}
        if not self._left():
            yield self._progress("nothing is left to train")
            yield from self._leave()
            return
        try:
            yield self._progress("workers are starting")
            while True:
                self._noticed = monotonic()
                yield from self._hire()
                begun = self._begun()
                self._notice(pending.values())
                for slot, flight in begun:
                    pending[slot.worker.start(flight.job)] = slot
                yield from self._told((_begins(flight), True) for _, flight in begun)
                if not pending and not self._lost and (self._slots or self._done()):
                    yield from self._leave()
                    return
                answered, news = self._answered(pending, 0.0 if begun else TICK), list[News]()
                with together(self._study, self._writer.finish):
                    for future in answered:
                        slot = pending.pop(future)
                        told, following = self._advance(slot, future)
                        if following is not None:
                            pending[following] = slot
                        news.append(told)
                yield from self._told(news)
        finally:
            for slot in self._slots:
                self._fleet.dismiss(slot.worker)

    def _hire(self) -> Iterator[Progress]:
        """Have as many workers as can be used: of one that has nothing to do, nobody would notice that it is lost."""
        most = len(self._flights) if self._done() else self._left()
        idle = [slot for slot in self._slots if slot.flight is None]
        for slot in idle[: max(0, len(self._slots) - most)]:
            self._dismiss(slot)
        for worker in self._fleet.hire(most):
            self._slots.append(_Slot(worker))
            if worker.node:
                yield self._progress(f"a worker on {worker.node} joins")
        while self._fleet.news:
            yield self._progress(self._fleet.news.popleft())
        if self._slots:
            self._without = monotonic()
        elif monotonic() - self._without > TELLING:
            self._without = monotonic()
            yield self._progress("there is no worker to be had; the search waits for one")

    def _dismiss(self, slot: _Slot[AnyRecord]) -> None:
        self._fleet.dismiss(slot.worker)
        self._slots.remove(slot)

    def _told(self, news: Iterable[News]) -> Iterator[Progress]:
        """Each of them, beside where things stand after all: with many workers, that takes longer than a decision."""
        now = None
        for text, milestone in news:
            now = now or self._progress("")
            yield replace(now, news=text, milestone=milestone)

    def _begun(self) -> list[tuple[_Slot[AnyRecord], Flight[AnyRecord]]]:
        """Give idle workers something to train: all of them, or those for which it was found in a moment."""
        began, begun = monotonic(), list[tuple[_Slot[AnyRecord], Flight[AnyRecord]]]()
        with together(self._study):
            for slot in self._slots:
                if slot.flight is not None:
                    continue
                if (begun and monotonic() - began > MOMENT) or (flight := self._next()) is None:
                    break
                slot.flight = flight
                begun.append((slot, flight))
        return begun

    def _next(self) -> Flight[AnyRecord] | None:
        return self._lost.popleft() if self._lost else self._next_flight()

    @property
    def _flights(self) -> list[Flight[AnyRecord]]:
        return [*(slot.flight for slot in self._slots if slot.flight is not None), *self._lost]

    @property
    def _workers(self) -> int:
        """How many share the work, as far as one can tell."""
        return len(self._slots) or len(self._fleet.devices) or 1

    @property
    def _running(self) -> tuple[Running, ...]:
        placed = [slot.flight.running(slot.worker.node) for slot in self._slots if slot.flight is not None]
        return (*placed, *(flight.running("") for flight in self._lost))

    @property
    def _nodes(self) -> Counter[str]:
        """The nodes of a cluster, with how many workers each has."""
        return Counter(slot.worker.node for slot in self._slots if slot.worker.node)

    def _answered(
        self, pending: dict[Future[EpochReport], _Slot[AnyRecord]], timeout: float
    ) -> list[Future[EpochReport]]:
        """Those that are done, and those of workers that have been silent for too long; waits so long for one."""
        if not pending:
            sleep(timeout)  # until there are workers
        done, silent = wait(pending, timeout, FIRST_COMPLETED)
        self._notice(pending[future] for future in silent)
        return [*done, *(future for future in silent if pending[future].silent > self._patience(pending[future]))]

    def _notice(self, silent: Iterable[_Slot[AnyRecord]]) -> None:
        """Count the time since it was last counted as one of silence."""
        passed, self._noticed = min(monotonic() - self._noticed, TICK), monotonic()
        for slot in silent:
            slot.silent += passed

    def _patience(self, slot: _Slot[AnyRecord]) -> float:
        """Seconds that a worker may take for an epoch."""
        assert slot.flight is not None
        if self._epoch_timeout is not None:
            return self._epoch_timeout
        if self._slowest is None:
            return FIRST_PATIENCE
        return max(LEAST_PATIENCE, PATIENCE * self._slowest * slot.flight.record.macs)

    def _advance(self, slot: _Slot[AnyRecord], future: Future[EpochReport]) -> tuple[News, Future[EpochReport] | None]:
        """Take in what a worker answered: where that leads, and the future of its next epoch when it goes on."""
        flight = slot.flight
        assert flight is not None
        if not future.done():
            return self._without_worker(slot, "hung"), None
        slot.silent = 0.0
        try:
            report = future.result()
        except DivergedError as error:
            return self._finish(slot, TrialState.FAIL, f"{DIVERGED}: {error}"), None
        except BrokenExecutor:
            return self._without_worker(slot, "died"), None
        except UserError:  # once it is mended, the same command trains it
            raise
        except OutOfMemoryError as error:
            if flight.job.micro_batches > 1:
                return self._failed(slot, error), None
            flight.job = replace(flight.job, micro_batches=2)
            return self._again(slot, "out of memory; it is trained again with half a batch at a time"), None
        except Exception as error:
            return self._failed(slot, error), None
        self._slowest = max(self._slowest or 0.0, report.seconds / flight.record.macs)
        if flight.reports:  # only the last epoch's weights are kept
            flight.reports[-1] = replace(flight.reports[-1], weights=b"")
        flight.reports.append(report)
        flight.seconds += report.seconds
        epochs = flight.record.candidate.recipe.epochs
        if report.epoch >= flight.reported:  # half batches may have led elsewhere than the whole ones known of
            _report(flight)
        if report.epoch == epochs:
            return self._finish(slot, TrialState.COMPLETE, ""), None
        if report.epoch == flight.reported and self._hopeless(flight):
            return self._finish(slot, TrialState.PRUNED, f"stopped after epoch {report.epoch} of {epochs}"), None
        accuracy = "" if report.val_accuracy is None else f", {report.val_accuracy:.2%}"
        return (f"{flight.record.title}: epoch {report.epoch} of {epochs}{accuracy}", False), slot.worker.next()

    def _again(self, slot: _Slot[AnyRecord], news: str) -> News:
        """Train in another worker, from the start."""
        flight = slot.flight
        assert flight is not None
        self._dismiss(slot)
        flight.reports.clear()
        flight.seconds = 0.0
        self._lost.append(flight)
        return f"{flight.record.title}: {news}", True

    def _without_worker(self, slot: _Slot[AnyRecord], how: str) -> News:
        """Go on after a worker was lost."""
        flight = slot.flight
        assert flight is not None
        flight.lost[how] += 1
        if flight.lost.total() <= MAX_RERUNS:
            return self._again(slot, f"its worker {how}; it is trained again")
        reason = "its worker " + ", ".join(f"{how} {_times(count)}" for how, count in flight.lost.items())
        news = self._finish(slot, TrialState.FAIL, reason)
        self._dismiss(slot)
        self._failures["its worker was lost"] += 1
        if self._failures["its worker was lost"] == MAX_ALIKE:
            way_out = "fewer --jobs or lower limits, if memory ran out"
            if flight.lost["hung"]:
                way_out = "a longer --epoch-timeout"
            raise UserError(
                f"the workers of {MAX_ALIKE} trainings were lost {MAX_RERUNS + 1} times each, none that ended well "
                f"between; the last one's {reason.removeprefix('its worker ')}: give {way_out}"
            )
        return news

    def _failed(self, slot: _Slot[AnyRecord], error: Exception) -> News:
        """Go on after an exception of a training, unless it comes again and again."""
        news = self._finish(slot, TrialState.FAIL, printable(f"{type(error).__name__}: {error}"))
        self._failures[type(error).__name__] += 1
        if self._failures[type(error).__name__] == MAX_ALIKE:
            if isinstance(error, OutOfMemoryError):
                raise UserError(
                    f"{MAX_ALIKE} trainings were out of memory, even with half a batch at a time ({error}); give fewer "
                    "--jobs, lower limits, or a recipe with smaller batches"
                ) from error
            raise error
        return news

    def _finish(self, slot: _Slot[AnyRecord], state: TrialState, reason: str) -> News:
        flight = slot.flight
        assert flight is not None
        if len(flight.reports) < flight.reported:  # an earlier try came further; what is kept is of the last one
            _report(flight)
        news = self._tell(flight, state, reason)
        slot.flight = None
        if state is not TrialState.FAIL or reason.startswith(DIVERGED):
            self._failures.clear()
        return news, True


def _report(flight: Flight[Any]) -> None:
    """Tell the study of a training, as far as it has come in this try."""
    if flight.job.micro_batches > 1:
        flight.trial.set_user_attr("micro_batches", flight.job.micro_batches)
    report_epoch(flight.trial, [asdict(epoch_of(report)) for report in flight.reports])
    flight.reported = len(flight.reports)


def keep(
    flight: Flight[AnyRecord], weights: Path, state: TrialState, reason: str, write: Callable[[Path, bytes], object]
) -> AnyRecord:
    """Write the weights of a training that has ended, and complete its attributes, which are committed with its end.

    The record is what the study says from then on.
    """
    trial, reports = flight.trial, flight.reports
    if reason or "reason" in trial.user_attrs:  # one left from before the program was killed
        trial.set_user_attr("reason", reason)
    if reports:
        keep_detail(trial, "environment", dict(reports[-1].environment))
        trial.set_user_attr("seconds", round(flight.seconds, 2))
        if reports[-1].val_loss is not None:
            trial.set_user_attr("val_loss", reports[-1].val_loss)
        write(weights, reports[-1].weights)
    return _ended(flight, state, reason)


def _ended(flight: Flight[AnyRecord], state: TrialState, reason: str) -> AnyRecord:
    """The record of a training that has ended; one that no worker took up again stands as it was read."""
    record, reports = replace(flight.record, state=state, reason=reason), flight.reports
    if flight.reported == len(reports):
        parts = flight.trial.user_attrs.get("micro_batches", 1)
        record = replace(record, curve=tuple(map(epoch_of, reports)), micro_batches=parts)
    if reports:
        record = replace(record, environment=dict(reports[-1].environment), seconds=round(flight.seconds, 2))
    return record


def epoch_of(report: EpochReport) -> Epoch:
    """The numbers of a report, which the study keeps."""
    return Epoch(
        epoch=report.epoch,
        train_loss=report.train_loss,
        val_loss=report.val_loss,
        val_accuracy=report.val_accuracy,
        seconds=report.seconds,
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _begins(flight: Flight[Any]) -> str:
    verb = "begins again" if flight.reported else "begins"
    return f"{flight.record.title} {verb}: {flight.record.notation} ({flight.record.params:,} params)"
