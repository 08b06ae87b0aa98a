"""What several tests share: real images in folders, a small space over them, architectures, made-up workers."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from threading import Barrier

import optuna
from PIL import Image

from nas.datasets.dataset import Dataset
from nas.datasets.images import load_test, load_training
from nas.datasets.reading import load_mnist
from nas.datasets.split import Images
from nas.network.architecture import Architecture
from nas.network.cost import Cost, MapTooSmallError, cost
from nas.network.layers import Conv, Head, MaxPool
from nas.network.limits import Constraints
from nas.optuna_internals.studies import new_study
from nas.space.candidate import Candidate
from nas.space.loading import load_space
from nas.space.recipe import Recipe
from nas.space.search_space import SearchSpace
from nas.space.suggestions import Trial
from nas.study.location import StudyLocation, locate
from nas.study.opening import writing
from nas.training.job import EpochReport, TrainingJob
from nas.workers.protocol import Worker

SHAPE = (1, 28, 28)
MNIST = Dataset(name="mnist", input_shape=SHAPE)
NOWHERE = Dataset(name="nowhere", input_shape=(1, 28, 28))  # the stand-in workers load nothing


def write_mnist_folder(folder: Path, *, train: int = 360, test: int = 120) -> Dataset:
    """The first images of MNIST's two parts as PNG files in `folder`/train/0..9 and `folder`/test/0..9."""
    for part, images, count in (("train", load_training(MNIST).train, train), ("test", load_test(MNIST), test)):
        for path, image in _named(folder / part, images, count):
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    return Dataset(name=str(folder), input_shape=SHAPE)


def _named(folder: Path, images: Images, count: int) -> Iterator[tuple[Path, Image.Image]]:
    for i in range(count):
        yield folder / str(int(images.labels[i])) / f"{i:04}.png", Image.fromarray(images.images[i, 0].numpy())


def small_architecture(first: int = 8, second: int = 8, *, dropout: float = 0.1) -> Architecture:
    """Two convolution cells, each pooled at once, so that it trains in milliseconds."""
    layers = (
        *(MaxPool(), Conv(out_channels=first, dropout=dropout), MaxPool()),
        *(Conv(out_channels=second), MaxPool()),
    )
    return Architecture(input_shape=SHAPE, num_classes=10, layers=layers, head=Head())


def small_space(
    dataset: Dataset, *, most: int = 8, epochs: int = 3, max_params: int = 400, batch_size: int = 16
) -> SearchSpace:
    """Two kernel counts from 2 to `most`: with 8, 49 candidates, of which 32 have at most 400 parameters."""
    recipe = Recipe(epochs=epochs, batch_size=batch_size)

    def sample(trial: Trial) -> Candidate:
        first, second = (trial.suggest_int(name, 2, most) for name in ("first", "second"))
        return Candidate(architecture=small_architecture(first, second), recipe=recipe)

    return SearchSpace(
        sample=sample, constraints=Constraints(max_params=max_params), dataset=dataset.name, recipe=recipe
    )


def sampled(count: int, seed: int = 0) -> list[tuple[Architecture, Cost]]:
    """Architectures of the default space that fit on their maps, whatever the limits, and their described costs."""
    space, rng = load_space("mnist"), random.Random(seed)
    found: list[tuple[Architecture, Cost]] = []
    while len(found) < count:
        architecture = space.decode(space.draw(rng)).architecture
        try:
            found.append((architecture, cost(architecture)))
        except MapTooSmallError:
            continue
    return found


# workers that train nothing

Answer = Callable[[TrainingJob, int], EpochReport]


def made_up(job: TrainingJob, epoch: int) -> EpochReport:
    """A report that depends on the job and the epoch alone."""
    accuracy = (job.seed % 1000) / 2000 + epoch / 10
    weights = f"{job.seed} {epoch}".encode()
    return EpochReport(
        epoch=epoch,
        train_loss=1 - accuracy,
        val_loss=2 - accuracy,
        val_accuracy=accuracy,
        seconds=0.5,
        environment={"precision": "float32"},
        weights=weights,
    )


class InstantWorker:
    """Answers at once, in this process: the reports of `answer`, or the exceptions that it raises."""

    node = ""

    def __init__(self, answer: Answer = made_up) -> None:
        self.answer = answer
        self.stopped = False

    def start(self, job: TrainingJob) -> Future[EpochReport]:
        self.job, self.epoch = job, 0
        return self.next()

    def next(self) -> Future[EpochReport]:
        assert not self.stopped
        self.epoch += 1
        future: Future[EpochReport] = Future()
        try:
            future.set_result(self.answer(self.job, self.epoch))
        except Exception as error:
            future.set_exception(error)
        return future

    def stop(self) -> None:
        self.stopped = True


class Workshop:
    """Makes workers, and remembers them."""

    def __init__(self, answer: Answer = made_up) -> None:
        self.answer = answer
        self.made: list[InstantWorker] = []

    def __call__(self) -> Worker:
        self.made.append(InstantWorker(self.answer))
        return self.made[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A study, and where its files go."""

    study: optuna.Study
    location: StudyLocation


def a_desk(folder: Path, name: str = "study") -> Desk:
    """With a study in memory, which is fifty times as fast as in a file."""
    study = new_study(name)
    return Desk(study=study, location=StudyLocation(name=name, storage="", folder=folder / name))


# interruptions


def interrupt(number: int, frame: object) -> None:
    """A handler of signals that waits where a command's own does; see `nas.system.interrupts`."""
    raise KeyboardInterrupt


interrupt.deferrable = True  # type: ignore[attr-defined]


# searches in processes of their own

DIGITS = (Path(__file__).parent / "data" / "digits.py").read_text(encoding="utf-8")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "OPTUNA_STORAGE"}


def make_task(folder: Path, images: int = 400) -> Path:
    """A working directory with the space digits.py, and real images of MNIST where it looks for them."""
    (folder / "digits.py").write_text(DIGITS, encoding="utf-8")
    mnist = load_mnist(files("nas.datasets.mnist"), "train")
    for i, (pixels, label) in enumerate(zip(mnist.images[:images], mnist.labels[:images].tolist(), strict=True)):
        path = folder / "digits" / str(label) / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[0].numpy()).save(path)
    return folder


def started(folder: Path, *arguments: str, storage: str | None = None) -> "subprocess.Popen[str]":
    """A search of the made-up task with one worker, the leader of its own process group."""
    environment = ENVIRONMENT if storage is None else {**ENVIRONMENT, "OPTUNA_STORAGE": storage}
    return subprocess.Popen(
        [sys.executable, "-m", "nas.search", "--space", "digits.py", "--jobs", "1", "--device", "cpu", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a command printed and how it ended."""

    status: int
    out: str
    err: str


def ended(process: "subprocess.Popen[str]", seconds: float = 120.0) -> Ended:
    """Waits for its end."""
    out, err = process.communicate(timeout=seconds)
    return Ended(status=process.returncode, out=out, err=err)


def begin_at_once(storage: str, folder: Path) -> None:
    """Make four studies in one new database at the same moment."""
    ready = Barrier(4)

    def begin(name: str) -> None:
        ready.wait()
        with writing(locate(name, folder, storage), {"a": 1}) as study:
            assert study.user_attrs["settings"] == {"a": 1}

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(begin, "abcd"))
