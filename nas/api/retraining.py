"""Training again what a study has trained, and comparing it epoch by epoch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, replace
from time import sleep

from nas.datasets.dataset import Dataset
from nas.errors import UserError
from nas.study.curves import Epoch
from nas.study.history import History
from nas.study.records import Record
from nas.study.runs import RunRecord
from nas.system.files import reason_of
from nas.training.environment import differences
from nas.training.job import DivergedError, EpochReport, TrainingJob
from nas.training.job import OutOfMemoryError as TrainingOutOfMemoryError
from nas.workers.fleet import Workers, make_fleet
from nas.workers.protocol import Fleet

TICK = 0.1  # seconds between two questions for a worker
TELLING = 600  # of them, after which it is said, and again
NUMBERS = ("train_loss", "val_loss", "val_accuracy")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedEpoch:
    """An epoch that was trained again, and each of its numbers that is another: what it was and what it is."""

    now: EpochReport
    changed: Mapping[str, tuple[float | None, float | None]]

    def __str__(self) -> str:
        accuracy = "" if self.now.val_accuracy is None else f", validation accuracy {self.now.val_accuracy:.2%}"
        changed = [f"{name} was {before!r} and is {now!r}" for name, (before, now) in self.changed.items()]
        said = f"epoch {self.now.epoch}: training loss {self.now.train_loss:.6f}{accuracy}"
        return f"{said}: {'; '.join(changed) or 'equal'}"


Tell = Callable[[ComparedEpoch], None]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Retraining:
    """What training again came to, against the record of the first time."""

    record: Record
    epochs: tuple[ComparedEpoch, ...]
    diverged: str  # why it ended before the last epoch; "" when it did not
    different: tuple[str, ...]  # what is not the same as then: versions, processor, device

    @property
    def equal_epochs(self) -> int:
        """How many are equal to the last digit."""
        return sum(not epoch.changed for epoch in self.epochs)

    @property
    def equal(self) -> bool:
        """Whether all of the record's epochs are."""
        return self.equal_epochs == self.record.epochs

    def __repr__(self) -> str:
        total = self.record.epochs
        if self.equal:
            return f"{total} of {total} epochs are equal to the last digit."
        lines = [f"It diverged: {self.diverged}."] if self.diverged else []
        lines.append(f"{total - self.equal_epochs} of {total} epochs differ.")
        if self.different:
            lines.append(f"Not the same as then: {'; '.join(self.different)}.")
        else:
            lines.append("Versions, processor and device are the same as then; have the images changed?")
        return "\n".join(lines)


def trained_before(history: History, trial: int | None, final_run: int | None) -> Record:
    """The record of a trial, or of a final run, of which at least one epoch is known.

    Raises:
        UserError: there is none.
    """
    known: Sequence[Record] = history.trials if final_run is None else history.runs
    number, option = (trial, "--trial") if final_run is None else (final_run, "--final-run")
    found = next((record for record in known if record.number == number and record.curve), None)
    if found is None:
        numbers = [record.number for record in known if record.curve]
        held = f"{min(numbers)} to {max(numbers)}" if numbers else "none"
        raise UserError(f"{option} {number}: study {history.name!r} has no such training; it has {held}")
    return found


def retrain(
    history: History, record: Record, dataset: Dataset, workers: Workers, *, tell: Tell, say: Say
) -> Retraining:
    """Train again, telling of each epoch; `say` takes what a person should know while a worker is waited for.

    Raises:
        UserError: an unknown device, or the worker was lost.
    """
    job = _job(history, record, dataset)
    fleet = make_fleet(workers, lambda: job)
    epochs, diverged, environment = list[ComparedEpoch](), "", record.environment
    try:
        for before, now in zip(record.curve, _trained_again(job, record.epochs, fleet, say), strict=True):
            epochs.append(_compared(before, now))
            environment = now.environment
            tell(epochs[-1])
    except DivergedError as error:
        diverged = str(error)
    except (BrokenExecutor, TrainingOutOfMemoryError) as error:
        equal = sum(not epoch.changed for epoch in epochs)
        raise UserError(f"the worker was lost after {equal} equal epochs ({reason_of(error)}); try again") from error
    different = tuple(differences(record.environment, environment))
    return Retraining(record=record, epochs=tuple(epochs), diverged=diverged, different=different)


def _job(history: History, record: Record, dataset: Dataset) -> TrainingJob:
    limits = history.constraints
    if isinstance(record, RunRecord):
        job = record.run.job(limits, dataset)
    else:
        job = TrainingJob(candidate=record.candidate, constraints=limits, dataset=dataset, seed=record.seed)
    return replace(job, micro_batches=record.micro_batches)


def _compared(before: Epoch, now: EpochReport) -> ComparedEpoch:
    pairs = {name: (getattr(before, name), getattr(now, name)) for name in NUMBERS}
    return ComparedEpoch(now=now, changed={name: pair for name, pair in pairs.items() if pair[0] != pair[1]})


def _trained_again(job: TrainingJob, epochs: int, fleet: Fleet, say: Say) -> Iterator[EpochReport]:
    """The first epochs of a training, in a worker of its own."""
    waiting = 0
    while (worker := next(iter(fleet.hire(1)), None)) is None:
        sleep(TICK)
        while fleet.news:
            say(fleet.news.popleft())
        waiting += 1
        if waiting % TELLING == 0:
            say("there is no worker to be had; waiting for one")
    try:
        yield worker.start(job).result()
        for _ in range(1, epochs):
            yield worker.next().result()
    finally:
        fleet.dismiss(worker)
