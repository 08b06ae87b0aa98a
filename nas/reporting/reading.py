"""What a person sees while image files are read."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

QUICK = 200  # files, that are read without a word
SECONDS = 10.0  # between two lines where no terminal is


@contextmanager
def reading_view(*, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar at a terminal, a line now and then elsewhere; both on stderr, and only where there is much to read.

    Nothing of it where it is to be `quiet`.
    """
    console = Console(stderr=True)
    columns = (TextColumn("reading images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, told = bar.add_task("", total=None, visible=False), [time.monotonic()]

        def tell(done: int, total: int) -> None:
            if quiet or total < QUICK:
                return
            bar.update(task, completed=done, total=total, visible=True)
            if not console.is_terminal and time.monotonic() - told[0] > SECONDS:
                told[0] = time.monotonic()
                print(f"reading images: {done:,} of {total:,}", file=sys.stderr, flush=True)

        yield tell
