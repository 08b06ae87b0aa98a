"""The records of full trainings outside the search, kept in a second study of the same storage."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.datasets.dataset import Dataset, for_recipes
from nas.network.architecture import notation
from nas.network.cost import cost
from nas.network.limits import Constraints
from nas.optuna_internals.attributes import as_system_attributes, expected, own_attributes, reading
from nas.optuna_internals.studies import StoredStudy, new_study, storage_of
from nas.optuna_internals.trials import begin
from nas.space.candidate import Candidate, digest, to_json
from nas.space.objective import LOSS_FIRST
from nas.study.location import FINAL_RUNS
from nas.study.records import Record, common, trials_of
from nas.training.job import TrainingJob
from nas.training.score import Score, read_score

Stage: TypeAlias = Literal["recipe", "finalist", "final", "noise", "ablation"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A training to the end, on a seed of its own.

    A final one trains on the validation images, too, and its weights are judged on the test images; all others are
    judged on the validation images.
    """

    stage: Stage
    trial: int | None  # whose candidate it is; None: the network to beat, or one that a recipe is tried on
    candidate: Candidate
    seed: int
    change: str = ""  # what makes the candidate of an ablation differ from that trial's, or its recipe from the space's

    @property
    def key(self) -> tuple[Stage, str, int]:
        """What makes two runs the same run."""
        return self.stage, digest(self.candidate), self.seed

    @property
    def network(self) -> str:
        """Whose network it trains, in a sentence."""
        name = "the network to beat" if self.trial is None else f"trial {self.trial}"
        if self.stage == "recipe":
            name = f"a network of {cost(self.candidate.architecture).params:,} parameters"
        return f"{name}, {self.change}" if self.change else name

    @property
    def label(self) -> str:
        """Whose network it trains, in a table."""
        if self.stage == "recipe":
            return "–"
        return self.change or ("–" if self.trial is None else str(self.trial))

    def job(self, limits: Constraints, dataset: Dataset) -> TrainingJob:
        """The training of the run; the network to beat is trained as it is, within no limits."""
        return TrainingJob(
            candidate=self.candidate,
            constraints=Constraints() if self.trial is None else limits,
            dataset=for_recipes(dataset) if self.stage == "recipe" else dataset,
            seed=self.seed,
            hold_out=self.stage != "final",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord(Record):
    """A run as its study tells it."""

    run: Run
    test: Score | None  # None as well when the run is judged on the validation images

    @property
    def stage(self) -> Stage:
        """What the run is for."""
        return self.run.stage

    @property
    def trial(self) -> int | None:
        """Whose candidate it trains; None as in `Run`."""
        return self.run.trial

    @property
    def change(self) -> str:
        """What makes the candidate another; see `Run`."""
        return self.run.change

    @property
    def key(self) -> tuple[Stage, str, int]:
        """What makes two runs the same run."""
        return self.run.key

    @property
    def network(self) -> str:
        """Whose network it trains, in a sentence."""
        return self.run.network

    @property
    def accuracy(self) -> float | None:
        """What the run is judged by; None before its end."""
        if self.state is not TrialState.COMPLETE:
            return None
        return self.val_accuracy if self.test is None else self.test.accuracy

    @property
    def loss(self) -> float | None:
        """The loss on the same images as the accuracy."""
        if self.state is not TrialState.COMPLETE:
            return None
        return self.val_loss if self.test is None else self.test.loss

    @property
    def settled(self) -> bool:
        """Whether the run need not be trained again: it came to its end, or its loss ended it."""
        return self.state is TrialState.COMPLETE or self.diverged

    @property
    def title(self) -> str:
        return f"{self.network}, seed {self.seed}"

    @property
    def label(self) -> str:
        return self.run.label


def final_study_name(name: str) -> str:
    """The study that holds the final runs of the study of this name."""
    return name + FINAL_RUNS


def final_study(study: optuna.Study) -> optuna.Study:
    """Where the runs of a search are kept, beside its own study; made if missing."""
    name = final_study_name(study.study_name)
    return new_study(name, storage_of(study), direction=LOSS_FIRST.direction)


def run_records(study: optuna.Study) -> list[RunRecord]:
    """Every run of the search whose study this is, in order of number."""
    storage, name = storage_of(study), final_study_name(study.study_name)
    if name not in optuna.get_all_study_names(storage):
        return []
    return [read_run(trial) for trial in trials_of(StoredStudy(name, storage))]


def read_run(trial: FrozenTrial) -> RunRecord:
    """What the study of the runs says of one of them."""
    attributes, kept = trial.user_attrs, own_attributes(trial)
    with reading(f"final run {trial.number}"):
        known = common(trial)
        run = Run(
            stage=_read_stage(attributes["stage"]),
            trial=expected(attributes["trial"], int, type(None)),
            candidate=known["candidate"],
            seed=known["seed"],
            change=expected(attributes.get("change", ""), str),
        )
        return RunRecord(**known, run=run, test=read_score(kept["test"]) if "test" in kept else None)


def _read_stage(stored: str) -> Stage:
    (stage,) = (stage for stage in STAGES if stage == stored)
    return stage


def begin_run(runs: optuna.Study, run: Run) -> optuna.Trial:
    """A new trial for a run; its attributes are written with it."""
    price = cost(run.candidate.architecture)
    attributes = {
        "stage": run.stage,
        "trial": run.trial,
        "notation": notation(run.candidate.architecture),
        "params": price.params,
        "macs": price.macs,
        "seed": run.seed,
    }
    if run.change:
        attributes["change"] = run.change
    kept = as_system_attributes({"architecture": to_json(run.candidate)})
    template = create_trial(state=TrialState.RUNNING, user_attrs=attributes, system_attrs=kept)
    return begin(runs, template)


def accuracies(records: Iterable[RunRecord], candidate: Candidate) -> list[float]:
    """The accuracies of the runs of a candidate that were trained to the end."""
    return [r.accuracy for r in records if r.candidate == candidate and r.accuracy is not None]
