"""A real headless Chromium, for the README's pictures and for the tests of pages.

`make` runs this file before both, since as a program it gets a Chromium for a machine that has none.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from nas.errors import UserError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLAYWRIGHT = (sys.executable, "-m", "playwright")
SECONDS_TO_START = 30.0
SECONDS_TO_GET = 600.0  # for each command: a download of 180 MB, or the system's packages


def chromium() -> str:
    """The first Chromium here that starts: one of the system's, else Playwright's own.

    Raises:
        UserError: there is none.
    """
    path = next((path for path in _places() if _succeeds((path, "--version"), SECONDS_TO_START)), None)
    if path is None:
        command = shlex.join((*PLAYWRIGHT, "install", "chromium"))
        if shutil.which("apt-get"):
            command = f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install chromium"
        raise UserError(f"there is no Chromium on this machine to look at pages with; get it with: {command}")
    return path


def _places() -> Iterator[str]:
    yield from filter(None, map(shutil.which, NAMES))
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    if Path(own).exists():
        yield own


@contextmanager
def a_browser() -> Iterator[Browser]:
    """A running Chromium, without its sandbox: Playwright leaves it out by default, and for root it does not work."""
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


def _ways() -> Iterator[Sequence[str]]:
    """The commands that may get a Chromium, in the order to try them.

    The system's packages are installed only by root, or by a user whom sudo asks for no password.
    """
    yield "env", "PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT=5000", *PLAYWRIGHT, "install", "chromium"  # in ms
    as_root = () if os.geteuid() == 0 else ("sudo", "-n")
    if not shutil.which("apt-get") or not _succeeds((*as_root, "env"), SECONDS_TO_START):
        return
    apt = (*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes", "-o", "DPkg::Lock::Timeout=120")
    yield *apt, "update"
    yield *apt, "install", "--no-install-recommends", "chromium"
    yield *PLAYWRIGHT, "install-deps", "chromium"  # libraries for its own, where that package only points elsewhere


def _succeeds(command: Sequence[str], seconds: float) -> bool:
    """Run a command quietly; after so many seconds, end it with all that it has started."""
    quiet = subprocess.DEVNULL
    try:
        process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    except OSError:
        return False
    with process, suppress(subprocess.TimeoutExpired):
        try:
            return process.wait(seconds) == 0
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGTERM)
    return False


def get() -> None:
    """Get a Chromium where there is none; print what is tried, and where nothing helps, how to get it by hand."""
    for command in _ways():
        with suppress(UserError):
            chromium()
            return
        print(f"no Chromium on this machine yet: {shlex.join(command)}", flush=True)
        _succeeds(command, SECONDS_TO_GET)
    try:
        chromium()
    except UserError as error:
        print(error)


if __name__ == "__main__":
    get()
