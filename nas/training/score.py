"""The score of a network's weights on images, as values."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from statistics import fmean
from typing import Any, NamedTuple

from nas.datasets.metrics import Metric


class Mistake(NamedTuple):
    """An image that a network takes for another class: indices of the image, of its class and of the predicted one."""

    image: int
    label: int
    predicted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Mean cross-entropy and accuracy by a metric, number of images, and which of them were answered wrongly.

    `counts` are the images of each class; earlier versions did not keep them.
    """

    loss: float
    accuracy: float
    n: int
    mistakes: tuple[Mistake, ...] = ()
    counts: tuple[int, ...] = ()

    @property
    def correct(self) -> tuple[int, ...]:
        """The correct answers to the images of each class."""
        missed = Counter(mistake.label for mistake in self.mistakes)
        return tuple(count - missed[label] for label, count in enumerate(self.counts))

    @property
    def never_answered(self) -> tuple[int, ...]:
        """The classes that are no answer to any image, though some images are of them."""
        answered = {mistake.predicted for mistake in self.mistakes}
        return tuple(
            label
            for label, (right, count) in enumerate(zip(self.correct, self.counts, strict=True))
            if count and not right and label not in answered
        )


def pooled(scores: Sequence[Score], metric: Metric, rounds: int) -> Score | None:
    """The score of several networks on images of their own, without the mistakes; None where there is none.

    In each of the `rounds` every image was answered once. Balanced losses are those of `evaluate` with `of_all`.
    """
    if len(scores) < 2:
        return scores[0] if scores else None
    counts = tuple(map(sum, zip(*(score.counts for score in scores), strict=True)))
    correct = map(sum, zip(*(score.correct for score in scores), strict=True))
    images, losses = [score.n for score in scores], [score.loss for score in scores]
    balanced = metric.loss_weights(counts) is not None
    return Score(
        loss=fsum(losses) / rounds if balanced else fmean(losses, images),
        accuracy=metric.of(counts, [count - right for count, right in zip(counts, correct, strict=True)]),
        n=sum(images),
        counts=counts,
    )


def read_score(stored: Mapping[str, Any]) -> Score:
    """Read a score that `dataclasses.asdict` and JSON have stored.

    Raises:
        TypeError, LookupError, ValueError: what is stored is no score.
    """
    mistakes = tuple(Mistake(*map(int, mistake)) for mistake in stored["mistakes"])
    score = Score(
        loss=float(stored["loss"]),
        accuracy=float(stored["accuracy"]),
        n=int(stored["n"]),
        mistakes=mistakes,
        counts=tuple(map(int, stored.get("counts", ()))),
    )
    classes = {label for mistake in mistakes for label in mistake[1:]}
    known = set(range(len(score.counts)))
    if score.counts and not (sum(score.counts) == score.n and classes <= known and min(score.correct) >= 0):
        raise ValueError(f"{score.counts} images of each class, of {score.n}")
    if not (score.loss >= 0 and 0 <= score.accuracy <= 1 and score.n > 0 and min(map(min, mistakes), default=0) >= 0):
        raise ValueError(f"loss {score.loss}, accuracy {score.accuracy} of {score.n} images, or a mistake below 0")
    return score
