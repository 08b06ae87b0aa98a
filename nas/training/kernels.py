"""The compiled kernels of `cpp/`: made once for a machine by its own compiler, then loaded.

They lie in `~/.cache/nas/kernels` under a digest of the source, the compiler and the processor, so that another of
these makes them anew.
"""

import ctypes
import functools
import hashlib
import importlib.resources
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from nas.datasets.dataset import DATA_DIR
from nas.system.files import write_whole
from nas.training.environment import processor

COMPILERS = ("c++", "g++", "clang++")  # unless $CXX names one
# The instructions that this processor has, and products that are fused into sums.
NATIVE = "-mcpu=native" if platform.machine() in {"aarch64", "arm64"} else "-march=native"
OPTIONS = ("-std=c++17", "-O2", NATIVE, "-ffp-contract=fast", "-fPIC", "-Wno-psabi")
SECONDS_TO_COMPILE = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """The library with the functions of `cpp/`, or None where it cannot be had; `said` tells whose they are.

    Such as "compiled by g++ (Debian 12.2.0-14) 12.2.0, 3f2a90c1d2e4b586", whose end is the digest that names the
    library, or "torch's own, as there is no C++ compiler".
    """

    library: ctypes.CDLL | None
    said: str


TORCHS_OWN = Kernels(library=None, said="torch's own")


@functools.cache
def kernels() -> Kernels:
    """The kernels of this machine, compiled if they are not yet."""
    compiler = _compiler()
    if compiler is None:
        return _without(_why_none(os.environ.get("CXX")))
    try:
        version = _told((*compiler, "--version")).partition("\n")[0].strip()
        file = _compiled(compiler, version)
        return Kernels(library=ctypes.CDLL(str(file)), said=f"compiled by {version}, {file.stem}")
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # RuntimeError: no home folder
        return _without(f"{shlex.join(compiler)} has failed ({_reason(error)})")


@functools.cache
def function(library: ctypes.CDLL, name: str, pointers: int) -> Callable[..., None]:
    """One of the library's, which takes a structure and so many pointers."""
    found = library[name]
    found.argtypes, found.restype = (ctypes.c_void_p,) * (1 + pointers), None
    return found


def _without(why: str) -> Kernels:
    return Kernels(library=None, said=f"{TORCHS_OWN.said}, as {why}")


def _why_none(asked: str | None) -> str:
    """Why there is no compiler, where `asked` is what $CXX says."""
    if asked is None:
        return "there is no C++ compiler"
    return f"there is no {asked}, which CXX names" if asked.strip() else "CXX is empty"


def _reason(error: Exception) -> str:
    """The compiler's first error, or what went wrong else, in at most 200 characters."""
    told = f"exit status {error.returncode}" if isinstance(error, subprocess.CalledProcessError) else str(error)
    lines = (getattr(error, "stderr", None) or told).splitlines() or [type(error).__name__]
    return next((line for line in lines if "error:" in line), lines[0])[:200]


def _compiler() -> tuple[str, ...] | None:
    """The command that $CXX names, else the first compiler that is installed."""
    if "CXX" in os.environ:
        command = tuple(shlex.split(os.environ["CXX"]))
        return command if command and shutil.which(command[0]) else None
    return next(((name,) for name in COMPILERS if shutil.which(name)), None)


def _told(command: tuple[str, ...]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS_TO_COMPILE).stdout


def _compiled(compiler: tuple[str, ...], version: str) -> Path:
    sources = sorted(importlib.resources.files("nas.training").joinpath("cpp").iterdir(), key=lambda file: file.name)
    texts = {file.name: file.read_text(encoding="utf-8") for file in sources}
    made_of = "\n".join((*texts.values(), *compiler, version, *OPTIONS, processor()))
    folder = Path(DATA_DIR).expanduser() / "kernels"
    library = folder / f"{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"), tempfile.TemporaryDirectory() as draft:  # one compiles, the others wait
            if not library.exists():
                write_whole(library, _compile(compiler, texts, Path(draft)))
    return library


def _compile(compiler: tuple[str, ...], texts: Mapping[str, str], draft: Path) -> bytes:
    """The library of these files, each of which is compiled on its own, at the same time."""
    for name, text in texts.items():
        (draft / name).write_text(text, encoding="utf-8")
    parts = [str(draft / name) for name in texts if name.endswith(".cpp")]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda part: _told((*compiler, *OPTIONS, "-c", part, "-o", f"{part}.o")), parts))
    made = draft / "kernels.so"
    _told((*compiler, *OPTIONS, "-shared", *(f"{part}.o" for part in parts), "-o", str(made)))
    return made.read_bytes()
