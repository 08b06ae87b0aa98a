"""Optuna's TPE, quick at many proposals: its estimators are fitted once, and their densities looked up."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.probability_distributions import _BatchedCategoricalDistributions, _log_gauss_mass_unique
from optuna.study import Study
from optuna.trial import FrozenTrial

from nas.optuna_internals.ranking import DRAWN, Fitted, RankingSampler

FEW = 100  # values of a parameter: with more of them, a table would be large and hardly quicker
JOINT = 32  # combinations of values in one table, unless a single parameter has more
Floats: TypeAlias = NDArray[np.float64]


class TabulatedEstimator:
    """A Parzen estimator of parameters of few values each: how likely a kernel makes each of them stands in a table.

    Optuna's own computes that for every draw; with 1,000 kernels and the default space a draw takes 15 times as long.
    The distribution is the same. Draws are not, since a truncated normal that is rounded becomes a choice of values.
    """

    def __init__(self, estimator: _ParzenEstimator) -> None:
        mixture = estimator._mixture_distribution
        self._names = list(estimator._search_space)
        self._weights: Floats = mixture.weights
        self._lows, self._steps = np.zeros(len(self._names)), np.ones(len(self._names))
        self._highs = np.full(len(self._names), np.inf)
        tables = []
        for i, distribution in enumerate(mixture.distributions):
            if isinstance(distribution, _BatchedCategoricalDistributions):
                tables.append(np.log(distribution.weights).T)
                continue
            self._lows[i], self._highs[i] = distribution.low, distribution.high
            self._steps[i] = distribution.step
            count = round((distribution.high - distribution.low) / distribution.step) + 1
            edges = distribution.low + distribution.step * (np.arange(count + 1)[:, np.newaxis] - 0.5)
            scaled = ((np.log(edges) if distribution.is_log else edges) - distribution.mu) / distribution.sigma
            masses = _log_gauss_mass_unique(scaled[:-1], scaled[1:])
            tables.append(masses - _log_sum(masses.T))
        self._tables: list[Floats] = tables  # of each parameter: values by kernels
        self._joint = list(_joint(tables))

    @cached_property
    def _cumulative(self) -> Floats:
        """Parameters by values by kernels: how likely each value is, or one before it."""
        padded = np.empty((len(self._tables), max(map(len, self._tables)), len(self._weights)))
        for place, table in zip(padded, self._tables, strict=True):
            place[: len(table)] = np.exp(table).cumsum(axis=0)
            place[len(table) :] = place[len(table) - 1]
        return padded

    def sample(self, rng: np.random.RandomState, size: int) -> dict[str, Floats]:
        """So many values of each parameter, as Optuna keeps them in its storages."""
        kernels = rng.choice(len(self._weights), p=self._weights, size=size)
        cumulative = self._cumulative[:, :, kernels]
        quantiles = rng.rand(len(self._names), 1, size) * cumulative[:, -1:]
        values = self._lows[:, np.newaxis] + self._steps[:, np.newaxis] * (cumulative < quantiles).sum(axis=1)
        values = np.minimum(values, self._highs[:, np.newaxis])  # 3 steps of 0.1 are more than 0.3
        return dict(zip(self._names, values, strict=True))

    def log_pdf(self, samples: Mapping[str, Floats]) -> Floats:
        """How likely each is: the logarithm."""
        rows = np.array([samples[name] for name in self._names])
        chosen = np.rint((rows - self._lows[:, np.newaxis]) / self._steps[:, np.newaxis]).astype(int)
        densities = np.log(self._weights) + np.zeros((rows.shape[1], 1))
        for places, shape, table in self._joint:
            densities += table[np.ravel_multi_index(tuple(chosen[places]), shape)]
        return _log_sum(densities)


def _joint(tables: Sequence[Floats]) -> Iterator[tuple[slice, tuple[int, ...], Floats]]:
    """Tables of several parameters each, which one after the other stands for, since to look one up takes the time.

    Which parameters, how many values each has, and the sums for all of their combinations, the last one's fastest.
    """
    first, joint, sizes = 0, tables[0], [len(tables[0])]
    for place, table in enumerate(tables[1:], 1):
        if len(joint) * len(table) > JOINT:
            yield slice(first, place), tuple(sizes), joint
            first, joint, sizes = place, table, [len(table)]
        else:
            joint = (joint[:, np.newaxis] + table).reshape(-1, table.shape[1])
            sizes.append(len(table))
    yield slice(first, len(tables)), tuple(sizes), joint


def _log_sum(logarithms: Floats) -> Floats:
    """The logarithm of the sum of each row; SciPy's takes four times as long, since it is prepared for infinities."""
    most = logarithms.max(axis=1, keepdims=True)
    found: Floats = (np.log(np.exp(logarithms - most).sum(axis=1, keepdims=True)) + most)[:, 0]
    return found


Estimator: TypeAlias = _ParzenEstimator | TabulatedEstimator


class RepeatedTPESampler(TPESampler, RankingSampler):
    """TPE that fits its estimators once, not for each proposal; where each parameter takes few values, as tables."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed, n_ei_candidates=DRAWN)
        self.fitted: Fitted = {}
        self._judged: tuple[dict[str, Floats], Floats] | None = None  # the latest samples, and their gains

    def ranked(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Iterator[dict[str, Any]]:
        self._judged = None
        best = self.sample_relative(study, trial, search_space)
        yield best
        if self._judged is not None:
            samples, gains = self._judged
            for place in np.argsort(-gains, kind="stable")[1:]:
                yield {name: d.to_external_repr(samples[name][place].item()) for name, d in search_space.items()}

    def _build_parzen_estimator(
        self, study: Study, search_space: dict[str, BaseDistribution], trials: list[FrozenTrial], handle_below: bool
    ) -> _ParzenEstimator:
        fitted: Any = super()._build_parzen_estimator(study, search_space, trials, handle_below)
        if all(map(_few, search_space.values())):
            fitted = TabulatedEstimator(fitted)
        self.fitted.setdefault(tuple(search_space), {})[handle_below] = fitted
        return fitted  # type: ignore[no-any-return]  # of either kind, which answer the same calls

    def _sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if tuple(search_space) in self.fitted:
            return self._sample(study, trial, search_space)
        return super()._sample_relative(study, trial, search_space)

    def _sample(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        estimators: Any = self.fitted.get(tuple(search_space))
        if estimators is None:
            return super()._sample(study, trial, search_space)
        samples = estimators[True].sample(self._rng.rng, self._n_ei_candidates)
        gains = self._compute_acquisition_func(samples, estimators[True], estimators[False])
        best = self._compare(samples, gains)
        return {name: distribution.to_external_repr(best[name]) for name, distribution in search_space.items()}

    def _compute_acquisition_func(
        self, samples: dict[str, Floats], mpe_below: _ParzenEstimator, mpe_above: _ParzenEstimator
    ) -> Floats:
        gains: Floats = super()._compute_acquisition_func(samples, mpe_below, mpe_above)
        self._judged = samples, gains
        return gains


def _few(distribution: BaseDistribution) -> bool:
    match distribution:
        case CategoricalDistribution():
            return len(distribution.choices) <= FEW
        case IntDistribution(low=low, high=high, step=step) | FloatDistribution(low=low, high=high, step=step):
            return step is not None and (high - low) / step <= FEW
    return False
