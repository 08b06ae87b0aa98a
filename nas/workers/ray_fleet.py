"""The workers of a Ray cluster: actors, as many as it has room for, on whichever nodes it has at the moment.

They answer as the processes of this machine do. An actor is one core, or a part of a GPU; it ends with the program,
since that owns it. The images travel to each node once and are shared there, in Ray's object store.
"""

import math
import re
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import ray
from ray.exceptions import ObjectStoreFullError

from nas.data.datasets import Dataset
from nas.data.images import load_training
from nas.errors import UserError
from nas.training.training import OutOfMemoryError, TrainingJob, train
from nas.workers.protocol import TRIES, Train, Worker
from nas.workers.ray_actor import RayWorker, require_same_versions, shared
from nas.workers.ray_connection import connect, reaching

GPU_SHARE = 0.9  # of a GPU's memory that workers may take together
MOST_PER_GPU = 8  # workers, unless told otherwise: more of them wait for each other
RAY_UNITS = 10_000  # in which Ray counts the parts of a GPU
FINEST = 1_000  # parts of one
SECONDS_KNOWN = 1.0  # for which the cluster's size is taken for what it was
BETWEEN_REFUSALS = 1.0  # seconds, until workers that could not start are tried again; longer while others are at work:
BESIDE_OTHERS = 30.0


