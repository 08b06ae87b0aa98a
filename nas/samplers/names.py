"""The names of the samplers, which a command's options need before Optuna is imported."""

from typing import Literal, TypeAlias, get_args

SamplerName: TypeAlias = Literal["blueprint", "tpe", "gp", "evolution", "qmc", "random"]
SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)
DEFAULT_SAMPLER: SamplerName = "blueprint"
