"""The workers of a Ray cluster: actors, as many as it has room for, on whichever nodes it has at the moment.

They answer as the processes of this machine do. An actor is one core, or a part of a GPU; it ends with the program,
since that owns it. The images travel to each node once and are shared there, in Ray's object store.
"""

import logging
import math
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # read by Ray when imported: no other cluster when ours is lost

import numpy.typing as npt
import ray
import torch
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.exceptions import ObjectStoreFullError, RayError, RayTaskError

import nas
from nas.data import TrainingData, hand_over, load_training
from nas.environment import source_digest
from nas.errors import UserError
from nas.files import reason_of
from nas.readers import Dataset, Images
from nas.training import EpochReport, OutOfMemoryError, TrainingJob, seconds_per_epoch, train
from nas.workers import TRIES, Train, Worker, keep_freed_memory

GPU_SHARE = 0.9  # of a GPU's memory that workers may take together
MOST_PER_GPU = 8  # workers, unless told otherwise: more of them wait for each other
RAY_UNITS = 10_000  # in which Ray counts the parts of a GPU
FINEST = 1_000  # parts of one
SECONDS_TO_ANSWER = 10.0
SECONDS_KNOWN = 1.0  # for which the cluster's size is taken for what it was
BETWEEN_REFUSALS = 1.0  # seconds, until workers that could not start are tried again; longer while others are at work:
BESIDE_OTHERS = 30.0
WAYS_IN = "give auto, local, host:port on a machine of the cluster, or ray://host:port"

Arrays = Mapping[str, npt.NDArray[Any]]


def versions() -> dict[str, str]:
    """What must be the same on every node, or the numbers of a training depend on where it is trained."""
    return {
        "Python": platform.python_version(),
        "torch": str(torch.__version__),
        "nas": f"{nas.__version__} ({source_digest()})",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """What an actor says of itself when it has started."""

    node: str
    pid: int
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Training data in a form that Ray's object store shares between processes without a copy."""

    arrays: Arrays
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]


def shared(data: TrainingData) -> Shared:
    """The same images as NumPy arrays."""
    parts = {"train": data.train, "validation": data.validation}
    arrays = {f"{name} images": part.images.numpy() for name, part in parts.items()}
    arrays |= {f"{name} labels": part.labels.numpy() for name, part in parts.items()}
    return Shared(arrays=arrays, mean=data.mean, std=data.std, classes=data.classes)


def restored(data: Shared) -> TrainingData:
    """The images as they were, in the memory that they lie in."""

    def part(name: str) -> Images:
        return Images(images=_tensor(data.arrays[f"{name} images"]), labels=_tensor(data.arrays[f"{name} labels"]))

    return TrainingData(
        train=part("train"), validation=part("validation"), mean=data.mean, std=data.std, classes=data.classes
    )


def _tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it must not be written, which nobody does
        return torch.from_numpy(array)


class Trainer:
    """What runs in an actor: the training begun last."""

    def __init__(self, train: Train) -> None:
        keep_freed_memory()
        torch.set_num_threads(1)
        self._train = train

    def greet(self) -> Greeting:
        """Who it is, to be asked first."""
        node = f"{platform.node()} {ray.get_runtime_context().get_node_id()[:4]}"
        return Greeting(node=node, pid=os.getpid(), versions=versions())

    def start(self, job: TrainingJob, data: Shared) -> EpochReport:
        """The first epoch of a training, giving up any other."""
        hand_over(job.dataset, job.hold_out, restored(data))
        self._training = self._train(job)
        return next(self._training)

    def next(self) -> EpochReport:
        """The next epoch of it."""
        return next(self._training)

    def gpu_memory(self, job: TrainingJob, data: Shared) -> tuple[int, int]:
        """Bytes of the GPU that a training takes, all that torch keeps included, and that it has."""
        hand_over(job.dataset, job.hold_out, restored(data))
        seconds_per_epoch(job)
        free, total = torch.cuda.mem_get_info()
        return total - free, total


def require_same_versions(greeting: Greeting) -> None:
    """Raise UserError if a worker would compute with other software than this program."""
    for name, here in versions().items():
        if (there := greeting.versions[name]) != here:
            raise UserError(
                f"{name} is {there} on node {greeting.node} of the Ray cluster and {here} here; "
                "install the same version on both"
            )


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


