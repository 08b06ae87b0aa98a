"""Letting an interruption wait."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Let Ctrl+C and SIGTERM wait until something is done that must not stay half done.

    A process that is made meanwhile never sees Ctrl+C.
    """
    waiting: list[int] = []
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
    if threading.current_thread() is threading.main_thread():  # no other may change them, and none is interrupted
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(handler := signal.getsignal(number)):
                handlers[number] = handler
                signal.signal(number, lambda number, _: waiting.append(number))
    masked = sys.platform != "win32" and signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, masked or ())
        for asked, handler in handlers.items():
            signal.signal(asked, handler)
        for again in waiting[1:]:
            with suppress(KeyboardInterrupt):
                handlers[again](again, None)
        if waiting:
            handlers[waiting[0]](waiting[0], None)
