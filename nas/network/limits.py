"""Hard limits: which of them a network breaks, and by how much; no torch.

The same check serves the description (`cost.cost`), the built module and the exported file (`measure.measure`). A limit
is a value: what it measures, in which sense it bounds that, and the words for it stand here and nowhere else.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from nas.errors import UserError, require_whole
from nas.network.cost import Cost

Sense: TypeAlias = Literal["at most", "at least", "none"]

SMALLER = "Loosen that limit, or let the space propose smaller networks (fewer cells, fewer kernels)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A hard limit on what a network costs, or on the epochs that it is trained for."""

    name: str  # a field of Constraints, the reason in a ledger and, with dashes, an option
    measure: Callable[[Cost, int], int]  # of a cost and a number of epochs
    sense: Sense
    unit: str  # what is counted, in a sentence: "12,345 params"
    noun: str  # what is counted, in a table and in `--help`
    broken: str  # what a network is that breaks it
    advice: str  # what to do where it rejects most of a space

    @property
    def option(self) -> str:
        """The option of a command that tightens it."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def described(self) -> str:
        """What a bound means, for `--help`."""
        return f"{self.noun}, {self.sense}"

    def breaks(self, value: int, bound: int) -> bool:
        """Whether a value is on the wrong side of the bound; at the bound it is allowed."""
        return value < bound if self.sense == "at least" else value > bound

    def said(self, bound: int) -> str:
        """The limit in a headline."""
        if self.sense == "none":
            return f"no {self.noun.removesuffix('s')}"
        if self.sense == "at least":
            return f"{self.noun} ≥ {bound:,}"
        return f"≤ {bound:,} {self.unit}"

    def shown(self, bound: int | None) -> str:
        """The bound in a table."""
        if bound is None:
            return "–"
        return f"at least {bound:,}" if self.sense == "at least" else f"{bound:,}"


PARAMS = Limit(
    name="max_params",
    measure=lambda cost, epochs: cost.params,
    sense="at most",
    unit="params",
    noun="parameters",
    broken="too many parameters",
    advice=SMALLER,
)
MACS = Limit(
    name="max_macs",
    measure=lambda cost, epochs: cost.macs,
    sense="at most",
    unit="MACs",
    noun="MACs",
    broken="too many MACs",
    advice=SMALLER,
)
ACTIVATION_BYTES = Limit(
    name="max_activation_bytes",
    measure=lambda cost, epochs: cost.peak_activation_bytes,
    sense="at most",
    unit="activation bytes",
    noun="peak activation bytes",
    broken="activations too large",
    advice=SMALLER,
)
RECEPTIVE_FIELD = Limit(
    name="min_receptive_field",
    measure=lambda cost, epochs: cost.receptive_field,
    sense="at least",
    unit="receptive field",
    noun="receptive field",
    broken="receptive field too small",
    advice="Loosen that limit, or let the space propose more cells, larger kernels or more poolings.",
)
DENSE_LAYERS = Limit(
    name="forbid linear",
    measure=lambda cost, epochs: cost.linear_layers,
    sense="none",
    unit="fully connected layers",
    noun="fully connected layers",
    broken="fully connected layer",
    advice="Let the space propose a convolutional head, and no kernel as large as the map it meets.",
)
EPOCHS = Limit(
    name="max_epochs",
    measure=lambda cost, epochs: epochs,
    sense="at most",
    unit="epochs",
    noun="epochs",
    broken="too many epochs",
    advice="Loosen that limit, or give the recipe fewer epochs.",
)
LIMITS = (PARAMS, MACS, ACTIVATION_BYTES, RECEPTIVE_FIELD, DENSE_LAYERS, EPOCHS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One broken limit."""

    limit: Limit
    value: int
    bound: int

    @property
    def excess(self) -> float:
        """How far off, as a fraction of the bound: 0.05 is 5 % over a maximum, or 5 % short of a minimum."""
        if self.limit.sense == "at least":
            return 1 - self.value / self.bound
        return self.value / self.bound - 1 if self.bound else float(self.value)

    def __str__(self) -> str:
        unit = self.limit.unit
        if self.limit.sense == "none":
            return f"{self.value} {unit if self.value > 1 else unit.removesuffix('s')}, none allowed"
        if self.excess >= 10:
            return f"{self.value:,} {unit}, {self.value / self.bound:,.0f} times the limit of {self.bound:,}"
        side = "short of" if self.limit.sense == "at least" else "over"
        return f"{self.value:,} {unit}, {100 * self.excess:.1f} % {side} the limit of {self.bound:,}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """The limits of a search; None means not limited, and a value at its limit is allowed.

    Raises:
        UserError: a limit below 1, or a forbidden kind other than "linear".
    """

    max_params: int | None = None
    max_macs: int | None = None
    max_activation_bytes: int | None = None
    min_receptive_field: int | None = None
    max_epochs: int | None = None
    forbid: tuple[Literal["linear"], ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "forbid" and value is not None:
                require_whole("Constraints", field.name, value, 1)
        if isinstance(self.forbid, str) or set(self.forbid) - {"linear"}:
            raise UserError(f'Constraints: forbid {self.forbid!r} must be () or ("linear",)')

    def bound(self, limit: Limit) -> int | None:
        """The bound of a limit; None where there is none."""
        if limit is DENSE_LAYERS:
            return 0 if "linear" in self.forbid else None
        bound: int | None = getattr(self, limit.name)
        return bound

    @property
    def bounds(self) -> tuple[tuple[Limit, int], ...]:
        """The limits that are set, with their bounds."""
        known = ((limit, self.bound(limit)) for limit in LIMITS)
        return tuple((limit, bound) for limit, bound in known if bound is not None)


def violations(constraints: Constraints, cost: Cost, epochs: int) -> tuple[Violation, ...]:
    """The limits that a network of this cost, trained for `epochs`, breaks; empty when it is feasible."""
    return broken(constraints.bounds, cost, epochs)


def broken(bounds: tuple[tuple[Limit, int], ...], cost: Cost, epochs: int) -> tuple[Violation, ...]:
    """Those of these limits that are broken."""
    measured = ((limit, limit.measure(cost, epochs), bound) for limit, bound in bounds)
    return tuple(
        Violation(limit=limit, value=value, bound=bound)
        for limit, value, bound in measured
        if limit.breaks(value, bound)
    )
