"""The study as it stands, read once.

Whoever judges, shows or continues a study takes a `History`; what is written meanwhile is added to it as a value.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.trial import TrialState

from nas.datasets.dataset import IN_MEMORY, Dataset
from nas.datasets.metrics import METRICS, Metric
from nas.network.limits import Constraints
from nas.optuna_internals.batched_storage import close
from nas.space.rejections import Ledger
from nas.study.commands import Command, commands
from nas.study.location import StudyLocation
from nas.study.opening import open_study
from nas.study.records import (
    Record,
    TrialRecord,
    digests,
    ranked,
    records,
    scores_on_test,
    total_epochs,
    total_ledger,
    total_seconds,
)
from nas.study.runs import RunRecord, Stage, run_records
from nas.study.settings import Choice, Task, choice_of, constraints_of, pictures_of, settings_of, task_of
from nas.training.score import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Everything that a study tells, at one moment; trials and runs are in order of their numbers."""

    name: str
    settings: Mapping[str, Any]  # as `nas.study.settings.settings` gives them
    constraints: Constraints
    task: Task
    commands: tuple[Command, ...]  # the latest last
    trials: tuple[TrialRecord, ...]
    runs: tuple[RunRecord, ...]
    choice: Choice | None
    test_scores: Mapping[int, Score]  # of the weights of trials, in the order in which the test images were read

    @property
    def dataset(self) -> str:
        """The name of the data set."""
        return str(self.settings["dataset"])

    @property
    def metric(self) -> Metric:
        """What its scores are."""
        return METRICS[self.settings["metric"]]

    @property
    def seed(self) -> int:
        """The seed of everything that the search draws."""
        return int(self.settings["seed"])

    @property
    def goal(self) -> int | None:
        """How many trials the last search was to train."""
        goals = [command.plan["trials"] for command in self.commands if "trials" in command.plan]
        return goals[-1] if goals else None

    @property
    def trained(self) -> list[TrialRecord]:
        """The trials that count as networks trained."""
        return [trial for trial in self.trials if trial.trained]

    @property
    def completed(self) -> list[TrialRecord]:
        """The trials that were trained to the end."""
        return self._in_state(TrialState.COMPLETE)

    @property
    def stopped_early(self) -> list[TrialRecord]:
        """The trials that the pruner stopped."""
        return self._in_state(TrialState.PRUNED)

    @property
    def failed(self) -> list[TrialRecord]:
        """The trials that diverged or crashed."""
        return self._in_state(TrialState.FAIL)

    @property
    def diverged(self) -> list[TrialRecord]:
        """The trials whose loss was not finite any more; they count as trained."""
        return [trial for trial in self.trials if trial.diverged]

    @property
    def in_flight(self) -> list[TrialRecord]:
        """The trials that are in training, or interrupted."""
        return self._in_state(TrialState.RUNNING)

    def _in_state(self, state: TrialState) -> list[TrialRecord]:
        return [trial for trial in self.trials if trial.state is state]

    @property
    def trainings(self) -> list[Record]:
        """All trials and all runs."""
        return [*self.trials, *self.runs]

    @property
    def epochs(self) -> int:
        """The epochs of all trainings."""
        return total_epochs(self.trainings)

    @property
    def seconds(self) -> float:
        """The seconds that all trainings took on one worker."""
        return total_seconds(self.trainings)

    @property
    def ledger(self) -> Ledger:
        """What became of all the proposals."""
        return total_ledger(self.trials)

    @property
    def digests(self) -> set[str]:
        """The digests of all candidates that were tried."""
        return digests(self.trials)

    @property
    def ranked(self) -> list[TrialRecord]:
        """The trials that were trained to the end, best first."""
        return ranked(self.trials)

    @property
    def best(self) -> TrialRecord | None:
        """The best trial by its score in the search."""
        return next(iter(self.ranked), None)

    @property
    def leader(self) -> TrialRecord | None:
        """The trial chosen, or before the first choice the best so far."""
        return self.best if self.choice is None else self.trial(self.choice.winner)

    @property
    def kernels(self) -> tuple[str, ...]:
        """Whose kernels the trainings used, as `nas.training.kernels` tells."""
        told = (training.environment.get("kernels") for training in self.trainings)
        return tuple(dict.fromkeys(kernels for kernels in told if kernels is not None))

    def trial(self, number: int) -> TrialRecord | None:
        """The trial of this number; None if there is none."""
        return next((trial for trial in self.trials if trial.number == number), None)

    def runs_of(self, *stages: Stage) -> list[RunRecord]:
        """The runs of these stages."""
        return [run for run in self.runs if run.stage in stages]

    def with_runs(self, runs: Iterable[RunRecord]) -> "History":
        """The history with these runs, which replace those of the same numbers."""
        known = {run.number: run for run in (*self.runs, *runs)}
        return replace(self, runs=tuple(known[number] for number in sorted(known)))


def read_history(study: optuna.Study) -> History:
    """Read a study and its runs.

    Raises:
        UserError: the study was made by another program or is damaged.
    """
    return History(
        name=study.study_name,
        settings=settings_of(study),
        constraints=constraints_of(study),
        task=task_of(study),
        commands=tuple(commands(study)),
        trials=tuple(records(study)),
        runs=tuple(run_records(study)),
        choice=choice_of(study),
        test_scores=scores_on_test(study),
    )


def history_at(location: StudyLocation) -> History:
    """The study that lives there as it stands. Raises UserError when there is none."""
    study = open_study(location)
    try:
        return read_history(study)
    finally:
        close(study)


def dataset_of(history: History, location: StudyLocation, data_dir: str | None) -> Dataset:
    """The data set that the study was made with.

    `data_dir` is where torchvision's files are on this machine; images that were given in memory lie in the study's
    folder.
    """
    channels, height, width = history.settings["input_shape"]
    folder = str(location.folder.resolve()) if history.dataset.startswith(IN_MEMORY) else data_dir
    return Dataset(
        name=history.dataset,
        input_shape=(channels, height, width),
        data_dir=folder,
        pictures=pictures_of(history.settings),
        metric=history.settings["metric"],
        cross_validation=history.settings["cross_validation"],
    )
