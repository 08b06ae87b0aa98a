"""The trials of a search: new ones are asked for within the limits, interrupted ones come first, hopeless ones end."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import optuna
from optuna.trial import TrialState

from nas.datasets.dataset import Dataset
from nas.errors import UserError
from nas.network.limits import Constraints
from nas.optuna_internals.batched_storage import batch
from nas.optuna_internals.trials import asked_for, enqueued, is_hopeless, stored, tell, trial_numbered
from nas.samplers.feasible import FeasibleSampler, NothingNewError, ask, take_up
from nas.space.objective import LOSS_FIRST
from nas.space.rejections import Ledger
from nas.study.location import StudyLocation
from nas.study.records import TrialRecord, ranked, read_trial
from nas.system.files import Writer
from nas.training.job import TrainingJob
from nas.tuner.active_training import ActiveTraining, AnyRecord
from nas.tuner.progress import Progress, SearchProgress
from nas.tuner.recovery import Recovery
from nas.tuner.scheduler import LoopState, Scheduler, Work
from nas.workers.protocol import Fleet

BEST = 5  # trials that are shown
GIVEN_UP = "given up: the search was continued with fewer trials"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to train, on what, with what."""

    trials: int
    fleet: Fleet
    dataset: Dataset
    constraints: Constraints
    seed: int
    timeout: float | None = None  # seconds, after which no further trial begins
    began: float = field(default_factory=monotonic)  # when the command did, about
    epoch_timeout: float | None = None  # seconds, after which a worker is taken for hung; None: a generous guess
    later_epochs: float = 0  # of typical trials, which the final runs will take; for the time left


def train_all(work: Work[AnyRecord], plan: Plan) -> Iterator[Progress]:
    """Train what is left of some work on the plan's workers, telling of every epoch; closing it ends the workers."""
    return Scheduler(work, plan.fleet, Recovery(plan.epoch_timeout)).events()


@dataclass(slots=True)
class _Ended:
    """What the trials that have ended come to, as sums: there may be many of them."""

    trained: int = 0
    stopped_early: int = 0
    failed: int = 0
    epochs: int = 0
    timed: int = 0  # those whose time is known, their seconds and epochs
    timed_seconds: float = 0.0
    timed_epochs: int = 0
    best: tuple[TrialRecord, ...] = ()

    def add(self, record: TrialRecord) -> None:
        self.trained += record.trained
        self.stopped_early += record.state is TrialState.PRUNED
        self.failed += record.state is TrialState.FAIL
        self.epochs += record.epochs
        if record.seconds is not None and record.epochs:
            self.timed += 1
            self.timed_seconds += record.seconds
            self.timed_epochs += record.epochs
        self.best = tuple(ranked([*self.best, record])[:BEST])


