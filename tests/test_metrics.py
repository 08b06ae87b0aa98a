"""Accuracy as a metric, against counts by hand and by simulation."""

import random
from statistics import pstdev

import pytest
import torch

from nas.training.metrics import ACCURACY
from nas.training.score import Mistake


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
