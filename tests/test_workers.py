"""Workers: real processes that train as this one does, end when they should, and keep within their memory."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import torch
from helpers import MNIST, SHAPE, interrupt, small_architecture, write_mnist_folder

from nas.datasets.dataset import Dataset
from nas.errors import UserError
from nas.network.architecture import Architecture
from nas.network.cost import cost
from nas.network.layers import Conv, Head, MaxPool, Transition
from nas.network.limits import Constraints
from nas.space.candidate import Candidate
from nas.space.recipe import Recipe
from nas.system.interrupts import interrupts_wait, without_interrupts
from nas.system.processes import keep_freed_memory, process_pool
from nas.training.job import DivergedError, EpochReport, TrainingJob
from nas.training.training import seconds_per_epoch, train
from nas.workers.local import LocalWorker, devices
from search_spaces.mnist import SPACE

LONG = TrainingJob(  # an epoch of it takes many seconds
    candidate=Candidate(architecture=small_architecture(32, 32), recipe=Recipe()),
    constraints=Constraints(),
    dataset=MNIST,
    seed=1,
)
# The largest activations among 1,088 feasible candidates of the MNIST space: 57,298 numbers an image.
WIDE = Architecture(
    input_shape=SHAPE,
    num_classes=10,
    layers=(
        *(Conv(out_channels=24, dropout=0.05), Transition(out_channels=16), Conv(out_channels=8, dropout=0.1)),
        *(Transition(out_channels=16), MaxPool(), Conv(out_channels=16, padding=0, dropout=0.1), MaxPool()),
        *(Transition(out_channels=16), Conv(out_channels=24, padding=0), MaxPool(), Transition(out_channels=8)),
    ),
    head=Head(),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_mnist_folder(tmp_path_factory.mktemp("mnist"))


@pytest.fixture(scope="module")
def workers() -> Iterator[tuple[LocalWorker, LocalWorker]]:
    pair = LocalWorker(), LocalWorker()
    yield pair
    for worker in pair:
        worker.stop()


@pytest.fixture
def worker() -> Iterator[LocalWorker]:
    worker = LocalWorker()
    yield worker
    worker.stop()


def a_job(dataset: Dataset, seed: int) -> TrainingJob:
    candidate = Candidate(architecture=small_architecture(), recipe=Recipe(epochs=2, batch_size=16))
    return TrainingJob(candidate=candidate, constraints=Constraints(), dataset=dataset, seed=seed)


def report_of(future: Future[EpochReport]) -> EpochReport:
    return replace(future.result(timeout=120), seconds=0)


def begin_long(worker: LocalWorker, folder: Dataset) -> Future[EpochReport]:
    """The future of a first epoch that has just begun."""
    worker.start(a_job(folder, 1)).result(timeout=120)  # the process is up
    future = worker.start(LONG)
    time.sleep(1.5)  # and MNIST is loaded
    assert not future.done()
    return future


# the same numbers, however many


def test_workers_train_as_this_process_does_alone_and_two_at_once(
    workers: tuple[LocalWorker, LocalWorker], folder: Dataset
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = {seed: [replace(report, seconds=0) for report in train(a_job(folder, seed))] for seed in (1, 2)}
    finally:
        torch.set_num_threads(threads)
    one, two = workers
    assert [report_of(one.start(a_job(folder, 1))), report_of(one.next())] == expected[1]
    pair = one.start(a_job(folder, 2)), two.start(a_job(folder, 1))
    assert [report_of(future) for future in pair] == [expected[2][0], expected[1][0]]
    pair = one.next(), two.next()
    assert [report_of(future) for future in pair] == [expected[2][1], expected[1][1]]


def test_start_gives_up_the_training_before(workers: tuple[LocalWorker, LocalWorker], folder: Dataset) -> None:
    worker = workers[0]
    first = report_of(worker.start(a_job(folder, 1)))
    assert report_of(worker.start(a_job(folder, 2))) != first
    assert report_of(worker.next()).epoch == 2


def test_errors_of_a_training_come_back_and_the_worker_goes_on(
    workers: tuple[LocalWorker, LocalWorker], folder: Dataset
) -> None:
    job = a_job(folder, 1)
    layers = (Conv(out_channels=4, batch_norm=False), Conv(out_channels=4, batch_norm=False))
    hopeless = Candidate(
        architecture=replace(job.candidate.architecture, layers=layers),
        recipe=replace(job.candidate.recipe, learning_rate=1e9),
    )
    with pytest.raises(DivergedError, match=r"^the training loss is (nan|inf) in epoch 1$"):
        workers[0].start(replace(job, candidate=hopeless)).result(timeout=120)
    with pytest.raises(UserError, match=r"^unknown data set 'nowhere': "):
        workers[0].start(replace(job, dataset=replace(folder, name="nowhere"))).result(timeout=120)
    assert report_of(workers[0].start(job)).epoch == 1


def test_interrupt_from_the_keyboard_does_not_reach_a_training(
    workers: tuple[LocalWorker, LocalWorker], folder: Dataset
) -> None:
    report_of(workers[0].start(a_job(folder, 1)))
    os.kill(workers[0].pid, signal.SIGINT)
    assert report_of(workers[0].next()).epoch == 2


EARLY_INTERRUPT = """
import sys
from helpers import SHAPE
from nas.datasets.dataset import Dataset
from nas.workers.local import LocalWorker
from test_workers import a_job

