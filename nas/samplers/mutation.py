"""Small changes of a candidate's suggestions."""

import random
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from nas.space.suggestions import draw_value

ONE_MORE = 0.5  # chance that one more suggestion changes
NEARBY = 0.7  # chance that a number goes one step up or down; otherwise it is drawn anew


def mutated(
    params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution], rng: random.Random
) -> dict[str, Any]:
    """The suggestions with one or a few of them changed; what changes may be one that the candidate does not use."""
    names, changed = list(distributions), dict(params)
    while True:
        name = rng.choice(names)
        changed[name] = _changed(changed[name], distributions[name], rng)
        if rng.random() > ONE_MORE:
            return changed


def _changed(value: Any, distribution: BaseDistribution, rng: random.Random) -> Any:
    match distribution:
        case IntDistribution(log=False) | FloatDistribution(log=False, step=float()) if rng.random() < NEARBY:
            assert distribution.step is not None
            steps = round((value - distribution.low) / distribution.step) + rng.choice((-1, 1))
            return min(distribution.high, distribution.low + distribution.step * max(0, steps))
        case _:
            return draw_value(distribution, rng)
