"""Proposing candidates until one is feasible, so that a rejected one never becomes a trial; and the ledger."""

import copy
import hashlib
import random
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Literal, TypeAlias, cast

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.samplers._tpe.sampler import _split_trials
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.architecture import Architecture, digest, notation
from nas.constraints import Limit
from nas.space import Feasible, Rejected, SearchSpace, draw_value
from nas.tpe import Fitted, RepeatedTPESampler

SAMPLER_PROPOSALS = 200  # then uniform draws: a sampler may have learned its way into a corner where nothing is left
GP_PROPOSALS = 20  # the same for gp, which fits its model for each of them; measured: a second each
MAX_PROPOSALS = 20_000
MAX_LEARNED = 500  # ended trials that a sampler learns from; TPE takes longer with each, and GP with its cube
BEST_LEARNED = 25  # of them: as many as TPE takes for good, at most
REFITS = 100  # a longer study is learned from anew whenever it has grown by this part of it, ...
RUNNING_A_FIT = 8  # ... and one with many workers, when this part of them has ended

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
        trial = create_trial(state=TrialState.RUNNING)  # no storage knows it yet
        trial.number = study._storage.get_n_trials(study._study_id)
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        model = self._model_for(study, trial.number - len(running), len(running))
        asking = copy.copy(study)
        asking._storage = cast(Any, _Snapshot(study._storage, model.learned + running))
        seed = derive_seed(self._seed, "proposal", trial.number)
        sampler, rng = self._make(seed), random.Random(seed)
        if isinstance(sampler, RepeatedTPESampler):
            sampler.fitted = model.fitted
        proposals = GP_PROPOSALS if isinstance(sampler, GPSampler) else SAMPLER_PROPOSALS
        if type(sampler) is RandomSampler:  # it draws uniformly itself, and takes 30 times as long
            proposals = 0
        learned = islice(_proposals(sampler, asking, trial, self.distributions, rng), proposals)
        drawn = (self._space.draw(rng) for _ in range(MAX_PROPOSALS - proposals))
        ledger = Ledger()
        for params in chain(learned, drawn):
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

    def _model_for(self, study: Study, finished: int, running: int) -> "_Model":
        """What is learned from the trials that have ended: anew with each, but in a long study or with many workers.

        With one worker that depends on the trial's number alone, so that a resumed search draws what an uninterrupted
        one would.
        """
        upto = finished - finished % (max(1, finished // REFITS) if finished > MAX_LEARNED else 1)
        if self._model is None or upto - self._model.upto >= max(1, running // RUNNING_A_FIT):
            trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()][:upto]
            self._model = _Model(upto=upto, learned=_learned(study, trials))
        return self._model


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """Which of the first trials that have ended proposals are learned from, and what TPE has fitted to them."""

    upto: int
    learned: list[FrozenTrial]
    fitted: Fitted = field(default_factory=dict)


def _learned(study: Study, trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """All that did not fail, or the best and others at even distances, so that a proposal takes no longer."""
    ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if len(ended) <= MAX_LEARNED:
        return ended
    best, others = _split_trials(study, ended, BEST_LEARNED)
    count = MAX_LEARNED - BEST_LEARNED
    return sorted(best + [others[i * len(others) // count] for i in range(count)], key=lambda trial: trial.number)


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


def _proposals(
    sampler: BaseSampler, study: Study, trial: FrozenTrial, space: dict[str, BaseDistribution], rng: random.Random
) -> Iterator[dict[str, Any]]:
    """What a sampler proposes, one after the other, without end."""
    varied = {name: distribution for name, distribution in space.items() if not distribution.single()}
    while True:
        if isinstance(sampler, RepeatedTPESampler):
            found = sampler.ranked(study, trial, varied)
        else:
            found = iter([sampler.sample_relative(study, trial, varied)])
        for params in found:
            for name, distribution in space.items():
                if distribution.single():
                    params[name] = draw_value(distribution, rng)
                elif name not in params:
                    params[name] = sampler.sample_independent(study, trial, name, distribution)
            yield params
