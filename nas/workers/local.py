"""The workers of this machine: processes of one thread, and the fleet of them.

A worker holds one training and answers `next` with a future of its next epoch report. It sees neither the study nor the
database; when it dies, one future fails. `nas.workers.ray_fleet` has the workers of a Ray cluster.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from time import sleep

import torch

from nas.errors import UserError
from nas.system.cores import usable_cores
from nas.system.files import reason_of
from nas.system.processes import LocalProcess
from nas.training.job import EpochReport, TrainingJob
from nas.training.training import train
from nas.workers.protocol import TRIES, Train, Worker

MOST_JOBS = 1_000
BETWEEN_TRIES = 1.0  # seconds between two tries to make a worker


class _Process:
    """What a worker process holds between calls: the training that it began last."""

    training: Iterator[EpochReport] = iter(())


def _start(train: Train, job: TrainingJob) -> EpochReport:
    _Process.training = train(job)
    return next(_Process.training)


def _next() -> EpochReport:
    return next(_Process.training)


class LocalWorker(LocalProcess):
    """One process that trains on one device; `train` must be a function of a module, since it is sent by name."""

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
        self.news: deque[str] = deque()  # stays empty
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
    """The device of each worker: `jobs` of them, by default one per core that it may use (a container's quota
    counts), or one per GPU.

    Raises:
        UserError: an unknown device, or one that this machine does not have.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if jobs is not None and jobs > MOST_JOBS:
        raise UserError(f"--jobs {jobs:,} must be at most {MOST_JOBS:,} on one machine; each is a process")
    if device == "cpu":
        return ("cpu",) * (jobs or usable_cores())
    kind, _, index = device.partition(":")
    if kind != "cuda" or not (re.fullmatch(r"[0-9]{1,4}", index) or device == "cuda"):
        raise UserError(f"--device {device!r} is unknown; give auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    if int(index or 0) >= count:
        raise UserError(f"--device {device}: torch can use {count} CUDA devices here; give --device cpu")
    gpus = [device] if index else [f"cuda:{i}" for i in range(count)]
    return tuple(gpus[i % len(gpus)] for i in range(jobs or len(gpus)))
