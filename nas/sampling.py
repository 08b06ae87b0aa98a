"""Proposing candidates until one is feasible, so that a rejected one never becomes a trial; and the ledger."""

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.architecture import Architecture, digest, notation
from nas.constraints import Limit
from nas.space import Feasible, Rejected, SearchSpace, draw_value

SAMPLER_PROPOSALS = 200  # then uniform draws: a sampler may have learned its way into a corner where nothing is left
GP_PROPOSALS = 20  # the same for gp, which fits its model for each of them; measured: a second each
MAX_PROPOSALS = 20_000

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


class FeasibleSampler(BaseSampler):
    """Wraps any Optuna sampler: it proposes until a candidate is within the limits and new.

    `make` gives the wrapped sampler for a seed; each trial has its own seed, from `seed` and the trial's number, so
    that a resumed search draws what an uninterrupted one would. `seen` holds the digests that count as duplicates.
    After `ask`, `accepted` and `ledger` tell what was found.
    """

    def __init__(self, make: Callable[[int], BaseSampler], space: SearchSpace, seed: int, seen: set[str]) -> None:
        self._make = make
        self._space = space
        self._seed = seed
        self._seen = set(seen)
        self.distributions = space.distributions
        self.accepted: Feasible | None = None
        self.ledger = Ledger()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        seed = derive_seed(self._seed, "proposal", trial.number)
        sampler, rng = self._make(seed), random.Random(seed)
        proposals = GP_PROPOSALS if isinstance(sampler, GPSampler) else SAMPLER_PROPOSALS
        self.ledger = Ledger()
        for attempt in range(MAX_PROPOSALS):
            if attempt < proposals:
                params = _propose(sampler, study, trial, search_space, rng)
            else:
                params = self._space.draw(rng)
            if self._accepts(params):
                return params
        raise NothingFeasibleError(self.ledger)

    def _accepts(self, params: Mapping[str, Any]) -> bool:
        candidate = self._space.decode(params)
        match self._space.check(candidate):
            case Rejected() as rejected:
                self.ledger = self.ledger.reject(rejected, candidate.architecture)
                return False
            case Feasible() as feasible:
                key = digest(candidate)
                if key in self._seen:
                    self.ledger += DUPLICATE
                    return False
                self._seen.add(key)
                self.ledger = self.ledger.accept()
                self.accepted = feasible
                return True

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise AssertionError(f"{param_name} is not a parameter of the search space")

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Any
    ) -> None:  # the wrapped samplers keep nothing between trials
        pass


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
