"""Accuracies over several seeds: mean, standard deviation, and what they allow to be said.

Accuracies of few seeds are taken as normally distributed with an unknown deviation, hence Student's t. Equal accuracies
do not show that it is 0: the metric's standard error, from the choice of the images, stands in its place.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import TypeVar

CONFIDENCE = 0.95
UNSTEADY = 3
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean and sample standard deviation of n accuracies; one accuracy has no deviation."""

    mean: float
    sd: float | None
    n: int

    @property
    def standard_error(self) -> float | None:
        """The standard error of the mean."""
        return None if self.sd is None else self.sd / math.sqrt(self.n)

    def __str__(self) -> str:
        return f"{self.mean:.2%}" if self.sd is None else f"{100 * self.mean:.2f} ± {100 * self.sd:.2f} %"


def spread(accuracies: Sequence[float]) -> Spread:
    """Mean and deviation of at least one accuracy."""
    sd = stdev(accuracies) if len(accuracies) > 1 else None
    return Spread(mean=fmean(accuracies), sd=sd, n=len(accuracies))


def pooled_sd(spreads: Iterable[Spread]) -> float | None:
    """The common deviation of several groups about their own means; None when no group has two members."""
    groups = [(group.n - 1, group.sd) for group in spreads if group.sd is not None]
    freedom = sum(n for n, _ in groups)
    return math.sqrt(sum(n * sd**2 for n, sd in groups) / freedom) if freedom else None


def error_of_mean(accuracies: Spread, one_score: float) -> float | None:
    """The standard error of a mean over seeds; None for one accuracy.

    Of equal accuracies it is that of `one_score`, from the choice of the images alone, which more seeds do not lower.
    """
    return one_score if accuracies.sd == 0 else accuracies.standard_error


def t_quantile(freedom: float, confidence: float = CONFIDENCE) -> float:
    """Within so many standard errors lies this part of Student's t."""
    from scipy.special import stdtrit  # which takes a sixth of a second

    return float(stdtrit(freedom, (1 + confidence) / 2))


def least_difference(sd: float, n: float = math.inf) -> float:
    """What two single accuracies must differ by to mean something (95 %); `n` accuracies gave the deviation."""
    return t_quantile(n - 1) * math.sqrt(2) * sd


def wilson(correct: int, images: int) -> tuple[float, float]:
    """The interval (95 %) of the share of correct answers, of which so many images have shown so many.

    E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22, 1927.
    """
    z = t_quantile(math.inf)
    share, weight = correct / images, 1 + z**2 / images
    middle = (share + z**2 / (2 * images)) / weight
    half = z * math.sqrt(share * (1 - share) / images + z**2 / (4 * images**2)) / weight
    return max(0.0, middle - half), min(1.0, middle + half)


def chance_of_reaching(target: float, accuracies: Spread) -> float | None:
    """The chance that the next seed's accuracy is at least `target` (Student's t predictive distribution).

    None for one accuracy, and for equal ones, whose true deviation is not known to be 0.
    """
    if not accuracies.sd:
        return None
    distance = (accuracies.mean - target) / (accuracies.sd * math.sqrt(1 + 1 / accuracies.n))
    from scipy.special import stdtr

    return float(stdtr(accuracies.n - 1, distance))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The difference of two means, with its standard error; `p` is the chance of as large a one without any effect."""

    mean: float
    standard_error: float
    p: float


def per_cent(log_ratio: Difference) -> tuple[float, float]:
    """A difference of logarithms as per cent, and its standard error to first order."""
    ratio = math.exp(log_ratio.mean)
    return 100 * (ratio - 1), 100 * ratio * log_ratio.standard_error


def differences(groups: Mapping[Key, Spread], base: Key, floor: float = 0.0) -> dict[Key, Difference]:
    """How far every other group's mean lies from that of `base`, with Student's t.

    Their common deviation is pooled over the steady groups; one that spreads more than UNSTEADY times as much as the
    median group has its own. `floor` stands in the place of a common or median deviation of 0. Empty without the base,
    or when no group has two members.
    """
    known = [group.sd for group in groups.values() if group.sd is not None]
    if base not in groups or not known:
        return {}
    most = UNSTEADY * (median(known) or floor)
    steady = [group for group in groups.values() if group.sd is not None and group.sd <= most]
    pooled, freedom = pooled_sd(steady) or floor, sum(group.n - 1 for group in steady)
    found: dict[Key, Difference] = {}
    for key, group in groups.items():
        if key == base:
            continue
        of_its_own = [one for one in (group, groups[base]) if one.sd is not None and one.sd > most]
        sds = [one.sd if one in of_its_own and one.sd is not None else pooled for one in (group, groups[base])]
        error = math.hypot(sds[0] / math.sqrt(group.n), sds[1] / math.sqrt(groups[base].n))
        free = min((one.n - 1 for one in of_its_own), default=freedom)
        mean = group.mean - groups[base].mean
        found[key] = Difference(mean=mean, standard_error=error, p=two_sided(mean, error, free))
    return found


def two_sided(mean: float, standard_error: float, freedom: int) -> float:
    """The chance that Student's t lies as far from 0 as `mean` does; certain knowledge leaves none."""
    if not standard_error:
        return float(mean == 0)
    from scipy.special import stdtr

    return 2 * float(stdtr(freedom, -abs(mean / standard_error)))


def holm(p_values: Sequence[float]) -> list[bool]:
    """Which of several effects are visible when all of them together may err with 5 % (Holm, Scand. J. Stat., 1979)."""
    visible = [False] * len(p_values)
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[i] > (1 - CONFIDENCE) / (len(p_values) - rank):
            break
        visible[i] = True
    return visible
