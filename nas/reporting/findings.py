"""What a study has come to, read at one moment."""

from collections.abc import Sequence
from dataclasses import dataclass

import optuna

from nas.analysis.finalists import Noise, Winner, measured_noise, winner_of
from nas.data.images import TrainingData
from nas.network.limits import Constraints
from nas.study.location import StudyLocation
from nas.study.records import TrialRecord, ranked, records
from nas.study.runs import RunRecord, run_records
from nas.study.settings import Choice, Task, choice_of, constraints_of, settings_of, task_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything that a study tells, read at one moment; without a winner while the search goes on."""

    study: optuna.Study
    name: str
    dataset: str
    n_train: int  # images of the training part, those held out not among them
    n_val: int
    task: Task
    constraints: Constraints
    trials: Sequence[TrialRecord]
    runs: Sequence[RunRecord]
    choice: Choice | None
    winner: Winner | None  # None as well while the final models of the trial chosen are being trained

    @property
    def leader(self) -> TrialRecord | None:
        """The trial chosen, or before the first choice the best so far."""
        if self.choice is not None:
            return next(trial for trial in self.trials if trial.number == self.choice.winner)
        return next(iter(ranked(self.trials)), None)

    @property
    def noise(self) -> Noise | None:
        """As `python -m nas.noise` measured it."""
        return measured_noise(self.runs, self.n_val)

    @property
    def trained(self) -> list[TrialRecord]:
        """The trials that count as networks trained."""
        return [trial for trial in self.trials if trial.trained]


def findings_of(study: optuna.Study, location: StudyLocation, data: TrainingData) -> Findings:
    """Read a study."""
    return Findings(
        study=study,
        name=location.name,
        dataset=settings_of(study)["dataset"],
        n_train=len(data.train),
        n_val=len(data.validation),
        task=task_of(study),
        constraints=constraints_of(study),
        trials=records(study),
        runs=run_records(study),
        choice=choice_of(study),
        winner=winner_of(study),
    )
