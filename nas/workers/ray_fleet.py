"""The workers of a Ray cluster: actors, as many as it has room for, on whichever nodes it has at the moment.

They answer as the processes of this machine do. An actor takes one core, or a part of a GPU. It ends with the program,
which owns it. The images travel to each node once; Ray's object store shares them there.
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

from nas.datasets.dataset import Dataset, only_images
from nas.datasets.images import training_pool
from nas.errors import UserError
from nas.training.job import OutOfMemoryError, TrainingJob
from nas.training.training import train
from nas.workers.protocol import TRIES, Train, Worker
from nas.workers.ray_actor import RayWorker, require_same_versions, shared
from nas.workers.ray_connection import connect, reaching

GPU_SHARE = 0.9  # part of a GPU's memory that its workers may take together
MOST_PER_GPU = 8  # workers, unless told otherwise: more of them wait for each other
RAY_UNITS = 10_000  # Ray counts a GPU in so many parts
FINEST = 1_000  # parts of a GPU that workers may take
SECONDS_KNOWN = 1.0  # after which the cluster's size is asked for again
BETWEEN_REFUSALS = 1.0  # seconds from a worker that could not start to the next try ...
BESIDE_OTHERS = 30.0  # ... and while others are at work


def jobs_per_gpu(used: int, total: int) -> int:
    """How many workers share a GPU of `total` bytes, if one takes `used` bytes."""
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
    """The part of a GPU that each of `wanted` workers takes; at most `per_gpu` share a GPU.

    It is the largest part for which all have room: Ray fills a GPU before it takes the next, so smaller parts would
    leave GPUs idle.
    """
    enough = (n for n in range(1, per_gpu) if sum(room.workers(n) for room in rooms) >= wanted)
    return RAY_UNITS // next(enough, per_gpu) / RAY_UNITS


def _last_line(error: Exception) -> str:
    """The last line of an error, without colours; of a traceback that Ray quotes, this line says what failed."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().rpartition("\n")[2].strip()


def _rooms() -> list[Room]:
    """The room on each node that the cluster has now."""
    with reaching():
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # Ray's
    return [Room(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]


class RayFleet:
    """As many workers as the cluster has cores or GPUs for, at most `jobs`; nodes may join and leave.

    `typical` makes a training that needs as much GPU memory as any other.
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
        self._images: dict[Dataset, Any] = {}
        self._refusals = 0  # tries in a row that failed while no other worker was there
        self._pause = -math.inf  # no worker is made before this time
        self._probe: tuple[RayWorker, Future[tuple[int, int]]] | None = None

    @property
    def devices(self) -> Sequence[str]:
        return (f"{self._device} of a Ray cluster",) * self._size()

    @property
    def _rooms(self) -> list[Room]:
        """The cluster's rooms, kept for a moment because the scheduler asks at every turn."""
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
            except Exception as error:  # for example, its node has left
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
        """Make one of `places` workers."""
        resources = {"num_cpus": 1.0}
        if self._device == "cuda":
            resources["num_gpus"] = part_of_gpu(self._rooms, self._per_gpu or 1, places)
        with reaching():
            return RayWorker(self._train, self._device, resources, self._share)

    def _go_on_after(self, refusal: Exception) -> None:
        """Go on without a worker that could not start or has other versions: its node may leave, another may join.

        Raises:
            UserError: no worker could start in TRIES tries.
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
            self.news.append(f"going on without a worker: {reason}")

    def _probed(self, most: int) -> bool:
        """Whether it is known how many workers a GPU holds; if it must be, a probe measures it."""
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
        except OutOfMemoryError:  # it needs a whole GPU, if not more
            self._per_gpu = 1
        except Exception as error:
            self._go_on_after(error)
            return False
        return True

    def _share(self, job: TrainingJob) -> Any:
        """Put the images that a training takes into the object store, once; the reference to them."""
        dataset = only_images(job.dataset)
        if dataset not in self._images:
            images = shared(training_pool(dataset))
            with reaching():
                try:
                    self._images[dataset] = ray.put(images)
                except ObjectStoreFullError as error:
                    raise UserError(
                        "the images do not fit into the object store of the Ray cluster; start its nodes with a larger "
                        "--object-store-memory"
                    ) from error
        return self._images[dataset]
