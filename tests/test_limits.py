"""Limits: where each begins to bite, and the words it is reported in."""

import re
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
from helpers import small_architecture

from nas.errors import UserError
from nas.network.cost import Cost, cost
from nas.network.limits import (
    ACTIVATION_BYTES,
    DENSE_LAYERS,
    EPOCHS,
    LIMITS,
    MACS,
    PARAMS,
    RECEPTIVE_FIELD,
    Constraints,
    Limit,
    Violation,
    broken,
    violations,
)

COST = Cost(params=20_000, macs=2_000_000, peak_activation_bytes=4_096, receptive_field=20, linear_layers=0)
BOUNDS = Constraints(
    max_params=20_000,
    max_macs=2_000_000,
    max_activation_bytes=4_096,
    min_receptive_field=20,
    max_epochs=19,
    forbid=("linear",),
)


def test_violations_allow_values_at_their_limits() -> None:
    assert violations(BOUNDS, COST, 19) == ()


@pytest.mark.parametrize(
    ("cost", "epochs", "violation"),
    [
        (replace(COST, params=20_001), 19, Violation(limit=PARAMS, value=20_001, bound=20_000)),
        (replace(COST, macs=2_000_001), 19, Violation(limit=MACS, value=2_000_001, bound=2_000_000)),
        (
            replace(COST, peak_activation_bytes=4_097),
            19,
            Violation(limit=ACTIVATION_BYTES, value=4_097, bound=4_096),
        ),
        (replace(COST, receptive_field=19), 19, Violation(limit=RECEPTIVE_FIELD, value=19, bound=20)),
        (COST, 20, Violation(limit=EPOCHS, value=20, bound=19)),
        (replace(COST, linear_layers=1), 19, Violation(limit=DENSE_LAYERS, value=1, bound=0)),
    ],
)
def test_violations_reject_one_beyond_a_limit(cost: Cost, epochs: int, violation: Violation) -> None:
    assert violations(BOUNDS, cost, epochs) == (violation,)
    assert violations(Constraints(), cost, epochs) == ()


def test_violations_name_every_broken_limit() -> None:
    bad = Cost(params=10**9, macs=10**9, peak_activation_bytes=10**9, receptive_field=1, linear_layers=2)
    assert [violation.limit for violation in violations(BOUNDS, bad, 100)] == list(LIMITS)


@pytest.mark.parametrize(
    ("violation", "excess", "text"),
    [
        (
            Violation(limit=PARAMS, value=21_000, bound=20_000),
            0.05,
            "21,000 params, 5.0 % over the limit of 20,000",
        ),
        (
            Violation(limit=MACS, value=5_000_000, bound=2_000_000),
            1.5,
            "5,000,000 MACs, 150.0 % over the limit of 2,000,000",
        ),
        (
            Violation(limit=ACTIVATION_BYTES, value=5_120, bound=4_096),
            0.25,
            "5,120 activation bytes, 25.0 % over the limit of 4,096",
        ),
        (
            Violation(limit=RECEPTIVE_FIELD, value=15, bound=20),
            0.25,
            "15 receptive field, 25.0 % short of the limit of 20",
        ),
        (Violation(limit=EPOCHS, value=38, bound=19), 1.0, "38 epochs, 100.0 % over the limit of 19"),
        (Violation(limit=DENSE_LAYERS, value=1, bound=0), 1.0, "1 fully connected layer, none allowed"),
        (Violation(limit=DENSE_LAYERS, value=2, bound=0), 2.0, "2 fully connected layers, none allowed"),
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
    assert str(Violation(limit=PARAMS, value=2_538, bound=10)) == "2,538 params, 254 times the limit of 10"


def test_every_constraint_is_a_limit_and_every_limit_a_constraint() -> None:
    assert {field.name for field in fields(Constraints)} == {limit.name.split()[0] for limit in LIMITS}
    assert [limit for limit, _ in BOUNDS.bounds] == list(LIMITS)
    assert Constraints().bounds == ()
    assert [limit for limit, _ in Constraints(max_macs=5, forbid=("linear",)).bounds] == [MACS, DENSE_LAYERS]


def test_a_limit_of_ones_own_is_a_value() -> None:
    depth = Limit(
        name="max_layers",
        measure=lambda cost, epochs: len(cost.rows),
        sense="at most",
        unit="layers",
        noun="layers",
        broken="too many layers",
        advice="Let the space propose fewer layers.",
    )
    (violation,) = broken(((depth, 2), (PARAMS, 20_000)), replace(COST, rows=cost(small_architecture()).rows), 19)
    assert str(violation) == "7 layers, 250.0 % over the limit of 2"
    assert (depth.option, depth.described, depth.said(2), depth.shown(2)) == (
        *("--max-layers", "layers, at most", "≤ 2 layers", "2"),
    )


@pytest.mark.parametrize(
    ("limit", "bound", "headline", "table"),
    [
        (PARAMS, 20_000, "≤ 20,000 params", "20,000"),
        (MACS, 2_000_000, "≤ 2,000,000 MACs", "2,000,000"),
        (ACTIVATION_BYTES, 4_096, "≤ 4,096 activation bytes", "4,096"),
        (RECEPTIVE_FIELD, 20, "receptive field ≥ 20", "at least 20"),
        (DENSE_LAYERS, 0, "no fully connected layer", "0"),
    ],
)
def test_a_limit_has_its_own_words(limit: Limit, bound: int, headline: str, table: str) -> None:
    assert (limit.said(bound), limit.shown(bound), limit.shown(None)) == (headline, table, "–")
