"""Candidates of a space as rows of numbers: what is built, and what was suggested."""

from collections.abc import Iterator, Mapping, Sequence
from math import log
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from nas.network.features import features
from nas.samplers.drafts import Draft
from nas.samplers.surrogate import Floats

SIZE = ("log parameters", "log channels")  # what the losses in `benchmarks.table` go with most
# By how much the logarithm of a loss is expected to change with a feature, whatever the epoch. Losses fall with powers
# of the size (Rosenfeld et al., A Constructive Prediction of the Generalization Error Across Scales, ICLR 2020). Small
# networks learn too little rather than too much, so that dropout harms them. The numbers are those of
# `benchmarks.table`; losses of other tasks go with them, too (`benchmarks.slopes`).
SLOPES = {"log parameters": -0.4, "log channels": -0.3, "dropout": 0.4}
SHARES = {"size": 0.3, "built": 0.5, "suggested": 0.2}  # of the squared length of a row


class Describer:
    """Turns candidates into features of mean 0 and deviation 1 among those that it was made with."""

    def __init__(self, distributions: Mapping[str, BaseDistribution], examples: Sequence[Draft]) -> None:
        self._distributions = distributions
        rows = [self._numbers(draft) for draft in examples]
        self._names = sorted({name for row in rows for name in row})
        table = self._table(rows)
        deviation = table.std(axis=0)
        varied = deviation > 1e-9
        self._names = [name for name, varies in zip(self._names, varied, strict=True) if varies]
        self._mean, self._deviation = table.mean(axis=0)[varied], deviation[varied]
        kinds = ["size" if name in SIZE and kind == "built" else kind for kind, name in self._names]
        shares = np.array([SHARES[kind] / kinds.count(kind) for kind in kinds])
        self._weights = np.sqrt(len(shares) * shares / shares.sum())

    @property
    def slopes(self) -> Floats:
        """By how much the logarithm of a loss is expected to change with each feature (D,)."""
        of_unit = np.array([SLOPES.get(name, 0.0) if kind == "built" else 0.0 for kind, name in self._names])
        return np.array(of_unit * self._deviation / self._weights)

    def describe(self, drafts: Sequence[Draft]) -> Floats:
        """The features (N, D) of candidates, and of what was suggested for them."""
        table = self._table([self._numbers(draft) for draft in drafts])
        described: Floats = (table - self._mean) / self._deviation * self._weights
        return described

    def _table(self, rows: Sequence[Mapping[tuple[str, str], float]]) -> Floats:
        table = [[row.get(name, 0.0) for name in self._names] for row in rows]
        return np.array(table).reshape(len(rows), len(self._names))

    def _numbers(self, draft: Draft) -> dict[tuple[str, str], float]:
        built = features(draft.candidate.architecture)
        return {("built", name): value for name, value in built.items()} | {
            ("suggested", name): value for name, value in self._suggested(draft.params)
        }

    def _suggested(self, params: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
        """One number for each parameter, or for each choice of a categorical one."""
        for name, distribution in self._distributions.items():
            value = params[name]
            match distribution:
                case CategoricalDistribution(choices=choices):
                    yield from ((f"{name}={choice}", float(value == choice)) for choice in choices)
                case IntDistribution(log=True) | FloatDistribution(log=True):
                    yield name, log(value)
                case _:
                    yield name, float(value)
