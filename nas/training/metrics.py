"""By what number a network's answers are judged, how far the choice of the images moves it, and how it is printed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.training.score import Mistake

if TYPE_CHECKING:  # tables of scores need no torch
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number from 0 to 1 that says how well images are answered: more is better."""

    name: str
    of: Callable[["Tensor", Sequence[Mistake]], float]  # the labels (N,), and which of them were missed
    standard_error: Callable[[float, int], float]  # of one score on so many images, from their choice alone

    def shown(self, value: float) -> str:
        """The number in per cent."""
        return f"{100 * value:.2f} %"


def correct_share(labels: "Tensor", mistakes: Sequence[Mistake]) -> float:
    """The fraction of correct answers."""
    return (len(labels) - len(mistakes)) / len(labels)


def binomial_sd(accuracy: float, images: int) -> float:
    """The deviation of one accuracy that the choice of the images alone causes.

    It is never 0, by Laplace's rule of succession.
    """
    share = (accuracy * images + 1) / (images + 2)
    return math.sqrt(share * (1 - share) / images)


ACCURACY = Metric(name="accuracy", of=correct_share, standard_error=binomial_sd)
