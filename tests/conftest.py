"""What pytest gives to any test that asks for it."""

import ctypes
import signal
from collections.abc import Iterator

import pytest
import torch

from nas.study import baselines
from nas.training.kernels import kernels

# A shell ignores it for what it starts in the background, and so would every program that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def nothing_remembered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No tests find trainings of earlier ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "FOLDER", str(tmp_path_factory.mktemp("baselines")))
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As in a worker process; more threads only wait for each other on networks so small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def library() -> ctypes.CDLL:
    """The compiled kernels."""
    found = kernels()
    if found.library is None:
        pytest.skip(f"not run: {found.said}; get one with: apt-get install g++")
    return found.library
