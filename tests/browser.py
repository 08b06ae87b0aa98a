"""A page in a real browser, and what it complains of meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from playwright.sync_api import Browser, Page


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A page, and what should not happen on it: errors, dialogs, requests to other hosts."""

    page: Page
    complaints: list[str] = field(default_factory=list)


@contextmanager
def watched(browser: Browser, address: str, *, width: int = 1200, dark: bool = False) -> Iterator[Watched]:
    """The page at an address; its requests may go to that address's host alone."""
    host = address.split("/")[2]
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
    page = context.new_page()
    seen = Watched(page=page)

    def request(url: str) -> None:
        if not url.startswith(("data:", "blob:")) and url.split("/")[2] != host:
            seen.complaints.append(f"asks {url}")

    page.on("request", lambda asked: request(asked.url))
    page.on("pageerror", lambda error: seen.complaints.append(f"error: {error}"))
    page.on("dialog", lambda dialog: seen.complaints.append(f"dialog: {dialog.message}"))
    page.on("console", lambda said: seen.complaints.extend([f"console: {said.text}"] if said.type == "error" else []))
    page.goto(address)
    yield seen
    context.close()
