"""The record of every trial of a search, as its study tells it.

A trial's user attributes are what a person should see in the dashboard; its own attributes are what only this program
reads. A `TrialRecord` holds both.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.network.architecture import notation
from nas.network.cost import cost
from nas.optuna_internals.attributes import (
    expected,
    own_attributes,
    own_study_attribute,
    reading,
    set_own_study_attribute,
)
from nas.space.candidate import Candidate, digest, from_json
from nas.space.objective import LOSS_FIRST, Objective
from nas.space.rejections import Ledger, NearestMiss
from nas.study.curves import Epoch, read_curve, read_seconds
from nas.training.score import Score, read_score

DIVERGED = "diverged"
TEST_SCORES = "test_scores"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A training as its Optuna trial tells it.

    Accuracy and loss are those of its last epoch, on the validation images.
    """

    number: int
    state: TrialState
    candidate: Candidate
    params: int
    macs: int
    seed: int
    curve: tuple[Epoch, ...]
    seconds: float | None
    environment: Mapping[str, str]  # see nas.training.environment; empty before its end
    reason: str
    micro_batches: int = 1  # see nas.training.job.TrainingJob

    @property
    def notation(self) -> str:
        """The architecture in one line."""
        return notation(self.candidate.architecture)

    @property
    def epochs(self) -> int:
        """How many epochs were trained."""
        return len(self.curve)

    @property
    def val_accuracy(self) -> float | None:
        """The accuracy; None before the first epoch, and when no images were held out."""
        return self.curve[-1].val_accuracy if self.curve else None

    @property
    def val_loss(self) -> float | None:
        """The loss; None where the accuracy is."""
        return self.curve[-1].val_loss if self.curve else None

    @property
    def diverged(self) -> bool:
        """Whether the training ended because its loss was not finite any more."""
        return self.state is TrialState.FAIL and self.reason.startswith(DIVERGED)

    @property
    def precision(self) -> str | None:
        """The precision of the activations in training, such as bfloat16; None before the end."""
        return self.environment.get("precision")

    @property
    def title(self) -> str:
        """What the training is called in a sentence."""
        return f"trial {self.number}"

    @property
    def label(self) -> str:
        """What the training is called in a table."""
        return str(self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord(Record):
    """A trial of the search."""

    receptive_field: int
    ledger: Ledger  # of the proposals that led to it
    suggestions: dict[str, Any]

    @property
    def trained(self) -> bool:
        """Whether the trial counts as a network trained; a diverged training does, a crashed one does not."""
        return self.state in (TrialState.COMPLETE, TrialState.PRUNED) or self.diverged


def read_trial(trial: FrozenTrial) -> TrialRecord | None:
    """What the study says of a trial; None for one that this program did not make, or has not begun."""
    kept = own_attributes(trial)
    if "ledger" not in kept or trial.state is TrialState.WAITING:
        return None
    with reading(f"trial {trial.number}"):
        known = common(trial)
        if any(epoch.val_loss is None or epoch.val_accuracy is None for epoch in known["curve"]):
            raise ValueError("an epoch without loss or accuracy")
        return TrialRecord(
            **known,
            receptive_field=cost(known["candidate"].architecture).receptive_field,
            ledger=_read_ledger(kept["ledger"]),
            suggestions=trial.params,
        )


def common(trial: FrozenTrial) -> dict[str, Any]:
    """The fields of any Record, read from a trial. Raises what `reading` turns into a UserError."""
    attributes, kept = trial.user_attrs, own_attributes(trial)
    if trial.state is TrialState.WAITING or (trial.state is TrialState.COMPLETE and not trial.values):
        raise ValueError(f"state {trial.state.name}, values {trial.values}")
    candidate = from_json(expected(kept["architecture"], str))
    price = cost(candidate.architecture)
    return {
        "number": trial.number,
        "state": trial.state,
        "candidate": candidate,
        "params": price.params,
        "macs": price.macs,
        "seed": expected(attributes["seed"], int),
        "curve": read_curve(kept.get("curve", []), candidate.recipe.epochs),
        "seconds": read_seconds(attributes.get("seconds")),
        "environment": {expected(k, str): expected(v, str) for k, v in kept.get("environment", {}).items()},
        "micro_batches": _read_micro_batches(attributes.get("micro_batches", 1)),
        "reason": expected(attributes.get("reason", ""), str),
    }


def _read_micro_batches(stored: Any) -> int:
    if stored not in (1, 2):
        raise ValueError(f"{stored} parts of a batch")
    return expected(stored, int)


def trials_of(study: optuna.Study) -> list[FrozenTrial]:
    """Every trial as it is stored."""
    with reading(f"study {study.study_name!r}"):
        trials = study.get_trials(deepcopy=False)
        if any(trial.number != place for place, trial in enumerate(trials)):
            raise ValueError("a trial is missing, or there twice")
        return trials


def records(study: optuna.Study) -> list[TrialRecord]:
    """Every trial that this program made, in order of number."""
    read = (read_trial(trial) for trial in trials_of(study))
    return [record for record in read if record is not None]


def digests(trials: Iterable[TrialRecord]) -> set[str]:
    """The digests of the candidates that were tried."""
    return {digest(trial.candidate) for trial in trials}


def ranked(trials: Sequence[TrialRecord], objective: Objective = LOSS_FIRST) -> list[TrialRecord]:
    """The trials trained to the end, best first."""
    return sorted((trial for trial in trials if trial.state is TrialState.COMPLETE), key=objective.place)


def total_ledger(trials: Iterable[TrialRecord]) -> Ledger:
    """What became of all the proposals that led to these trials."""
    return sum((trial.ledger for trial in trials), Ledger())


def total_epochs(trainings: Iterable[Record]) -> int:
    """The epochs of these trainings together."""
    return sum(training.epochs for training in trainings)


def total_seconds(trainings: Iterable[Record]) -> float:
    """The seconds that these trainings took on one worker, as far as they are known."""
    return sum(training.seconds or 0 for training in trainings)


def _read_ledger(stored: dict[str, Any]) -> Ledger:
    miss = stored["nearest"]
    nearest = (
        None
        if miss is None
        else NearestMiss(
            excess=expected(miss["excess"], float, int),
            notation=expected(miss["notation"], str),
            violations=tuple(expected(violation, str) for violation in miss["violations"]),
        )
    )
    reasons = {reason: expected(count, int) for reason, count in stored["reasons"].items()}
    proposals, rejected = (expected(stored[name], int) for name in ("proposals", "rejected"))
    return Ledger(proposals=proposals, rejected=rejected, reasons=reasons, nearest=nearest)


def scores_on_test(study: optuna.Study) -> dict[int, Score]:
    """The scores on the test images of the weights of trials, by trial, in the order in which they were read."""
    with reading("what the test images said"):
        return {expected(trial, int): read_score(score) for trial, score in own_study_attribute(study, TEST_SCORES, [])}


def add_test_score(study: optuna.Study, trial: int, score: Score) -> None:
    """Remember that the test images were read, for which trial, and what they said."""
    set_own_study_attribute(study, TEST_SCORES, [*own_study_attribute(study, TEST_SCORES, []), (trial, asdict(score))])
