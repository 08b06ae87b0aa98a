"""Images as whole tensors in memory: training, validation and test; normalisation and augmentation of batches.

Pixels stay uint8 (N, C, H, W) until `prepare` turns a batch into normalised float32. The validation images are those
of the data set, or a stratified sixth of the training images, rounded up (10,000 of MNIST's 60,000), the same for every
search, so that the scores of different runs compare. Only `load_test` gives test images to anybody.
"""

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nas.datasets.dataset import Dataset
from nas.datasets.metrics import ACCURACY, METRICS, EvaluationSet, Metric
from nas.datasets.reading import read_images
from nas.datasets.split import Images, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """The training images in two parts, and what normalises them."""

    train: Images
    validation: Images  # none when nothing is held out
    mean: tuple[float, ...]  # per channel, of `train` only, on pixels scaled to 0..1
    std: tuple[float, ...]
    classes: tuple[str, ...]
    metric: Metric = ACCURACY

    @property
    def evaluation(self) -> EvaluationSet:
        """The validation images as those that networks are judged on."""
        return self.judging(self.validation.labels)

    def judging(self, labels: Tensor) -> EvaluationSet:
        """Images with these labels as those that networks are judged on."""
        return EvaluationSet(self.metric, tuple(torch.bincount(labels, minlength=len(self.classes)).tolist()))


def load_training(dataset: Dataset, *, hold_out: bool = True) -> TrainingData:
    """Training and validation images, or with `hold_out=False` all of them to train on; a process loads them once.

    Raises:
        UserError: an unknown data set, another input shape, or files that are missing or damaged.
    """
    return _handed_over.get((dataset, hold_out)) or _split(dataset, hold_out)


_handed_over: dict[tuple[Dataset, bool], TrainingData] = {}


def hand_over(dataset: Dataset, hold_out: bool, data: TrainingData) -> None:
    """Let `load_training` return this data in this process, which may not have the files."""
    _handed_over[dataset, hold_out] = data


def take_back(dataset: Dataset) -> None:
    """Let go of what was handed over for a data set."""
    for hold_out in (True, False):
        _handed_over.pop((dataset, hold_out), None)


@functools.cache
def _read_training(dataset: Dataset) -> Pool:
    return read_images(dataset, train=True)


@functools.cache
def _split(dataset: Dataset, hold_out: bool) -> TrainingData:
    return training_data(_read_training(dataset), METRICS[dataset.metric], hold_out=hold_out)


def training_data(pool: Pool, metric: Metric = ACCURACY, *, hold_out: bool) -> TrainingData:
    """The images in two parts, or with `hold_out=False` all of them to train on; `metric` judges them."""
    images, held_out, classes = pool.images, pool.held_out, pool.classes
    if not hold_out:
        mean, std = channel_statistics(images.images)
        none = Images(images=images.images[:0], labels=images.labels[:0])
        return TrainingData(train=images, validation=none, mean=mean, std=std, classes=classes, metric=metric)
    train = _take(images, ~held_out)
    mean, std = channel_statistics(train.images)
    return TrainingData(
        train=train, validation=_take(images, held_out), mean=mean, std=std, classes=classes, metric=metric
    )


def fingerprint(*parts: Images) -> str:
    """Twelve hexadecimal digits that tell images and labels from others (of their SHA-256)."""
    found = hashlib.sha256()
    for images in parts:
        found.update(images.images.numpy().tobytes())
        found.update(images.labels.numpy().tobytes())
    return found.hexdigest()[:12]


def forget() -> None:
    """Let go of the training images that this process has loaded."""
    _handed_over.clear()
    _split.cache_clear()
    _read_training.cache_clear()


def load_test(dataset: Dataset) -> Images:
    """The test images: the only function that opens them. Raises UserError as `load_training` does."""
    return read_images(dataset, train=False).images


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 (N, C, H, W) scaled to 0..1, from exact integer counts.

    The deviation of a constant channel is given as 1, so that normalising it gives 0.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(images[:, c].flatten(), minlength=256) for c in range(images.shape[1])])
    weights = counts.double() / (images.numel() // images.shape[1])
    means = weights @ values
    deviations = (weights * (values - means[:, None]) ** 2).sum(1).sqrt()
    return tuple(means.tolist()), tuple(deviation or 1.0 for deviation in deviations.tolist())


def _take(images: Images, mask: npt.NDArray[np.bool_]) -> Images:
    chosen = torch.from_numpy(mask)
    return Images(images=images.images[chosen], labels=images.labels[chosen])
