"""Accuracies over several seeds: mean, standard deviation, and what they allow to be said.

Accuracies of few seeds are taken as normally distributed with an unknown deviation, hence Student's t.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean and sample standard deviation of n accuracies; one accuracy has no deviation."""

    mean: float
    sd: float | None
    n: int

    @property
    def standard_error(self) -> float | None:
        """Of the mean."""
        return None if self.sd is None else self.sd / math.sqrt(self.n)

    def __str__(self) -> str:
        return f"{self.mean:.2%}" if self.sd is None else f"{100 * self.mean:.2f} ± {100 * self.sd:.2f} %"


def spread(accuracies: Sequence[float]) -> Spread:
    """Of at least one accuracy."""
    sd = stdev(accuracies) if len(accuracies) > 1 else None
    return Spread(mean=fmean(accuracies), sd=sd, n=len(accuracies))


def pooled_sd(spreads: Iterable[Spread]) -> float | None:
    """The common deviation of several groups about their own means; None when no group has two members."""
    groups = [(group.n - 1, group.sd) for group in spreads if group.sd is not None]
    freedom = sum(n for n, _ in groups)
    return math.sqrt(sum(n * sd**2 for n, sd in groups) / freedom) if freedom else None


def binomial_sd(accuracy: float, images: int) -> float:
    """Of one accuracy, from the choice of the images alone; by Laplace's rule of succession, so that it is never 0."""
    share = (accuracy * images + 1) / (images + 2)
    return math.sqrt(share * (1 - share) / images)


def least_difference(sd: float, n: float = math.inf) -> float:
    """What two single accuracies must differ by to mean something (95 %); `n` accuracies gave the deviation."""
    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * math.sqrt(2) * sd


def chance_of_reaching(target: float, accuracies: Spread) -> float | None:
    """That the next seed's accuracy is at least `target` (Student's t predictive distribution); None for one accuracy.

    A deviation of 0 leaves no doubt.
    """
    if accuracies.sd is None:
        return None
    if accuracies.sd == 0:
        return float(accuracies.mean >= target)
    distance = (accuracies.mean - target) / (accuracies.sd * math.sqrt(1 + 1 / accuracies.n))
    return float(stdtr(accuracies.n - 1, distance))
