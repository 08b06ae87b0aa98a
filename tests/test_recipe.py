"""Recipes: the values they refuse."""

import math
import re
from collections.abc import Callable
from typing import cast

import pytest

from nas.errors import UserError
from nas.space.recipe import Augmentation, Recipe


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(epochs=0), "Recipe: epochs 0 must be a whole number, at least 1"),
        (lambda: Recipe(batch_size=1), "Recipe: batch_size 1 must be a whole number, at least 2"),
        (lambda: Recipe(learning_rate=-0.1), "Recipe: learning_rate -0.1 must be a number, at least 0"),
        (lambda: Recipe(warmup=1.0), "Recipe: warmup 1.0 must be a number, at least 0 and below 1"),
        (lambda: Recipe(momentum=-0.1), "Recipe: momentum -0.1 must be a number, at least 0 and below 1"),
        (lambda: Recipe(weight_decay=1), "Recipe: weight_decay 1 must be a number, at least 0 and below 1"),
        (lambda: Recipe(ema_decay=float("nan")), "Recipe: ema_decay nan must be a number, at least 0 and below 1"),
        (lambda: Recipe(epochs=cast(int, 1.5)), "Recipe: epochs 1.5 must be a whole number, at least 1"),
        (
            lambda: Recipe(learning_rate=2**63 - 1),
            f"Recipe: learning_rate {2**63 - 1} must be a float, since it is so large",
        ),
        (
            lambda: Recipe(learning_rate=math.inf),
            "Recipe: learning_rate inf must be a number, at least 0",
        ),
        (lambda: Recipe(mixed_precision=cast(bool, 1)), "Recipe: mixed_precision 1 must be True or False"),
        (lambda: Augmentation(scale=1.0), "Augmentation: scale 1.0 must be a number, at least 0 and below 1"),
        (
            lambda: Augmentation(horizontal_flip=cast(bool, 0.5)),
            "Augmentation: horizontal_flip 0.5 must be True or False",
        ),
        (lambda: Augmentation(shear=math.nan), "Augmentation: shear nan must be a number, at least 0"),
    ],
)
def test_bad_values_are_refused_in_words(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        make()


def test_values_at_the_edge_are_allowed() -> None:
    Recipe(epochs=1, batch_size=2, learning_rate=1e-9, warmup=0.0, momentum=0.0, weight_decay=0.0, ema_decay=0.0)


@pytest.mark.parametrize(
    ("images", "size", "rate"),
    [(50_000, 64, 0.1), (1_280, 64, 0.1), (1_279, 32, 0.0707), (640, 32, 0.0707), (639, 16, 0.05), (20, 16, 0.05)],
)
def test_few_images_have_smaller_batches_at_a_smaller_rate(images: int, size: int, rate: float) -> None:
    recipe = Recipe(epochs=7).for_few(images)
    assert (recipe.batch_size, recipe.epochs) == (size, 7)
    assert recipe.learning_rate == pytest.approx(rate, abs=1e-4)


def test_batches_that_are_small_already_stay() -> None:
    assert Recipe(batch_size=8).for_few(20) == Recipe(batch_size=8)
    assert Recipe(batch_size=24).for_few(20).batch_size == 16
