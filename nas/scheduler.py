"""The search loop: one scheduler asks for trials, hands them to workers, reports, and stops the hopeless ones.

Only the scheduler writes the study. Trials in flight when it ends stay RUNNING there; the next run takes them up again
under their own numbers, with their own parameters and seeds.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import asdict, dataclass, field
from statistics import fmean
from time import monotonic
from typing import Any

import optuna
from optuna.trial import TrialState

from nas.constraints import Constraints
from nas.errors import UserError
from nas.files import write_whole
from nas.progress import Progress, Running
from nas.readers import Dataset
from nas.sampling import FeasibleSampler, Ledger, NothingFeasibleError
from nas.storage import StudyLocation
from nas.study import DIVERGED, TrialRecord, ask, in_flight, ranked, read_trial, records, report_epoch, total_ledger
from nas.training import DivergedError, EpochReport, TrainingJob
from nas.workers import LocalWorker, Worker

MAX_RERUNS = 2  # of a trial whose worker died
MAX_CRASHES = 3  # trials in a row given up because their workers died: then it is not the trial
GIVEN_UP = "given up: the search was continued with fewer trials"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to train, on what, with what."""

    trials: int
    devices: Sequence[str]  # one worker each
    dataset: Dataset
    constraints: Constraints
    seed: int
    timeout: float | None = None  # seconds, after which no further trial begins


@dataclass(slots=True)
class _Flight:
    """A trial in training."""

    trial: optuna.Trial
    record: TrialRecord
    reported: int  # epochs that the study knows of, from an earlier run or a worker that died
    reports: list[EpochReport] = field(default_factory=list)
    reruns: int = 0


@dataclass(slots=True)
class _Slot:
    """A worker, and the trial that it trains."""

    device: str
    worker: Worker
    flight: _Flight | None = None


