"""A real headless Chromium, for the README's pictures and for the tests of pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """Where it is installed."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    assert found, "pages are looked at in Chromium: install it, such as with apt-get install chromium"
    return found


@contextmanager
def a_browser() -> Iterator[Browser]:
    """Without its sandbox only for root, for whom it does not work."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        yield browser
        browser.close()
