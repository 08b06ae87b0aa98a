"""How many threads compute."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

ALONE = Lock()  # the limit is one of the whole process


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Linear algebra of numpy and scipy in one thread; whoever wants that meanwhile waits.

    The workers have the cores, and a second thread waits for one of them at every step: measured beside two workers,
    `blueprint` proposes four times as fast with one.
    """
    with ALONE, _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> Any:
    import scipy.linalg  # noqa: F401, which has a BLAS of its own; only one that is loaded is limited
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