if __name__ == "__main__":
    worker = LocalWorker()
    future = worker.start(a_job(Dataset(name=sys.argv[1], input_shape=SHAPE), 1))
    try:
        print("started", flush=True)
        future.result(timeout=120)
    except KeyboardInterrupt:
        print("interrupted", future.result(timeout=120).epoch, flush=True)
    worker.stop()
"""


def test_interrupt_from_the_keyboard_does_not_reach_a_worker_that_is_starting(folder: Dataset, tmp_path: Path) -> None:
    with run_script(EARLY_INTERRUPT, folder, tmp_path) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        os.killpg(parent.pid, signal.SIGINT)  # as the terminal does
        output, errors = parent.communicate(timeout=120)
    assert (output, errors) == ("interrupted 1\n", "")


def test_a_worker_that_cannot_be_completed_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = process_pool(1)
    monkeypatch.setattr("nas.system.processes.process_pool", lambda _: pool)
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match=r"^can't start new thread$"):
        LocalWorker()
    (process,) = pool._processes.values()
    process.join(timeout=10)
    assert process.exitcode == -signal.SIGKILL


@contextmanager
def run_script(source: str, folder: Dataset, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A program of its own, with its own group of processes, given the data set's folder."""
    script = tmp_path / "script.py"
    script.write_text(source)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, str(script), folder.name]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
    ) as process:
        yield process


def test_an_interruption_of_somebody_elses_program_does_not_wait() -> None:
    reached: list[int] = []

    def interrupted() -> None:
        with interrupts_wait():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append(1)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        signal.signal(signal.SIGINT, before)
    assert reached == []


def test_an_interruption_waits_until_a_process_is_made_and_does_not_reach_it() -> None:
    told: list[str] = []
    before = signal.signal(signal.SIGINT, interrupt)

    def interrupted() -> None:
        with without_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            ran = subprocess.run([sys.executable, "-c", KILLS_ITSELF], capture_output=True, text=True, check=True)
            told.append(ran.stdout)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert told == ["alive\n"]
    assert signal.signal(signal.SIGINT, before) is interrupt
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_second_interruption_does_not_wait() -> None:
    reached: list[int] = []
    before = signal.signal(signal.SIGINT, interrupt)

    def interrupted() -> None:
        with interrupts_wait():
            for i in range(3):
                reached.append(i)
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert reached == [0, 1]
    assert signal.signal(signal.SIGINT, before) is interrupt


KILLS_ITSELF = """\
import os, signal
os.kill(os.getpid(), signal.SIGINT)
print("alive")
"""


# ends


def test_stop_ends_a_worker_in_the_middle_of_an_epoch(worker: LocalWorker, folder: Dataset) -> None:
    future = begin_long(worker, folder)
    started = time.monotonic()
    worker.stop()
    assert time.monotonic() - started < 2
    assert not Path(f"/proc/{worker.pid}").exists()
    assert future.done()


def test_stop_ends_a_worker_that_is_still_starting() -> None:
    worker = LocalWorker()
    future = worker.start(LONG)
    started = time.monotonic()
    worker.stop()
    assert time.monotonic() - started < 2
    assert future.done()


def test_killed_worker_is_a_failed_future_and_can_be_stopped(worker: LocalWorker, folder: Dataset) -> None:
    future = begin_long(worker, folder)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(BrokenExecutor):
        future.result(timeout=60)
    with pytest.raises(BrokenExecutor):  # died since its last answer: told by the future, not by the call
        worker.next().result(timeout=60)
    worker.stop()
    worker.stop()


SERVER = """
import multiprocessing.forkserver as forkserver, os, signal, sys
from nas.system.processes import start_server
start_server()
number = forkserver._forkserver._forkserver_pid
os.kill(number, signal.SIGINT)
print("torch" in sys.modules)
from nas.workers.local import LocalWorker
worker = LocalWorker()
print(worker.submit(os.getppid).result(timeout=60) == number)
worker.stop()
"""


