"""Workers: each holds one training and answers `next` with a future of its next epoch report; and the fleet of them.

A `LocalWorker` is a process of this machine with one thread. Its trainings see neither the study nor the
database; a worker that dies is one failed future. Workers of a Ray cluster are in `nas.cluster`.
"""

import ctypes
import os
import re
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import connection, forkserver, get_all_start_methods, get_context, parent_process
from time import sleep
from typing import Any, Protocol, TypeAlias, TypeVar

import torch

from nas.errors import UserError
from nas.files import reason_of
from nas.interrupts import without_interrupts
from nas.training import EpochReport, TrainingJob, train

PR_SET_PDEATHSIG = 1  # prctl.h
GLIBC_M_TRIM_THRESHOLD, GLIBC_M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT_BYTES = 1 << 30
OLDER_MMAP_THRESHOLD = 32 << 20  # the largest that older glibc takes: half of its HEAP_MAX_SIZE
MOST_JOBS = 1_000
TRIES = 3  # to make a worker ...
BETWEEN_TRIES = 1.0  # ... with so many seconds between

Value = TypeVar("Value")


class Worker(Protocol):
    """What the scheduler needs of a worker, wherever it runs."""

    @property
    def node(self) -> str:
        """The machine, for a person to read; nothing for this one."""

    def start(self, job: TrainingJob) -> Future[EpochReport]:
        """Begin a training, giving up any other; the future is that of its first epoch."""

    def next(self) -> Future[EpochReport]:
        """The next epoch of the training begun last."""

    def stop(self) -> None:
        """End the worker at once, whatever it is doing."""


class Fleet(Protocol):
    """The workers that a scheduler may have; there may be more or fewer of them from one moment to the next."""

    @property
    def devices(self) -> Sequence[str]:
        """What there is to train on now, one entry a worker, for a person to read."""

    @property
    def news(self) -> deque[str]:
        """What a person should know of it, once."""

    def hire(self, most: int) -> Iterable[Worker]:
        """Workers that are to be had now, besides those hired; at most so many in all.

        Raises:
            UserError: there will never be any.
        """

    def dismiss(self, worker: Worker) -> None:
        """Stop a worker; another may be hired in its place."""


Train: TypeAlias = Callable[[TrainingJob], Iterator[EpochReport]]


class _Process:
    """What a worker process holds between calls: the training begun last."""

    training: Iterator[EpochReport] = iter(())


def _start(train: Train, job: TrainingJob) -> EpochReport:
    _Process.training = train(job)
    return next(_Process.training)


def _next() -> EpochReport:
    return next(_Process.training)


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
    """Let Linux kill this process when the one ends that made it: also one that is stopped, which cannot see to it.

    Others, and a process whose parent has died already, end by themselves. The server that forks processes ends with
    the program, when nobody is left who could ask it for more, as its children could, too.
    """
    if sys.platform == "linux":
        server: Any = forkserver._forkserver
        if getattr(server, "_forkserver_alive_fd", None) is not None:
            os.close(server._forkserver_alive_fd)
            server._forkserver_alive_fd = None
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def prepare_process() -> None:
    """What every process that trains does first."""
    _killed_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole group; the scheduler decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    torch.set_num_threads(1)


def process_pool(processes: int) -> ProcessPoolExecutor:
    """Prepared processes; without that, they would wait for work when this one was killed.

    Where they can be, they are forked by a server that has imported torch, which takes each of them seconds otherwise.
    """
    context = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    context.set_forkserver_preload(["nas.training"])
    return ProcessPoolExecutor(processes, mp_context=context, initializer=prepare_process)


class LocalProcess:
    """One prepared process of this machine, which ends with the thread that makes it."""

    def __init__(self) -> None:
        self._executor = process_pool(1)
        processes = self._executor._processes
        try:
            with without_interrupts():  # importing torch takes seconds, in which Ctrl+C would end it with a traceback
                self._executor.submit(os.getpid)  # makes it start the process
        except BaseException:  # such as no memory for the thread that watches it
            for process in processes.values():
                process.kill()
            raise
        (self._process,) = processes.values()

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process.pid is not None
        return self._process.pid

    def submit(self, function: Callable[..., Value], *args: Any) -> Future[Value]:
        """What a function of a module answers there, as processes are told of it by name."""
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


class LocalWorker(LocalProcess):
    """One process that trains on one device; `train` is a function of a module."""

    node = ""

    def __init__(self, device: str = "cpu", train: Train = train) -> None:
        super().__init__()
        self._device = device
        self._train = train

    def start(self, job: TrainingJob) -> Future[EpochReport]:
        return self.submit(_start, self._train, replace(job, device=self._device))

    def next(self) -> Future[EpochReport]:
        return self.submit(_next)


class LocalFleet:
    """The workers of this machine, one on each of `devices`."""

    def __init__(self, devices: Sequence[str], make_worker: Callable[[str], Worker] = LocalWorker) -> None:
        self.devices = devices
        self.news: deque[str] = deque()  # there is none
        self._make_worker = make_worker
        self._vacant = list(devices)
        self._hired: list[tuple[Worker, str]] = []

    def hire(self, most: int) -> Iterator[Worker]:
        while self._vacant and len(self._hired) < most:
            worker = self._made(self._vacant[0])
            self._hired.append((worker, self._vacant.pop(0)))
            yield worker

    def _made(self, device: str, tries: int = TRIES) -> Worker:
        try:
            return self._make_worker(device)
        except (OSError, RuntimeError, EOFError) as error:  # such as no memory left, or a server that has died
            if tries == 1:
                reason = reason_of(error)
                raise UserError(
                    f"no worker can be started ({reason}); close other programs, or give fewer --jobs"
                ) from error
        sleep(BETWEEN_TRIES)
        return self._made(device, tries - 1)

    def dismiss(self, worker: Worker) -> None:
        worker.stop()
        self._vacant += [device for hired, device in self._hired if hired is worker]
        self._hired = [(hired, device) for hired, device in self._hired if hired is not worker]


def devices(device: str, jobs: int | None) -> tuple[str, ...]:
    """The device of each worker: `jobs` of them, by default one per core that this process may use, or one per GPU.

    Raises:
        UserError: an unknown device, or one that this machine does not have.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if jobs is not None and jobs > MOST_JOBS:
        raise UserError(f"--jobs {jobs:,} must be at most {MOST_JOBS:,} on one machine; each is a process")
    if device == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return ("cpu",) * (jobs or cores)
    kind, _, index = device.partition(":")
    if kind != "cuda" or not (re.fullmatch(r"[0-9]{1,4}", index) or device == "cuda"):
        raise UserError(f"--device {device!r} is unknown; give auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    if int(index or 0) >= count:
        raise UserError(f"--device {device}: torch can use {count} CUDA devices here; give --device cpu")
    gpus = [device] if index else [f"cuda:{i}" for i in range(count)]
    return tuple(gpus[i % len(gpus)] for i in range(jobs or len(gpus)))
