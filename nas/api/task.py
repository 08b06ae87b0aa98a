"""The space that a person asks to be searched: by name, path or value, and perhaps on other data."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nas.errors import UserError, require
from nas.network.layers import Shape
from nas.space.loading import load_space
from nas.space.objective import METRIC_NAMES, MetricName
from nas.space.search_space import SearchSpace


def with_given(space: SearchSpace, **values: Any) -> SearchSpace:
    """The space with those of these fields that are given: all but None."""
    return replace(space, **{name: value for name, value in values.items() if value is not None})


def asked_for(
    space: SearchSpace | str | Path,
    data: str | Path | None,
    input_shape: Shape | None,
    metric: MetricName | None,
    pictures: Mapping[str, Any] = MappingProxyType({}),
) -> SearchSpace:
    """The space, moved to a data set by name or path, and judged by a metric, where they are given.

    `pictures` are fields of its `Pictures` that change.

    Raises:
        UserError: no such space, data set or metric; a shape without data; no network of the space fits it; or
            pictures of a data set that is no folder or table.
    """
    wanted = space if isinstance(space, SearchSpace) else load_space(space)
    if data is not None:
        from nas.api.data import space_on  # torch takes seconds to import, and most searches need it later

        wanted = space_on(wanted, data, input_shape)
    elif input_shape is not None:
        raise UserError(f"the shape {input_shape} is that of other data; give both, or let the space say the shape")
    if pictures:
        from nas.datasets.reading import own_shape

        if own_shape(wanted.dataset) is not None:
            raise UserError(
                f"fit, background and value_range are for image files, and data set {wanted.dataset} is no folder or "
                "table of them; leave them out"
            )
        wanted = replace(wanted, pictures=replace(wanted.pictures, **pictures))
    if metric is not None:
        require(metric in METRIC_NAMES, "search", "metric", metric, f"one of {', '.join(METRIC_NAMES)}")
        wanted = wanted.judged_by(metric)
    return wanted
