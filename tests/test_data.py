"""Data: what is loaded, how it is split, normalised and augmented, and what a person is told when it cannot be."""

import functools
import gzip
import hashlib
import http.server
import importlib.resources
import math
import pickle
import re
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchvision.datasets
import torchvision.transforms.functional as vision
from hypothesis import given
from hypothesis import strategies as st

from nas.datasets.augmentation import augment, normalize, prepare, sampling_grid
from nas.datasets.dataset import Dataset
from nas.datasets.images import channel_statistics, fingerprint, forget, load_test, load_training
from nas.datasets.reading import MNIST_SHA256, MOST_BYTES, TORCHVISION, load_mnist
from nas.datasets.split import stratified_sixth
from nas.errors import UserError
from nas.space.recipe import Augmentation

MNIST = Dataset(name="mnist", input_shape=(1, 28, 28))
EMBEDDED = Path(str(importlib.resources.files("nas.datasets.mnist")))
UNCHANGED = Augmentation(rotation=0, shift=0, scale=0, shear=0)
# Y. LeCun, C. Cortes: images per digit of the two parts
TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]

opened: list[str] = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)


@contextmanager
def recorded_files() -> Iterator[list[str]]:
    """The paths that the process opens meanwhile."""
    opened.clear()
    yield opened


def says(message: str) -> str:
    return f"^{re.escape(message)}$"


