"""Trainings that take no time: whole learning curves of any candidate of the default space, learned from the table.

Curves of log loss and of log error are few numbers (principal components). Three kinds of models predict them, and
their mean is taken: a ridge regression, trees, and a support vector machine. They see a candidate level by level, which
is not how any sampler of the program sees it. What they cannot predict is added as it was in the table, and is the
candidate's own, the same whenever that is trained. What changes with the seed is added, too, as it was among the
repeats of the table. Each emulator is fitted to another bootstrap sample of the candidates, so that conclusions do not
rest on single ones. `python -m benchmarks.emulator` says how well the curves are told of an arm that was left out.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import log, log1p
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from benchmarks.table import SPACE, Row, load
from nas.cli.terminal import run
from nas.errors import UserError
from nas.network.cost import cost
from nas.network.layers import Conv
from nas.space.candidate import Candidate, digest
from nas.space.loading import load_space
from nas.space.rejections import derive_seed

Floats = NDArray[np.float64]
LEVELS = 4  # of maps: 28, 14, 7 and at most 3 pixels wide
EXPLAINED = 0.95  # of the curves' variance, by the components that are kept
FOLDS = 10
ONE_IMAGE = 1e-4  # of 10,000
CHECKED = (1, 7, 19)  # epochs


@dataclass(frozen=True, slots=True)
class Curve:
    """Scores after each epoch."""

    loss: Floats
    accuracy: Floats


class Emulator:
    """Fitted to rows of the table; with a seed, to a bootstrap sample of its candidates."""

    def __init__(self, rows: Sequence[Row], seed: int | None = None) -> None:
        trainings = grouped(rows)
        self._noise = noise(trainings)
        chosen = np.arange(len(trainings)) if seed is None else _sample(len(trainings), seed)
        curves = np.array([_mean_curve(of) for of in trainings])[chosen]
        x = np.array([portrait(of[0].suggestions) for of in trainings])[chosen]
        self._mean = curves.mean(axis=0)
        _, sizes, axes = np.linalg.svd(curves - self._mean, full_matrices=False)
        count = int(np.searchsorted(np.cumsum(sizes**2) / np.sum(sizes**2), EXPLAINED)) + 1
        self._axes: Floats = axes[:count]
        numbers = (curves - self._mean) @ self._axes.T
        self._models = [[clone(model).fit(x, column) for model in models()] for column in numbers.T]
        left_out = np.array([predicted_apart(x, column, chosen) for column in numbers.T]).T
        residuals = curves - self._mean - left_out @ self._axes  # (candidates, 2 × epochs)
        self.r2 = 1 - residuals.var(axis=0) / curves.var(axis=0)
        by_chance = self._noise.var(axis=0) / residuals.var(axis=0)
        self._own: Floats = residuals * np.sqrt(np.clip(1 - by_chance, 0, 1))
        self._known: dict[str, Floats] = {}

    def expected(self, suggestions: Mapping[str, Any]) -> Curve:
        """What trainings of a candidate score on average: what a search is after."""
        return _curve(self._expected(suggestions))

    def train(self, suggestions: Mapping[str, Any], seed: int) -> Curve:
        """What one training scores."""
        return _curve(self._expected(suggestions) + _one_of(self._noise, "seed", seed))

    def _expected(self, suggestions: Mapping[str, Any]) -> Floats:
        key = digest(_candidate(suggestions))
        if key not in self._known:
            self.look_at([suggestions])
        return self._known[key]

    def look_at(self, many: Sequence[Mapping[str, Any]]) -> None:
        """Predict these together, which is quicker than one at a time."""
        for suggestions, logarithms in zip(many, self.typical(many), strict=True):
            key = digest(_candidate(suggestions))
            self._known[key] = logarithms + _one_of(self._own, "own", key)

    def typical(self, many: Sequence[Mapping[str, Any]]) -> Floats:
        """What is predicted of such candidates (N, 2 × epochs): logarithms of losses and of errors."""
        x = np.array([portrait(suggestions) for suggestions in many])
        numbers = np.array([np.mean([model.predict(x) for model in kinds], axis=0) for kinds in self._models]).T
        found: Floats = self._mean + numbers @ self._axes
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


def models() -> list[Any]:
    """One of each kind."""
    return [
        make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-1, 3, 9))),
        ExtraTreesRegressor(60, min_samples_leaf=2, max_features=0.5, random_state=0),
        make_pipeline(StandardScaler(), SVR(C=0.3, epsilon=0.02, gamma=0.01)),
    ]


def predicted_apart(x: Floats, y: Floats, rows: NDArray[np.intp]) -> Floats:
    """What models predict of each row that were fitted to others; copies of a row are left out together."""
    folds = list(_folds(rows))
    told = [cross_val_predict(clone(model), x, y, cv=folds) for model in models()]
    mean: Floats = np.mean(told, axis=0)
    return mean


def _folds(rows: NDArray[np.intp]) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    distinct = np.unique(rows)
    parts = KFold(min(FOLDS, len(distinct)), shuffle=True, random_state=0).split(distinct)
    return [(np.flatnonzero(~np.isin(rows, distinct[t])), np.flatnonzero(np.isin(rows, distinct[t]))) for _, t in parts]


def _sample(count: int, seed: int) -> NDArray[np.intp]:
    return np.random.default_rng(seed).integers(count, size=count)


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
    print(f"explained of candidates left out by tenths: {_row(whole.r2[at])}")
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
