"""The ledger of proposals: how many were rejected, for which reasons, and the nearest miss."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from nas.errors import UserError
from nas.network.architecture import Architecture, notation
from nas.space.search_space import Feasible, Rejected, SearchSpace

MAX_PROPOSALS = 20_000
Reason: TypeAlias = str  # the name of a limit, or one of the next two
TOO_SMALL, REPEATED = "map too small", "duplicate"


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
            return self + Ledger(proposals=1, rejected=1, reasons={TOO_SMALL: 1})
        miss = NearestMiss(
            excess=max(violation.excess for violation in broken),
            notation=notation(architecture),
            violations=tuple(map(str, broken)),
        )
        reasons: dict[Reason, int] = {violation.limit.name: 1 for violation in broken}
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


DUPLICATE = Ledger(proposals=1, rejected=1, reasons={REPEATED: 1})


class NothingFeasibleError(UserError):
    """No candidate of a space keeps within the limits; the message says which limit rejects most, and the way out."""


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
