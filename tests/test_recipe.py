"""Recipes: the values they refuse."""

import re
from collections.abc import Callable

import pytest

from nas.errors import UserError
from nas.recipe import Recipe


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(epochs=0), "recipe: epochs 0 and batch_size 64 must be at least 1 and 2"),
        (lambda: Recipe(batch_size=1), "recipe: epochs 19 and batch_size 1 must be at least 1 and 2"),
        (lambda: Recipe(learning_rate=0.0), "recipe: learning_rate 0.0 must be above 0"),
        (lambda: Recipe(warmup=1.0), "recipe: warmup 1.0 must be at least 0 and below 1"),
        (lambda: Recipe(momentum=-0.1), "recipe: momentum -0.1 must be at least 0 and below 1"),
        (lambda: Recipe(weight_decay=1), "recipe: weight_decay 1 must be at least 0 and below 1"),
        (lambda: Recipe(ema_decay=float("nan")), "recipe: ema_decay nan must be at least 0 and below 1"),
    ],
)
def test_bad_values_are_refused_in_words(make: Callable[[], Recipe], message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        make()


def test_values_at_the_edge_are_allowed() -> None:
    Recipe(epochs=1, batch_size=2, learning_rate=1e-9, warmup=0.0, momentum=0.0, weight_decay=0.0, ema_decay=0.0)
