"""Training: the same job gives the same numbers, and each part does what its name says."""

import math
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from helpers import MNIST, SHAPE, small_architecture, write_mnist_folder
from torch import Tensor
from torch.nn import functional as F

from nas.datasets.augmentation import prepare
from nas.datasets.dataset import Dataset
from nas.datasets.files import read_files
from nas.datasets.images import TrainingData, forget, load_training
from nas.datasets.metrics import BALANCED_ACCURACY
from nas.datasets.split import Images, Pool
from nas.network.architecture import Architecture
from nas.network.layers import Conv, Head
from nas.network.limits import Constraints
from nas.network.measure import LimitBrokenError
from nas.network.module import build
from nas.space.candidate import Candidate
from nas.space.recipe import Augmentation, Recipe
from nas.training.job import DivergedError, EpochReport, OutOfMemoryError, TrainingJob
from nas.training.training import (
    CHUNK,
    Training,
    drawn_order,
    evaluate,
    seconds_per_epoch,
    shuffled_batches,
    train,
    weights_of,
)

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, batch_size=16)
AS_THEY_ARE = Augmentation(rotation=0, shift=0, scale=0, shear=0)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_mnist_folder(tmp_path_factory.mktemp("mnist"))


def a_job(dataset: Dataset, *, seed: int = 1, recipe: Recipe = RECIPE) -> TrainingJob:
    candidate = Candidate(architecture=small_architecture(), recipe=recipe)
    return TrainingJob(candidate=candidate, constraints=Constraints(), dataset=dataset, seed=seed)


def reports(job: TrainingJob) -> list[EpochReport]:
    return [replace(report, seconds=0) for report in train(job)]


# the same numbers


def test_train_gives_equal_reports_whatever_was_trained_before(folder: Dataset) -> None:
    first = reports(a_job(folder))
    next(train(a_job(folder, seed=2)))
    torch.rand(3)
    assert reports(a_job(folder)) == first  # weights included, bit for bit
    assert [report.epoch for report in first] == [1, 2]


