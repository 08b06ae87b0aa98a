"""What trials will score at their last epoch: Gaussian processes over the features of a candidate and the epoch.

They learn from trials that ended at any epoch. A score is the mean curve, common to all trials, and what lasts of a
candidate, and what passes while it is trained, and noise. What passes falls with a power of the epoch: so do the
differences between those that learn fast and slowly. What lasts and what passes are each what the features explain,
linearly and beyond, and a trial's own. How much each counts is not known, so many settings are tried, and each counts
by how likely it makes the scores (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, 5.2).
"""

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Places: TypeAlias = NDArray[np.intp]

TRIED = 32  # settings
KEPT = 8  # of them: the likeliest
EQUAL = 1e-12  # deviation of scores that do not differ
COMMON = 10.0  # deviation of the mean curve, in those of the scores: large, for nothing is known of it beforehand


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How much each part counts, in a unit that is common to them, and how far it reaches."""

    linear: float  # deviation that the features explain linearly
    bent: float  # deviation that they explain beyond
    own: float  # deviation that is a trial's own
    noise: float  # deviation
    reach: float  # of the bent part, in deviations of the features
    passing: float  # how much larger what passes is after epoch 1 than what lasts
    decay: float  # what passes falls with this power of the epoch


# `own`, `noise`, `passing` and `decay` are about those that make `benchmarks.table` likeliest; with other values of
# `linear`, `bent` and `reach` its candidates are ranked as well.
TYPICAL = Setting(linear=0.7, bent=1.5, own=0.5, noise=0.45, reach=1.5, passing=1.9, decay=1.1)
SPREAD = Setting(linear=0.5, bent=0.5, own=0.5, noise=0.5, reach=0.5, passing=0.4, decay=0.3)  # of logarithms
# The unit, in deviations of the scores, is expected beforehand as firmly as if so many scores had told it.
UNIT, SCORES = 0.35, 4.0


@cache
def settings() -> tuple[Setting, ...]:
    """Those that are tried, always the same: log-normal about the typical one."""
    names = Setting.__dataclass_fields__
    deviates = np.random.default_rng(0).standard_normal((TRIED, len(names)))
    return tuple(
        Setting(**{n: getattr(TYPICAL, n) * np.exp(getattr(SPREAD, n) * z) for n, z in zip(names, row, strict=True)})
        for row in deviates.tolist()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What trials scored, one score a row: lower is better, and differences mean as much at all levels."""

    features: Floats  # (trials, D), each of mean 0 and deviation 1 among the candidates of the space
    trial: Places  # (N,), whose score it is
    log_epoch: Floats  # (N,)
    value: Floats  # (N,)
    slopes: Floats  # (D,), by how much a value is expected to change with each feature, before any is known


class Surrogate:
    """Fitted to some scores, it tells what to expect at the epoch whose logarithm is `log_last`."""

    def __init__(self, scores: Scores, log_last: float) -> None:
        values, scale = _centred(scores, scores.value - (scores.features @ scores.slopes)[scores.trial])
        products, distances = _likeness(scores.features, scores.features)
        slopes = scores.slopes / scale
        fits = [_Fit(setting, scores, log_last, values, slopes, products, distances) for setting in settings()]
        fits = sorted(fits, key=lambda fit: -fit.evidence)[:KEPT]
        weights = np.exp([fit.evidence - fits[0].evidence for fit in fits])
        self._fits, self._scale = fits, scale
        self._weights: Floats = weights / weights.sum()

    @cached_property
    def known(self) -> Floats:
        """What the known trials are expected to score (trials,), up to what is common to all."""
        return self._mixed([fit.known.mean for fit in self._fits])

    def expected(self, features: Floats) -> Floats:
        """The same for new candidates of these features (P, D): (P,)."""
        return self._mixed([fit.posterior(features).mean for fit in self._fits])

    def improvement(self, features: Floats, pending: Floats) -> Floats:
        """By how much new candidates (P, D) are expected to beat the best known trial, where they do: (P,).

        Of `pending` candidates (Q, D) the score is taken as known, though not what it is, so that others are preferred.
        Expected improvement: Jones, Schonlau and Welch, Efficient Global Optimization, J. Global Optim., 1998.
        """
        return self._mixed([fit.improvement(features, pending) for fit in self._fits])

    def _mixed(self, told: list[Floats]) -> Floats:
        """What the settings tell (P,) each, each weighted by how likely it is."""
        mixed: Floats = self._scale * (self._weights @ np.array(told))
        return mixed


@dataclass(frozen=True, slots=True)
class _Posterior:
    """What is expected of some candidates: means (P,), and what their covariance follows from."""

    mean: Floats
    explained: Floats  # (N, P), the part of their covariance that the scores explain, as a root


