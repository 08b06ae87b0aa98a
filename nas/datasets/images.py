"""Images as whole tensors in memory: training, validation and test; normalisation and augmentation of batches.

Pixels stay uint8 (N, C, H, W) until `prepare` turns a batch into normalised float32. The validation images are those
of the data set, or a stratified sixth of the training images, rounded up (10,000 of MNIST's 60,000), the same for every
search, so that the scores of different runs compare; with cross-validation, every sixth in turn. Only `load_test` gives
test images to anybody.
"""

import functools
import hashlib
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from nas.datasets.dataset import Dataset, only_images
from nas.datasets.metrics import ACCURACY, METRICS, EvaluationSet, Metric
from nas.datasets.reading import read_images
from nas.datasets.split import SPLIT_SEED, Images, Mask, Pool, at_most, stratified_folds, taken
from nas.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """The training images in two parts, and what normalises them."""

    train: Images
    validation: Images  # none when nothing is held out
    mean: tuple[float, ...]  # per channel, of `train` only, on pixels scaled to 0..1
    std: tuple[float, ...]
    classes: tuple[str, ...]
    metric: Metric = ACCURACY
    of_all: tuple[int, ...] | None = None  # images of each class in all folds of a round, if there are several
    rounds: int = 0  # of cross-validation; 0: the one part that is held out judges networks
    other_folds: "tuple[TrainingData, ...]" = ()  # with rounds: the same images with others held out

    @property
    def folds(self) -> "tuple[TrainingData, ...]":
        """The data of each of the networks that are trained for one score."""
        return (self, *self.other_folds)

    @property
    def evaluation(self) -> EvaluationSet:
        """The images that networks are judged on: those that are held out, in any fold, each once."""
        counts = np.sum([self._counts(fold.validation.labels) for fold in self.folds], axis=0)
        return EvaluationSet(self.metric, tuple((counts // max(1, self.rounds)).tolist()))

    def judging(self, labels: Tensor) -> EvaluationSet:
        """Images with these labels as those that networks are judged on."""
        return EvaluationSet(self.metric, tuple(self._counts(labels)))

    def _counts(self, labels: Tensor) -> list[int]:
        counts: list[int] = torch.bincount(labels, minlength=len(self.classes)).tolist()
        return counts


def load_training(dataset: Dataset, *, hold_out: bool = True) -> TrainingData:
    """Training and validation images, or with `hold_out=False` all of them to train on; a process loads them once.

    Raises:
        UserError: an unknown data set, another input shape, or files that are missing or damaged; or cross-validation
            where a person has said which images are held out.
    """
    return _split(dataset, hold_out)


_handed_over: dict[Dataset, Pool] = {}


def hand_over(dataset: Dataset, pool: Pool) -> None:
    """Let `load_training` make its data of these images in this process, which may not have the files."""
    if only_images(dataset) not in _handed_over:
        take_back(dataset)
        _handed_over[only_images(dataset)] = pool


def take_back(dataset: Dataset) -> None:
    """Let go of what was handed over for a data set."""
    _handed_over.pop(only_images(dataset), None)
    _split.cache_clear()


@functools.cache
def _read_training(dataset: Dataset) -> Pool:
    return read_images(dataset, train=True)


def training_pool(dataset: Dataset) -> Pool:
    """All training images, and which of them are held out. Raises UserError as `load_training` does."""
    images = only_images(dataset)
    return _handed_over.get(images) or _read_training(images)


@functools.cache
def _split(dataset: Dataset, hold_out: bool) -> TrainingData:
    pool, rounds = at_most(training_pool(dataset), dataset.at_most), dataset.cross_validation
    return training_data(pool, METRICS[dataset.metric], hold_out=hold_out, rounds=rounds)


def training_data(pool: Pool, metric: Metric = ACCURACY, *, hold_out: bool, rounds: int = 0) -> TrainingData:
    """The images in two parts, or with `hold_out=False` all of them to train on; `metric` judges them.

    With `rounds` of cross-validation, every sixth of the images is held out in turn, in each round other ones.

    Raises:
        UserError: cross-validation where a person has said which images are held out.
    """
    if not hold_out:
        return _cut(pool, np.zeros(len(pool.images), dtype=np.bool_), metric)
    if not rounds:
        return _cut(pool, pool.held_out, metric)
    if not pool.drawn:
        raise UserError(
            f"cross-validation {rounds}: the data says which images are for validation, so that none are to be drawn "
            "in turn; leave one of the two out"
        )
    labels = pool.images.labels.numpy()
    masks = (stratified_folds(labels, pool.groups, SPLIT_SEED + number) for number in range(rounds))
    of_all = tuple(np.bincount(labels, minlength=len(pool.classes)).tolist())
    first, *others = (replace(_cut(pool, mask, metric), of_all=of_all) for mask in chain.from_iterable(masks))
    return replace(first, rounds=rounds, other_folds=tuple(others))


def _cut(pool: Pool, held_out: Mask, metric: Metric) -> TrainingData:
    train = taken(pool.images, ~held_out)
    mean, std = channel_statistics(train.images)
    return TrainingData(
        train=train, validation=taken(pool.images, held_out), mean=mean, std=std, classes=pool.classes, metric=metric
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
