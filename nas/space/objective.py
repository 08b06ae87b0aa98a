"""What a search is after: which value of a training, in which direction, what decides between equals; and targets."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args

MetricName: TypeAlias = Literal["accuracy", "balanced_accuracy"]
METRIC_NAMES: tuple[MetricName, ...] = get_args(MetricName)
TARGET_RULE = "must be a fraction above 0 and at most 1, such as 0.994"


def is_target(accuracy: float) -> bool:
    """Whether a network may be asked for with this accuracy."""
    return 0 < accuracy <= 1


def reached(accuracy: float, target: float | None) -> bool | None:
    """Whether an accuracy is at least the target; None without one."""
    return None if target is None else accuracy >= target


class Trained(Protocol):
    """What an objective may ask of a training."""

    @property
    def val_accuracy(self) -> float | None: ...
    @property
    def val_loss(self) -> float | None: ...
    @property
    def params(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Which value makes one training better than another, and what decides between equals: there, less is better."""

    name: str  # of the value, as the dashboard shows it
    direction: Literal["maximize", "minimize"]
    value: Callable[[Trained], float | None]  # None: there is none yet
    of_equal_values: Callable[[Trained], tuple[float, ...]]  # decides between the very same values

    def merit(self, value: float | None) -> float:
        """The value, turned so that more is better; the least of all where there is none."""
        if value is None:
            return -math.inf
        return value if self.direction == "maximize" else -value

    def place(self, training: Trained) -> tuple[float, ...]:
        """What trainings are sorted by, the best first."""
        return -self.merit(self.value(training)), *self.of_equal_values(training)


# Lower loss, which tells networks apart on fewer images than the accuracy; then higher accuracy, then fewer parameters.
LOSS_FIRST = Objective(
    name="validation loss",
    direction="minimize",
    value=lambda training: training.val_loss,
    of_equal_values=lambda training: (-(training.val_accuracy or 0), training.params),
)
