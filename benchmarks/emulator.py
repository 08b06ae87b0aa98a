"""Trainings that take no time: whole learning curves of any candidate of the default space, learned from the table.

Curves of log loss and of log error are few numbers (principal components), each a Gaussian process over the candidate:
linear, and beyond that as smooth as the table says, with the settings that make the table likeliest. They see a
candidate level by level, which is not how any sampler of the program sees it. An emulator with a seed is one draw of
what the table leaves possible, given another bootstrap sample of its candidates, so that conclusions do not rest on
single ones. To that is added what is a candidate's own, the same whenever it is trained, and what changes with the seed
of a training, as it was among the repeats of the table. `python -m benchmarks.emulator` says how well the curves are
told of an arm that was left out.

A draw given the table: Wilson et al., Pathwise Conditioning of Gaussian Processes, JMLR 22, 2021.
"""

import argparse
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import log, log1p
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

from benchmarks.table import SPACE, Row, load
from nas.cli.terminal import run
from nas.errors import UserError
from nas.network.cost import cost
from nas.network.layers import Conv
from nas.space.candidate import Candidate, digest
from nas.space.loading import load_space
from nas.space.seeds import derive_seed

Floats = NDArray[np.float64]
LEVELS = 4  # of maps: 28, 14, 7 and at most 3 pixels wide
EXPLAINED = 0.95  # of the curves' variance, by the components that are kept
SMOOTH = 2.5  # of Matérn's kernel
WAVES = 1_000  # that a draw is made of
ONE_IMAGE = 1e-4  # of 10,000
CHECKED = (1, 4, 19)  # epochs


@dataclass(frozen=True, slots=True)
class Curve:
    """Scores after each epoch."""

    loss: Floats
    accuracy: Floats


class Emulator:
    """Fitted to rows of the table; with a seed, a draw of what they leave possible."""

    def __init__(self, rows: Sequence[Row], seed: int | None = None) -> None:
        self._seed = -1 if seed is None else seed
        trainings = grouped(rows)
        self._noise = noise(trainings)
        rng = np.random.default_rng(seed)
        many = len(trainings)
        chosen = np.arange(many) if seed is None else np.unique(rng.integers(many, size=many))
        curves = np.array([_mean_curve(of) for of in trainings])[chosen]
        x = np.array([portrait(of[0].suggestions) for of in trainings])[chosen]
        deviation = x.std(axis=0)
        self._center, self._scale = x.mean(axis=0), np.where(deviation > 0, deviation, np.inf)
        self._mean = curves.mean(axis=0)
        _, sizes, axes = np.linalg.svd(curves - self._mean, full_matrices=False)
        count = int(np.searchsorted(np.cumsum(sizes**2) / np.sum(sizes**2), EXPLAINED)) + 1
        self._axes: Floats = axes[:count]
        numbers, by_chance = (curves - self._mean) @ self._axes.T, (self._noise @ self._axes.T).std(axis=0)
        drawn = None if seed is None else rng
        parts = zip(numbers.T, by_chance, strict=True)
        self._parts = [_Part(self._standard(x), column, chance, drawn) for column, chance in parts]
        left_out = np.array([part.left_out for part in self._parts]).T @ self._axes
        self.r2: Floats = 1 - (curves - self._mean - left_out).var(axis=0) / curves.var(axis=0)
        self._known: dict[str, Floats] = {}

    def _standard(self, x: Floats) -> Floats:
        found: Floats = (x - self._center) / self._scale
        return found

    def expected(self, suggestions: Mapping[str, Any]) -> Curve:
        """What trainings of a candidate score on average: what a search is after."""
        return _curve(self._expected(suggestions))

    def train(self, suggestions: Mapping[str, Any], seed: int) -> Curve:
        """What one training scores."""
        key = digest(_candidate(suggestions))
        return _curve(self._expected(suggestions) + _one_of(self._noise, "seed", key, seed))

    def _expected(self, suggestions: Mapping[str, Any]) -> Floats:
        key = digest(_candidate(suggestions))
        if key not in self._known:
            self.look_at([suggestions])
        return self._known[key]

    def look_at(self, many: Sequence[Mapping[str, Any]]) -> None:
        """Tell of these together, which is quicker than one at a time."""
        for suggestions, logarithms in zip(many, self.typical(many), strict=True):
            key = digest(_candidate(suggestions))
            deviates = np.random.default_rng(derive_seed("own", self._seed, key)).standard_normal(len(self._parts))
            own = [part.own * deviate for part, deviate in zip(self._parts, deviates, strict=True)]
            self._known[key] = logarithms + own @ self._axes

    def typical(self, many: Sequence[Mapping[str, Any]]) -> Floats:
        """What is common to such candidates (N, 2 × epochs): logarithms of losses and of errors."""
        x = self._standard(np.array([portrait(suggestions) for suggestions in many]))
        found: Floats = self._mean + np.array([part.at(x) for part in self._parts]).T @ self._axes
        return found


