"""docs/commands.md is what the parsers of the commands say, whatever the terminal and the environment are."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.commands import PAGE, page

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("columns", ["40", "200"])
def test_the_page_of_commands_is_what_the_parsers_say(columns: str) -> None:
    """Also where the terminal has another width and a storage is set."""
    environment = {**os.environ, "COLUMNS": columns, "OPTUNA_STORAGE": "sqlite:///elsewhere.db"}
    code = "import sys; from docs.commands import page; sys.stdout.buffer.write(page().encode())"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    written = PAGE.read_text(encoding="utf-8")
    assert told.stdout.decode() == written, "python -m docs.commands writes the page anew"


def test_the_page_of_commands_names_every_option() -> None:
    helps = [
        subprocess.run([sys.executable, "-m", f"nas.{name}", "--help"], capture_output=True, text=True, check=True)
        for name in ("search", "ablate")
    ]
    options = set(re.findall(r"--[a-z][a-z-]+", "".join(told.stdout for told in helps))) - {"--help"}
    assert {option for option in options if option not in page()} == set()
