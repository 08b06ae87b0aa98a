"""python -m nas: the list of commands."""

import ast
import subprocess
import sys
from pathlib import Path

import nas
from nas.__main__ import COMMANDS


def is_command(file: Path) -> bool:
    """Whether a file runs something when it is run as a module."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return any(isinstance(part, ast.If) and ast.unparse(part.test) == "__name__ == '__main__'" for part in body)


def test_every_command_is_listed_once() -> None:
    files = [file for file in Path(nas.__file__).parent.glob("*.py") if is_command(file)]
    assert set(COMMANDS) == {file.stem for file in files} - {"__main__"}
    listed = subprocess.run([sys.executable, "-m", "nas"], capture_output=True, text=True, check=True)
    lines = listed.stdout.splitlines()
    assert [line.split()[2] for line in lines[:-1]] == [f"nas.{name}" for name in COMMANDS]
    assert lines[-1] == "Each answers --help."
    assert listed.stderr == ""
