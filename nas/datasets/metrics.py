"""By what number answers to images are judged, how far the choice of the images moves it, and how it is printed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from nas.space.objective import MetricName

Counts: TypeAlias = Sequence[int]  # of each class


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number from 0 to 1 that says how well images are answered: more is better."""

    name: str
    of: Callable[[Counts, Counts], float]  # the images of each class, and how many of them were missed
    loss_weights: Callable[[Counts], tuple[float, ...] | None]  # of an image of each class; None: all count the same
    equivalent: Callable[[Counts], float]  # images that would tell as much if all counted the same

    def shown(self, value: float) -> str:
        """The number in per cent."""
        return f"{100 * value:.2f} %"


def correct_share(counts: Counts, missed: Counts) -> float:
    """The fraction of correct answers."""
    return (sum(counts) - sum(missed)) / sum(counts)


def mean_recall(counts: Counts, missed: Counts) -> float:
    """The mean over the classes that have images of the fraction of correct answers."""
    recalls = [(count - wrong) / count for count, wrong in zip(counts, missed, strict=True) if count]
    return sum(recalls) / len(recalls)


def _equal_classes(counts: Counts) -> tuple[float, ...]:
    """Weights by which every class that has images counts the same; those of all images add up to 1."""
    classes = sum(count > 0 for count in counts)
    return tuple(1 / (classes * count) if count else 0.0 for count in counts)


ACCURACY = Metric(name="accuracy", of=correct_share, loss_weights=lambda counts: None, equivalent=sum)
BALANCED_ACCURACY = Metric(
    name="balanced accuracy",
    of=mean_recall,
    loss_weights=_equal_classes,
    equivalent=lambda counts: 1 / sum(w**2 * count for w, count in zip(_equal_classes(counts), counts, strict=True)),
)
METRICS: dict[MetricName, Metric] = {"accuracy": ACCURACY, "balanced_accuracy": BALANCED_ACCURACY}


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Images that networks are judged on: by which metric, and how many there are of each class."""

    metric: Metric
    counts: tuple[int, ...]

    @property
    def images(self) -> int:
        """How many there are."""
        return sum(self.counts)

    def standard_error(self, value: float) -> float:
        """The deviation of one score that the choice of the images alone causes, were all classes answered as well.

        It is never 0, by Laplace's rule of succession.
        """
        images = self.metric.equivalent(self.counts)
        share = (value * images + 1) / (images + 2)
        return math.sqrt(share * (1 - share) / images)

    def constant_answer(self) -> tuple[int, float]:
        """The class that is the best answer to every image, and its score."""
        label = self.counts.index(max(self.counts))
        missed = [0 if other == label else count for other, count in enumerate(self.counts)]
        return label, self.metric.of(self.counts, missed)
