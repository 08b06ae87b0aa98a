"""Numbers that say what a network is like, whatever layers it is made of: what a model of scores is fitted to.

They come from the operations that the network is lowered to, so that they hold for every space and every new layer.
Sizes and costs stand as logarithms, because twice as many kernels change a score about as much from 8 as from 16.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from math import log, prod
from statistics import fmean
from types import MappingProxyType

from nas.network.architecture import RECENT, Architecture
from nas.network.cost import Step, cost, lower
from nas.network.operations import Dropout, Flatten, GlobalAveragePooling


@lru_cache(maxsize=RECENT)
def features(architecture: Architecture) -> MappingProxyType[str, float]:
    """The numbers by name; networks of one space may differ in which they have, and lack of one means 0.

    Raises:
        MapTooSmallError: a layer does not fit on the map that reaches it.
    """
    steps, price = lower(architecture), cost(architecture)
    weighty = [step for step in steps if step.operation.macs(step.input_shape)]
    wide = [step for step in weighty if step.operation.extent > 1] or weighty
    last = _last_map(steps)
    counts = Counter(f"count of {type(step.operation).__name__}" for step in steps)
    return MappingProxyType(
        {
            "log parameters": log(price.params),
            "log MACs": log(price.macs + 1),
            "log peak activation": log(price.peak_activation_bytes + 1),
            "receptive field": log(price.receptive_field),
            "log last map": log(prod(last[1:])),
            "log last channels": log(last[0]),
            "kernels larger than 1": float(sum(step.operation.extent > 1 for step in weighty)),
            "log channels": fmean(log(step.output_shape[0]) for step in wide),
            "log fewest channels": min(log(step.output_shape[0]) for step in weighty),
            "log first channels": log(wide[0].output_shape[0]),
            "log extent": _mean([(log(step.operation.extent), step.operation.macs(step.input_shape)) for step in wide]),
            "where the MACs are": _mean([(log(step.jump), step.operation.macs(step.input_shape)) for step in weighty]),
            "where the parameters are": _mean([(log(step.jump), step.params) for step in weighty]),
            "dropout": -sum(log(1 - step.operation.rate) for step in steps if isinstance(step.operation, Dropout)),
            **counts,
        }
    )


def _last_map(steps: Sequence[Step]) -> tuple[int, ...]:
    """The shape of the map that is pooled or flattened as a whole, or else of what comes last."""
    ends = [step.input_shape for step in steps if isinstance(step.operation, GlobalAveragePooling | Flatten)]
    return next((shape for shape in ends if len(shape) > 1), (*steps[-1].output_shape, 1, 1)[:3])


def _mean(weighted: Sequence[tuple[float, float]]) -> float:
    total = sum(weight for _, weight in weighted)
    return sum(value * weight for value, weight in weighted) / total if total else 0.0
