"""The trials of a search: new ones are asked for within the limits, interrupted ones come first, hopeless ones end."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from time import monotonic

import optuna
from optuna.trial import TrialState

from nas.constraints import Constraints
from nas.progress import SearchProgress
from nas.readers import Dataset
from nas.sampling import FeasibleSampler, Ledger, NothingFeasibleError
from nas.scheduler import Flight, Scheduler, keep
from nas.storage import StudyLocation
from nas.study import TrialRecord, ask, in_flight, ranked, read_trial, records, settings_of, total_ledger
from nas.training import TrainingJob
from nas.workers import LocalWorker, Worker

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
    epoch_timeout: float | None = None  # seconds, after which a worker is taken for hung; None: a generous guess
    later_epochs: float = 0  # of typical trials, which the final runs will take; for the time left


def dataset_of(study: optuna.Study, data_dir: str | None) -> Dataset:
    """The data set that the study was made with; `data_dir` is where torchvision's files are on this machine."""
    stored = settings_of(study)
    channels, height, width = stored["input_shape"]
    return Dataset(name=stored["dataset"], input_shape=(channels, height, width), data_dir=data_dir)


class Search(Scheduler[TrialRecord]):
    """One run of a search; `events` is the loop.

    `annotate` is called for every trial that has ended, before the study is told. `exhausted` tells of the proposals
    among which no new feasible candidate was found, if the search ended for that.
    """

    def __init__(
        self,
        study: optuna.Study,
        location: StudyLocation,
        plan: Plan,
        sampler: FeasibleSampler,
        make_worker: Callable[[], Worker] = LocalWorker,
        annotate: Callable[[optuna.Trial, TrialRecord], None] = lambda *_: None,
    ) -> None:
        super().__init__(plan.devices, make_worker, plan.epoch_timeout)
        self._study = study
        self._annotate = annotate
        self._location = location
        self._plan = plan
        self._sampler = sampler
        self._started = monotonic()
        known = records(study)
        self._finished = [record for record in known if record.state.is_finished()]
        self._interrupted = [record for record in known if not record.state.is_finished()]
        self._ledger = total_ledger(study)
        self.exhausted: Ledger | None = None

    def _fulfilled(self) -> bool:
        return self._trained() >= self._plan.trials

    def _next_flight(self) -> Flight[TrialRecord] | None:
        """While the plan is short of trials: an interrupted one, or else a new one."""
        late = self._plan.timeout is not None and monotonic() - self._started > self._plan.timeout
        if late or self._trained() + len(self._flights) >= self._plan.trials:
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
        return Flight(trial, record, self._job_of(record), reported=0)

    def _job_of(self, record: TrialRecord) -> TrainingJob:
        plan = self._plan
        return TrainingJob(
            candidate=record.candidate, constraints=plan.constraints, dataset=plan.dataset, seed=record.seed
        )

    def _resumed(self, record: TrialRecord) -> Flight[TrialRecord]:
        told = self._study.get_trials(deepcopy=False)[record.number].last_step or 0
        return Flight(in_flight(self._study, record.number), record, self._job_of(record), reported=told)

    def _hopeless(self, flight: Flight[TrialRecord]) -> bool:
        return flight.trial.should_prune()

    def _leave(self) -> Iterator[SearchProgress]:
        if self.exhausted is not None:
            yield self._progress("no new feasible candidate was found, so the search ends here")
        while self._fulfilled() and self._interrupted:
            news = self._tell(self._resumed(self._interrupted.pop(0)), TrialState.FAIL, GIVEN_UP)
            yield self._progress(news)

    def _tell(self, flight: Flight[TrialRecord], state: TrialState, reason: str) -> str:
        keep(flight, self._location.weights_path(flight.record.number), reason)
        ended = read_trial(self._study.get_trials(deepcopy=False)[flight.record.number])
        assert ended is not None
        self._annotate(flight.trial, ended)
        value = flight.reports[-1].val_accuracy if state is TrialState.COMPLETE else None
        record = read_trial(self._study.tell(flight.trial, value, state=state))
        assert record is not None
        self._finished.append(record)
        accuracy = f"{record.val_accuracy:.2%}, " if record.val_accuracy is not None else ""
        return f"{record.title}: {accuracy}{reason or 'trained to the end'} ({record.params:,} params)"

    def _trained(self) -> int:
        return sum(record.trained for record in self._finished)

    def _progress(self, news: str, *, milestone: bool = True) -> SearchProgress:
        running = self._running
        return SearchProgress(
            done=self._trained(),
            total=self._plan.trials,
            stopped_early=sum(record.state is TrialState.PRUNED for record in self._finished),
            failed=sum(record.state is TrialState.FAIL for record in self._finished),
            epochs=sum(record.epochs for record in self._finished) + sum(trial.epoch for trial in running),
            ledger=self._ledger,
            running=running,
            best=tuple(ranked(self._finished)[:5]),
            seconds_left=self._seconds_left(),
            news=news,
            milestone=milestone,
        )

    def _seconds_left(self) -> float | None:
        """With the mean training time of the finished trials, shared out; at least the longest that a trial takes.

        None before the first has finished; 0 when all have, for then those who train the final runs know better.
        """
        if self._fulfilled() and not self._flights:
            return 0.0
        timed = [(record.seconds, record.epochs) for record in self._finished if record.seconds is not None]
        if not timed:
            return None
        typical = fmean(seconds for seconds, _ in timed)
        per_epoch = sum(seconds for seconds, _ in timed) / sum(epochs for _, epochs in timed)
        begun = [max(0.0, typical - flight.seconds) for flight in self._flights]
        to_begin = 0 if self.exhausted else max(0, self._plan.trials - self._trained() - len(begun))
        left = begun + [typical] * to_begin
        search = max(sum(left) / len(self._devices), max(left, default=0.0))
        return search + self._plan.later_epochs * per_epoch / len(self._devices)
