"""What a search space may ask of a trial, and trials that record, draw or replay the answers."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import create_trial

from nas.errors import UserError

Choice = TypeVar("Choice")


class Trial(Protocol):
    """What a space may ask of a trial: three of Optuna's own calls."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...
    def suggest_categorical(self, name: str, choices: Sequence[Choice]) -> Choice: ...


class Recorder:
    """A trial that answers with uniform draws and remembers what was asked for."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.distributions: dict[str, BaseDistribution] = {}

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if self.distributions.setdefault(name, distribution) != distribution:
            raise UserError(f"parameter {name!r} is suggested twice with different ranges; give each its own name")
        return draw_value(distribution, self.rng)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return cast(int, self._suggest(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return cast(float, self._suggest(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Sequence[Choice]) -> Choice:
        odd = [choice for choice in choices if not isinstance(choice, None | bool | int | float | str)]
        if odd:
            raise UserError(f"parameter {name!r} has the choice {odd[0]!r}; use text, numbers, True, False or None")
        return cast(Choice, self._suggest(name, CategoricalDistribution(cast(Any, choices))))


class Replay:
    """A trial that answers with given parameters."""

    __slots__ = ("params",)

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = params

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return cast(int, self.params[name])

    def suggest_float(
        self,
        name: str,
        low: float,
        high: float,
        *,
        step: float | None = None,
        log: bool = False,
    ) -> float:
        return cast(float, self.params[name])

    def suggest_categorical(self, name: str, choices: Sequence[Choice]) -> Choice:
        return cast(Choice, self.params[name])


def suggestable(name: str, value: Any, distribution: BaseDistribution) -> Any:
    """The value as a space suggests it: 16 for 16.0, where that is a whole number.

    Raises:
        UserError: the space does not suggest it.
    """
    try:
        create_trial(params={name: value}, distributions={name: distribution}, value=0.0)  # which checks it
        suggested = distribution.to_external_repr(distribution.to_internal_repr(value))
    except (TypeError, ValueError):
        suggested = math.nan
    if suggested != value:
        raise UserError(f"parameter {name!r} cannot be {value!r}; the space suggests {distribution}")
    return suggested


def draw_value(distribution: BaseDistribution, rng: random.Random) -> Any:
    """One value, drawn uniformly (on the logarithm where the distribution says so)."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return choices[int(rng.random() * len(choices))]
        case IntDistribution(low=low, high=high, log=True):
            return min(high, int(math.exp(rng.uniform(math.log(low), math.log(high + 1)))))
        case IntDistribution(low=low, high=high, step=step):
            return low + step * int(rng.random() * ((high - low) // step + 1))
        case FloatDistribution(low=low, high=high, log=True):
            return min(high, max(low, math.exp(rng.uniform(math.log(low), math.log(high)))))
        case FloatDistribution(low=low, high=high, step=None):
            return rng.uniform(low, high)
        case FloatDistribution(low=low, high=high, step=float(step)):
            return min(high, low + step * int(rng.random() * (round((high - low) / step) + 1)))
        case _:
            raise UserError(f"a space cannot use {distribution!r}; use an int, float or categorical suggestion")