@pytest.mark.parametrize("capable", [True, False])
def test_train_uses_bfloat16_where_the_recipe_allows_it_and_the_cpu_computes_in_it(
    folder: Dataset, capable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": capable}, raising=False)
    mixed = list(train(a_job(folder)))
    plain = list(train(a_job(folder, recipe=replace(RECIPE, mixed_precision=False))))
    assert {report.environment["precision"] for report in mixed} == {"bfloat16" if capable else "float32"}
    assert {report.environment["precision"] for report in plain} == {"float32"}
    assert ([report.weights for report in mixed] != [report.weights for report in plain]) == capable
    assert mixed[-1].train_loss == pytest.approx(plain[-1].train_loss, rel=0.1)


def test_train_depends_on_the_seed(folder: Dataset) -> None:
    one, two = (next(train(a_job(folder, seed=seed))) for seed in (1, 2))
    assert (one.weights, one.train_loss) != (two.weights, two.train_loss)


def test_train_scores_the_weights_that_it_reports(folder: Dataset) -> None:
    *_, last = train(a_job(folder))
    network = build(small_architecture())
    network.load_state_dict(safetensors.torch.load(last.weights))
    data = load_training(folder)
    with torch.no_grad():
        scores = network.eval()(prepare(data.validation.images, data.mean, data.std))
    assert last.val_accuracy == (scores.argmax(1) == data.validation.labels).sum().item() / 60
    assert last.val_loss == pytest.approx(F.cross_entropy(scores, data.validation.labels).item(), rel=1e-5)


def test_train_learns(tmp_path: Path) -> None:
    dataset = write_mnist_folder(tmp_path, train=600)
    *_, last = train(a_job(dataset, recipe=Recipe(epochs=6, batch_size=16)))
    assert last.val_accuracy is not None
    assert last.val_accuracy > 0.5  # chance is 0.1
    assert last.train_loss < math.log(10)


def test_train_reads_no_test_images(folder: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = list[bool]()

    def reading(dataset: Dataset, *, train: bool) -> Pool:
        parts.append(train)
        return read_files(dataset, train=train)

    monkeypatch.setattr("nas.datasets.reading.read_files", reading)
    forget()
    next(train(a_job(folder)))
    assert parts == [True]


# less memory


def test_half_batches_add_up_to_the_whole_ones(folder: Dataset) -> None:
    """Without batch normalization, whose statistics are those of each half, and without dropout."""
    layers = (Conv(out_channels=6, batch_norm=False), Conv(out_channels=6, batch_norm=False))
    architecture = Architecture(input_shape=SHAPE, num_classes=10, layers=layers, head=Head())
    recipe = replace(RECIPE, batch_size=24, mixed_precision=False)
    job = replace(a_job(folder), candidate=Candidate(architecture=architecture, recipe=recipe))
    whole, halves = (list(train(replace(job, micro_batches=n))) for n in (1, 2))
    for one, other in zip(whole, halves, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.val_loss == pytest.approx(other.val_loss, rel=1e-4)
    assert whole[-1].weights != halves[-1].weights


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError("Unable to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_no_memory_left_is_one_kind_of_error(
    folder: Dataset, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(Training, "step", fails)
    with pytest.raises(OutOfMemoryError, match=f"^{re.escape(str(error))}$"):
        next(train(a_job(folder)))


def test_other_runtime_errors_are_what_they_are(folder: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(Training, "step", fails)
    with pytest.raises(RuntimeError, match=r"^no kernel image$"):
        next(train(a_job(folder)))


# what ends a training


def test_train_says_that_it_diverged(folder: Dataset) -> None:
    layers = (Conv(out_channels=4, batch_norm=False), Conv(out_channels=4, batch_norm=False))
    architecture = Architecture(input_shape=SHAPE, num_classes=10, layers=layers, head=Head())
    candidate = Candidate(architecture=architecture, recipe=replace(RECIPE, learning_rate=1e9))
    with pytest.raises(DivergedError, match=r"^the training loss is (nan|inf) in epoch 1$"):
        next(train(replace(a_job(folder), candidate=candidate)))


def test_train_says_that_only_the_last_step_of_an_epoch_diverged(folder: Dataset) -> None:
    """With one step an epoch, the training loss is that of the first weights, which are sound."""
    layers = (Conv(out_channels=4, batch_norm=False), Conv(out_channels=4, batch_norm=False))
    architecture = Architecture(input_shape=SHAPE, num_classes=10, layers=layers, head=Head())
    candidate = Candidate(architecture=architecture, recipe=replace(RECIPE, batch_size=300, learning_rate=1e30))
    with pytest.raises(DivergedError, match=r"^the validation loss is (nan|inf) in epoch 1$"):
        next(train(replace(a_job(folder), candidate=candidate)))


def test_training_refuses_a_network_over_a_limit(folder: Dataset) -> None:
    job = replace(a_job(folder), constraints=Constraints(max_params=700))
    message = "770 params, 10.0 % over the limit of 700"
    with pytest.raises(LimitBrokenError, match=f"^{re.escape(message)}$"):
        Training(job)  # so no step was made


# evaluation


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_leaves_the_mode_and_the_statistics(folder: Dataset, training: bool) -> None:
    data, network = load_training(folder), build(small_architecture())
    network.train(training)
    before = weights_of(network)
    evaluate(network, data.validation, data, CPU)
    assert network.training is training
    assert all(part.training is training for part in network.modules())
    assert weights_of(network) == before


def test_evaluate_counts_every_image_of_an_odd_number() -> None:
    data, network = load_training(MNIST), build(small_architecture())
    images = Images(images=data.validation.images[:617], labels=data.validation.labels[:617])
    score = evaluate(network, images, data, CPU)
    with torch.no_grad():
        scores = network.eval()(prepare(images.images, data.mean, data.std))
    assert score.n == 617
    assert score.accuracy == (scores.argmax(1) == images.labels).sum().item() / 617
    predicted = scores.argmax(1).tolist()
    truth = zip(range(617), images.labels.tolist(), predicted, strict=True)
    assert score.mistakes == tuple(answer for answer in truth if answer[1] != answer[2])
    assert score.mistakes, "an untrained network makes some"
    assert score.loss == pytest.approx(F.cross_entropy(scores, images.labels).item(), rel=1e-5)


def test_evaluate_by_balanced_accuracy_counts_every_class_the_same() -> None:
    data, network = replace(load_training(MNIST), metric=BALANCED_ACCURACY), build(small_architecture())
    images, labels = data.validation.images[:700], data.validation.labels[:700]
    chosen = (labels < 2) | (torch.arange(700) % 5 == 0)  # many of two classes, few of the others
    images, labels = images[chosen], labels[chosen]
    score = evaluate(network, Images(images=images, labels=labels), data, CPU)
    with torch.no_grad():
        scores = network.eval()(prepare(images, data.mean, data.std))
    of_classes = [labels == label for label in range(10)]
    losses = [F.cross_entropy(scores[of], labels[of]).item() for of in of_classes]
    recalls = [(scores[of].argmax(1) == labels[of]).float().mean().item() for of in of_classes]
    assert score.loss == pytest.approx(sum(losses) / 10, rel=1e-4)
    assert score.accuracy == pytest.approx(sum(recalls) / 10, rel=1e-4)
    assert score.counts == tuple(int(of.sum()) for of in of_classes)


# batches


def test_balanced_batches_draw_every_class_equally_often_and_every_image_of_it() -> None:
    labels = torch.tensor([0] * 90 + [1] * 7 + [3] * 3)
    recipe = replace(RECIPE, balanced_batches=True)
    order = drawn_order(labels, recipe, torch.Generator().manual_seed(0))
    assert torch.bincount(labels[order]).tolist() == [33, 33, 0, 34]
    times = torch.bincount(order, minlength=100)
    assert set(times[90:97].tolist()) <= {4, 5}
    assert set(times[97:].tolist()) <= {11, 12}
    assert times[:90].max() == 1
    assert not torch.equal(order, order.sort().values), "in no order"


def numbered(n: int) -> TrainingData:
    """Images of one pixel that holds the image's number, which is its label, too."""
    numbers = torch.arange(n)
    images = Images(images=(numbers % 256).to(torch.uint8).view(-1, 1, 1, 1), labels=numbers)
    return TrainingData(train=images, validation=images, mean=(0.0,), std=(1.0,), classes=())


def epoch_of(data: TrainingData, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    return shuffled_batches(data, Recipe(batch_size=64, augmentation=AS_THEY_ARE), generator, CPU)


def test_batches_are_a_permutation_without_the_incomplete_last() -> None:
    n = 2 * CHUNK + 100  # 33 whole batches of 64 in three chunks, and 36 images
    batches = list(epoch_of(numbered(n), torch.Generator().manual_seed(0)))
    assert [len(labels) for _, labels in batches] == [64] * 33
    labels = torch.cat([labels for _, labels in batches])
    assert len(set(labels.tolist())) == 33 * 64
    assert labels.tolist() != sorted(labels.tolist())
    pixels = torch.cat([images.flatten() for images, _ in batches])
    torch.testing.assert_close(pixels * 255, (labels % 256).float())


def test_batches_differ_from_epoch_to_epoch_and_not_from_seed_to_same_seed() -> None:
    data, generator = numbered(200), torch.Generator().manual_seed(0)
    first, second = (torch.cat([labels for _, labels in epoch_of(data, generator)]) for _ in range(2))
    again = torch.cat([labels for _, labels in epoch_of(data, torch.Generator().manual_seed(0))])
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


def test_batches_of_fewer_images_than_a_batch_are_one() -> None:
    ((images, labels),) = epoch_of(numbered(10), torch.Generator())
    assert images.shape == (10, 1, 1, 1)
    assert sorted(labels.tolist()) == list(range(10))


# time


def test_seconds_per_epoch_is_about_what_an_epoch_takes(folder: Dataset) -> None:
    job = a_job(folder, recipe=replace(RECIPE, epochs=3))
    *_, last = train(job)
    assert last.seconds / 10 < seconds_per_epoch(job, images=128) < 10 * last.seconds


def test_seconds_per_epoch_times_more_steps_than_an_epoch_has(folder: Dataset) -> None:
    job = a_job(folder, recipe=replace(RECIPE, batch_size=300))  # one step an epoch: any warm-up uses it up
    started = time.perf_counter()
    report = next(train(job))
    most = time.perf_counter() - started
    assert report.seconds / 10 < seconds_per_epoch(job, images=2_700) < 10 * most