class _Part:
    """One principal component, as a function of the candidate: a draw, or without a generator the mean.

    x (N, D) are the portraits of the candidates whose components y (N,) are known; `chance` is the deviation by which
    these change with the seed.
    """

    def __init__(self, x: Floats, y: Floats, chance: float, rng: np.random.Generator | None) -> None:
        unit = y.std()
        least = min(0.1, max(1e-3, (chance / unit) ** 2))
        kernel = ConstantKernel(0.5) * Matern(np.sqrt(x.shape[1]), (1, 100), nu=SMOOTH)
        kernel = kernel + ConstantKernel(0.01, (1e-6, 1)) * DotProduct(1, "fixed") + WhiteKernel(0.2, (least, 1))
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # at a bound, which is meant
            fitted = GaussianProcessRegressor(kernel).fit(x, y / unit).kernel_
        self._known, self._covariance = x, unit**2 * fitted.k1
        white = unit**2 * fitted.k2.noise_level
        self.own = float(np.sqrt(max(0.0, white - chance**2)))
        bent, linear = fitted.k1.k1, fitted.k1.k2
        inverse = np.linalg.inv(self._covariance(x) + white * np.eye(len(y)))
        self.left_out: Floats = y - inverse @ y / np.diag(inverse)  # Rasmussen and Williams, 2006, 5.4.2
        if rng is None:
            self._waves = None
            self._weights: Floats = inverse @ y
            return
        width = x.shape[1]
        heavy = np.sqrt(2 * SMOOTH / rng.chisquare(2 * SMOOTH, size=WAVES))
        frequencies = rng.standard_normal((width, WAVES)) * heavy / bent.k2.length_scale
        height = unit * np.sqrt(2 * bent.k1.constant_value / WAVES) * rng.standard_normal(WAVES)
        slopes = unit * np.sqrt(linear.k1.constant_value) * rng.standard_normal(width + 1)
        self._waves = frequencies, rng.uniform(0, 2 * np.pi, WAVES), height, slopes
        self._weights = inverse @ (y - self._prior(x) - np.sqrt(white) * rng.standard_normal(len(y)))

    def _prior(self, x: Floats) -> Floats:
        if self._waves is None:
            return np.zeros(len(x))
        frequencies, phases, height, slopes = self._waves
        found: Floats = np.cos(x @ frequencies + phases) @ height + x @ slopes[1:] + slopes[0]
        return found

    def at(self, x: Floats) -> Floats:
        """The component (N,) of candidates with these portraits (N, D)."""
        found: Floats = self._prior(x) + self._covariance(x, self._known) @ self._weights
        return found


def _one_of(curves: Floats, *of: str | int) -> Floats:
    found: Floats = curves[derive_seed(*of) % len(curves)]
    return found


