"""A Ray actor that trains, and the worker through which the scheduler calls it."""

import os
import platform
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import torch
from ray.exceptions import RayError, RayTaskError

import nas
from nas.datasets.images import hand_over
from nas.datasets.split import Images, Numbers, Pool
from nas.errors import UserError
from nas.system.processes import keep_freed_memory
from nas.training.environment import source_digest
from nas.training.job import EpochReport, TrainingJob
from nas.training.training import seconds_per_epoch
from nas.workers.protocol import Train


def versions() -> dict[str, str]:
    """The versions that all nodes must share: otherwise the numbers of a training would depend on its node."""
    return {
        "Python": platform.python_version(),
        "torch": str(torch.__version__),
        "nas": f"{nas.__version__} ({source_digest()})",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """What an actor says of itself once it has started."""

    node: str
    pid: int
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Training images in a form that Ray's object store shares between processes without a copy."""

    images: npt.NDArray[np.uint8]
    labels: Numbers
    others: Pool  # without its images


def shared(pool: Pool) -> Shared:
    """The same images as NumPy arrays."""
    none = Images(images=pool.images.images[:0], labels=pool.images.labels[:0])
    return Shared(
        images=pool.images.images.numpy(), labels=pool.images.labels.numpy(), others=replace(pool, images=none)
    )


def restored(data: Shared) -> Pool:
    """The images as tensors, which share the memory of the arrays."""
    return replace(data.others, images=Images(images=_tensor(data.images), labels=_tensor(data.labels)))


def _tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the array is read-only, and nobody writes to it
        return torch.from_numpy(array)


class Trainer:
    """The object in an actor; it holds the training begun last."""

    def __init__(self, train: Train) -> None:
        keep_freed_memory()
        torch.set_num_threads(1)
        self._train = train

    def greet(self) -> Greeting:
        """Say which process on which node this is, and its versions; the first call of every actor."""
        node = f"{platform.node()} {ray.get_runtime_context().get_node_id()[:4]}"
        return Greeting(node=node, pid=os.getpid(), versions=versions())

    def start(self, job: TrainingJob, data: Shared) -> EpochReport:
        """Abandon the previous training and begin another; its first epoch."""
        hand_over(job.dataset, restored(data))
        self._training = self._train(job)
        return next(self._training)

    def next(self) -> EpochReport:
        """The next epoch of the training begun last."""
        return next(self._training)

    def gpu_memory(self, job: TrainingJob, data: Shared) -> tuple[int, int]:
        """The bytes of GPU memory that a training takes, with all that torch keeps, and the bytes that the GPU has."""
        hand_over(job.dataset, restored(data))
        seconds_per_epoch(job)
        free, total = torch.cuda.mem_get_info()
        return total - free, total


def require_same_versions(greeting: Greeting) -> None:
    """Raise UserError if a worker has other versions than this program."""
    for name, here in versions().items():
        if (there := greeting.versions[name]) != here:
            raise UserError(
                f"{name} is {there} on node {greeting.node} of the Ray cluster and {here} here; "
                "install the same version on both"
            )


class RayWorker:
    """An actor of the cluster. It may wait there for its place; `greeting` is done when it runs."""

    def __init__(
        self, train: Train, device: str, resources: Mapping[str, float], share: Callable[[TrainingJob], Any]
    ) -> None:
        actor: Any = ray.remote(Trainer).options(**resources, max_restarts=0, scheduling_strategy="SPREAD")
        self._actor = actor.remote(train)
        self._device = device
        self._share = share
        self.node = ""  # until its greeting has told it
        self.greeting: Future[Greeting] = _answer(self._actor.greet.remote())

    def start(self, job: TrainingJob) -> Future[EpochReport]:
        data = self._share(job)
        return _asked(lambda: self._actor.start.remote(replace(job, device=self._device), data))

    def next(self) -> Future[EpochReport]:
        return _asked(lambda: self._actor.next.remote())

    def gpu_memory(self, job: TrainingJob) -> Future[tuple[int, int]]:
        """The future of `Trainer.gpu_memory`."""
        data = self._share(job)
        return _asked(lambda: self._actor.gpu_memory.remote(replace(job, device=self._device), data))

    def stop(self) -> None:
        with suppress(Exception):  # of many kinds, when the cluster is lost; its actors have ended with it
            ray.kill(self._actor)


def _asked(call: Callable[[], Any]) -> Future[Any]:
    """Call an actor; the future of its answer, which fails at once if the cluster is lost."""
    try:
        return _answer(call())
    except Exception as error:  # Ray raises many kinds, plain Exception among them
        failed: Future[Any] = Future()
        failed.set_exception(BrokenExecutor(str(error)))
        return failed


def _answer(reference: Any) -> Future[Any]:
    """The future of an actor's answer. A dead actor raises BrokenExecutor, as a dead process does."""
    answer: Future[Any] = Future()

    def pass_on(done: Future[Any]) -> None:
        error = done.exception()
        if error is None:
            answer.set_result(done.result())
        elif isinstance(error, RayTaskError) and not _is_of_ray(error.cause):
            error.cause.__cause__ = error  # it has the traceback from the node
            answer.set_exception(error.cause)
        elif isinstance(error, RayError | OSError):  # OSError: a ray:// connection is lost
            answer.set_exception(BrokenExecutor(str(error)))
        else:
            answer.set_exception(error)

    reference.future().add_done_callback(pass_on)
    return answer


def _is_of_ray(cause: BaseException) -> bool:
    """Whether Ray made a task fail, by losing its images for example; plain RayError stands for other causes."""
    return isinstance(cause, RayError) and type(cause) is not RayError