class _Fit:
    """One Gaussian process: a setting, and how likely it makes the scores."""

    def __init__(
        self,
        setting: Setting,
        scores: Scores,
        log_last: float,
        values: Floats,
        slopes: Floats,
        products: Floats,
        distances: Floats,
    ) -> None:
        self._setting, self._scores, self._slopes = setting, scores, slopes
        t, trial = scores.log_epoch, scores.trial
        passing = setting.passing * np.exp(-setting.decay * t)
        passing_at_last = setting.passing * np.exp(-setting.decay * log_last)
        self._to_last: Floats = 1 + passing * passing_at_last
        self._at_last = float(1 + passing_at_last**2)
        same = trial[:, np.newaxis] == trial
        self._of_trials = self._explained(products, distances)[np.ix_(trial, trial)] + setting.own**2 * same
        covariance = self._of_trials * (1 + np.outer(passing, passing)) + (setting.noise**2 + 1e-6) * np.eye(len(t))
        self._root = np.linalg.cholesky(covariance + COMMON**2 * (1 + _nearness(t, t)))
        self._whitened = _solved(self._root, values)
        weight, squares = SCORES + len(t), SCORES * UNIT**2 + float(self._whitened @ self._whitened)
        self._unit = np.sqrt(squares / weight)
        self.evidence = float(-0.5 * weight * np.log(squares) - np.log(np.diag(self._root)).sum())

    def _explained(self, products: Floats, distances: Floats) -> Floats:
        """The covariance that features explain, of their products and squared distances."""
        setting = self._setting
        found: Floats = setting.linear**2 * products + setting.bent**2 * np.exp(-distances / (2 * setting.reach**2))
        return found

    def _given(self, features: Floats, covariance: Floats) -> _Posterior:
        """What the scores tell of candidates with this covariance with each score (P, N), apart from the epoch's."""
        explained = _solved(self._root, (covariance * self._to_last).T)
        return _Posterior(features @ self._slopes + self._whitened @ explained, explained)

    @cached_property
    def known(self) -> _Posterior:
        """What is expected of the known trials."""
        _, first = np.unique(self._scores.trial, return_index=True)
        return self._given(self._scores.features, self._of_trials[first])

    def posterior(self, features: Floats) -> _Posterior:
        """What is expected of new candidates."""
        known = self._scores.features
        return self._given(features, self._explained(*_likeness(features, known))[:, self._scores.trial])

    def improvement(self, features: Floats, pending: Floats) -> Floats:
        """See `Surrogate.improvement`, in units of the scores' deviation."""
        from scipy.special import ndtr

        setting, found = self._setting, self.posterior(features)
        length = (features**2).sum(axis=1) / max(1, features.shape[1])
        variance = (setting.linear**2 * length + setting.bent**2 + setting.own**2) * self._at_last
        variance -= (found.explained**2).sum(axis=0)
        if len(pending):
            others = self.posterior(pending).explained
            between = self._at_last * self._explained(*_likeness(features, pending)) - found.explained.T @ others
            among = self._at_last * self._explained(*_likeness(pending, pending)) - others.T @ others
            root = np.linalg.cholesky(among + (self._at_last * setting.own**2 + 1e-6) * np.eye(len(pending)))
            variance -= (_solved(root, between.T) ** 2).sum(axis=0)
        deviation = self._unit * np.sqrt(np.maximum(variance, 1e-9))
        u = (self.known.mean.min() - found.mean) / deviation
        gain: Floats = deviation * (u * ndtr(u) + np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi))
        return gain


def _centred(scores: Scores, values: Floats) -> tuple[Floats, float]:
    """The values (N,) in deviations about the mean, and the deviation: that of values of one epoch."""
    groups = [values[scores.log_epoch == epoch] for epoch in np.unique(scores.log_epoch)]
    freedom = len(values) - len(groups)
    squares = sum(float(np.sum((group - group.mean()) ** 2)) for group in groups)
    scale = float(np.sqrt(squares / freedom)) if freedom else 0.0
    scale = scale if scale > EQUAL else 1.0
    return (values - values.mean()) / scale, scale


def _solved(root: NDArray[np.floating[Any]], right: Floats) -> Floats:
    """What a lower triangular matrix turns into `right`."""
    from scipy.linalg import solve_triangular

    found: Floats = solve_triangular(root, right, lower=True, check_finite=False)
    return found


def _likeness(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Mean products of the features of each of (A, D) with those of each of (B, D), and mean squared distances."""
    width = max(1, a.shape[1])
    products = a @ b.T / width
    squares = ((a**2).sum(axis=1)[:, np.newaxis] + (b**2).sum(axis=1)) / width
    return products, np.maximum(squares - 2 * products, 0.0)


def _nearness(a: Floats, b: Floats) -> Floats:
    """Squared exponential, (A, B), of (A,) and (B,)."""
    found: Floats = np.exp(-((a[:, np.newaxis] - b) ** 2) / 2)
    return found
