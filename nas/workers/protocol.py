"""What the scheduler needs of a worker and of a fleet, wherever they run."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeAlias

from nas.training.job import EpochReport, TrainingJob

TRIES = 3  # to make a worker, before that is an error


class Worker(Protocol):
    """What the scheduler needs of a worker, wherever it runs."""

    @property
    def node(self) -> str:
        """The name of its machine, for a person to read; empty for this machine."""

    def start(self, job: TrainingJob) -> Future[EpochReport]:
        """Abandon the previous training and begin another; the future of its first epoch."""

    def next(self) -> Future[EpochReport]:
        """Go on with the training begun last; the future of its next epoch."""

    def stop(self) -> None:
        """End the worker at once, whatever it is doing."""


class Fleet(Protocol):
    """The workers that a scheduler may hire; their number may change at any moment."""

    @property
    def devices(self) -> Sequence[str]:
        """The device of each worker that there is room for now, for a person to read."""

    @property
    def news(self) -> deque[str]:
        """Messages for the person at the terminal; whoever shows one removes it."""

    def hire(self, most: int) -> Iterable[Worker]:
        """Hire the workers that are available now; with those hired before, they are at most `most`.

        Raises:
            UserError: no worker can be made.
        """

    def dismiss(self, worker: Worker) -> None:
        """Stop a worker; another may be hired in its place."""


Train: TypeAlias = Callable[[TrainingJob], Iterator[EpochReport]]
