"""Constraint-driven architecture search for tiny convolutional networks.

    import nas

    space = nas.load_space("mnist").restrict(max_params=8_000)
    result = nas.search(space, trials=6, epochs=2, study="demo")
    network = result.best.load()

What is offered here is imported when it is first asked for, so that `--help` of a command stays quick.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.api.data import check_data
    from nas.api.front_door import preview, search
    from nas.api.listing import studies
    from nas.api.measuring import TooFewTrainedError
    from nas.api.study import Study, open_study
    from nas.errors import UserError
    from nas.network.architecture import Architecture
    from nas.network.layers import Block, Conv, Head, Layer, MaxPool, Transition
    from nas.network.limits import Constraints
    from nas.samplers.blueprint import BlueprintSampler
    from nas.space.candidate import Candidate
    from nas.space.loading import load_space
    from nas.space.pictures import Pictures
    from nas.space.recipe import Augmentation, Recipe
    from nas.space.rejections import NothingFeasibleError
    from nas.space.search_space import SearchSpace
    from nas.space.suggestions import Trial

__version__ = "0.1.0"

__all__ = [
    "Architecture",
    "Augmentation",
    "Block",
    "BlueprintSampler",
    "Candidate",
    "Constraints",
    "Conv",
    "Head",
    "Layer",
    "MaxPool",
    "NothingFeasibleError",
    "Pictures",
    "Recipe",
    "SearchSpace",
    "Study",
    "TooFewTrainedError",
    "Transition",
    "Trial",
    "UserError",
    "check_data",
    "load_space",
    "open_study",
    "preview",
    "search",
    "studies",
]

_HOMES = {
    **dict.fromkeys(("preview", "search"), "nas.api.front_door"),
    **dict.fromkeys(("Study", "open_study"), "nas.api.study"),
    "check_data": "nas.api.data",
    "studies": "nas.api.listing",
    "TooFewTrainedError": "nas.api.measuring",
    "BlueprintSampler": "nas.samplers.blueprint",
    "NothingFeasibleError": "nas.space.rejections",
    "UserError": "nas.errors",
    "Architecture": "nas.network.architecture",
    **dict.fromkeys(("Block", "Conv", "Head", "Layer", "MaxPool", "Transition"), "nas.network.layers"),
    "Constraints": "nas.network.limits",
    "Candidate": "nas.space.candidate",
    "load_space": "nas.space.loading",
    "Pictures": "nas.space.pictures",
    **dict.fromkeys(("Augmentation", "Recipe"), "nas.space.recipe"),
    "SearchSpace": "nas.space.search_space",
    "Trial": "nas.space.suggestions",
}


class _FrontDoor(ModuleType):
    """This package: importing the command `nas.search` does not hide the function `nas.search`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'nas' has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOMES[name]), name)
        super().__setattr__(name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*__all__, *(name for name in super().__dir__() if name.startswith("__"))})


sys.modules[__name__].__class__ = _FrontDoor
