"""The loop that keeps workers busy: it hands out trainings, reports their epochs, and ends the hopeless ones.

Only the scheduler writes the study. Trainings in flight when it ends stay RUNNING there; the next one takes them up
again under their own numbers, with their own parameters and seeds.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import optuna
from optuna.trial import TrialState

from nas.details import keep_detail
from nas.errors import UserError
from nas.files import write_whole
from nas.progress import Progress, Running
from nas.study import DIVERGED, Record, report_epoch
from nas.training import DivergedError, EpochReport, TrainingJob
from nas.workers import Worker

MAX_RERUNS = 2  # of a training whose worker died
MAX_CRASHES = 3  # trainings in a row given up because their workers died: then it is not the training

AnyRecord = TypeVar("AnyRecord", bound=Record)


@dataclass(slots=True)
class Flight(Generic[AnyRecord]):
    """A training in a worker, and the Optuna trial that is told of it."""

    trial: optuna.Trial
    record: AnyRecord
    job: TrainingJob
    reported: int  # epochs that the study knows of, from an earlier run or a worker that died
    reports: list[EpochReport] = field(default_factory=list)
    reruns: int = 0

    @property
    def seconds(self) -> float:
        """Trained so far."""
        return sum(report.seconds for report in self.reports)


@dataclass(slots=True)
class _Slot(Generic[AnyRecord]):
    """A worker, and what it trains."""

    device: str
    worker: Worker
    flight: Flight[AnyRecord] | None = None


class Scheduler(ABC, Generic[AnyRecord]):
    """Workers, one on each of `devices`, and the loop over their answers; what they train is up to the subclass."""

    def __init__(self, devices: Sequence[str], make_worker: Callable[[], Worker]) -> None:
        self._devices = devices
        self._make_worker = make_worker
        self._slots: list[_Slot[AnyRecord]] = []
        self._crashes = 0

    @abstractmethod
    def _fulfilled(self) -> bool:
        """Whether nothing is left to train."""

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
    def _progress(self, news: str, *, milestone: bool = True) -> Progress:
        """Where things stand."""

    @abstractmethod
    def _leave(self) -> Iterator[Progress]:
        """What there is to do and say when all workers are idle."""

    def events(self) -> Iterator[Progress]:
        """Train until nothing is left, telling of every epoch; closing the iterator ends the workers."""
        pending: dict[Future[EpochReport], _Slot[AnyRecord]] = {}
        if self._fulfilled():
            yield self._progress("nothing is left to train")
            yield from self._leave()
            return
        try:
            for device in self._devices:
                self._slots.append(_Slot(device, self._make_worker()))
            yield self._progress("workers are starting")
            while True:
                for slot in self._slots:
                    if slot.flight is None and (flight := self._next_flight()) is not None:
                        slot.flight = flight
                        pending[slot.worker.start(self._job(slot))] = slot
                        yield self._progress(_begins(flight))
                if not pending:
                    yield from self._leave()
                    return
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    slot = pending.pop(future)
                    progress, following = self._advance(slot, future)
                    if following is not None:
                        pending[following] = slot
                    yield progress
        finally:
            for slot in self._slots:
                slot.worker.stop()

    @property
    def _flights(self) -> list[Flight[AnyRecord]]:
        return [slot.flight for slot in self._slots if slot.flight is not None]

    @property
    def _running(self) -> tuple[Running, ...]:
        return tuple(_running(flight) for flight in self._flights)

    def _job(self, slot: _Slot[AnyRecord]) -> TrainingJob:
        assert slot.flight is not None
        return replace(slot.flight.job, device=slot.device)

    def _advance(
        self, slot: _Slot[AnyRecord], future: Future[EpochReport]
    ) -> tuple[Progress, Future[EpochReport] | None]:
        """Take in what a worker answered: where that leads, and the future of its next epoch when it goes on."""
        flight = slot.flight
        assert flight is not None
        try:
            report = future.result()
        except DivergedError as error:
            self._crashes = 0
            return self._finish(slot, TrialState.FAIL, f"{DIVERGED}: {error}"), None
        except BrokenExecutor:
            return self._replace_worker(slot)
        except UserError:  # once it is mended, the same command trains it
            raise
        except Exception as error:  # left to run again, the training would end every later run, too
            self._tell(flight, TrialState.FAIL, f"{type(error).__name__}: {' '.join(str(error).split())}")
            raise
        self._crashes = 0
        flight.reports.append(report)
        epochs = flight.record.candidate.recipe.epochs
        if report.epoch > flight.reported:
            report_epoch(flight.trial, [_numbers(report) for report in flight.reports])
            flight.reported = report.epoch
        if report.epoch == epochs:
            return self._finish(slot, TrialState.COMPLETE, ""), None
        if report.epoch == flight.reported and self._hopeless(flight):
            return self._finish(slot, TrialState.PRUNED, f"stopped after epoch {report.epoch} of {epochs}"), None
        accuracy = "" if report.val_accuracy is None else f", {report.val_accuracy:.2%}"
        news = f"{flight.record.title}: epoch {report.epoch} of {epochs}{accuracy}"
        return self._progress(news, milestone=False), slot.worker.next()

    def _replace_worker(self, slot: _Slot[AnyRecord]) -> tuple[Progress, Future[EpochReport] | None]:
        flight = slot.flight
        assert flight is not None
        slot.worker.stop()
        slot.worker = self._make_worker()
        flight.reports.clear()
        flight.reruns += 1
        if flight.reruns <= MAX_RERUNS:
            news = f"{flight.record.title}: its worker died; it is trained again"
            return self._progress(news), slot.worker.start(self._job(slot))
        self._crashes += 1
        if self._crashes == MAX_CRASHES:
            raise RuntimeError(f"the workers of {MAX_CRASHES} trials in a row died {MAX_RERUNS + 1} times each")
        return self._finish(slot, TrialState.FAIL, f"its worker died {flight.reruns} times"), None

    def _finish(self, slot: _Slot[AnyRecord], state: TrialState, reason: str) -> Progress:
        flight = slot.flight
        assert flight is not None
        news = self._tell(flight, state, reason)
        slot.flight = None
        return self._progress(news)


def keep(flight: Flight[Any], weights: Path, reason: str) -> None:
    """Complete the attributes of a training that has ended; then write its weights, a sign that all of it is kept."""
    trial, reports = flight.trial, flight.reports
    if reason or "reason" in trial.user_attrs:  # one left from before the program was killed
        trial.set_user_attr("reason", reason)
    if reports:
        keep_detail(trial, "environment", dict(reports[-1].environment))
        trial.set_user_attr("seconds", round(flight.seconds, 2))
        if reports[-1].val_loss is not None:
            trial.set_user_attr("val_loss", reports[-1].val_loss)
        write_whole(weights, reports[-1].weights)


def _numbers(report: EpochReport) -> dict[str, Any]:
    return {name: value for name, value in asdict(report).items() if name not in ("environment", "weights")}


def _begins(flight: Flight[Any]) -> str:
    verb = "begins again" if flight.reported else "begins"
    return f"{flight.record.title} {verb}: {flight.record.notation} ({flight.record.params:,} params)"


def _running(flight: Flight[Any]) -> Running:
    last = flight.reports[-1] if flight.reports else None
    return Running(
        label=flight.record.label,
        notation=flight.record.notation,
        params=flight.record.params,
        epoch=last.epoch if last else 0,
        epochs=flight.record.candidate.recipe.epochs,
        val_accuracy=last.val_accuracy if last else None,
    )
