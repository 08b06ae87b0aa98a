"""What an Optuna study holds of a search: its settings, its sampler and pruner, and the record of every trial.

A trial's user attributes are what a person should see in the dashboard; `TrialRecord` reads them and
its details back.
"""

import hashlib
import json
import math
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, assert_never, get_args

import optuna
from optuna.distributions import distribution_to_json
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.architecture import Architecture, Candidate, digest, from_json, notation, to_json
from nas.constraints import Constraints
from nas.cost import cost
from nas.details import (
    as_system_attributes,
    details,
    expected,
    keep_detail,
    keep_study_detail,
    reading,
    study_detail,
)
from nas.errors import UserError
from nas.pruning import PrunerName
from nas.sampling import FeasibleSampler, Ledger, NearestMiss, derive_seed
from nas.score import Score, read_score
from nas.space import SearchSpace
from nas.tpe import RepeatedTPESampler

SamplerName: TypeAlias = Literal["tpe", "random", "gp", "qmc"]
SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)

DIVERGED = "diverged"
LONGEST = 1e9  # seconds that a training may take: 30 years
DIGESTED_DRAWS = 100
TEST_SCORES = "test_scores"
SETTINGS: dict[str, type] = {
    "dataset": str,
    "input_shape": list,
    "num_classes": int,
    "constraints": dict,
    "recipe": dict,
    "parameters": dict,
    "seed": int,
    "sampler": str,
    "pruner": str,
}
FORMAT = 2  # of what a study holds: a program reads only what it could have written


def settings(space: SearchSpace, *, seed: int, sampler: SamplerName, pruner: PrunerName) -> dict[str, Any]:
    """What makes two searches the same search, as plain JSON values."""
    distributions = {name: json.loads(distribution_to_json(d)) for name, d in space.distributions.items()}
    plain = {
        "format": FORMAT,
        "dataset": space.dataset,
        "input_shape": space.input_shape,
        "num_classes": space.num_classes,
        "constraints": asdict(space.constraints),
        "recipe": asdict(space.recipe),
        "parameters": distributions,
        "candidates": _sample_digest(space),
        "seed": seed,
        "sampler": sampler,
        "pruner": pruner,
    }
    restored: dict[str, Any] = json.loads(json.dumps(plain))
    return restored


def _sample_digest(space: SearchSpace) -> str:
    """Tells spaces apart whose parameters are equal and mean other candidates."""
    rng = random.Random(0)
    drawn = (digest(space.decode(space.draw(rng))) for _ in range(DIGESTED_DRAWS))
    return hashlib.sha256(" ".join(drawn).encode()).hexdigest()[:12]


def settings_of(study: optuna.Study) -> dict[str, Any]:
    """What the study was made with, as `settings` gives it.

    Raises:
        UserError: the study was made by another program.
    """
    with reading(f"study {study.study_name!r}"):
        stored: dict[str, Any] | None = study.user_attrs.get("settings")
    if stored is None:
        raise UserError(f"study {study.study_name!r} was made by another program; give another --study-name")
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise UserError(f"study {study.study_name!r} was made by another version of nas; give another --study-name")
    with reading("the settings of the study"):
        for name, kind in SETTINGS.items():
            expected(stored[name], kind)
        channels, height, width = stored["input_shape"]
        for size in (channels, height, width):
            expected(size, int)
    return stored