def jobs_per_gpu(used: int, total: int) -> int:
    """How many workers share a GPU, of which one takes so many bytes."""
    return max(1, min(MOST_PER_GPU, int(GPU_SHARE * total) // max(1, used)))


@dataclass(frozen=True, slots=True)
class Room:
    """What a node has for workers."""

    cores: int
    gpus: int

    def workers(self, per_gpu: int) -> int:
        """How many fit; each needs a core, and where there are GPUs to be used (per_gpu > 0) a part of one."""
        return min(self.cores, self.gpus * per_gpu) if per_gpu else self.cores


def part_of_gpu(rooms: Sequence[Room], per_gpu: int, wanted: int) -> float:
    """How much of a GPU each of so many workers takes, of which at most `per_gpu` share one.

    No less than spreads them over all GPUs: Ray fills one up before it takes the next.
    """
    enough = (n for n in range(1, per_gpu) if sum(room.workers(n) for room in rooms) >= wanted)
    return RAY_UNITS // next(enough, per_gpu) / RAY_UNITS


def _last_line(error: Exception) -> str:
    """What went wrong, of a text in which Ray may quote a traceback in colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().rpartition("\n")[2].strip()


def _rooms() -> list[Room]:
    """Of all the nodes that the cluster has at this moment."""
    with reaching():
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # Ray's
    return [Room(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]


class RayFleet:
    """As many workers as the cluster has cores for, or GPUs, at most `jobs`; nodes may join it and leave.

    `typical` is a training that takes as much memory of a GPU as any will.
    """

    def __init__(
        self,
        address: str,
        device: str,
        jobs: int | None,
        per_gpu: int | None,
        typical: Callable[[], TrainingJob],
        train: Train = train,
    ) -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise UserError(f"--device {device!r}: Ray says which GPU a worker has; give auto, cpu or cuda")
        if per_gpu is not None and per_gpu > FINEST:
            raise UserError(f"--jobs-per-gpu {per_gpu:,} must be at most {FINEST:,}")
        connect(address)
        self._known: tuple[float, list[Room]] = (-math.inf, [])
        gpus = self._gpus
        if device == "cuda" and not gpus and jobs is None:
            raise UserError(f"--device cuda: the Ray cluster at {address} has no GPU now; give --jobs to wait for some")
        self._device = "cuda" if device == "cuda" or (device == "auto" and gpus) else "cpu"
        self._jobs, self._per_gpu, self._typical, self._train = jobs, per_gpu, typical, train
        self.news: deque[str] = deque()
        self._said: set[str] = set()
        self._starting: list[RayWorker] = []
        self._hired: list[Worker] = []
        self._images: dict[tuple[Dataset, bool], Any] = {}
        self._refusals = 0  # times that workers could not start, one after the other, while there were no others
        self._pause = -math.inf  # until this time, no more are made
        self._probe: tuple[RayWorker, Future[tuple[int, int]]] | None = None

    @property
    def devices(self) -> Sequence[str]:
        return (f"{self._device} of a Ray cluster",) * self._size()

    @property
    def _rooms(self) -> list[Room]:
        """What the cluster has, or had a moment ago: the scheduler asks at every turn."""
        if monotonic() > self._known[0] + SECONDS_KNOWN:
            self._known = monotonic(), _rooms()
        return self._known[1]

    @property
    def _gpus(self) -> int:
        return sum(room.gpus for room in self._rooms)

    def _size(self) -> int:
        per_gpu = (self._per_gpu or 1) if self._device == "cuda" else 0
        size = sum(room.workers(per_gpu) for room in self._rooms)
        return size if self._jobs is None else min(size, self._jobs)

    def hire(self, most: int) -> Sequence[Worker]:
        if self._device == "cuda" and self._per_gpu is None and not self._probed(most):
            return []
        places = min(most, self._size() if self._jobs is None else self._jobs)
        wanted = places - len(self._hired)
        ready = [worker for worker in self._starting if worker.greeting.done()][: max(0, wanted)]
        self._starting = [worker for worker in self._starting if worker not in ready]
        welcome, refusal = list[Worker](), None
        for worker in ready:
            try:
                greeting = worker.greeting.result()
                require_same_versions(greeting)
                worker.node = greeting.node
                welcome.append(worker)
            except Exception as error:  # such as that its node has left
                refusal = error
                worker.stop()
        self._hired += welcome
        if refusal is not None:
            self._go_on_after(refusal)
        elif welcome:
            self._refusals = 0
        wanted -= len(welcome)
        while len(self._starting) > max(0, wanted):
            self._starting.pop().stop()
        if monotonic() > self._pause:
            self._starting += [self._made(places) for _ in range(wanted - len(self._starting))]
        return welcome

    def dismiss(self, worker: Worker) -> None:
        worker.stop()
        self._hired.remove(worker)

    def _made(self, places: int) -> RayWorker:
        """One of so many workers."""
        resources = {"num_cpus": 1.0}
        if self._device == "cuda":
            resources["num_gpus"] = part_of_gpu(self._rooms, self._per_gpu or 1, places)
        with reaching():
            return RayWorker(self._train, self._device, resources, self._share)

    def _go_on_after(self, refusal: Exception) -> None:
        """Go on after workers could not start, or had other software: such a node may leave, another may join.

        Raises:
            UserError: there are no others, after some tries.
        """
        alone = not (self._hired or self._starting)
        self._pause = monotonic() + (BETWEEN_REFUSALS if alone else BESIDE_OTHERS)
        self._refusals += alone
        reason = _last_line(refusal)
        if not isinstance(refusal, UserError):
            reason = (
                f"no worker can be started on the Ray cluster ({reason}); install nas in the same environment on "
                "every node"
            )
        if self._refusals == TRIES:
            raise UserError(reason) from refusal
        if not alone and reason not in self._said:
            self._said.add(reason)
            self.news.append(f"a worker is done without: {reason}")

    def _probed(self, most: int) -> bool:
        """Whether it is known how many workers a GPU holds."""
        if self._hired or min(most, self._jobs or most) <= self._gpus:  # the GPUs are taken, or none need be shared
            if self._probe is not None:
                self._probe[0].stop()
                self._probe = None
            return True
        if self._probe is None:
            if monotonic() < self._pause:
                return False
            probe = self._made(1)
            self._probe = probe, probe.gpu_memory(replace(self._typical(), hold_out=True))
        probe, memory = self._probe
        if not (memory.done() and probe.greeting.done()):
            return False
        self._probe = None
        probe.stop()
        try:
            require_same_versions(probe.greeting.result())
            self._per_gpu = jobs_per_gpu(*memory.result())
        except OutOfMemoryError:  # it needs all of one, if not more
            self._per_gpu = 1
        except Exception as error:
            self._go_on_after(error)
            return False
        return True

    def _share(self, job: TrainingJob) -> Any:
        """The images of a training, in the object store."""
        key = job.dataset, job.hold_out
        if key not in self._images:
            images = shared(load_training(job.dataset, hold_out=job.hold_out))
            with reaching():
                try:
                    self._images[key] = ray.put(images)
                except ObjectStoreFullError as error:
                    raise UserError(
                        "the images do not fit into the object store of the Ray cluster; start its nodes with a larger "
                        "--object-store-memory"
                    ) from error
        return self._images[key]