def grouped(rows: Sequence[Row]) -> list[list[Row]]:
    """The trainings of each candidate, in the order of their seeds."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.entry):
        found.setdefault((row.arm, row.number), []).append(row)
    return [*found.values()]


def noise(trainings: Sequence[Sequence[Row]]) -> Floats:
    """What the seed has changed in repeats (N, 2 × epochs), as logarithms, and the opposite of each.

    First seeds do not count: they were chosen for their scores.

    Raises:
        UserError: no candidate has two repeats.
    """
    repeats = [[_logarithms(row) for row in of if row.repeat] for of in trainings]
    found = [np.array(of) - np.mean(of, axis=0) for of in repeats if len(of) > 1]
    if not found:
        raise UserError("the table has no candidate with two repeats; make them with: python -m benchmarks.table")
    scaled = np.concatenate([of * np.sqrt(len(of) / (len(of) - 1)) for of in found])
    return np.concatenate([scaled, -scaled])


def _logarithms(row: Row) -> Floats:
    """Of losses, and of errors, each with one image more, so that none is 0."""
    found: Floats = np.log(np.concatenate([row.loss, 1 - np.array(row.accuracy) + ONE_IMAGE]))
    return found


def _mean_curve(trainings: Sequence[Row]) -> Floats:
    mean: Floats = np.mean([_logarithms(row) for row in trainings], axis=0)
    return mean


def _curve(logarithms: Floats) -> Curve:
    loss, error = np.split(np.exp(logarithms), 2)
    return Curve(loss, 1 - (error - ONE_IMAGE))


@cache
def _space() -> Any:
    return load_space(SPACE)


def _candidate(suggestions: Mapping[str, Any]) -> Candidate:
    found: Candidate = _space().decode(suggestions)
    return found


def portrait(suggestions: Mapping[str, Any]) -> Floats:
    """A candidate as numbers: what stands at each level of map size, the last map, the head, and the whole."""
    architecture = _candidate(suggestions).architecture
    price = cost(architecture)
    levels = np.zeros((LEVELS, 6))
    for layer, row in zip(architecture.layers, price.rows, strict=False):
        level = min(LEVELS - 1, max(0, round(np.log2(28 / row.output_shape[1]))))
        costs = (row.params / 1000, row.macs / 100_000)
        if isinstance(layer, Conv):
            levels[level] += (1, 0, *costs, layer.dropout * 10, layer.out_channels / 16)
        else:
            levels[level] += (0, 1, *costs, 0, 0)
    last = price.rows[len(architecture.layers) - 1].output_shape
    whole = (log(price.params), log(price.macs), log1p(last[1] * last[2]), log(last[0]), price.receptive_field / 28)
    return np.array([*levels.ravel(), *whole, architecture.head.kind == "pool_conv"])


def main() -> int:
    """Print how well an emulator tells the curves of candidates that it has not seen."""
    argparse.ArgumentParser(prog="python -m benchmarks.emulator", description=__doc__).parse_args()
    rows = load()
    trainings = grouped(rows)
    at = [epoch - 1 for epoch in CHECKED]
    whole = Emulator(rows)
    chance = noise(trainings).std(axis=0)
    print(f"{len(rows)} trainings of {len(trainings)} candidates; log loss after epochs {', '.join(map(str, CHECKED))}")
    print(f"deviation between candidates: {_row(np.array([_mean_curve(of) for of in trainings]).std(axis=0)[at])}")
    print(f"deviation between seeds: {_row(chance[at])}")
    print(f"explained of candidates left out one by one: {_row(whole.r2[at])}")
    arms = dict.fromkeys(row.arm for row in rows)
    for arm in arms if len(arms) > 1 else ():
        others = Emulator([row for row in rows if row.arm != arm])
        left_out = [of for of in trainings if of[0].arm == arm]
        true = np.array([_mean_curve(of) for of in left_out])[:, at]
        told = others.typical([of[0].suggestions for of in left_out])[:, at]
        bias, r2 = (told - true).mean(axis=0), 1 - (told - true).var(axis=0) / true.var(axis=0)
        print(f"{arm}, left out as a whole: explained {_row(r2)}; too high by {_row(bias)}")
    return 0


def _row(numbers: Floats) -> str:
    return ", ".join(f"{number:.2f}" for number in numbers)


if __name__ == "__main__":
    sys.exit(run(main))