def constraints_of(study: optuna.Study) -> Constraints:
    """The limits that the study was made with."""
    stored = settings_of(study)["constraints"]
    with reading("the limits of the study"):
        return Constraints(**{**stored, "forbid": tuple(stored["forbid"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a search is after, besides its settings; it may change from one command to the next."""

    target: float | None
    baseline: Architecture | None  # the network to beat


def remember_task(study: optuna.Study, space: SearchSpace) -> None:
    """Keep the space's target and network to beat, for those who read the study without the space."""
    rival = space.baseline and to_json(Candidate(architecture=space.baseline, recipe=space.recipe))
    study.set_user_attr("task", {"target": space.target, "baseline": rival})


def task_of(study: optuna.Study) -> Task:
    """What the latest search was after."""
    stored = study.user_attrs.get("task", {"target": None, "baseline": None})
    with reading("the task of the study"):
        rival = expected(stored["baseline"], str, type(None))
        target = expected(stored["target"], float, int, type(None))
        return Task(target=target, baseline=None if rival is None else from_json(rival).architecture)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which trial was chosen among which finalists, by how many fresh seeds; without any by its score in the search."""

    winner: int
    finalists: tuple[int, ...] = ()
    seeds: int = 0


def choice_of(study: optuna.Study) -> Choice | None:
    """The latest choice; None before the first."""
    stored = study.user_attrs.get("choice")
    if stored is None:
        return None
    with reading("the choice of the study"):
        numbers = tuple(expected(number, int) for number in stored["finalists"])
        return Choice(winner=expected(stored["winner"], int), finalists=numbers, seeds=expected(stored["seeds"], int))


def remember_choice(study: optuna.Study, choice: Choice) -> None:
    """Keep a choice."""
    study.set_user_attr("choice", asdict(choice))


def make_sampler(name: SamplerName, study_seed: int) -> Callable[[int], optuna.samplers.BaseSampler]:
    """For `FeasibleSampler`: the Optuna sampler of this name for a seed.

    Quasi-random draws are one sequence over the whole study, so they keep the study's seed.
    """
    match name:
        case "tpe":
            return RepeatedTPESampler
        case "random":
            return lambda seed: optuna.samplers.RandomSampler(seed=seed)
        case "gp":
            return lambda seed: optuna.samplers.GPSampler(seed=seed)
        case "qmc":
            return lambda seed: _quasi_random_sampler(derive_seed(study_seed, "quasi-random"))
        case _:
            assert_never(name)


def _quasi_random_sampler(seed: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # its interface, which may change, is used here alone
        return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)


def ask(study: optuna.Study, sampler: FeasibleSampler, seed: int) -> optuna.Trial:
    """A new trial: its parameters and attributes are written whole or not at all.

    Raises:
        NothingFeasibleError: see `FeasibleSampler.propose`.
    """
    proposal = sampler.propose(study)
    candidate, price = proposal.feasible.candidate, proposal.feasible.cost
    attributes = {
        "notation": notation(candidate.architecture),
        "params": price.params,
        "macs": price.macs,
        "receptive_field": price.receptive_field,
        "peak_activation_bytes": price.peak_activation_bytes,
        "seed": derive_seed(seed, "training", proposal.number),
        "rejected_before_it": proposal.ledger.rejected,
        "digest": digest(candidate),
    }
    kept = {"ledger": asdict(proposal.ledger), "architecture": to_json(candidate)}
    template = create_trial(
        state=TrialState.RUNNING,
        params=proposal.params,
        distributions=sampler.distributions,
        user_attrs=attributes,
        system_attrs=as_system_attributes(kept),
    )
    return optuna.Trial(study, study._storage.create_new_trial(study._study_id, template))


def report_epoch(trial: optuna.Trial, curve: Sequence[Mapping[str, Any]]) -> None:
    """Tell the study of a trial's latest epoch; `curve` holds all so far, each with the numbers of an EpochReport.

    Epochs beyond it, of an earlier try, have no value any more.
    """
    keep_detail(trial, "curve", list(curve))
    known = trial._cached_frozen_trial.intermediate_values
    values = dict.fromkeys(known, math.nan) | {epoch["epoch"]: epoch["val_accuracy"] for epoch in curve}
    for step, value in values.items():
        if value is not None and known.get(step) != value:
            trial.storage.set_trial_intermediate_value(trial._trial_id, step, value)  # `report` leaves a known one ...
            known[step] = value  # ... as it is, and else does this, too


def tell(trial: optuna.Trial, state: TrialState, value: float | None) -> None:
    """What `Study.tell` does, which copies all of the trial meanwhile; a pruned one has its last value."""
    trial.storage.set_trial_state_values(trial._trial_id, state, None if value is None else [value])


def stored(trial: optuna.Trial) -> FrozenTrial:
    """As it stands in the storage."""
    return trial.storage.get_trial(trial._trial_id)


def in_flight(study: optuna.Study, number: int) -> optuna.Trial:
    """A trial that is RUNNING, to be reported to."""
    return optuna.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A training as its Optuna trial tells it; accuracy and loss are of its last epoch, on the validation images."""

    number: int
    state: TrialState
    candidate: Candidate
    params: int
    macs: int
    seed: int
    curve: Sequence[Mapping[str, Any]]  # the numbers of each epoch's EpochReport
    seconds: float | None
    environment: Mapping[str, str]  # see nas.environment; empty before its end
    reason: str
    micro_batches: int = 1  # see nas.training.TrainingJob

    @property
    def notation(self) -> str:
        """The architecture in one line."""
        return notation(self.candidate.architecture)

    @property
    def epochs(self) -> int:
        """How many were trained."""
        return len(self.curve)

    @property
    def val_accuracy(self) -> float | None:
        """None before the first epoch, and when no images were held out."""
        return self.curve[-1]["val_accuracy"] if self.curve else None

    @property
    def val_loss(self) -> float | None:
        """None as the accuracy is."""
        return self.curve[-1]["val_loss"] if self.curve else None

    @property
    def diverged(self) -> bool:
        """Whether a loss that was not finite any more has ended it."""
        return self.state is TrialState.FAIL and self.reason.startswith(DIVERGED)

    @property
    def precision(self) -> str | None:
        """Of the activations in training, such as bfloat16; None before the end."""
        return self.environment.get("precision")

    @property
    def title(self) -> str:
        """What it is called in a sentence."""
        return f"trial {self.number}"

    @property
    def label(self) -> str:
        """What it is called in a table."""
        return str(self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord(Record):
    """A trial of the search."""

    receptive_field: int
    ledger: Ledger  # of the proposals that led to it
    suggestions: dict[str, Any]

    @property
    def trained(self) -> bool:
        """Whether it counts as one of the networks trained; a diverged training does, a crashed one does not."""
        return self.state in (TrialState.COMPLETE, TrialState.PRUNED) or self.diverged


def read_trial(trial: FrozenTrial) -> TrialRecord | None:
    """What the study says of a trial; None for one that this program did not make."""
    kept = details(trial)
    if "ledger" not in kept:
        return None
    with reading(f"trial {trial.number}"):
        known = common(trial)
        if any(epoch["val_loss"] is None or epoch["val_accuracy"] is None for epoch in known["curve"]):
            raise ValueError("an epoch without loss or accuracy")
        return TrialRecord(
            **known,
            receptive_field=cost(known["candidate"].architecture).receptive_field,
            ledger=_read_ledger(kept["ledger"]),
            suggestions=trial.params,
        )


def common(trial: FrozenTrial) -> dict[str, Any]:
    """The fields of any Record, read from a trial. Raises what `reading` turns into a UserError."""
    attributes, kept = trial.user_attrs, details(trial)
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
        "curve": _read_curve(kept.get("curve", []), candidate.recipe.epochs),
        "seconds": _read_seconds(attributes.get("seconds")),
        "environment": {expected(k, str): expected(v, str) for k, v in kept.get("environment", {}).items()},
        "micro_batches": _read_micro_batches(attributes.get("micro_batches", 1)),
        "reason": expected(attributes.get("reason", ""), str),
    }


def _read_micro_batches(stored: Any) -> int:
    if stored not in (1, 2):
        raise ValueError(f"{stored} parts of a batch")
    return expected(stored, int)


def _read_seconds(stored: Any) -> float | None:
    seconds = expected(stored, float, int, type(None))
    if seconds is not None and not 0 <= seconds < LONGEST:
        raise ValueError(f"{seconds} seconds")
    return seconds


def _read_curve(stored: Any, epochs: int) -> list[Mapping[str, Any]]:
    curve = expected(stored, list)
    if [epoch["epoch"] for epoch in curve] != list(range(1, len(curve) + 1)) or len(curve) > epochs:
        raise ValueError(f"epochs {[epoch['epoch'] for epoch in curve]} of {epochs}")
    for epoch in curve:
        for loss in (epoch.get("train_loss"), epoch["val_loss"]):
            if expected(loss, float, int, type(None)) is not None and loss < 0:  # NaN is a loss, too
                raise ValueError(f"loss {loss}")
        accuracy = expected(epoch["val_accuracy"], float, int, type(None))
        if accuracy is not None and not 0 <= accuracy <= 1:
            raise ValueError(f"accuracy {accuracy}")
        _read_seconds(epoch.get("seconds"))
    return curve


def trials_of(study: optuna.Study) -> list[FrozenTrial]:
    """Every trial as it is stored."""
    with reading(f"study {study.study_name!r}"):
        trials = study.get_trials(deepcopy=False)
        if any(trial.number != place for place, trial in enumerate(trials)):
            raise ValueError("a trial is missing, or there twice")
        return trials


def records(study: optuna.Study) -> list[TrialRecord]:
    """Every described trial, in order of number."""
    read = (read_trial(trial) for trial in trials_of(study))
    return [record for record in read if record is not None]


def digests(study: optuna.Study) -> set[str]:
    """The digests of every candidate that the study has tried."""
    with reading("the digests of the trials"):
        found = [trial.user_attrs["digest"] for trial in trials_of(study) if "digest" in trial.user_attrs]
        return {expected(digest, str) for digest in found}


def ranked(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials trained to the end, best first: by accuracy, then lower loss, then fewer parameters."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    return sorted(complete, key=lambda t: (-(t.val_accuracy or 0), t.val_loss or 0, t.params))


def total_ledger(study: optuna.Study) -> Ledger:
    """What became of all the proposals of a study."""
    return sum((record.ledger for record in records(study)), Ledger())


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
    """What the test images said of the weights of trials, by trial, in the order in which they were read."""
    with reading("what the test images said"):
        return {expected(trial, int): read_score(score) for trial, score in study_detail(study, TEST_SCORES, [])}


def add_test_score(study: optuna.Study, trial: int, score: Score) -> None:
    """Remember that the test images were read, for which trial, and what they said."""
    keep_study_detail(study, TEST_SCORES, [*study_detail(study, TEST_SCORES, []), (trial, asdict(score))])
