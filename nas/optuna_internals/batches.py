"""A storage in which much is written at a time."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # --help needs none of it
    from sqlalchemy import Engine


class Batches(ABC):
    """What a storage of the one who writes can do beside Optuna's calls."""

    engine: "Engine"

    @abstractmethod
    def batch(self, ready: Callable[[], None] = lambda: None) -> AbstractContextManager[None]:
        """Commit at the end, together, what is written meanwhile; `flush` does it earlier.

        `ready` is called before each commit; where it raises, nothing is committed.
        """

    @abstractmethod
    def flush(self) -> None:
        """Commit what is not written yet, all of it or nothing: what fails now is not tried again later."""