class RayWorker:
    """An actor; it may have to wait for its place in the cluster, until `greeting` is done."""

    def __init__(
        self, train: Train, device: str, resources: Mapping[str, float], share: Callable[[TrainingJob], Any]
    ) -> None:
        actor: Any = ray.remote(Trainer).options(**resources, max_restarts=0, scheduling_strategy="SPREAD")
        self._actor = actor.remote(train)
        self._device = device
        self._share = share
        self.node = ""  # until it has said where it is
        self.greeting: Future[Greeting] = _answer(self._actor.greet.remote())

    def start(self, job: TrainingJob) -> Future[EpochReport]:
        data = self._share(job)
        return _asked(lambda: self._actor.start.remote(replace(job, device=self._device), data))

    def next(self) -> Future[EpochReport]:
        return _asked(lambda: self._actor.next.remote())

    def gpu_memory(self, job: TrainingJob) -> Future[tuple[int, int]]:
        """See Trainer."""
        data = self._share(job)
        return _asked(lambda: self._actor.gpu_memory.remote(replace(job, device=self._device), data))

    def stop(self) -> None:
        with suppress(Exception):  # whatever Ray says of a cluster that is lost; its actors end with it
            ray.kill(self._actor)


def _asked(call: Callable[[], Any]) -> Future[Any]:
    """A future of what an actor answers to a call, which fails at once where the cluster is lost."""
    try:
        return _answer(call())
    except Exception as error:  # of many kinds, the plain one among them
        failed: Future[Any] = Future()
        failed.set_exception(BrokenExecutor(str(error)))
        return failed


def _answer(reference: Any) -> Future[Any]:
    """A future of what an actor answers; one that has died is a BrokenExecutor, as with processes."""
    answer: Future[Any] = Future()

    def pass_on(done: Future[Any]) -> None:
        error = done.exception()
        if error is None:
            answer.set_result(done.result())
        elif isinstance(error, RayTaskError) and not _is_of_ray(error.cause):
            error.cause.__cause__ = error  # which tells its traceback there
            answer.set_exception(error.cause)
        elif isinstance(error, RayError | OSError):  # the latter of a connection of ray:// that is lost
            answer.set_exception(BrokenExecutor(str(error)))
        else:
            answer.set_exception(error)

    reference.future().add_done_callback(pass_on)
    return answer


def _is_of_ray(cause: BaseException) -> bool:
    """Whether a task failed since Ray did, such as one that has lost the images; RayError itself stands for others."""
    return isinstance(cause, RayError) and type(cause) is not RayError


def _require_listening(address: str) -> None:
    """Raise UserError where nobody answers; Ray itself would try for a minute, and say much.

    Where a token is asked for, the one of this machine is given, as Ray does by itself for `auto` and `local`.
    """
    parts = re.fullmatch(r"(?:ray://)?(?P<host>[^\s:/]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})", address)
    if parts is None or not 1 <= int(parts["port"]) <= 65_535:
        raise UserError(f"--ray {address!r} is no address of a Ray cluster; {WAYS_IN}")
    try:
        socket.create_connection((parts["host"].strip("[]"), int(parts["port"])), timeout=SECONDS_TO_ANSWER).close()
    except (OSError, UnicodeError) as error:
        raise UserError(f"--ray {address}: nobody answers there ({reason_of(error)}); {WAYS_IN}") from error
    if address.startswith("ray://"):  # whose client gives up by itself
        return
    ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:  # whatever it answers: `connect` will hear it, too
        told = subprocess.run(ask, capture_output=True, timeout=SECONDS_TO_ANSWER, check=False)
        if b"AuthenticationError" in told.stderr:
            maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"--ray {address}: what answers there is no Ray cluster; {WAYS_IN}") from error


def connect(address: str) -> None:
    """Join a Ray cluster, or with `local` start one on this machine.

    Raises:
        UserError: there is none, or it runs other versions of Ray or Python.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    if address not in ("auto", "local"):
        _require_listening(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers over the internet
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as it will be; else it warns
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address == "local":
        quiet["include_dashboard"] = False
    try:
        ray.init(address, ignore_reinit_error=True, **quiet)
    except (OSError, RuntimeError, ValueError, AssertionError, RayError) as error:
        if address == "auto":
            raise UserError(
                "--ray auto: no Ray cluster runs on this machine; start one with: ray start --head, or give local, "
                "host:port or ray://host:port"
            ) from error
        raise UserError(
            f"--ray {address}: no Ray cluster can be joined there ({' '.join(str(error).split())}); {WAYS_IN}; if it "
            "asks for a token, copy that cluster's ~/.ray/auth_token to this machine"
        ) from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _reaching() -> Iterator[None]:
    """Says so where the cluster is lost while it is asked."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of many kinds, the plain one among them
        raise UserError(
            f"the Ray cluster is lost ({reason_of(error)}); nothing finished is: give the same command again when "
            "there is one"
        ) from error


def _rooms() -> list[Room]:
    """Of all the nodes that the cluster has at this moment."""
    with _reaching():
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
        with _reaching():
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
            with _reaching():
                try:
                    self._images[key] = ray.put(images)
                except ObjectStoreFullError as error:
                    raise UserError(
                        "the images do not fit into the object store of the Ray cluster; start its nodes with a larger "
                        "--object-store-memory"
                    ) from error
        return self._images[key]
