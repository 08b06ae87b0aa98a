"""The names of the pruners, which a command's options need before Optuna is imported."""

from typing import Literal, TypeAlias, get_args

PrunerName: TypeAlias = Literal["rungs", "hyperband", "median", "none"]
PRUNERS: tuple[PrunerName, ...] = get_args(PrunerName)
DEFAULT_PRUNER: PrunerName = "rungs"
