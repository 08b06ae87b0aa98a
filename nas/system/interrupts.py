"""Letting an interruption wait for what must not stay half done."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Let Ctrl+C or SIGTERM wait; a second one does not, and brings the first along."""
    waiting: list[int] = []
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def wait(number: int, frame: FrameType | None) -> None:
        waiting.append(number)
        if len(waiting) > 1:
            with suppress(KeyboardInterrupt):
                handlers[waiting[0]](waiting[0], frame)
            handlers[number](number, frame)

    if threading.current_thread() is threading.main_thread():  # no other may change them, and none is interrupted
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(handler := signal.getsignal(number)):
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
    """The same while a process is made, which never sees Ctrl+C."""
    with interrupts_wait():
        masked = sys.platform != "win32" and signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            if sys.platform != "win32":
                signal.pthread_sigmask(signal.SIG_SETMASK, masked or ())