def test_a_server_that_is_started_early_is_the_one_that_forks_workers_whatever_the_keyboard_says() -> None:
    told = subprocess.run([sys.executable, "-c", SERVER], capture_output=True, text=True, check=False)
    assert (told.stdout, told.stderr) == ("False\nTrue\n", "")


PARENT = """
import sys, time
from helpers import SHAPE
from nas.datasets.dataset import Dataset
from nas.workers.local import LocalWorker
from test_workers import begin_long

if __name__ == "__main__":
    worker = LocalWorker()
    begin_long(worker, Dataset(name=sys.argv[1], input_shape=SHAPE))
    print(worker.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_worker_ends_when_its_parent_is_killed(folder: Dataset, tmp_path: Path, stopped: bool) -> None:
    with run_script(PARENT, folder, tmp_path) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not has_ended(pid)
        if stopped:
            os.kill(pid, signal.SIGSTOP)
        parent.kill()
        deadline = time.monotonic() + 10
        while not has_ended(pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert has_ended(pid)


def has_ended(pid: int) -> bool:
    """Whether a process has ended; where nobody adopts orphans, it stays as a zombie."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


# memory


def test_worker_process_stays_below_a_gigabyte() -> None:
    """On full MNIST with its real recipe; the optimizer must not bring torch.compile's machinery in."""
    assert sum(prod(row.output_shape) for row in cost(WIDE).rows) == 57_298
    job = replace(LONG, candidate=Candidate(architecture=WIDE, recipe=SPACE.recipe), constraints=SPACE.constraints)
    with process_pool(1) as pool:
        pool.submit(seconds_per_epoch, job, 640).result(timeout=120)
        peak, modules = pool.submit(peak_bytes_and_modules).result()
        mapped, kept = pool.submit(bytes_mapped_and_kept).result()
    assert peak < 1e9
    assert not modules & {"torch._dynamo", "sympy"}
    assert (mapped, kept >= 30 << 20) == (0, True), "an array is not mapped, and its memory is kept when it is freed"


def peak_bytes_and_modules() -> tuple[int, set[str]]:
    match = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match is not None
    return 1024 * int(match[1]), set(sys.modules)


class MallInfo(ctypes.Structure):
    """As in the manual of mallinfo: `hblkhd` counts mapped bytes, `fordblks` those that are free and kept."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_int) for name in _names]


def bytes_mapped_and_kept() -> tuple[int, int]:
    """Mapped for an array of 30 MiB, and kept after it was freed."""
    mallinfo = ctypes.CDLL(None).mallinfo
    mallinfo.restype = MallInfo
    before = mallinfo()
    array = torch.ones(30 << 20, dtype=torch.uint8)
    during = mallinfo()
    del array
    return during.hblkhd - before.hblkhd, mallinfo().fordblks


def test_older_glibc_that_refuses_a_large_threshold_gets_its_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[int, int] = {}

    class OldLibc:
        """As in the manual: 1 when the value is taken, 0 when it is refused."""

        def mallopt(self, parameter: int, value: int) -> int:
            refused = parameter == -3 and value > 32 * 1024 * 1024  # M_MMAP_THRESHOLD in malloc.h
            if not refused:
                taken[parameter] = value
            return int(not refused)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: OldLibc())
    keep_freed_memory()
    assert taken == {-3: 32 * 1024 * 1024, -1: 1024**3}  # M_TRIM_THRESHOLD


# devices


def test_devices_of_the_cpu_are_one_for_each_core_or_as_many_as_asked() -> None:
    assert devices("cpu", None) == ("cpu",) * len(os.sched_getaffinity(0))
    assert devices("cpu", 3) == ("cpu", "cpu", "cpu")


def test_devices_of_several_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices("auto", None) == devices("cuda", None) == ("cuda:0", "cuda:1")
    assert devices("cuda", 3) == ("cuda:0", "cuda:1", "cuda:0")
    assert devices("cuda:1", None) == ("cuda:1",)
    assert devices("cuda:1", 2) == ("cuda:1", "cuda:1")


def test_devices_fall_back_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices("auto", 1) == ("cpu",)


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cuda:", "cuda:-1", "cpu:0", ""])
def test_unknown_device_is_an_error(device: str) -> None:
    message = f"--device {device!r} is unknown; give auto, cpu, cuda or cuda:N"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        devices(device, None)


@pytest.mark.parametrize(("device", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2)])
def test_missing_cuda_device_is_an_error(device: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    message = f"--device {device}: torch can use {count} CUDA devices here; give --device cpu"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        devices(device, None)
