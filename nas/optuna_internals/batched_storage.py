"""The storage of the one who writes a study, and its batches: what is written together."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState

from nas.optuna_internals.batches import Batches
from nas.optuna_internals.studies import storage_of


class OrderedStorage(RDBStorage, Batches):
    """Optuna's own storage, for a release whose tables are not known: each value is committed by itself, in order.

    What says that a trial has ended comes last, and only once a batch's `ready` has been called.
    """

    def __init__(self, like: RDBStorage) -> None:
        super().__init__(like.url, engine_kwargs=like.engine_kwargs)
        self._ready: Callable[[], None] = lambda: None

    @contextmanager
    def batch(self, ready: Callable[[], None] = lambda: None) -> Iterator[None]:
        outer, self._ready = self._ready, ready
        try:
            yield
        finally:
            self._ready = outer
            ready()

    def flush(self) -> None:
        """Nothing is left to write."""

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        self._ready()
        return super().set_trial_state_values(trial_id, state, values)


def for_writer(storage: RDBStorage) -> BaseStorage:
    """The same storage for the one who writes: the quick one, or Optuna's own where that has other tables."""
    try:
        from nas.optuna_internals.single_writer import SingleWriterStorage

        return SingleWriterStorage(storage)
    except (ImportError, AttributeError, TypeError):  # no such name, or a call more that storages must answer
        storage.engine.dispose()
        return OrderedStorage(storage)


@contextmanager
def batch(study: optuna.Study, ready: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Within it, what is written of a study that this process works on is committed at the end, or by `commit`.

    That is after `ready`; where it raises, nothing is committed.
    """
    storage = storage_of(study)
    if isinstance(storage, Batches):
        with storage.batch(ready):
            yield
    else:
        yield
        ready()


def commit(study: optuna.Study) -> None:
    """Write what is not written yet."""
    storage = storage_of(study)
    if isinstance(storage, Batches):
        storage.flush()


def close(study: optuna.Study) -> None:
    """Let go of the connections to its database; what is done with the study later opens them again."""
    storage = storage_of(study)
    if isinstance(storage, RDBStorage | Batches):
        storage.engine.dispose()


def to_share(study: optuna.Study) -> BaseStorage:
    """A study's storage for those who look at it again and again, as Optuna's own studies use it.

    That reads trials which have ended only once.
    """
    storage = storage_of(study)
    wrapped: Callable[[BaseStorage], BaseStorage] | None = getattr(optuna.storages, "get_storage", None)
    return storage if wrapped is None else wrapped(storage)
