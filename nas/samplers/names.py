"""The names of the samplers, which a command's options need before Optuna is imported."""

from typing import Literal, TypeAlias, get_args

SamplerName: TypeAlias = Literal["tpe", "random", "gp", "qmc", "blueprint", "evolution"]
SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)
