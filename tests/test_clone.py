"""What a clone is to its user: what `make` says and starts, and what git sees of a search."""

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAKEFILE = ROOT / "Makefile"


def told(*command: str, folder: Path = ROOT) -> str:
    """What a command prints, that must succeed and warn of nothing; no `make` around the tests has a say in it."""
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_make_alone_says_what_there_is_and_starts_nothing(tmp_path: Path) -> None:
    shutil.copy(MAKEFILE, tmp_path)
    lines = told("make", folder=tmp_path).splitlines()
    assert 'make search     search MNIST: make search TRIALS=5 ARGS="--seed 3"' in lines
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert phony is not None
    assert [line.split()[1] for line in lines] == phony[1].split()
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]


def test_make_passes_on_what_it_is_given(tmp_path: Path) -> None:
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    shutil.copy(MAKEFILE, tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / ".venv" / ".ready").touch()
    said = told("make", "--silent", "search", "TRIALS=3", "ARGS=--seed 3", folder=tmp_path)
    assert said == "-m nas.search --trials 3 --seed 3\n"


def test_git_sees_nothing_of_a_search_but_what_is_published(tmp_path: Path) -> None:
    told("git", "init", "--quiet", str(tmp_path))
    shutil.copy(ROOT / ".gitignore", tmp_path)
    for name in (
        "mnist/best/model.py",
        "mnist/study.db",
        "small/trials.csv",
        "published/mnist/trials.csv",
        "README.md",
    ):
        path = tmp_path / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    seen = told("git", "status", "--porcelain", "--untracked-files=all", folder=tmp_path).splitlines()
    assert seen == ["?? .gitignore", "?? results/README.md", "?? results/published/mnist/trials.csv"]
