"""The exported file as a program of its own: it judges its weights, and trains itself as the engine trains."""

import io
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import torch
from helpers import MNIST, small_architecture
from test_data import write_idx
from torch import Tensor

from nas.analysis.statistics import spread
from nas.codegen.card import ModelCard
from nas.codegen.exporting import export
from nas.codegen.source import model_source
from nas.datasets.augmentation import augment, normalize
from nas.datasets.dataset import Dataset
from nas.datasets.images import load_test, load_training
from nas.datasets.metrics import ACCURACY
from nas.datasets.reading import load_mnist
from nas.network.architecture import Architecture
from nas.network.limits import Constraints
from nas.network.module import build
from nas.space.candidate import Candidate
from nas.space.pictures import Pictures
from nas.space.recipe import Augmentation, Recipe
from nas.training.job import TrainingJob
from nas.training.optimizer import learning_rate
from nas.training.score import Score
from nas.training.training import Training, drawn_order, evaluate

RECIPE = Recipe(epochs=2, batch_size=16, mixed_precision=False)
ARCHITECTURE = small_architecture(6, 8)
TRAIN, TEST = 600, 200


def a_card(recipe: Recipe = RECIPE, test_accuracy: float | None = None, dataset: str = "mnist") -> ModelCard:
    data = load_training(MNIST, hold_out=False)
    return ModelCard(
        study="mnist",
        trial=1,
        dataset=dataset,
        pictures=Pictures(),
        metric=ACCURACY,
        seeds=(5,),
        epochs=recipe.epochs,
        recipe=recipe,
        environment={},
        n_train=TRAIN,
        search_accuracy=0.9,
        rerun=None,
        n_val=100,
        test=None if test_accuracy is None else spread([test_accuracy]),
        judged=None if test_accuracy is None else Score(loss=0.02, accuracy=test_accuracy, n=TEST),
        mean=data.mean,
        std=data.std,
        classes=data.classes,
    )


def namespace(source: str) -> dict[str, Any]:
    found: dict[str, Any] = {"__name__": "exported"}
    exec(compile(source, "model.py", "exec"), found)
    return found


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first images of MNIST's two parts, as torchvision keeps them."""
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", TRAIN), ("t10k", TEST)):
        mnist = load_mnist(files("nas.datasets.mnist"), split)
        raw = folder / "MNIST" / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        pixels: npt.NDArray[np.uint8] = mnist.images[:count, 0].numpy()
        write_idx(raw / f"{split}-images-idx3-ubyte", pixels)
        write_idx(raw / f"{split}-labels-idx1-ubyte", mnist.labels[:count].numpy().astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def weights() -> bytes:
    torch.manual_seed(3)
    network = build(ARCHITECTURE)
    network(torch.randn(64, 1, 28, 28))
    return safetensors.torch.save(network.state_dict())


def own_accuracy(weights: bytes) -> float:
    """Of the weights on the first test images, by the engine."""
    network = build(ARCHITECTURE)
    network.load_state_dict(safetensors.torch.load(weights))
    test = load_test(MNIST)
    part = replace(test, images=test.images[:TEST], labels=test.labels[:TEST])
    return evaluate(network, part, load_training(MNIST, hold_out=False), torch.device("cpu")).accuracy


def script(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(folder / "model.py"), *arguments], capture_output=True, text=True, check=False
    )


def test_evaluate_repeats_the_accuracy_of_the_weights(tmp_path: Path, data_folder: Path, weights: bytes) -> None:
    accuracy = own_accuracy(weights)
    export(tmp_path, ARCHITECTURE, weights, a_card(test_accuracy=accuracy), Constraints())
    done = script(tmp_path, "--evaluate", "--data", str(data_folder))
    assert (done.returncode, done.stderr) == (0, "")
    last = done.stdout.splitlines()[-1]
    assert last == f"test accuracy: {accuracy:.2%} ({round(accuracy * TEST)} of {TEST} images)"

    text = (tmp_path / "model.py").read_text(encoding="utf-8")
    (tmp_path / "model.py").write_text(text.replace(f"TEST_CORRECT = {round(accuracy * TEST)}", "TEST_CORRECT = 175"))
    done = script(tmp_path, "--evaluate", "--data", str(data_folder))
    assert (done.returncode, done.stderr) == (1, "it was 175 images when these weights were written\n")


def test_train_trains_from_scratch_and_judges_what_it_trained(
    tmp_path: Path, data_folder: Path, weights: bytes
) -> None:
    export(tmp_path, ARCHITECTURE, weights, a_card(Recipe(epochs=6, batch_size=16)), Constraints())
    done = script(tmp_path, "--train", "--seed", "7", "--data", str(data_folder))
    assert (done.returncode, done.stderr) == (0, "")
    *epochs, written, judged = done.stdout.splitlines()
    assert [line.split(":")[0] for line in epochs] == [f"epoch {i} of 6" for i in range(1, 7)]
    assert written == f"written: {tmp_path / 'trained.safetensors'}"
    assert judged.startswith("test accuracy: ")
    correct = own_accuracy((tmp_path / "trained.safetensors").read_bytes())
    assert judged == f"test accuracy: {correct:.2%} ({round(correct * TEST)} of {TEST} images)"
    assert correct > 0.4  # chance is 0.1
    assert (tmp_path / "weights.safetensors").read_bytes() == weights


