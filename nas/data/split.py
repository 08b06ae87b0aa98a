"""The validation split: a stratified sixth of the training images."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

SPLIT_SEED = 0
HOLDOUT = 6  # one image in so many is held out


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Images uint8 (N, C, H, W) and their labels int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def stratified_sixth(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Mask (N,) of a sixth of the images, rounded up, shared among the classes by largest remainder.

    RandomState and not default_rng: NumPy has frozen its stream for good (NEP 19), so the split is the same anywhere.
    """
    total = math.ceil(len(labels) / HOLDOUT)
    counts = np.bincount(labels)
    quotas, remainders = np.divmod(counts * total, len(labels))
    quotas[np.argsort(-remainders, kind="stable")[: total - quotas.sum()]] += 1
    shuffled = np.lexsort((np.random.RandomState(SPLIT_SEED).random_sample(len(labels)), labels))
    rank_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    mask = np.zeros(len(labels), dtype=np.bool_)
    mask[shuffled] = rank_in_class < np.repeat(quotas, counts)
    return mask
