"""Chromium is found or got; where it cannot be had, the tests of pages are not run and say so.

The programs that may be found here are made up. Playwright is real, and its downloads have nowhere to come from.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.browser import chromium
from nas.errors import UserError

ROOT = Path(__file__).parents[1]
SENTENCE = "there is no Chromium on this machine to look at pages with; get it with: "


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with programs, and no other browser; what is written there can be run."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("env", "chmod"):
        (folder / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "playwright"))
    monkeypatch.setenv("PLAYWRIGHT_DOWNLOAD_HOST", "http://127.0.0.1:1")
    return folder


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def apt_get(programs: Path) -> None:
    """One that writes down what it is asked for, and installs a Chromium."""
    install = f"printf '#!/bin/sh' > {programs}/chromium; chmod +x {programs}/chromium"
    program(programs / "apt-get", f'echo "$@" >> {programs}/asked\ncase "$*" in *install*) {install};; esac')


def python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_browser_is_the_first_that_starts(programs: Path) -> None:
    program(programs / "chromium-browser", "echo install the snap; exit 1")
    program(programs / "chrome", "")
    assert chromium() == str(programs / "chrome")


def test_a_browser_of_playwright_will_do(programs: Path, tmp_path: Path) -> None:
    asked = "import playwright.sync_api as p\nwith p.sync_playwright() as found: print(found.chromium.executable_path)"
    own = Path(python("-c", asked).stdout.strip())
    assert own.is_relative_to(tmp_path)
    own.parent.mkdir(parents=True)
    program(own, "")
    assert chromium() == str(own)


def got(user: int) -> list[str]:
    """What a user is told when a Chromium is to be got."""
    told = python("-c", f"import os; os.geteuid = lambda: {user}; import docs.browser; docs.browser.get()")
    assert (told.returncode, told.stderr) == (0, "")
    return told.stdout.splitlines()


@pytest.mark.parametrize(("user", "sudo"), [(0, "exit 1"), (1000, '[ "$1" = -n ] && shift && exec "$@"')])
def test_who_may_install_packages_gets_the_system_s_where_nothing_can_be_downloaded(
    programs: Path, user: int, sudo: str
) -> None:
    apt_get(programs)
    program(programs / "sudo", sudo)
    told = got(user)
    assert [line.split()[-1] for line in told] == ["chromium", "update", "chromium"]
    assert [line.split()[-1] for line in (programs / "asked").read_text().splitlines()] == ["update", "chromium"]
    assert chromium() == str(programs / "chromium")
    assert got(user) == [], "nothing is to be done"


def test_who_may_not_install_packages_is_asked_for_no_password(programs: Path) -> None:
    apt_get(programs)
    program(programs / "sudo", '[ "$1" = -n ] && exit 1; cat')
    assert got(1000)[1:] == [f"{SENTENCE}sudo apt-get install chromium"]
    assert not (programs / "asked").exists()


def test_where_none_can_be_had_one_command_would_get_it(programs: Path) -> None:
    sentence = f"{SENTENCE}{sys.executable} -m playwright install chromium"
    assert got(0)[1:] == [sentence]
    with pytest.raises(UserError) as raised:
        chromium()
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    ("ci", "summary"),
    [("", r"SKIPPED [1] tests/test_pages.py:"), ("true", "ERROR tests/test_pages.py::test_the_page_of_a_study_")],
)
def test_tests_of_pages_without_a_browser_are_not_run_and_under_ci_fail(
    programs: Path, monkeypatch: pytest.MonkeyPatch, ci: str, summary: str
) -> None:
    monkeypatch.setenv("CI", ci)
    told = python("-m", "pytest", "-p", "no:cacheprovider", "tests/test_pages.py", "-k", "study_without_trials")
    assert told.returncode == (1 if ci else 0)
    line = next(line for line in told.stdout.splitlines() if line.startswith(summary))
    assert f"not run: {SENTENCE}" in line
