"""Proposing candidates until one is feasible, so that a rejected one never becomes a trial; and the ledger."""

import copy
import hashlib
import random
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.sampler import _split_trials
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.architecture import Architecture, digest, notation
from nas.constraints import Limit
from nas.space import Feasible, Rejected, SearchSpace, draw_value

SAMPLER_PROPOSALS = 200  # then uniform draws: a sampler may have learned its way into a corner where nothing is left
GP_PROPOSALS = 20  # the same for gp, which fits its model for each of them; measured: a second each
MAX_PROPOSALS = 20_000
MAX_LEARNED = 1_000  # ended trials that a sampler learns from; TPE takes longer with each, and GP with its cube
BEST_LEARNED = 25  # of them: as many as TPE takes for good, at most
REFITS = 100  # a longer study is learned from anew whenever it has grown by this part of it, ...
RUNNING_A_FIT = 8  # ... and one with many workers, when this part of them has begun anew

Fitted: TypeAlias = dict[tuple[str, ...], dict[bool, _ParzenEstimator]]  # by parameters; True: to the good trials
Reason: TypeAlias = Limit | Literal["map too small", "duplicate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestMiss:
    """The rejected candidate that came closest to the limits, and what it breaks."""

    excess: float
    notation: str
    violations: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.notation}: {'; '.join(self.violations)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What became of the proposals; one that breaks two limits counts under both reasons."""

    proposals: int = 0
    rejected: int = 0
    reasons: Mapping[Reason, int] = field(default_factory=dict)
    nearest: NearestMiss | None = None

    @property
    def acceptance(self) -> float:
        """Feasible proposals as a fraction of all."""
        return 1 - self.rejected / self.proposals if self.proposals else 0.0

    def accept(self) -> "Ledger":
        """With one more feasible proposal."""
        return self + Ledger(proposals=1)

    def reject(self, rejected: Rejected, architecture: Architecture) -> "Ledger":
        """With one more rejected proposal."""
        broken = rejected.violations
        if not broken:
            return self + Ledger(proposals=1, rejected=1, reasons={"map too small": 1})
        miss = NearestMiss(
            excess=max(violation.excess for violation in broken),
            notation=notation(architecture),
            violations=tuple(map(str, broken)),
        )
        reasons: dict[Reason, int] = {violation.limit: 1 for violation in broken}
        return self + Ledger(proposals=1, rejected=1, reasons=reasons, nearest=miss)

    def __add__(self, other: "Ledger") -> "Ledger":
        reasons = {
            key: self.reasons.get(key, 0) + other.reasons.get(key, 0) for key in {**self.reasons, **other.reasons}
        }
        misses = [miss for miss in (self.nearest, other.nearest) if miss is not None]
        return Ledger(
            proposals=self.proposals + other.proposals,
            rejected=self.rejected + other.rejected,
            reasons=reasons,
            nearest=min(misses, key=lambda miss: miss.excess, default=None),
        )


DUPLICATE = Ledger(proposals=1, rejected=1, reasons={"duplicate": 1})


class NothingFeasibleError(Exception):
    """No new feasible candidate among many proposals; `ledger` says why."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(f"no new feasible candidate among {ledger.proposals:,} proposals")
        self.ledger = ledger


def derive_seed(*parts: int | str) -> int:
    """A 32-bit seed that depends on every part: the same parts give the same seed, others an unrelated one."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4], "big")


def probe(space: SearchSpace, seed: int, *, draws: int, until_feasible: bool) -> tuple[list[Feasible], Ledger]:
    """Draw uniformly and check; stop at the first feasible candidate, or go through all the draws."""
    rng, ledger, feasible = random.Random(seed), Ledger(), []
    for _ in range(draws):
        candidate = space.decode(space.draw(rng))
        match space.check(candidate):
            case Feasible() as found:
                feasible.append(found)
                ledger = ledger.accept()
                if until_feasible:
                    break
            case Rejected() as rejected:
                ledger = ledger.reject(rejected, candidate.architecture)
    return feasible, ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Parameters that stand for a feasible candidate, and what became of those proposed before it."""

    number: int  # of the trial to come
    params: dict[str, Any]
    feasible: Feasible
    ledger: Ledger


class FeasibleSampler:
    """Lets an Optuna sampler propose until a candidate is within the limits and new.

    `make` gives the sampler for a seed; each trial has its own seed, from `seed` and the trial's number, so that a
    resumed search draws what an uninterrupted one would. `seen` holds the digests that count as duplicates.
    """

    def __init__(self, make: Callable[[int], BaseSampler], space: SearchSpace, seed: int, seen: set[str]) -> None:
        self._make = make
        self._space = space
        self._seed = seed
        self._seen = set(seen)
        self._model: _Model | None = None
        self.distributions = space.distributions

    def propose(self, study: Study) -> Proposal:
        """The next trial's candidate.

        Raises:
            NothingFeasibleError: nothing new was feasible among MAX_PROPOSALS.
        """
        trials = study.get_trials(deepcopy=False)
        trial = create_trial(state=TrialState.RUNNING)  # no storage knows it yet
        trial.number = len(trials)
        model = self._model_for(study, trials)
        asking = copy.copy(study)
        asking._storage = cast(Any, _Snapshot(study._storage, model.learned))
        seed = derive_seed(self._seed, "proposal", trial.number)
        sampler, rng = self._make(seed), random.Random(seed)
        if isinstance(sampler, RepeatedTPESampler):
            sampler.fitted = model.fitted
        proposals = GP_PROPOSALS if isinstance(sampler, GPSampler) else SAMPLER_PROPOSALS
        ledger = Ledger()
        for attempt in range(MAX_PROPOSALS):
            if attempt < proposals:
                params = _propose(sampler, asking, trial, self.distributions, rng)
            else:
                params = self._space.draw(rng)
            candidate = self._space.decode(params)
            match self._space.check(candidate):
                case Rejected() as rejected:
                    ledger = ledger.reject(rejected, candidate.architecture)
                case Feasible() if digest(candidate) in self._seen:
                    ledger += DUPLICATE
                case Feasible() as feasible:
                    self._seen.add(digest(candidate))
                    return Proposal(number=trial.number, params=params, feasible=feasible, ledger=ledger.accept())
        raise NothingFeasibleError(ledger)

    def _model_for(self, study: Study, trials: list[FrozenTrial]) -> "_Model":
        """What the next trial is proposed from: those before it, but the latest in a long study or with many workers.

        With one worker that depends on the trial's number alone, so that a resumed search draws what an uninterrupted
        one would.
        """
        number, running = len(trials), sum(trial.state is TrialState.RUNNING for trial in trials)
        every = max(1, number // REFITS if number > MAX_LEARNED else 0, running // RUNNING_A_FIT)
        upto = number - number % every
        if self._model is None or self._model.upto != upto or every == 1:
            self._model = _Model(upto=upto, learned=_learned(study, trials[:upto]))
        return self._model


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """The trials, up to a number, that proposals are learned from, and what TPE has fitted to them."""

    upto: int
    learned: list[FrozenTrial]
    fitted: Fitted = field(default_factory=dict)


def _learned(study: Study, trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """All trials, or those in flight, the best, and others at even distances, so that a proposal takes no longer."""
    ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if len(ended) <= MAX_LEARNED:
        return trials
    best, others = _split_trials(study, ended, BEST_LEARNED)
    count = MAX_LEARNED - BEST_LEARNED
    chosen = best + [others[i * len(others) // count] for i in range(count)]
    running = [trial for trial in trials if trial.state is TrialState.RUNNING]
    return sorted(chosen + running, key=lambda trial: trial.number)


class _Snapshot:
    """A storage as it stands while a trial is proposed: its trials are read once, and a proposal is not written there.

    TPE and GP tell other processes of their proposals that way; here a trial in flight is stored with all of it, and a
    proposal may be rejected.
    """

    def __init__(self, storage: BaseStorage, trials: list[FrozenTrial]) -> None:
        self._storage = storage
        self._trials = trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        found = [trial for trial in self._trials if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def set_trial_system_attr(self, *_: object) -> None:
        pass


class RepeatedTPESampler(TPESampler):
    """TPE that fits its estimators once, not for each proposal; the proposals are TPESampler's, bit for bit."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self.fitted: Fitted = {}

    def _build_parzen_estimator(
        self, study: Study, search_space: dict[str, BaseDistribution], trials: list[FrozenTrial], handle_below: bool
    ) -> _ParzenEstimator:
        fitted = super()._build_parzen_estimator(study, search_space, trials, handle_below)
        self.fitted.setdefault(tuple(search_space), {})[handle_below] = fitted
        return fitted

    def _sample(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        estimators = self.fitted.get(tuple(search_space))
        if estimators is None:
            return super()._sample(study, trial, search_space)
        samples = estimators[True].sample(self._rng.rng, self._n_ei_candidates)
        gains = self._compute_acquisition_func(samples, estimators[True], estimators[False])
        best = self._compare(samples, gains)
        return {name: distribution.to_external_repr(best[name]) for name, distribution in search_space.items()}


def _propose(
    sampler: BaseSampler, study: Study, trial: FrozenTrial, space: dict[str, BaseDistribution], rng: random.Random
) -> dict[str, Any]:
    varied = {name: distribution for name, distribution in space.items() if not distribution.single()}
    params = sampler.sample_relative(study, trial, varied)
    for name, distribution in space.items():
        if distribution.single():
            params[name] = draw_value(distribution, rng)
        elif name not in params:
            params[name] = sampler.sample_independent(study, trial, name, distribution)
    return params
