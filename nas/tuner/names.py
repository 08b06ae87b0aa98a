"""The names of the samplers and pruners, which a command's options need before Optuna is imported."""

from typing import Literal, TypeAlias, get_args

SamplerName: TypeAlias = Literal["tpe", "random", "gp", "qmc"]
SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)
PrunerName: TypeAlias = Literal["rungs", "hyperband", "median", "none"]
PRUNERS: tuple[PrunerName, ...] = get_args(PrunerName)
DEFAULT_PRUNER: PrunerName = "rungs"
