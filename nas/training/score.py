"""The score of a network's weights on images, as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Mistake(NamedTuple):
    """An image that a network takes for another class: indices of the image, of its class and of the predicted one."""

    image: int
    label: int
    predicted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Mean cross-entropy, fraction of correct answers, number of images, and which of them were answered wrongly."""

    loss: float
    accuracy: float
    n: int
    mistakes: tuple[Mistake, ...] = ()


def read_score(stored: Mapping[str, Any]) -> Score:
    """Read a score that `dataclasses.asdict` and JSON have stored.

    Raises:
        TypeError, LookupError, ValueError: what is stored is no score.
    """
    mistakes = tuple(Mistake(*map(int, mistake)) for mistake in stored["mistakes"])
    score = Score(loss=float(stored["loss"]), accuracy=float(stored["accuracy"]), n=int(stored["n"]), mistakes=mistakes)
    if not (score.loss >= 0 and 0 <= score.accuracy <= 1 and score.n > 0 and min(map(min, mistakes), default=0) >= 0):
        raise ValueError(f"loss {score.loss}, accuracy {score.accuracy} of {score.n} images, or a mistake below 0")
    return score