class Scheduler:
    """One run of a search; `events` is the loop.

    `exhausted` tells of the proposals among which no new feasible candidate was found, if the search ended for that.
    """

    def __init__(
        self,
        study: optuna.Study,
        location: StudyLocation,
        plan: Plan,
        sampler: FeasibleSampler,
        make_worker: Callable[[], Worker] = LocalWorker,
    ) -> None:
        self._study = study
        self._location = location
        self._plan = plan
        self._sampler = sampler
        self._make_worker = make_worker
        known = records(study)
        self._finished = [record for record in known if record.state.is_finished()]
        self._interrupted = [record for record in known if not record.state.is_finished()]
        self._ledger = total_ledger(study)
        self._slots: list[_Slot] = []
        self._crashes = 0
        self.exhausted: Ledger | None = None

    def events(self) -> Iterator[Progress]:
        """Train until the plan is fulfilled, telling of every epoch; closing the iterator ends the workers."""
        started = monotonic()
        pending: dict[Future[EpochReport], _Slot] = {}
        if self._trained() >= self._plan.trials:
            yield self._progress("nothing is left to train")
            yield from self._give_up_interrupted()
            return
        try:
            for device in self._plan.devices:
                self._slots.append(_Slot(device, self._make_worker()))
            yield self._progress("workers are starting")
            while True:
                late = self._plan.timeout is not None and monotonic() - started > self._plan.timeout
                for slot in self._slots:
                    if slot.flight is None and not late and (flight := self._next_flight()) is not None:
                        slot.flight = flight
                        pending[slot.worker.start(self._job(slot, flight))] = slot
                        yield self._progress(_begins(flight))
                if not pending:
                    if self.exhausted is not None:
                        yield self._progress("no new feasible candidate was found, so the search ends here")
                    if self._trained() >= self._plan.trials:
                        yield from self._give_up_interrupted()
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

    def _job(self, slot: _Slot, flight: _Flight) -> TrainingJob:
        return TrainingJob(
            candidate=flight.record.candidate,
            constraints=self._plan.constraints,
            dataset=self._plan.dataset,
            seed=flight.record.seed,
            device=slot.device,
        )

    def _next_flight(self) -> _Flight | None:
        """While the plan is short of trials: an interrupted one, or else a new one."""
        flying = sum(slot.flight is not None for slot in self._slots)
        if self._trained() + flying >= self._plan.trials:
            return None
        if self._interrupted:
            return self._resumed(self._interrupted.pop(0))
        if self.exhausted is not None:
            return None
        try:
            trial = ask(self._study, self._sampler, self._plan.seed)
        except NothingFeasibleError as error:
            self.exhausted = error.ledger
            self._ledger += error.ledger
            return None
        record = read_trial(self._study.get_trials(deepcopy=False)[trial.number])
        assert record is not None
        self._ledger += record.ledger
        return _Flight(trial, record, reported=0)

    def _resumed(self, record: TrialRecord) -> _Flight:
        return _Flight(in_flight(self._study, record.number), record, reported=record.epochs)

    def _give_up_interrupted(self) -> Iterator[Progress]:
        while self._interrupted:
            news = self._tell(self._resumed(self._interrupted.pop(0)), TrialState.FAIL, GIVEN_UP)
            yield self._progress(news)

    def _advance(self, slot: _Slot, future: Future[EpochReport]) -> tuple[Progress, Future[EpochReport] | None]:
        """Take in what a worker answered: where that leads, and the future of its next epoch when the trial goes on."""
        flight = slot.flight
        assert flight is not None
        try:
            report = future.result()
        except DivergedError as error:
            self._crashes = 0
            return self._finish(slot, TrialState.FAIL, f"{DIVERGED}: {error}"), None
        except BrokenExecutor:
            return self._replace_worker(slot)
        except UserError:  # once it is mended, the same command trains the trial
            raise
        except Exception as error:  # left to run again, the trial would end every later run, too
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
        if report.epoch == flight.reported and flight.trial.should_prune():
            return self._finish(slot, TrialState.PRUNED, f"stopped after epoch {report.epoch} of {epochs}"), None
        news = f"trial {flight.record.number}: epoch {report.epoch} of {epochs}, {report.val_accuracy:.2%}"
        return self._progress(news, milestone=False), slot.worker.next()

    def _replace_worker(self, slot: _Slot) -> tuple[Progress, Future[EpochReport] | None]:
        flight = slot.flight
        assert flight is not None
        slot.worker.stop()
        slot.worker = self._make_worker()
        flight.reports.clear()
        flight.reruns += 1
        if flight.reruns <= MAX_RERUNS:
            news = f"trial {flight.record.number}: its worker died; it is trained again"
            return self._progress(news), slot.worker.start(self._job(slot, flight))
        self._crashes += 1
        if self._crashes == MAX_CRASHES:
            raise RuntimeError(f"the workers of {MAX_CRASHES} trials in a row died {MAX_RERUNS + 1} times each")
        return self._finish(slot, TrialState.FAIL, f"its worker died {flight.reruns} times"), None

    def _finish(self, slot: _Slot, state: TrialState, reason: str) -> Progress:
        flight = slot.flight
        assert flight is not None
        news = self._tell(flight, state, reason)
        slot.flight = None
        return self._progress(news)

    def _tell(self, flight: _Flight, state: TrialState, reason: str) -> str:
        """Keep the weights, complete the trial's attributes and tell the study; the news of it."""
        trial, reports = flight.trial, flight.reports
        if reports:
            write_whole(self._location.weights_path(trial.number), reports[-1].weights)
            trial.set_user_attr("precision", reports[-1].precision)
            trial.set_user_attr("val_loss", reports[-1].val_loss)
            trial.set_user_attr("seconds", round(sum(report.seconds for report in reports), 2))
        if reason:
            trial.set_user_attr("reason", reason)
        value = reports[-1].val_accuracy if state is TrialState.COMPLETE else None
        record = read_trial(self._study.tell(trial, value, state=state))
        assert record is not None
        self._finished.append(record)
        accuracy = f"{record.val_accuracy:.2%}, " if record.val_accuracy is not None else ""
        return f"trial {record.number}: {accuracy}{reason or 'trained to the end'} ({record.params:,} params)"

    def _trained(self) -> int:
        return sum(record.trained for record in self._finished)

    def _progress(self, news: str, *, milestone: bool = True) -> Progress:
        running = [_running(slot.flight) for slot in self._slots if slot.flight is not None]
        return Progress(
            trained=self._trained(),
            total=self._plan.trials,
            stopped_early=sum(record.state is TrialState.PRUNED for record in self._finished),
            failed=sum(record.state is TrialState.FAIL for record in self._finished),
            epochs=sum(record.epochs for record in self._finished) + sum(trial.epoch for trial in running),
            ledger=self._ledger,
            running=tuple(running),
            best=tuple(ranked(self._finished)[:5]),
            seconds_left=self._seconds_left(),
            news=news,
            milestone=milestone,
        )

    def _seconds_left(self) -> float | None:
        """With the mean training time of the finished trials, shared out; at least the longest that a trial takes.

        None before the first has finished.
        """
        times = [record.seconds for record in self._finished if record.seconds is not None]
        if not times:
            return None
        typical = fmean(times)
        flights = [slot.flight for slot in self._slots if slot.flight is not None]
        begun = [max(0.0, typical - sum(report.seconds for report in flight.reports)) for flight in flights]
        to_begin = 0 if self.exhausted else max(0, self._plan.trials - self._trained() - len(flights))
        left = begun + [typical] * to_begin
        return max(sum(left) / len(self._plan.devices), max(left, default=0.0))


def _numbers(report: EpochReport) -> dict[str, Any]:
    return {name: value for name, value in asdict(report).items() if name not in ("precision", "weights")}


def _begins(flight: _Flight) -> str:
    verb = "continues from its start" if flight.reported else "begins"
    return f"trial {flight.record.number} {verb}: {flight.record.notation} ({flight.record.params:,} params)"


def _running(flight: _Flight) -> Running:
    last = flight.reports[-1] if flight.reports else None
    return Running(
        number=flight.record.number,
        notation=flight.record.notation,
        params=flight.record.params,
        epoch=last.epoch if last else 0,
        epochs=flight.record.candidate.recipe.epochs,
        val_accuracy=last.val_accuracy if last else None,
    )
