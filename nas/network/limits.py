"""Hard limits: which of them a network breaks, and by how much; no torch.

The same check serves the description (`cost.cost`), the built module and the exported file (`network.measure`).
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from nas.errors import UserError, require_whole
from nas.network.cost import Cost

Limit: TypeAlias = Literal[
    "max_params", "max_macs", "max_activation_bytes", "min_receptive_field", "max_epochs", "forbid linear"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One broken limit."""

    limit: Limit
    value: int
    bound: int

    @property
    def excess(self) -> float:
        """How far off, as a fraction of the bound: 0.05 is 5 % over a maximum, or 5 % short of a minimum."""
        if self.limit == "min_receptive_field":
            return 1 - self.value / self.bound
        return self.value / self.bound - 1 if self.bound else float(self.value)

    def __str__(self) -> str:
        if self.limit == "forbid linear":
            return f"{self.value} fully connected layer{'s' if self.value > 1 else ''}, none allowed"
        name = self.limit[4:].replace("_", " ")
        side = "short of" if self.limit == "min_receptive_field" else "over"
        if self.excess >= 10:
            return f"{self.value:,} {name}, {self.value / self.bound:,.0f} times the limit of {self.bound:,}"
        return f"{self.value:,} {name}, {100 * self.excess:.1f} % {side} the limit of {self.bound:,}"


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
        for name in ("max_params", "max_macs", "max_activation_bytes", "min_receptive_field", "max_epochs"):
            value = getattr(self, name)
            if value is not None:
                require_whole("Constraints", name, value, 1)
        if isinstance(self.forbid, str) or set(self.forbid) - {"linear"}:
            raise UserError(f'Constraints: forbid {self.forbid!r} must be () or ("linear",)')


def violations(constraints: Constraints, cost: Cost, epochs: int) -> tuple[Violation, ...]:
    """The limits that a network of this cost, trained for `epochs`, breaks; empty when it is feasible."""
    broken: list[Violation] = []

    def check_maximum(limit: Limit, value: int, bound: int | None) -> None:
        if bound is not None and value > bound:
            broken.append(Violation(limit=limit, value=value, bound=bound))

    check_maximum("max_params", cost.params, constraints.max_params)
    check_maximum("max_macs", cost.macs, constraints.max_macs)
    check_maximum("max_activation_bytes", cost.peak_activation_bytes, constraints.max_activation_bytes)
    check_maximum("max_epochs", epochs, constraints.max_epochs)
    check_maximum("forbid linear", cost.linear_layers, 0 if "linear" in constraints.forbid else None)
    field = constraints.min_receptive_field
    if field is not None and cost.receptive_field < field:
        broken.append(Violation(limit="min_receptive_field", value=cost.receptive_field, bound=field))
    return tuple(broken)
