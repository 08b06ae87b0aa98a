"""The kernels are compiled once for a machine; where they cannot be, it is said why, and torch's own are taken."""

import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.networks import job
from nas.training.kernels import NATIVE, OPTIONS, Kernels, kernels
from nas.training.training import Training

COMPILER = pytest.mark.skipif(
    kernels().library is None, reason=f"not run: {kernels().said}; get one with: apt-get install g++"
)
Asked = Callable[[], Kernels]
SOURCES = sorted((Path(__file__).parents[1] / "nas" / "training" / "cpp").glob("*.cpp"))


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Asks for the kernels of a user who has none yet."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return kernels.__wrapped__


@COMPILER
def test_kernels_are_compiled_once(asked: Asked, tmp_path: Path) -> None:
    first = asked()
    assert first.library is not None
    assert first.said.startswith("compiled by ")
    (made,) = (tmp_path / ".cache/nas/kernels").glob("*.so")
    assert first.said.endswith(f", {made.stem}"), "other kernels are told apart"
    then = made.stat().st_mtime_ns
    assert asked().said == first.said
    assert made.stat().st_mtime_ns == then


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        ("", "torch's own, as CXX is empty"),
        ("no-such-compiler", "torch's own, as there is no no-such-compiler, which CXX names"),
        (
            "false",
            "torch's own, as false has failed (exit status 1)",
        ),
        pytest.param(
            "c++ -fno-such-option",
            "torch's own, as c++ -fno-such-option has failed (c++: error: unrecognized command-",
            marks=COMPILER,
        ),
    ],
)
def test_without_a_compiler_it_is_said_why(
    asked: Asked, compiler: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", compiler)
    found = asked()
    assert found.library is None
    assert found.said.startswith(said)


def test_no_compiler_among_the_programs_is_none(asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert asked().said == "torch's own, as there is no C++ compiler"


def test_a_cache_that_cannot_be_written_leaves_torchs_own(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".cache").write_text("no folder", encoding="utf-8")
    found = asked()
    assert found.library is None
    assert found.said.startswith("torch's own, as ")
    assert "Not a directory" in found.said or "File exists" in found.said


@COMPILER
def test_a_training_says_which_kernels_it_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.training.training.kernels", lambda: Kernels(library=None, said="none"))
    without = [type(part).__name__ for part in Training(job("3k")).forward]
    monkeypatch.undo()
    within = [type(part).__name__ for part in Training(job("3k")).forward]
    assert not {"FirstBlock", "FusedBlock"} & {*without}
    assert (within.count("FirstBlock"), within.count("FusedBlock")) == (1, 2)


@COMPILER
@pytest.mark.parametrize("options", [("-march=x86-64-v3",), ("-march=x86-64",)])
@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are processors of this kind")
def test_the_source_compiles_without_a_warning_for_older_processors(options: tuple[str, ...], tmp_path: Path) -> None:
    kept = [option for option in OPTIONS if option != NATIVE]
    strict = ["c++", *kept, *options, "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    told = subprocess.run([*strict, *map(str, SOURCES)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")
