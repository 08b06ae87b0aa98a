"""Processes that end with this program, prepared for training."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import (
    connection,
    forkserver,
    get_all_start_methods,
    get_context,
    parent_process,
    resource_tracker,
)
from types import ModuleType
from typing import Any, TypeVar

from nas.system.interrupts import without_interrupts

PR_SET_PDEATHSIG = 1  # prctl.h
GLIBC_M_TRIM_THRESHOLD, GLIBC_M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT_BYTES = 1 << 30
OLDER_MMAP_THRESHOLD = 32 << 20  # the largest that older glibc takes: half of its HEAP_MAX_SIZE
CAN_FORK = "forkserver" in get_all_start_methods()
PRELOADED = ["nas.training.training"]  # by the server that forks processes
STARTING = threading.RLock()  # one thread at a time may hide the main module

Value = TypeVar("Value")


def keep_freed_memory() -> None:
    """Let glibc's malloc keep what is freed, instead of returning it and faulting it in again at every step.

    Measured on one core: the seed network trains at more than twice the speed, smaller ones up to 8 % faster.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            if not libc.mallopt(GLIBC_M_MMAP_THRESHOLD, KEPT_BYTES):
                libc.mallopt(GLIBC_M_MMAP_THRESHOLD, OLDER_MMAP_THRESHOLD)
            libc.mallopt(GLIBC_M_TRIM_THRESHOLD, KEPT_BYTES)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _killed_with_parent() -> None:
    """Let Linux kill this process when its parent ends, even while this process is stopped by a signal.

    On other systems, and after a parent that has died already, `_end_with_parent` ends it. The parent may be the server
    that forks processes. That server ends when nobody can ask it for more processes, so this child gives up its way to
    ask.
    """
    if sys.platform == "linux":
        server: Any = forkserver._forkserver
        if getattr(server, "_forkserver_alive_fd", None) is not None:
            os.close(server._forkserver_alive_fd)
            server._forkserver_alive_fd = None
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def prepare_process() -> None:
    """Prepare this process for training; every process that trains does so first."""
    _killed_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole group; the scheduler decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    import torch  # the server has imported it; whoever only starts that need not

    torch.set_num_threads(1)


def process_pool(processes: int) -> ProcessPoolExecutor:
    """A pool of prepared processes; others would wait for work for ever after this process was killed.

    A server that has imported torch forks them, where the system can fork: otherwise each of them imports it, which
    takes seconds.
    """
    context = get_context("forkserver" if CAN_FORK else "spawn")
    context.set_forkserver_preload(PRELOADED)
    return ProcessPoolExecutor(processes, mp_context=context, initializer=prepare_process)


def start_server() -> None:
    """Let the server import torch while this process does something else: it will be asked for processes soon."""
    if CAN_FORK:
        resource_tracker.ensure_running()  # else the server starts it, which lets Ctrl+C through again
        with starting_processes():
            forkserver.set_forkserver_preload(PRELOADED)
            forkserver.ensure_running()


@contextmanager
def starting_processes() -> Iterator[None]:
    """Within it, processes are made: Ctrl+C does not reach them, and they do not run the program's main module again.

    multiprocessing would import that in each of them; a script without a `__main__` guard would start all over. What
    is sent to these processes are functions and values of other modules.
    """
    with STARTING, without_interrupts():  # else Ctrl+C would end a process with a traceback while it imports torch
        main = sys.modules["__main__"]
        try:
            sys.modules["__main__"] = ModuleType("__main__")
            yield
        finally:
            sys.modules["__main__"] = main


class LocalProcess:
    """One prepared process of this machine, which ends with the thread that makes it."""

    def __init__(self) -> None:
        self._executor = process_pool(1)
        processes = self._executor._processes
        try:
            with starting_processes():
                self._executor.submit(os.getpid)  # the first call starts the process
        except BaseException:  # for example, no memory for the thread that watches it
            for process in processes.values():
                process.kill()
            raise
        (self._process,) = processes.values()

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def submit(self, function: Callable[..., Value], *args: Any) -> Future[Value]:
        """Call a function in the process; it must be a function of a module, since it is sent by name."""
        try:
            return self._executor.submit(function, *args)
        except BrokenExecutor as error:  # the process has died since it answered last
            failed: Future[Value] = Future()
            failed.set_exception(error)
            return failed

    def stop(self) -> None:
        """End the process at once, whatever it is doing."""
        self._process.kill()
        self._executor.shutdown(wait=True, cancel_futures=True)
