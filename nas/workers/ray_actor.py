"""A Ray actor that trains, and what it answers."""

import os
import platform
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt
import ray
import torch
from ray.exceptions import RayError, RayTaskError

import nas
from nas.data.images import TrainingData, hand_over
from nas.data.split import Images
from nas.errors import UserError
from nas.system.processes import keep_freed_memory
from nas.training.environment import source_digest
from nas.training.training import EpochReport, TrainingJob, seconds_per_epoch
from nas.workers.protocol import Train

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
