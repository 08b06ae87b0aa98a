"""The loop that keeps workers busy: it hands out trainings, takes in their epochs, and ends the hopeless ones.

The loop is given three things. A source of work says what to train, and keeps what became of it. A fleet lends the
workers. A recovery policy decides what happens after a fault.

Only this process writes the study. Trainings that are active when it ends stay RUNNING there; the next one takes them
up again under their own numbers, with their own parameters and seeds.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from time import monotonic, sleep
from typing import Generic, Protocol, TypeAlias, assert_never

from optuna.trial import TrialState

from nas.errors import UserError
from nas.study.records import DIVERGED
from nas.training.job import DivergedError, EpochReport
from nas.tuner.active_training import ActiveTraining, AnyRecord
from nas.tuner.progress import Progress, Running
from nas.tuner.recovery import Decision, EndFailed, GiveUp, Recovery, TrainAgain
from nas.workers.protocol import Fleet, Worker

BEGINNING = 60.0  # seconds more for the first epoch of a worker, which has to start and to load the images
TICK = 1.0  # seconds that the loop waits for an answer, and that count when it looks later: the machine may have slept
TELLING = 60.0  # seconds without any worker, after which it is said, and again
MOMENT = 0.25  # seconds of finding trainings to begin, before those found are begun and answers are looked at
News: TypeAlias = tuple[str, bool]  # what has happened, and whether it is a milestone


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopState(Generic[AnyRecord]):
    """What the loop is doing at one moment."""

    trainings: Sequence[ActiveTraining[AnyRecord]]  # in workers, and then those that wait for another one
    running: tuple[Running, ...]  # the same trainings, as they are shown
    workers: int  # that share the work, as far as one can tell
    nodes: Mapping[str, int]  # of a cluster, with their workers


class Work(Protocol[AnyRecord]):
    """A source of trainings, which also keeps what becomes of them."""

    @property
    def left(self) -> int:
        """How many trainings are left, active ones among them."""

    @property
    def closed(self) -> bool:
        """Whether no further training begins."""

    def prepare(self, state: LoopState[AnyRecord]) -> Iterator[Progress]:
        """Do and tell what comes before the first training."""

    def next(self, active: Sequence[ActiveTraining[AnyRecord]]) -> ActiveTraining[AnyRecord] | None:
        """The training for an idle worker, if there is one."""

    def is_hopeless(self, training: ActiveTraining[AnyRecord]) -> bool:
        """Whether a training should end before its last epoch."""

    def end(self, training: ActiveTraining[AnyRecord], state: TrialState, reason: str) -> str:
        """Keep what became of a training; the news of it."""

    def recording(self) -> AbstractContextManager[None]:
        """Within it, what the study is told is kept until the end, and then written together."""

    def progress(self, state: LoopState[AnyRecord], news: str) -> Progress:
        """Where things stand."""

    def leave(self, state: LoopState[AnyRecord]) -> Iterator[Progress]:
        """Do and tell what comes after the last training."""


@dataclass(slots=True, eq=False)
class _Slot(Generic[AnyRecord]):
    """A worker, and what it trains."""

    worker: Worker
    training: ActiveTraining[AnyRecord] | None = None
    silent: float = -BEGINNING  # seconds since it was given something to do


class Scheduler(Generic[AnyRecord]):
    """The loop over the answers of a fleet's workers, which train what a source of work gives them."""

    def __init__(self, work: Work[AnyRecord], fleet: Fleet, recovery: Recovery) -> None:
        self._work = work
        self._fleet = fleet
        self._recovery = recovery
        self._slots: list[_Slot[AnyRecord]] = []
        self._pending: dict[Future[EpochReport], _Slot[AnyRecord]] = {}  # the answers that are waited for
        self._waiting: deque[ActiveTraining[AnyRecord]] = deque()  # trainings without a worker, to be trained again
        self._without = monotonic()  # workers, since then
        self._noticed = monotonic()  # who is silent, up to then

    @property
    def trainings(self) -> list[ActiveTraining[AnyRecord]]:
        """The active ones: those in workers, and then those that wait for another one."""
        return [*(slot.training for slot in self._slots if slot.training is not None), *self._waiting]

    @property
    def _state(self) -> LoopState[AnyRecord]:
        placed = [slot.training.running(slot.worker.node) for slot in self._slots if slot.training is not None]
        return LoopState(
            trainings=self.trainings,
            running=(*placed, *(training.running("") for training in self._waiting)),
            workers=len(self._slots) or len(self._fleet.devices) or 1,
            nodes=Counter(slot.worker.node for slot in self._slots if slot.worker.node),
        )

    def events(self) -> Iterator[Progress]:
        """Train until nothing is left, telling of every epoch; closing the iterator ends the workers."""
        yield from self._work.prepare(self._state)
        try:
            if self._work.left:
                yield self._progress("workers are starting")
                yield from self._rounds()
            else:
                yield self._progress("nothing is left to train")
            yield from self._work.leave(self._state)
        finally:
            for slot in self._slots:
                self._fleet.dismiss(slot.worker)

    def _rounds(self) -> Iterator[Progress]:
        """Begin what can begin and take in what is answered, again and again."""
        while True:
            self._noticed = monotonic()
            yield from self._hire()
            begun = self._begin()
            yield from self._told((training.beginning, True) for training in begun)
            if not self._pending and not self._waiting and (self._slots or self._work.closed):
                return
            answered, news = self._answered(0.0 if begun else TICK), list[News]()
            with self._work.recording():
                news.extend(map(self._advance, answered))
            yield from self._told(news)

    def _progress(self, news: str) -> Progress:
        return self._work.progress(self._state, news)

    def _told(self, news: Iterable[News]) -> Iterator[Progress]:
        """Each of them, beside where things stand after all: with many workers, that takes longer than a decision."""
        now = None
        for text, milestone in news:
            now = now or self._progress("")
            yield replace(now, news=text, milestone=milestone)

    def _hire(self) -> Iterator[Progress]:
        """Have as many workers as can be used. Idle workers are dismissed: their death would go unnoticed."""
        most = len(self.trainings) if self._work.closed else self._work.left
        idle = [slot for slot in self._slots if slot.training is None]
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

    def _begin(self) -> list[ActiveTraining[AnyRecord]]:
        """Begin trainings in idle workers; what begins."""
        begun = self._filled()
        self._notice(self._pending.values())
        for slot, training in begun:
            self._pending[slot.worker.start(training.job)] = slot
        return [training for _, training in begun]

    def _filled(self) -> list[tuple[_Slot[AnyRecord], ActiveTraining[AnyRecord]]]:
        """Give idle workers something to train: all of them, or those for which it was found in a moment."""
        began, filled = monotonic(), list[tuple[_Slot[AnyRecord], ActiveTraining[AnyRecord]]]()
        with self._work.recording():
            for slot in self._slots:
                if slot.training is not None:
                    continue
                if (filled and monotonic() - began > MOMENT) or (training := self._next()) is None:
                    break
                slot.training = training
                filled.append((slot, training))
        return filled

    def _next(self) -> ActiveTraining[AnyRecord] | None:
        return self._waiting.popleft() if self._waiting else self._work.next(self.trainings)

    def _answered(self, timeout: float) -> list[Future[EpochReport]]:
        """The answers that are there, and those of workers that were silent for too long; waits so long for one."""
        if not self._pending:
            sleep(timeout)  # until there are workers
        done, silent = wait(self._pending, timeout, FIRST_COMPLETED)
        self._notice(self._pending[future] for future in silent)
        return [*done, *(future for future in silent if self._is_lost(self._pending[future]))]

    def _notice(self, silent: Iterable[_Slot[AnyRecord]]) -> None:
        """Count the time since it was last counted as one of silence."""
        passed, self._noticed = min(monotonic() - self._noticed, TICK), monotonic()
        for slot in silent:
            slot.silent += passed

    def _is_lost(self, slot: _Slot[AnyRecord]) -> bool:
        """Whether a worker was silent for longer than an epoch may take."""
        assert slot.training is not None
        return slot.silent > self._recovery.patience(slot.training.record.macs)

    def _advance(self, answer: Future[EpochReport]) -> News:
        """Take in the answer of a worker, or its silence: the training goes on, is trained again, or ends."""
        slot = self._pending.pop(answer)
        if not answer.done():
            return self._lose(slot, "hung")
        slot.silent = 0.0
        try:
            report = answer.result()
        except DivergedError as error:
            return self._end(slot, TrialState.FAIL, f"{DIVERGED}: {error}")
        except BrokenExecutor:
            return self._lose(slot, "died")
        except UserError:  # once it is mended, the same command trains it
            raise
        except Exception as error:
            return self._fail(slot, error)
        return self._take(slot, report)

    def _take(self, slot: _Slot[AnyRecord], report: EpochReport) -> News:
        """Take in an epoch: the training ends, or its worker goes on with the next epoch."""
        training = slot.training
        assert training is not None
        self._recovery.note_epoch(report.seconds, training.record.macs)
        training.add(report)
        so_far = f"epoch {report.epoch} of {training.epochs}"
        if report.epoch == training.epochs:
            return self._end(slot, TrialState.COMPLETE, "")
        if report.epoch == training.reported and self._work.is_hopeless(training):
            return self._end(slot, TrialState.PRUNED, f"stopped after {so_far}")
        self._pending[slot.worker.next()] = slot
        accuracy = "" if report.val_accuracy is None else f", {report.val_accuracy:.2%}"
        return f"{training.record.title}: {so_far}{accuracy}", False

    def _end(self, slot: _Slot[AnyRecord], state: TrialState, reason: str) -> News:
        """End a training that went as trainings go; its worker is idle."""
        training = self._freed(slot)
        news = self._kept(training, state, reason)
        self._recovery.note_good_end()
        return news

    def _lose(self, slot: _Slot[AnyRecord], how: str) -> News:
        """Go on after a worker was lost."""
        training = self._freed(slot)
        self._dismiss(slot)
        training.lost[how] += 1
        return self._carry_out(self._recovery.after_lost_worker(how, training.lost), training)

    def _fail(self, slot: _Slot[AnyRecord], error: Exception) -> News:
        """Go on after a training raised an exception."""
        training = self._freed(slot)
        decision = self._recovery.after_error(error, training.job.micro_batches)
        if isinstance(decision, TrainAgain):
            self._dismiss(slot)  # memory of this process is in pieces
        return self._carry_out(decision, training)

    def _carry_out(self, decision: Decision, training: ActiveTraining[AnyRecord]) -> News:
        """Do what was decided after a fault of a training, which has no worker any more."""
        match decision:
            case TrainAgain(news, micro_batches):
                training.start_over(micro_batches)
                self._waiting.append(training)
                return f"{training.record.title}: {news}", True
            case EndFailed(reason):
                return self._kept(training, TrialState.FAIL, reason)
            case GiveUp(reason, error):
                self._kept(training, TrialState.FAIL, reason)
                raise error
            case _:
                assert_never(decision)

    def _kept(self, training: ActiveTraining[AnyRecord], state: TrialState, reason: str) -> News:
        """Keep how a training ended; the news of it."""
        if len(training.reports) < training.reported:  # an earlier try came further; what is kept is of the last one
            training.tell_epochs()
        return self._work.end(training, state, reason), True

    @staticmethod
    def _freed(slot: _Slot[AnyRecord]) -> ActiveTraining[AnyRecord]:
        """Take the training from a worker."""
        training, slot.training = slot.training, None
        assert training is not None
        return training
