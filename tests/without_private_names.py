"""Runs a command of nas for which Optuna, its dashboard and Ray have no private names: they fail to be imported."""

import builtins
import runpy
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

LIBRARIES = ("optuna", "optuna_dashboard", "ray")
real = builtins.__import__


def guarded(
    name: str,
    globals: Mapping[str, Any] | None = None,  # noqa: A002  # as Python calls it
    locals: Mapping[str, Any] | None = None,  # noqa: A002
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """What an import statement calls; only those of nas are refused, since the libraries need their own names."""
    importer = str((globals or {}).get("__name__", ""))
    parts = [*name.split("."), *(fromlist or ())]
    if importer.startswith("nas.") and parts[0] in LIBRARIES and any(part.startswith("_") for part in parts):
        raise ImportError(f"{importer} cannot import {'.'.join(parts)}")
    return real(name, globals, locals, fromlist or (), level)


if __name__ == "__main__":
    builtins.__import__ = guarded
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
