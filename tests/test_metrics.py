"""Metrics against counts by hand and by simulation; what is said of classes that are not equally many."""

import json
import random
from dataclasses import asdict
from statistics import pstdev
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.analysis.finalists import Winner
from nas.analysis.statistics import spread, wilson
from nas.datasets.metrics import ACCURACY, BALANCED_ACCURACY, EvaluationSet, Metric
from nas.reporting.conclusions import constant_answer, recalls
from nas.study.records import TrialRecord
from nas.training.score import Mistake, Score, read_score


def test_accuracy_is_the_share_of_the_images_without_a_mistake() -> None:
    assert ACCURACY.of((3, 1, 4), (0, 1, 1)) == 0.75
    assert ACCURACY.of((1, 1), (0, 0)) == 1.0


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_have_images() -> None:
    assert BALANCED_ACCURACY.of((100, 4, 0), (10, 1, 0)) == pytest.approx((0.9 + 0.75) / 2)
    assert BALANCED_ACCURACY.of((5, 5), (1, 2)) == pytest.approx(ACCURACY.of((5, 5), (1, 2)))


def on(*counts: int, metric: Metric = ACCURACY) -> EvaluationSet:
    return EvaluationSet(metric, counts)


def test_standard_error_of_accuracy_is_binomial_and_never_0() -> None:
    assert on(4_000, 6_000).standard_error(0.994) == pytest.approx(0.00078, abs=1e-5)
    assert on(84).standard_error(1.0) == pytest.approx(0.0116, abs=1e-4), "85 of 86 are taken to be right"
    assert on(84).standard_error(0.0) == pytest.approx(on(84).standard_error(1.0))


@pytest.mark.parametrize(
    ("metric", "counts"), [(ACCURACY, (300, 200)), (BALANCED_ACCURACY, (450, 50)), (BALANCED_ACCURACY, (200, 0, 90))]
)
def test_standard_error_is_how_far_drawing_the_images_anew_moves_a_score(
    metric: Metric, counts: tuple[int, ...]
) -> None:
    rng = random.Random(0)
    scores = [metric.of(counts, [sum(rng.random() > 0.9 for _ in range(n)) for n in counts]) for _ in range(2000)]
    assert pstdev(scores) == pytest.approx(on(*counts, metric=metric).standard_error(0.9), rel=0.06)


def test_a_constant_answer_scores_the_largest_class_or_one_class_of_all() -> None:
    assert on(20, 970, 10).constant_answer() == (1, 0.97)
    label, value = on(20, 970, 10, metric=BALANCED_ACCURACY).constant_answer()
    assert (label, value) == (1, 1 / 3)


def test_accuracy_is_shown_in_per_cent_with_two_decimals() -> None:
    assert ACCURACY.name == "accuracy"
    assert [ACCURACY.shown(value) for value in (0.99404, 1.0, 0.0)] == ["99.40 %", "100.00 %", "0.00 %"]


# classes that are not equally many

PARTS = ("good", "defect")


def of_parts(good: int, defects: int, *missed: Mistake) -> Score:
    n = good + defects
    return Score(loss=0.1, accuracy=(n - len(missed)) / n, n=n, mistakes=missed, counts=(good, defects))


def test_a_score_tells_what_it_knows_of_each_class() -> None:
    score = of_parts(6, 3, Mistake(1, 0, 1), Mistake(7, 1, 0), Mistake(8, 1, 0))
    assert score.correct == (5, 1)
    assert score.never_answered == ()
    assert of_parts(6, 2, Mistake(6, 1, 0), Mistake(7, 1, 0)).never_answered == (1,)
    assert of_parts(6, 0).never_answered == (), "there is none of it"
    assert read_score(json.loads(json.dumps(asdict(score)))) == score
    stored = asdict(score)
    del stored["counts"]
    assert read_score(stored).correct == ()


@pytest.mark.parametrize("counts", [(1, 2), (9,), (8, 1), (-1, 10)])
def test_a_stored_score_of_other_counts_is_none(counts: tuple[int, ...]) -> None:
    score = of_parts(7, 2, Mistake(1, 1, 0), Mistake(2, 1, 0))
    with pytest.raises(ValueError, match="images of each class, of 9"):
        read_score({**asdict(score), "counts": counts})


def test_recalls_come_with_an_interval_the_worst_first() -> None:
    missed = (Mistake(500, 1, 0), Mistake(501, 1, 0))
    worst, best = recalls(of_parts(500, 5, *missed), PARTS)
    assert (worst.name, worst.images, worst.recall) == ("defect", 5, 0.6)
    assert (worst.low, worst.high) == pytest.approx((0.231, 0.882), abs=1e-3)  # Wilson, by hand
    assert (best.recall, best.high) == (1.0, 1.0)
    assert best.low == pytest.approx(0.9924, abs=1e-4)


@given(st.integers(1, 500), st.data())
def test_the_interval_of_a_share_holds_it(images: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, images))
    low, high = wilson(correct, images)
    assert 0 <= low <= correct / images + 1e-12
    assert correct / images - 1e-12 <= high <= 1
    assert low < high


def a_winner(score: Score, metric: Metric = ACCURACY) -> Winner:
    return Winner(record=cast(TrialRecord, None), test=spread([score.accuracy]), judged=score, metric=metric)


def test_what_a_constant_answer_would_score_is_said_of_every_network() -> None:
    all_good = a_winner(of_parts(99, 1, Mistake(99, 1, 0)))
    assert constant_answer(all_good, PARTS, 0.98) == [
        "Always answering 'good' would be right for 99.00 % of the test images.",
        "WARNING: the network never answers 'defect'.",
        "WARNING: always answering 'good' reaches the target as well.",
    ]
    assert (
        constant_answer(all_good, PARTS, None)[-1] == "WARNING: the network is no better than always answering 'good'."
    )
    assert len(constant_answer(a_winner(of_parts(50, 50)), PARTS, 0.9)) == 1
    assert constant_answer(a_winner(Score(loss=0.1, accuracy=0.9, n=10)), PARTS, 0.9) == [], (
        "earlier versions did not count"
    )
    balanced = a_winner(of_parts(99, 1), BALANCED_ACCURACY)
    assert constant_answer(balanced, PARTS, 0.98) == [
        "Always answering 'good' would be right for 99.00 % of the test images. Its balanced accuracy is 50.00 %."
    ]