class Search:
    """One run of a search, as a source of work: new trials, and those that an earlier run left.

    `known` are the trials that the study holds. `annotate` is called for every trial that has ended, before the study
    is told, and gives the files to be written with its weights. No trial begins after one that is `enough`. If the
    search ended because no new candidate was feasible, `exhausted` tells of the proposals.
    """

    def __init__(
        self,
        study: optuna.Study,
        location: StudyLocation,
        known: Iterable[TrialRecord],
        plan: Plan,
        sampler: FeasibleSampler,
        annotate: Callable[[optuna.Trial, TrialRecord], Mapping[Path, str]] = lambda *_: {},
        enough: Callable[[TrialRecord], bool] = lambda _: False,
    ) -> None:
        self._study = study
        self._location = location
        self._plan = plan
        self._sampler = sampler
        self._annotate = annotate
        self._is_enough = enough
        self.found_enough = False
        self._writer = Writer()  # of the files of trials that end, before the study says that they have
        self._ended = _Ended()
        self._interrupted: list[TrialRecord] = []
        self._ledger = Ledger()
        for record in known:
            self._ledger += record.ledger
            if record.state.is_finished():
                self._ended.add(record)
            else:
                self._interrupted.append(record)
        self._enqueued = {trial.number: asked_for(trial) for trial in enqueued(study)}
        self.exhausted: Ledger | None = None

    @property
    def left(self) -> int:
        return max(0, self._plan.trials - self._ended.trained)

    @property
    def closed(self) -> bool:
        return self._late or self.found_enough or self.exhausted is not None or not self.left

    @property
    def _late(self) -> bool:
        return self._plan.timeout is not None and monotonic() - self._plan.began > self._plan.timeout

    def prepare(self, state: LoopState[TrialRecord]) -> Iterator[SearchProgress]:
        """Fail the enqueued trials that cannot be trained."""
        for number, params in list(self._enqueued.items()):
            try:
                self._sampler.proposal_for(number, params)
            except UserError as error:
                del self._enqueued[number]
                with self.recording():
                    trial = trial_numbered(self._study, number)
                    trial.set_user_attr("reason", str(error))
                    tell(trial, TrialState.FAIL, None)
                yield self.progress(state, f"trial {number}, which was enqueued, is not trained: {error}")

    def next(self, active: Sequence[ActiveTraining[TrialRecord]]) -> ActiveTraining[TrialRecord] | None:
        """While the plan is short of trials: an interrupted one, or one that was enqueued, or else a new one."""
        if self._late or self.found_enough or self._ended.trained + len(active) >= self._plan.trials:
            return None
        if self._interrupted:
            return self._resumed(self._interrupted.pop(0))
        if self._enqueued:
            return self._taken_up(min(self._enqueued))
        return None if self.exhausted is not None else self._new()

    def _new(self) -> ActiveTraining[TrialRecord] | None:
        try:
            trial = ask(self._study, self._sampler, self._plan.seed)
        except NothingNewError as error:
            self.exhausted = error.ledger
            self._ledger += error.ledger
            return None
        return self._begun(trial)

    def _taken_up(self, number: int) -> ActiveTraining[TrialRecord]:
        trial = trial_numbered(self._study, number)
        take_up(trial, self._enqueued.pop(number), self._sampler, self._plan.seed)
        return self._begun(trial)

    def _begun(self, trial: optuna.Trial) -> ActiveTraining[TrialRecord]:
        record = read_trial(stored(trial))
        assert record is not None
        self._ledger += record.ledger
        return ActiveTraining(trial, record, self._job_of(record), reported=0)

    def _resumed(self, record: TrialRecord) -> ActiveTraining[TrialRecord]:
        trial = trial_numbered(self._study, record.number)
        return ActiveTraining(trial, record, self._job_of(record), reported=record.epochs)

    def _job_of(self, record: TrialRecord) -> TrainingJob:
        plan = self._plan
        return TrainingJob(
            candidate=record.candidate,
            constraints=plan.constraints,
            dataset=plan.dataset,
            seed=record.seed,
            micro_batches=record.micro_batches,
        )

    def is_hopeless(self, training: ActiveTraining[TrialRecord]) -> bool:
        return is_hopeless(training.trial)

    def recording(self) -> AbstractContextManager[None]:
        return batch(self._study, self._writer.finish)

    def end(self, training: ActiveTraining[TrialRecord], state: TrialState, reason: str) -> str:
        weights = self._location.weights_path(training.record.number)
        record = training.keep(weights, state, reason, self._writer.write)
        for path, text in self._annotate(training.trial, record).items():
            self._writer.write(path, text)
        tell(training.trial, state, None if state is TrialState.FAIL else LOSS_FIRST.value(record))
        self._ended.add(record)
        self.found_enough = self.found_enough or (state is TrialState.COMPLETE and self._is_enough(record))
        accuracy = f"{record.val_accuracy:.2%}, " if record.val_accuracy is not None else ""
        return f"{record.title}: {accuracy}{reason or 'trained to the end'} ({record.params:,} params)"

    def leave(self, state: LoopState[TrialRecord]) -> Iterator[SearchProgress]:
        if self.exhausted is not None:
            yield self.progress(state, "no new feasible candidate was found, so the search ends here")
        if self._enqueued:
            waiting = ", ".join(map(str, self._enqueued))
            yield self.progress(state, f"still enqueued: trials {waiting}; they count towards --trials, so give more")
        while not self.left and self._interrupted:
            with self.recording():
                news = self.end(self._resumed(self._interrupted.pop(0)), TrialState.FAIL, GIVEN_UP)
            yield self.progress(state, news)

    def progress(self, state: LoopState[TrialRecord], news: str) -> SearchProgress:
        return SearchProgress(
            done=self._ended.trained,
            total=self._plan.trials,
            stopped_early=self._ended.stopped_early,
            failed=self._ended.failed,
            epochs=self._ended.epochs + sum(trial.epoch for trial in state.running),
            ledger=self._ledger,
            running=state.running,
            best=self._ended.best,
            seconds_left=self._seconds_left(state),
            news=news,
            nodes=state.nodes,
        )

    def _seconds_left(self, state: LoopState[TrialRecord]) -> float | None:
        """With the mean training time of the finished trials, shared out; at least the longest that a trial takes.

        None before the first has finished; 0 when all have, for then those who train the final runs know better.
        """
        if not self.left and not state.trainings:
            return 0.0
        ended = self._ended
        if not ended.timed:
            return None
        typical, per_epoch = ended.timed_seconds / ended.timed, ended.timed_seconds / ended.timed_epochs
        begun = [max(0.0, typical - training.seconds) for training in state.trainings]
        to_begin = 0 if self.exhausted else max(0, self._plan.trials - ended.trained - len(begun))
        longest = max([*begun, typical] if to_begin else begun, default=0.0)
        search = max((sum(begun) + typical * to_begin) / state.workers, longest)
        return search + self._plan.later_epochs * per_epoch / max(state.workers, len(self._plan.fleet.devices))
