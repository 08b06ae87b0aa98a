"""Interruptions wait while something is done that must not stay half done."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Delay Ctrl+C or SIGTERM until the block ends; a second one does not wait, nor does the first any longer.

    Only a command's own handlers are delayed, those with the attribute `deferrable`: the signals of somebody else's
    program are left alone.
    """
    waiting: list[int] = []
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def wait(number: int, frame: FrameType | None) -> None:
        waiting.append(number)
        if len(waiting) > 1:
            with suppress(KeyboardInterrupt):
                handlers[waiting[0]](waiting[0], frame)
            handlers[number](number, frame)

    if threading.current_thread() is threading.main_thread():  # only this thread sets handlers and is interrupted
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(handler := signal.getsignal(number)) and getattr(handler, "deferrable", False):
                handlers[number] = handler
                signal.signal(number, wait)
    try:
        yield
    finally:
        for asked, handler in handlers.items():
            signal.signal(asked, handler)
        if len(waiting) == 1:
            handlers[waiting[0]](waiting[0], None)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Delay interruptions while a process is made, and let it inherit that Ctrl+C is blocked."""
    with interrupts_wait():
        masked = sys.platform != "win32" and signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            if sys.platform != "win32":
                signal.pthread_sigmask(signal.SIG_SETMASK, masked or ())
