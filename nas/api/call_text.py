"""A call as text, as a study remembers what has worked on it."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PLAIN = (str, int, float, bool, Path, tuple, list)
SHOWN_ONLY = ("self", "progress")  # arguments that do not change what a call does


def call_text(name: str, function: Callable[..., object], arguments: Mapping[str, Any]) -> str:
    """The call with every argument that differs from its default; what has no short text stands as `...`."""
    defaults = {key: parameter.default for key, parameter in inspect.signature(function).parameters.items()}
    told = [
        f"{key}={_text(value)}"
        for key, value in arguments.items()
        if key not in SHOWN_ONLY and value is not defaults[key] and not _equals(value, defaults[key])
    ]
    return f"{name}({', '.join(told)})"


def _equals(value: object, default: object) -> bool:
    return isinstance(value, PLAIN) and value == default


def _text(value: object) -> str:
    if isinstance(value, Path):
        return repr(str(value))
    return repr(value) if isinstance(value, PLAIN) and len(repr(value)) < 100 else "..."
