"""A training that has begun and not ended: what its worker reported, and what the study is told of it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

import optuna
from optuna.trial import TrialState

from nas.optuna_internals.attributes import set_own_attribute
from nas.optuna_internals.trials import report_epoch
from nas.study.curves import Epoch
from nas.study.records import Record
from nas.training.job import EpochReport, TrainingJob
from nas.tuner.progress import Running

AnyRecord = TypeVar("AnyRecord", bound=Record)


@dataclass(slots=True)
class ActiveTraining(Generic[AnyRecord]):
    """A training in a worker, or between two workers, and the Optuna trial that is told of it."""

    trial: optuna.Trial
    record: AnyRecord  # as it was when the training began
    job: TrainingJob
    reported: int  # epochs that the study knows of, from an earlier run or a worker that died
    reports: list[EpochReport] = field(default_factory=list)
    seconds: float = 0.0  # trained so far
    lost: Counter[str] = field(default_factory=Counter)  # workers, by how: "died", "hung"
    _running: Running | None = None

    @property
    def epochs(self) -> int:
        """How many epochs the recipe has."""
        return self.record.candidate.recipe.epochs

    @property
    def beginning(self) -> str:
        """The sentence that says that it begins."""
        verb = "begins again" if self.reported else "begins"
        return f"{self.record.title} {verb}: {self.record.notation} ({self.record.params:,} params)"

    def running(self, node: str) -> Running:
        """Display snapshot, cached per epoch because every event shows all trainings."""
        known, epoch = self._running, len(self.reports)
        if known is None or (known.epoch, known.node) != (epoch, node):
            known = self._running = Running(
                label=self.record.label,
                notation=self.record.notation,
                params=self.record.params,
                epoch=epoch,
                epochs=self.epochs,
                val_accuracy=self.reports[-1].val_accuracy if self.reports else None,
                node=node,
            )
        return known

    def add(self, report: EpochReport) -> None:
        """Take in an epoch; only the last epoch's weights are kept."""
        if self.reports:
            self.reports[-1] = replace(self.reports[-1], weights=b"")
        self.reports.append(report)
        self.seconds += report.seconds
        if report.epoch >= self.reported:  # half batches may have led elsewhere than the whole ones known of
            self.tell_epochs()

    def tell_epochs(self) -> None:
        """Tell the study how far this try has come."""
        if self.job.micro_batches > 1:
            self.trial.set_user_attr("micro_batches", self.job.micro_batches)
        report_epoch(self.trial, [asdict(epoch_of(report)) for report in self.reports])
        self.reported = len(self.reports)

    def start_over(self, micro_batches: int | None) -> None:
        """Forget this try; the next one cuts each batch into so many parts (None: into as many as before)."""
        if micro_batches is not None:
            self.job = replace(self.job, micro_batches=micro_batches)
        self.reports.clear()
        self.seconds = 0.0

    def keep(self, weights: Path, state: TrialState, reason: str, write: Callable[[Path, bytes], object]) -> AnyRecord:
        """Write the weights of a training that has ended, and complete its attributes.

        The attributes are committed with the end. The record is what the study says from then on.
        """
        if reason or "reason" in self.trial.user_attrs:  # one left from before the program was killed
            self.trial.set_user_attr("reason", reason)
        if self.reports:
            last = self.reports[-1]
            set_own_attribute(self.trial, "environment", dict(last.environment))
            self.trial.set_user_attr("seconds", round(self.seconds, 2))
            if last.val_accuracy is not None:
                self.trial.set_user_attr("val_accuracy", last.val_accuracy)
            write(weights, last.weights)
        return self._ended(state, reason)

    def _ended(self, state: TrialState, reason: str) -> AnyRecord:
        """The record at the end; that of a training which no worker took up again stands as it was read."""
        record = replace(self.record, state=state, reason=reason)
        if self.reported == len(self.reports):
            parts = self.trial.user_attrs.get("micro_batches", 1)
            record = replace(record, curve=tuple(map(epoch_of, self.reports)), micro_batches=parts)
        if self.reports:
            environment = dict(self.reports[-1].environment)
            record = replace(record, environment=environment, seconds=round(self.seconds, 2))
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
