"""Accuracy as a metric, against counts by hand and by simulation."""

import json
import random
from dataclasses import asdict
from statistics import pstdev

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas.analysis.statistics import wilson
from nas.reporting.conclusions import constant_answer, recalls
from nas.training.metrics import ACCURACY
from nas.training.score import Mistake, Score, read_score


def test_accuracy_is_the_share_of_the_images_without_a_mistake() -> None:
    mistakes = [Mistake(0, 3, 5), Mistake(4, 1, 7)]
    assert ACCURACY.of(torch.tensor([3, 1, 4, 1, 1, 9, 2, 6]), mistakes) == 0.75
    assert ACCURACY.of(torch.tensor([3, 1]), []) == 1.0


def test_standard_error_of_accuracy_is_binomial_and_never_0() -> None:
    assert ACCURACY.standard_error(0.994, 10_000) == pytest.approx(0.00078, abs=1e-5)
    assert ACCURACY.standard_error(1.0, 84) == pytest.approx(0.0116, abs=1e-4), "85 of 86 are taken to be right"
    assert ACCURACY.standard_error(0.0, 84) == pytest.approx(ACCURACY.standard_error(1.0, 84))


def test_standard_error_of_accuracy_is_how_far_drawing_the_images_anew_moves_it() -> None:
    rng = random.Random(0)
    scores = [sum(rng.random() < 0.9 for _ in range(500)) / 500 for _ in range(2000)]
    assert pstdev(scores) == pytest.approx(ACCURACY.standard_error(0.9, 500), rel=0.05)


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


def test_what_a_constant_answer_would_score_is_said_of_every_network() -> None:
    all_good = of_parts(99, 1, Mistake(99, 1, 0))
    assert constant_answer(all_good, PARTS, 0.98) == [
        "Always answering 'good' would be right for 99.00 % of the test images.",
        "WARNING: the network never answers 'defect'.",
        "WARNING: always answering 'good' reaches the target as well.",
    ]
    assert (
        constant_answer(all_good, PARTS, None)[-1] == "WARNING: the network is no better than always answering 'good'."
    )
    assert len(constant_answer(of_parts(50, 50), PARTS, 0.9)) == 1
    assert constant_answer(Score(loss=0.1, accuracy=0.9, n=10), PARTS, 0.9) == [], "an earlier version did not count"
