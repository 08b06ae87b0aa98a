"""What the scheduler needs of a worker and of a fleet, wherever they run."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeAlias

from nas.training.training import EpochReport, TrainingJob

TRIES = 3  # to make a worker ...


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
