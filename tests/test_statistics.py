"""Means, deviations and what they allow to be said; checked against tables and by simulation."""

import math
import random

import pytest

from nas.analysis.statistics import Spread, chance_of_reaching, error_of_mean, least_difference, pooled_sd, spread
from nas.datasets.metrics import ACCURACY, EvaluationSet
from nas.tuner.target import lowest_mean

ON_10_000 = EvaluationSet(ACCURACY, (10_000,))


def test_spread_of_known_numbers() -> None:
    found = spread([0.99, 0.992, 0.994])
    assert found.mean == pytest.approx(0.992)
    assert found.sd == pytest.approx(0.002)
    assert found.n == 3
    assert found.standard_error == pytest.approx(0.002 / math.sqrt(3))
    assert str(found) == "99.20 ± 0.20 %"


def test_one_accuracy_has_no_deviation() -> None:
    one = spread([0.99])
    assert (one.sd, one.standard_error, chance_of_reaching(0.9, one)) == (None, None, None)
    assert str(one) == "99.00%"


def test_pooled_deviation_weighs_by_degrees_of_freedom() -> None:
    groups = [spread([0.90, 0.92]), spread([0.5, 0.5, 0.5]), spread([0.7])]
    assert pooled_sd(groups) == pytest.approx(math.sqrt(0.0002 / 3))
    assert pooled_sd([spread([0.7])]) is None


@pytest.mark.parametrize(
    ("accuracies", "error"),
    [([0.99], None), ([0.99, 0.99], 0.0007), ([0.98, 0.99, 1.0], 0.01 / math.sqrt(3))],
)
def test_error_of_mean_is_that_of_one_score_where_seeds_are_equal(accuracies: list[float], error: float | None) -> None:
    assert error_of_mean(spread(accuracies), 0.0007) == pytest.approx(error)


@pytest.mark.parametrize(("n", "quantile"), [(2, 12.706), (3, 4.303), (5, 2.776), (math.inf, 1.960)])
def test_least_difference_uses_the_tables_of_students_t(n: float, quantile: float) -> None:
    assert least_difference(0.001, n) == pytest.approx(quantile * math.sqrt(2) * 0.001, rel=1e-3)


def test_two_scores_of_equal_networks_seldom_differ_by_more_than_the_least_difference() -> None:
    rng = random.Random(0)
    beyond = 0
    for _ in range(2000):
        sd = spread([rng.gauss(0.99, 0.001) for _ in range(5)]).sd
        assert sd is not None
        beyond += abs(rng.gauss(0, 0.001) - rng.gauss(0, 0.001)) > least_difference(sd, 5)
    assert 0.03 < beyond / 2000 < 0.07


def test_chance_of_reaching_is_how_often_the_next_seed_does() -> None:
    """Over many targets that lie at random about the mean: what was said to happen in so many cases does."""
    rng = random.Random(1)
    said, happened = 0.0, 0
    for _ in range(4000):
        mean = rng.gauss(0.99, 0.002)
        chance = chance_of_reaching(0.99, spread([rng.gauss(mean, 0.001) for _ in range(3)]))
        assert chance is not None
        said += chance
        happened += rng.gauss(mean, 0.001) >= 0.99
    assert said / 4000 == pytest.approx(happened / 4000, abs=0.02)


def test_equal_accuracies_do_not_say_what_the_next_will_be() -> None:
    assert chance_of_reaching(0.9, Spread(mean=0.9, sd=0.0, n=3)) is None


def test_the_lowest_mean_is_the_lower_end_of_the_interval() -> None:
    """Student's t with 2 degrees of freedom leaves 5 % below −2.920."""
    found = spread([0.994, 0.995, 0.996])
    assert lowest_mean(found, ON_10_000) == pytest.approx(0.995 - 2.920 * 0.001 / 3**0.5, rel=1e-6)
    equal = lowest_mean(spread([0.995, 0.995]), ON_10_000)
    assert equal is not None
    assert equal < 0.995, "equal seeds do not say that there is no deviation"
    assert lowest_mean(spread([0.995]), ON_10_000) is None