def random_pixels(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


# MNIST


def test_mnist_is_split_into_50000_and_10000() -> None:
    data = load_training(MNIST)
    assert (data.train.images.shape, data.validation.images.shape) == ((50_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert (data.train.images.dtype, data.train.labels.dtype) == (torch.uint8, torch.int64)
    assert (len(data.train), len(data.validation)) == (50_000, 10_000)
    assert data.classes == tuple("0123456789")


def test_mnist_validation_is_a_sixth_of_every_class() -> None:
    data = load_training(MNIST)
    train, validation = (np.bincount(part.labels.numpy()) for part in (data.train, data.validation))
    assert list(train + validation) == TRAIN_COUNTS
    assert np.abs(validation - np.array(TRAIN_COUNTS) / 6).max() < 1


def test_mnist_parts_hold_every_image_once_and_in_the_original_order() -> None:
    data = load_training(MNIST)
    images = gzip.decompress((EMBEDDED / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((EMBEDDED / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
    everything = [images[i : i + 784] + labels[i // 784 : i // 784 + 1] for i in range(0, len(images), 784)]
    train, validation = (
        [image.numpy().tobytes() + bytes([label]) for image, label in zip(part.images, part.labels, strict=True)]
        for part in (data.train, data.validation)
    )
    assert sorted(train + validation) == sorted(everything)
    in_train = set(train)  # no two images of MNIST's training part are equal
    assert train == [image for image in everything if image in in_train]
    assert validation == [image for image in everything if image not in in_train]


def test_mnist_first_training_image_is_the_well_known_five() -> None:
    images = load_mnist(EMBEDDED, "train")
    assert images.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert images.images[0, 0, 5, 12:16].tolist() == [3, 18, 18, 18]


def test_mnist_test_images() -> None:
    images = load_test(MNIST)
    assert images.images.shape == (10_000, 1, 28, 28)
    assert torch.bincount(images.labels).tolist() == TEST_COUNTS
    assert images.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_split_of_mnist_never_changes() -> None:
    """Published scores compare only while the validation images stay the same."""
    labels = load_mnist(EMBEDDED, "train").labels.numpy()
    indices = np.flatnonzero(stratified_sixth(labels)).astype("<i4")
    assert (
        hashlib.sha256(indices.tobytes()).hexdigest()
        == "37db4cbb0d736c6ac358b07cb2ea27b886e37c7c3ee07f063e5de6420475e640"
    )


def test_load_training_opens_no_test_file_of_mnist() -> None:
    forget()
    with recorded_files() as files:
        load_training(MNIST)
    names = {Path(name).name for name in files}
    assert {"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"} <= names
    assert not [name for name in names if name.startswith("t10k")]


def test_load_training_loads_once() -> None:
    assert load_training(MNIST) is load_training(Dataset(name="mnist", input_shape=(1, 28, 28)))


def test_dataset_survives_pickling() -> None:
    assert pickle.loads(pickle.dumps(MNIST)) == MNIST


def test_readme_lists_the_checksums() -> None:
    rows = re.findall(r"\| ([\w-]+-ubyte) \| ([0-9a-f]{64}) \|", (EMBEDDED / "README.md").read_text())
    assert dict(rows) == MNIST_SHA256


def test_mnist_of_another_shape_is_an_error() -> None:
    message = "data set 'mnist': input_shape (3, 32, 32) must be (1, 28, 28), as its images are"
    for load in (load_training, load_test):
        with pytest.raises(UserError, match=says(message)):
            load(Dataset(name="mnist", input_shape=(3, 32, 32)))


def test_missing_mnist_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    with pytest.raises(UserError, match=says(f"{path} is missing; reinstall nas")):
        load_mnist(tmp_path, "t10k")


def test_truncated_mnist_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes((EMBEDDED / path.name).read_bytes()[:1000])
    reason = "Compressed file ended before the end-of-stream marker was reached"
    with pytest.raises(UserError, match=says(f"{path} cannot be read ({reason}); reinstall nas")):
        load_mnist(tmp_path, "t10k")


def test_mnist_file_that_is_not_gzip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(b"<html>")
    with pytest.raises(UserError, match=says(f"{path} cannot be read (Not a gzipped file (b'<h')); reinstall nas")):
        load_mnist(tmp_path, "t10k")


def test_changed_mnist_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(b"something else"))
    message = (
        f"{path} is damaged: the SHA-256 of its contents is {hashlib.sha256(b'something else').hexdigest()}, "
        "not 0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7; reinstall nas"
    )
    with pytest.raises(UserError, match=says(message)):
        load_mnist(tmp_path, "t10k")


def test_unknown_dataset_names_the_known_ones() -> None:
    message = (
        "unknown data set 'mnits': known are mnist, fashion_mnist, kmnist, emnist, cifar10, "
        "or the path of a folder of class folders, or of a table of files; "
        f"there is no folder or file {Path('mnits').resolve()}"
    )
    with pytest.raises(UserError, match=says(message)):
        load_training(Dataset(name="mnits", input_shape=(1, 28, 28)))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a" * 5_000, "File name too long"),
        ("a\0b", "embedded null byte"),
        ("~no-such-user/x", "Could not determine home directory."),
    ],
)
def test_a_name_that_no_folder_can_have_is_an_unknown_dataset(name: str, reason: str) -> None:
    message = (
        f"unknown data set {name!r}: known are mnist, fashion_mnist, kmnist, emnist, cifar10, "
        f"or the path of a folder of class folders, or of a table of files; that can be no folder here ({reason})"
    )
    with pytest.raises(UserError, match=says(message)):
        load_training(Dataset(name=name, input_shape=(1, 28, 28)))


# splits and statistics


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_stratified_sixth_takes_an_exact_fair_share(counts: list[int]) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    mask = stratified_sixth(labels)
    taken = np.bincount(labels[mask], minlength=len(counts))
    share = np.array(counts) * mask.sum() / len(labels)
    assert mask.sum() == math.ceil(len(labels) / 6)
    assert np.abs(taken - share).max() < 1
    assert all(taken[np.array(counts) >= 6] >= 1)


def test_statistics_are_those_of_the_training_part() -> None:
    data = load_training(MNIST)
    pixels = data.train.images.numpy().astype(np.float64) / 255
    assert data.mean == pytest.approx([pixels.mean()], rel=1e-12)
    assert data.std == pytest.approx([pixels.std()], rel=1e-12)


def test_statistics_are_per_channel() -> None:
    images = random_pixels(5, 3, 4, 6) // torch.tensor([1, 2, 3], dtype=torch.uint8)[:, None, None]
    mean, std = channel_statistics(images)
    pixels = images.numpy().astype(np.float64) / 255
    assert mean == pytest.approx(pixels.mean(axis=(0, 2, 3)), rel=1e-12)
    assert std == pytest.approx(pixels.std(axis=(0, 2, 3)), rel=1e-12)


def test_statistics_of_a_constant_channel_normalise_it_to_zero() -> None:
    images = torch.full((2, 1, 3, 3), 51, dtype=torch.uint8)
    mean, std = channel_statistics(images)
    assert mean == pytest.approx((0.2,))
    assert std == (1.0,)


# normalising and augmenting


def test_normalize_follows_its_formula() -> None:
    images = random_pixels(4, 3, 5, 7)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    expected = np.stack([(images.numpy()[:, c] / 255 - mean[c]) / std[c] for c in range(3)], axis=1)
    normalised = normalize(images, mean, std)
    assert normalised.dtype == torch.float32
    np.testing.assert_allclose(normalised.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_prepare_without_augmentation_is_normalize_in_channels_last() -> None:
    images = random_pixels(4, 3, 5, 7)
    before = images.clone()
    prepared = prepare(images, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert torch.equal(prepared, normalize(images, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    assert prepared.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_prepare_with_ranges_of_zero_changes_nothing() -> None:
    images = random_pixels(4, 1, 8, 8)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(
        prepare(images, (0.1,), (0.3,), UNCHANGED, generator), prepare(images, (0.1,), (0.3,), None, None)
    )


def test_prepare_fills_with_normalised_black() -> None:
    images = torch.full((200, 1, 8, 8), 255, dtype=torch.uint8)
    moved = Augmentation(rotation=0, shift=4, scale=0, shear=0)
    prepared = prepare(images, (0.25,), (0.5,), moved, torch.Generator().manual_seed(0))
    assert prepared.min().item() == -0.5
    assert prepared.max().item() == pytest.approx(1.5)


def test_prepare_is_repeatable_bit_for_bit() -> None:
    images = load_training(MNIST).train.images[:64]
    draw = functools.partial(prepare, images, (0.13,), (0.31,), Augmentation())
    first = draw(torch.Generator().manual_seed(3))
    assert torch.equal(first, draw(torch.Generator().manual_seed(3)))
    assert not torch.equal(first, draw(torch.Generator().manual_seed(4)))


def test_prepare_needs_a_generator_to_augment() -> None:
    with pytest.raises(ValueError, match=says("prepare: augmentation needs a generator, not None")):
        prepare(random_pixels(1, 1, 4, 4), (0.0,), (1.0,), Augmentation())


@pytest.mark.parametrize(
    ("degrees", "right", "down", "scale", "shear_degrees"),
    [(30, 0, 0, 1, 0), (0, 3, -2, 1, 0), (0, 0, 0, 1.25, 0), (0, 0, 0, 1, 20), (-25, 2, 1, 0.8, -15)],
)
@pytest.mark.parametrize("size", [(28, 28), (12, 20)])
def test_sampling_grid_agrees_with_torchvision(
    size: tuple[int, int], degrees: float, right: int, down: int, scale: float, shear_degrees: float
) -> None:
    images = random_pixels(2, 3, *size).float()
    changes = torch.tensor([[math.radians(degrees), right, down, scale, -math.tan(math.radians(shear_degrees))]] * 2)
    ours = torch.nn.functional.grid_sample(images, sampling_grid(changes, *size), align_corners=False)
    theirs = vision.affine(
        images, degrees, [right, down], scale, [shear_degrees, 0.0], interpolation=vision.InterpolationMode.BILINEAR
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("augmentation", "drawn", "limit"),
    [
        (Augmentation(rotation=10, shift=0, scale=0, shear=0), ("turn",), math.radians(10)),
        (Augmentation(rotation=0, shift=2, scale=0, shear=0), ("right", "down"), 2.0),
        (Augmentation(rotation=0, shift=0, scale=0.1, shear=0), ("scale",), 0.1),
        (Augmentation(rotation=0, shift=0, scale=0, shear=0.2), ("shear",), 0.2),
    ],
)
def test_augment_draws_uniformly_within_its_range_and_nothing_else(
    augmentation: Augmentation, drawn: tuple[str, ...], limit: float
) -> None:
    """Images whose values are their own coordinates show where each pixel came from."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    images = torch.stack([x, y]).expand(4000, 2, 32, 32)
    source = augment(images, augmentation, torch.Generator().manual_seed(0))
    along_x = (source[:, :, 16, 18] - source[:, :, 16, 14]) / 4
    along_y = (source[:, :, 18, 16] - source[:, :, 14, 16]) / 4
    centre = source[:, :, 15:17, 15:17].mean(dim=(2, 3)) - 15.5
    measured = {
        "turn": torch.atan2(-along_x[:, 1], along_x[:, 0]),
        "right": -centre[:, 0],
        "down": -centre[:, 1],
        "scale": 1 / along_x.norm(dim=1) - 1,
        "shear": -along_y[:, 0] / along_x[:, 0],
    }
    if drawn == ("turn",):
        del measured["shear"]  # that formula holds for an upright image
    for name, values in measured.items():
        if name not in drawn:
            assert values.abs().max().item() < 1e-4
            continue
        assert values.abs().max().item() == pytest.approx(limit, rel=0.01)
        assert values.mean().item() == pytest.approx(0, abs=0.05 * limit)
        assert values.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.03)


@pytest.mark.parametrize(("name", "dim"), [("horizontal_flip", 3), ("vertical_flip", 2)])
def test_augment_flips_every_second_image(name: str, dim: int) -> None:
    images = torch.rand(400, 2, 5, 6)
    flipping = replace(UNCHANGED, **{name: True})
    changed = augment(images, flipping, torch.Generator().manual_seed(0))
    flipped = (changed == images.flip(dim)).flatten(1).all(1)
    assert torch.equal(changed[~flipped], images[~flipped])
    assert 160 < int(flipped.sum()) < 240


def test_augment_flips_both_ways_apart_from_each_other() -> None:
    images = torch.rand(400, 1, 5, 6)
    flipping = replace(UNCHANGED, horizontal_flip=True, vertical_flip=True)
    changed = augment(images, flipping, torch.Generator().manual_seed(0))
    ways = [images, images.flip(3), images.flip(2), images.flip(2, 3)]
    counts = [int((changed == way).flatten(1).all(1).sum()) for way in ways]
    assert sum(counts) == 400
    assert all(60 < count < 140 for count in counts)


def test_augment_returns_the_same_pixels_for_ranges_of_zero() -> None:
    images = torch.rand(3, 1, 5, 5)
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert torch.equal(augment(images, UNCHANGED, generator), images)
    assert torch.equal(generator.get_state(), state)


# torchvision's data sets, from tiny files in their own formats


def write_idx(path: Path, values: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(header + values.tobytes())


def tiny_part(seed: int, *, classes: int = 10) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Images (12 · classes, 28, 28) and labels."""
    labels = np.tile(np.arange(classes, dtype=np.uint8), 12)
    return np.random.default_rng(seed).integers(0, 256, (len(labels), 28, 28), dtype=np.uint8), labels


def write_tiny(folder: Path, *, prefix: str = "", test: str = "t10k", classes: int = 10) -> None:
    for seed, part in enumerate(("train", test)):
        images, labels = tiny_part(seed, classes=classes)
        write_idx(folder / f"{prefix}{part}-images-idx3-ubyte", images)
        write_idx(folder / f"{prefix}{part}-labels-idx1-ubyte", labels)


@pytest.mark.parametrize(
    ("name", "folder", "first_class"), [("fashion_mnist", "FashionMNIST", "T-shirt/top"), ("kmnist", "KMNIST", "o")]
)
def test_idx_datasets_are_read_without_network(name: str, folder: str, first_class: str, tmp_path: Path) -> None:
    write_tiny(tmp_path / folder / "raw")
    dataset = Dataset(name=name, input_shape=(1, 28, 28), data_dir=str(tmp_path))
    with recorded_files() as files:
        data = load_training(dataset)
    assert not [path for path in files if "t10k" in path]
    mask = stratified_sixth(tiny_part(0)[1].astype(np.int64))
    np.testing.assert_array_equal(data.validation.images[:, 0], tiny_part(0)[0][mask])
    np.testing.assert_array_equal(data.train.images[:, 0], tiny_part(0)[0][~mask])
    assert (len(data.train), len(data.validation)) == (100, 20)
    assert (len(data.classes), data.classes[0]) == (10, first_class)
    np.testing.assert_array_equal(load_test(dataset).images[:, 0], tiny_part(1)[0])
    assert [path.name for path in tmp_path.iterdir()] == [folder], "the folder may be read-only"


def test_emnist_letters_are_turned_upright(tmp_path: Path) -> None:
    write_tiny(tmp_path / "EMNIST" / "raw", prefix="emnist-balanced-", test="test", classes=47)
    dataset = Dataset(name="emnist", input_shape=(1, 28, 28), data_dir=str(tmp_path))
    with recorded_files() as files:
        data = load_training(dataset)
    assert not [path for path in files if "balanced-test" in path]
    assert len(data.classes) == 47
    assert data.train.images.is_contiguous()
    stored = tiny_part(1, classes=47)[0]
    np.testing.assert_array_equal(load_test(dataset).images[:, 0], stored.transpose(0, 2, 1))


@pytest.fixture
def cifar10(tmp_path: Path) -> torch.Tensor:
    """Tiny files of CIFAR-10 and their images (72, 3, 32, 32): 60 for training."""
    folder, images = tmp_path / "cifar-10-batches-bin", random_pixels(72, 3, 32, 32)
    folder.mkdir()
    labels = torch.tensor([0, 1] * 30 + [1, 0] * 6, dtype=torch.uint8)
    records = torch.cat([labels[:, None], images.flatten(1)], dim=1).numpy()
    for i in range(5):
        (folder / f"data_batch_{i + 1}.bin").write_bytes(records[12 * i : 12 * i + 12].tobytes())
    (folder / "test_batch.bin").write_bytes(records[60:].tobytes())
    return images


def test_cifar10_is_read_in_colour(cifar10: torch.Tensor, tmp_path: Path) -> None:
    dataset = Dataset(name="cifar10", input_shape=(3, 32, 32), data_dir=str(tmp_path))
    with recorded_files() as files:
        data = load_training(dataset)
    assert not [path for path in files if "test_batch" in path]
    mask = torch.from_numpy(stratified_sixth(np.array([0, 1] * 30)))
    assert torch.equal(data.train.images, cifar10[:60][~mask])
    assert torch.equal(data.validation.images, cifar10[:60][mask])
    assert (len(data.classes), data.classes[0], data.classes[9]) == (10, "airplane", "truck")
    test = load_test(dataset)
    assert torch.equal(test.images, cifar10[60:])
    assert test.labels.tolist() == [1, 0] * 6


def test_a_damaged_file_of_cifar10_is_one_sentence(cifar10: torch.Tensor, tmp_path: Path) -> None:
    dataset = Dataset(name="cifar10", input_shape=(3, 32, 32), data_dir=str(tmp_path))
    damaged = tmp_path / "cifar-10-batches-bin" / "data_batch_2.bin"
    whole = damaged.read_bytes()
    for content, reason in (
        (whole[:-1], "cannot reshape array of size"),
        (bytes([10]) + whole[1:], "labels from 0 to 10 for 10 classes"),
        (bytes(97 << 20), "data_batch_2.bin is larger than 96 MiB"),
    ):
        damaged.write_bytes(content)
        with pytest.raises(
            UserError, match=rf"^data set 'cifar10' can be neither read nor downloaded \({reason}.*\); "
        ):
            load_training(dataset)


def test_torchvision_dataset_of_another_shape_is_an_error() -> None:
    message = "data set 'cifar10': input_shape (1, 28, 28) must be (3, 32, 32), as its images are"
    with pytest.raises(UserError, match=says(message)):
        load_training(Dataset(name="cifar10", input_shape=(1, 28, 28)))


def fashion_error(data_dir: Path, reason: str) -> str:
    return (
        f"data set 'fashion_mnist' can be neither read nor downloaded ({reason}); connect to the network, or put "
        "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte into "
        f"{data_dir}/FashionMNIST/raw (--data-dir DIR chooses {data_dir})"
    )


def test_failed_download_says_which_files_go_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = (tmp_path / "nowhere").as_uri() + "/"
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [mirror])
    file = f"{tmp_path}/nowhere/train-images-idx3-ubyte.gz"
    cause = f"<urlopen error [Errno 2] No such file or directory: '{file}'>"
    reason = f"Error downloading train-images-idx3-ubyte.gz: Tried {mirror}, got: {cause}"
    with pytest.raises(UserError, match=says(fashion_error(tmp_path, reason))):
        load_training(Dataset(name="fashion_mnist", input_shape=(1, 28, 28), data_dir=str(tmp_path)))


LABELS = "train-labels-idx1-ubyte"
PIXELS = "train-images-idx3-ubyte"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (LABELS, b"\1\2\3\4\5\6\7\10", f"{LABELS} is no IDX file of bytes of shape (N)"),
        (LABELS, b"", f"{LABELS} is no IDX file of bytes of shape (N)"),
        (LABELS, b"\0\0\x0b\1" + bytes([0, 0, 0, 120] + [0] * 240), f"{LABELS} is no IDX file of bytes of shape (N)"),
        (
            LABELS,
            b"\0\0\x08\1" + bytes([0, 0, 0, 120] + [0] * 119),
            f"{LABELS} has 127 bytes, where its header means 128",
        ),
        (
            LABELS,
            b"\0\0\x08\1" + bytes([0, 0, 0, 120] + [0] * 121),
            f"{LABELS} has 129 bytes, where its header means 128",
        ),
        (LABELS, b"\0\0\x08\1" + bytes([0, 0, 0, 2, 0, 0]), "120 images and 2 labels; there must be as many, and some"),
        (LABELS, b"\0\0\x08\1" + bytes([0, 0, 0, 120] + [9] * 119 + [10]), "labels from 9 to 10 for 10 classes"),
        (
            PIXELS,
            b"\0\0\x08\3" + bytes([0, 0, 0, 1, 0, 0, 0, 29, 0, 0, 0, 28]) + bytes(812),
            f"{PIXELS} is no IDX file of bytes of shape (N, 28, 28)",
        ),
        (
            PIXELS,
            b"\0\0\x08\3" + bytes([255] * 4 + [0, 0, 0, 28, 0, 0, 0, 28]) + bytes(784),
            f"{PIXELS} has 800 bytes, where its header means 3,367,254,359,296",
        ),
        (
            PIXELS,
            b"\0\0\x08\3" + bytes([0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 28]),
            "0 images and 120 labels; there must be as many, and some",
        ),
    ],
)
def test_damaged_torchvision_file_says_which_files_go_where(
    name: str, content: bytes, reason: str, tmp_path: Path
) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    write_tiny(raw)
    (raw / name).write_bytes(content)
    with pytest.raises(UserError, match=says(fashion_error(tmp_path, reason))):
        load_training(Dataset(name="fashion_mnist", input_shape=(1, 28, 28), data_dir=str(tmp_path)))


def test_a_file_that_is_too_large_is_not_opened(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    write_tiny(raw)
    with (raw / PIXELS).open("r+b") as file:
        file.truncate(400 << 20)  # of which the disk holds next to nothing
    reason = re.escape(fashion_error(tmp_path, f"{PIXELS} is larger than 96 MiB"))
    with recorded_files() as files, pytest.raises(UserError, match=f"^{reason}$"):
        load_training(Dataset(name="fashion_mnist", input_shape=(1, 28, 28), data_dir=str(tmp_path)))
    assert not [path for path in files if PIXELS in path]


def test_the_largest_known_files_are_not_too_large() -> None:
    emnist, cifar10 = 16 + 112_800 * 28 * 28, 10_000 * (1 + 3 * 32 * 32)  # training images; a batch
    assert max(emnist, cifar10) <= MOST_BYTES < 2 * emnist


def test_classes_are_called_as_torchvision_calls_them() -> None:
    theirs = torchvision.datasets
    assert TORCHVISION["fashion_mnist"].classes == tuple(theirs.FashionMNIST.classes)
    assert TORCHVISION["kmnist"].classes == tuple(theirs.KMNIST.classes)
    assert TORCHVISION["emnist"].classes == tuple(theirs.EMNIST.classes_split_dict["balanced"])


@pytest.mark.parametrize(
    ("name", "folder", "prefix", "test", "classes"),
    [
        ("fashion_mnist", "FashionMNIST", "", "t10k", 10),
        ("kmnist", "KMNIST", "", "t10k", 10),
        ("emnist", "EMNIST", "emnist-balanced-", "test", 47),
    ],
)
def test_torchvisions_former_files_are_never_unpickled(
    name: str, folder: str, prefix: str, test: str, classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own reader prefers them to the raw files."""
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load is called"))
    write_tiny(tmp_path / folder / "raw", prefix=prefix, test=test, classes=classes)
    (tmp_path / folder / "processed").mkdir()
    for file in ("training.pt", "test.pt", "training_balanced.pt", "test_balanced.pt"):
        torch.save((torch.zeros(120, 28, 28), torch.zeros(120)), tmp_path / folder / "processed" / file)
    dataset = Dataset(name=name, input_shape=(1, 28, 28), data_dir=str(tmp_path))
    with recorded_files() as files:
        assert len(load_training(dataset).classes) == classes
        assert load_test(dataset).labels.tolist() == tiny_part(1, classes=classes)[1].tolist()
    assert not [path for path in files if path.endswith(".pt")]


def test_a_home_folder_that_is_not_there_is_one_sentence() -> None:
    message = "--data-dir ~no-such-user/x: no such home folder; give another"
    with pytest.raises(UserError, match=says(message)):
        load_training(Dataset(name="kmnist", input_shape=(1, 28, 28), data_dir="~no-such-user/x"))


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a web server with the files of a folder."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def test_missing_files_are_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path / "site")
    resources = []
    for path in sorted((tmp_path / "site").iterdir()):
        compressed = gzip.compress(path.read_bytes())
        path.with_suffix(".gz").write_bytes(compressed)
        resources.append((f"{path.name}.gz", hashlib.md5(compressed).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
    with served(tmp_path / "site", monkeypatch) as address:
        monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [address])
        dataset = Dataset(name="fashion_mnist", input_shape=(1, 28, 28), data_dir=str(tmp_path / "new" / "data"))
        test = load_test(dataset)
    np.testing.assert_array_equal(test.images[:, 0], tiny_part(1)[0])


def test_emnist_is_downloaded_from_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path / "site", prefix="emnist-balanced-", test="test", classes=47)
    with zipfile.ZipFile(tmp_path / "gzip.zip", "w") as archive:
        for path in (tmp_path / "site").iterdir():
            archive.writestr(f"gzip/{path.name}.gz", gzip.compress(path.read_bytes()))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load is called"))
    digest = hashlib.md5((tmp_path / "gzip.zip").read_bytes()).hexdigest()
    monkeypatch.setattr(torchvision.datasets.EMNIST, "md5", digest)
    dataset = Dataset(name="emnist", input_shape=(1, 28, 28), data_dir=str(tmp_path / "data"))
    with served(tmp_path, monkeypatch) as address:
        monkeypatch.setattr(torchvision.datasets.EMNIST, "url", f"{address}gzip.zip")
        test = load_test(dataset)
    images, labels = tiny_part(1, classes=47)
    np.testing.assert_array_equal(test.images[:, 0], images.transpose(0, 2, 1))
    assert test.labels.tolist() == labels.tolist()


# folders of images


def test_fingerprint_tells_other_images_and_labels(tmp_path: Path) -> None:
    def of(seed: int, shift: int) -> str:
        folder = tmp_path / f"{seed} {shift}"
        images, labels = tiny_part(seed)
        raw = folder / "KMNIST" / "raw"
        for part in ("train", "t10k"):
            write_idx(raw / f"{part}-images-idx3-ubyte", images)
            write_idx(raw / f"{part}-labels-idx1-ubyte", np.roll(labels, shift))
        data = load_training(Dataset(name="kmnist", input_shape=(1, 28, 28), data_dir=str(folder)))
        return fingerprint(data.train, data.validation)

    assert of(0, 0) == of(0, 10), "the same images, labelled the same"
    assert len({of(0, 0), of(0, 1), of(1, 0)}) == 3
    assert re.fullmatch("[0-9a-f]{12}", of(0, 0))


def test_nothing_held_out_trains_on_all_images_and_is_normalised_by_all() -> None:
    mnist = Dataset(name="mnist", input_shape=(1, 28, 28))
    data = load_training(mnist, hold_out=False)
    whole = load_mnist(importlib.resources.files("nas.datasets.mnist"), "train")
    assert torch.equal(data.train.images, whole.images)
    assert torch.equal(data.train.labels, whole.labels)
    assert len(data.validation) == 0
    pixels = whole.images.double() / 255
    assert list(data.mean) == pytest.approx([pixels.mean().item()])
    assert list(data.std) == pytest.approx([pixels.std(correction=0).item()])
