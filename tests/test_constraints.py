"""Limits: where each begins to bite, and the words it is reported in."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from nas.errors import UserError
from nas.network.cost import Cost
from nas.network.limits import Constraints, Violation, violations

COST = Cost(params=20_000, macs=2_000_000, peak_activation_bytes=4_096, receptive_field=20, linear_layers=0)
EPOCHS = 19
LIMITS = Constraints(
    max_params=20_000,
    max_macs=2_000_000,
    max_activation_bytes=4_096,
    min_receptive_field=20,
    max_epochs=19,
    forbid=("linear",),
)


def test_violations_allow_values_at_their_limits() -> None:
    assert violations(LIMITS, COST, EPOCHS) == ()


@pytest.mark.parametrize(
    ("cost", "epochs", "violation"),
    [
        (replace(COST, params=20_001), 19, Violation(limit="max_params", value=20_001, bound=20_000)),
        (replace(COST, macs=2_000_001), 19, Violation(limit="max_macs", value=2_000_001, bound=2_000_000)),
        (
            replace(COST, peak_activation_bytes=4_097),
            19,
            Violation(limit="max_activation_bytes", value=4_097, bound=4_096),
        ),
        (replace(COST, receptive_field=19), 19, Violation(limit="min_receptive_field", value=19, bound=20)),
        (COST, 20, Violation(limit="max_epochs", value=20, bound=19)),
        (replace(COST, linear_layers=1), 19, Violation(limit="forbid linear", value=1, bound=0)),
    ],
)
def test_violations_reject_one_beyond_a_limit(cost: Cost, epochs: int, violation: Violation) -> None:
    assert violations(LIMITS, cost, epochs) == (violation,)
    assert violations(Constraints(), cost, epochs) == ()


def test_violations_name_every_broken_limit() -> None:
    bad = Cost(params=10**9, macs=10**9, peak_activation_bytes=10**9, receptive_field=1, linear_layers=2)
    assert {violation.limit for violation in violations(LIMITS, bad, 100)} == {
        *("max_params", "max_macs", "max_activation_bytes", "min_receptive_field", "max_epochs", "forbid linear"),
    }


@pytest.mark.parametrize(
    ("violation", "excess", "text"),
    [
        (
            Violation(limit="max_params", value=21_000, bound=20_000),
            0.05,
            "21,000 params, 5.0 % over the limit of 20,000",
        ),
        (
            Violation(limit="max_macs", value=5_000_000, bound=2_000_000),
            1.5,
            "5,000,000 macs, 150.0 % over the limit of 2,000,000",
        ),
        (
            Violation(limit="max_activation_bytes", value=5_120, bound=4_096),
            0.25,
            "5,120 activation bytes, 25.0 % over the limit of 4,096",
        ),
        (
            Violation(limit="min_receptive_field", value=15, bound=20),
            0.25,
            "15 receptive field, 25.0 % short of the limit of 20",
        ),
        (Violation(limit="max_epochs", value=38, bound=19), 1.0, "38 epochs, 100.0 % over the limit of 19"),
        (Violation(limit="forbid linear", value=1, bound=0), 1.0, "1 fully connected layer, none allowed"),
        (Violation(limit="forbid linear", value=2, bound=0), 2.0, "2 fully connected layers, none allowed"),
    ],
)
def test_violation_says_by_how_much(violation: Violation, excess: float, text: str) -> None:
    assert violation.excess == pytest.approx(excess)
    assert str(violation) == text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constraints(max_params=0), "max_params 0 must be a whole number, at least 1"),
        (lambda: Constraints(max_macs=-1), "max_macs -1 must be a whole number, at least 1"),
        (
            lambda: Constraints(max_activation_bytes=0),
            "max_activation_bytes 0 must be a whole number, at least 1",
        ),
        (lambda: Constraints(min_receptive_field=0), "min_receptive_field 0 must be a whole number, at least 1"),
        (lambda: Constraints(max_epochs=0), "max_epochs 0 must be a whole number, at least 1"),
        (lambda: Constraints(forbid="linear"), "forbid 'linear' must be () or (\"linear\",)"),  # type: ignore[arg-type]
        (lambda: Constraints(forbid=("conv",)), "forbid ('conv',) must be () or (\"linear\",)"),  # type: ignore[arg-type]
    ],
)
def test_bad_limits_are_refused_in_words(make: Callable[[], Constraints], message: str) -> None:
    with pytest.raises(UserError, match=f"^Constraints: {re.escape(message)}$"):
        make()


def test_violation_far_over_its_limit_is_told_in_multiples() -> None:
    assert str(Violation(limit="max_params", value=2_538, bound=10)) == "2,538 params, 254 times the limit of 10"
