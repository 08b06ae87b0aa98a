"""What a person sees while a call works: a live view at a terminal or in a notebook, lines elsewhere, or nothing."""

import collections
from collections.abc import Callable, Iterator
from typing import TypeAlias

from rich.console import Console

from nas.reporting.live_view import NORMAL, follow
from nas.tuner.progress import Progress, Show

Progressing: TypeAlias = bool | Show


def shown(progress: Progressing) -> Show:
    """What shows it: a function of one's own, the usual view for True, none for False."""
    if callable(progress):
        return progress
    return _follow if progress else _silently


def said(progress: Progressing) -> Callable[[str], None]:
    """What takes a sentence for a person: it is printed where progress is shown in the usual way."""
    return print if progress is True else _drop


def _drop(sentence: str) -> None:
    """Say nothing."""


def _follow(events: Iterator[Progress], title: str) -> None:
    follow(events, title, Console(highlight=False), NORMAL)


def _silently(events: Iterator[Progress], title: str) -> None:
    collections.deque(events, maxlen=0)
