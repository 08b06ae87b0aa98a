"""What a search is after: which value of a training, in which direction, and what decides where it does not."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol


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
    of_a_tie: Callable[[Trained], float]  # decides between finalists that are within one standard error
    is_target: Callable[[float], bool]  # whether a search may be after this value
    target_rule: str  # the same, as messages say it

    def merit(self, value: float | None) -> float:
        """The value, turned so that more is better; the least of all where there is none."""
        if value is None:
            return -math.inf
        return value if self.direction == "maximize" else -value

    def place(self, training: Trained) -> tuple[float, ...]:
        """What trainings are sorted by, the best first."""
        return -self.merit(self.value(training)), *self.of_equal_values(training)

    def reached(self, value: float, target: float | None) -> bool | None:
        """Whether a value is at least as good as the target; None without one."""
        return None if target is None else self.merit(value) >= self.merit(target)


# Higher accuracy, then lower loss, then fewer parameters; among finalists in a tie, fewer parameters.
ACCURACY_FIRST = Objective(
    name="validation accuracy",
    direction="maximize",
    value=lambda training: training.val_accuracy,
    of_equal_values=lambda training: (training.val_loss or 0, training.params),
    of_a_tie=lambda training: training.params,
    is_target=lambda target: 0 < target <= 1,
    target_rule="must be a fraction above 0 and at most 1, such as 0.994",
)