def engine(architecture: Architecture, recipe: Recipe, images: Tensor, labels: Tensor) -> Training:
    """The engine's training of the same images."""
    job = TrainingJob(
        candidate=Candidate(architecture=architecture, recipe=recipe),
        constraints=Constraints(),
        dataset=MNIST,
        seed=11,
        hold_out=False,
    )
    training = Training(job)
    whole = training.data
    training.data = replace(whole, train=replace(whole.train, images=images, labels=labels))
    training.steps_per_epoch = len(labels) // recipe.batch_size
    return training


def test_train_takes_the_steps_of_the_engine(one_thread: None) -> None:
    """Without dropout both draw the same numbers: the same weights, order and augmentation, step by step.

    Over more than these ten steps, the least difference in rounding grows until nothing is the same.
    """
    architecture, recipe = small_architecture(6, 8, dropout=0.0), replace(RECIPE, epochs=1)
    whole = load_training(MNIST, hold_out=False).train
    images, labels = whole.images[:160], whole.labels[:160]
    model = namespace(model_source(architecture, a_card(recipe)))
    printed = io.StringIO()
    with redirect_stdout(printed):
        averaged = model["train"](images, labels, 11)
    training = engine(architecture, recipe, images, labels)
    trained = [training.epoch(epoch) for epoch in range(1, recipe.epochs + 1)]
    losses = [float(line.split("training loss ")[1].split(",")[0]) for line in printed.getvalue().splitlines()]
    assert losses == [pytest.approx(loss, abs=1e-4) for loss, _ in trained]
    expected = training.averaged.state_dict()
    for name, value in averaged.state_dict().items():
        assert torch.allclose(value.double(), expected[name].double(), atol=1e-4), name


@pytest.mark.parametrize(
    "change",
    [
        Augmentation(),
        Augmentation(rotation=0, shift=0, scale=0, shear=0),
        Augmentation(rotation=40, shear=0.5),
        Augmentation(horizontal_flip=True, vertical_flip=True),
    ],
)
def test_augmentation_is_that_of_the_engine(change: Augmentation) -> None:
    recipe = replace(RECIPE, augmentation=change)
    model = namespace(model_source(ARCHITECTURE, a_card(recipe)))
    images = load_training(MNIST).train.images[:32].float() / 255
    ours, theirs = (torch.Generator().manual_seed(4) for _ in range(2))
    assert torch.allclose(model["augment"](images, theirs), augment(images, change, ours), atol=1e-4)


def test_augmentation_of_oblong_images_is_that_of_the_engine() -> None:
    oblong = replace(ARCHITECTURE, input_shape=(1, 20, 36))
    model = namespace(model_source(oblong, a_card()))
    images = torch.rand(8, 1, 20, 36)
    ours, theirs = (torch.Generator().manual_seed(4) for _ in range(2))
    changed = augment(images, RECIPE.augmentation, ours)
    assert torch.allclose(model["augment"](images, theirs), changed, atol=1e-4)


def test_balanced_batches_are_those_of_the_engine() -> None:
    recipe = replace(RECIPE, balanced_batches=True)
    model = namespace(model_source(ARCHITECTURE, a_card(recipe)))
    labels = torch.tensor([0] * 90 + [1] * 7 + [3] * 3)
    ours, theirs = (torch.Generator().manual_seed(4) for _ in range(2))
    assert torch.equal(model["balanced_order"](labels, theirs), drawn_order(labels, recipe, ours))


@pytest.mark.parametrize(
    "recipe", [RECIPE, replace(RECIPE, warmup=0.0), replace(RECIPE, warmup=0.5, learning_rate=0.3)]
)
def test_learning_rate_is_that_of_the_engine(recipe: Recipe) -> None:
    model = namespace(model_source(ARCHITECTURE, a_card(recipe)))
    steps = 40
    ours = [learning_rate(recipe, step, steps) for step in range(steps)]
    assert [recipe.learning_rate * model["rate"]((step + 1) / steps) for step in range(steps)] == pytest.approx(ours)


def test_preprocess_is_the_engines_normalisation() -> None:
    card = a_card()
    model = namespace(model_source(ARCHITECTURE, card))
    images = load_training(MNIST).train.images[:10]
    assert torch.equal(model["preprocess"](images), normalize(images, card.mean, card.std))


def test_a_data_set_of_ones_own_has_neither_option() -> None:
    source = model_source(ARCHITECTURE, a_card(dataset="my digits"))
    assert "--train" not in source
    assert "--evaluate" not in source
    assert "torchvision" not in source
    assert Dataset(name="my digits", input_shape=(1, 28, 28)).name in source
