"""A stratified sixth of some images is held out: for validation, and for a test where there are no test images."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

SPLIT_SEED = 0
HOLDOUT = 6  # one image in so many is held out
MIN_IMAGES = 6  # a class this large has a validation image ...
MIN_IMAGES_BEFORE_TEST = 8  # ... and one this large still has MIN_IMAGES after the test images are taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Images uint8 (N, C, H, W) and their labels int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Images, which of them are held out for validation (N,), and the names of the classes."""

    images: Images
    held_out: npt.NDArray[np.bool_]
    classes: tuple[str, ...]


def drawn_pool(images: Images, classes: tuple[str, ...]) -> Pool:
    """Images of which a sixth is held out."""
    return Pool(images=images, held_out=stratified_sixth(images.labels.numpy()), classes=classes)


def stratified_sixth(
    labels: npt.NDArray[np.int64], groups: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.bool_]:
    """Mask (N,) of a sixth of the images, rounded up, shared among the classes by largest remainder.

    The images of one of the `groups` (N,) stay together, so that the shares are as near to that as they allow.
    RandomState and not default_rng: NumPy has frozen its stream for good (NEP 19), so the split is the same anywhere.
    """
    total = math.ceil(len(labels) / HOLDOUT)
    counts = np.bincount(labels)
    quotas, remainders = np.divmod(counts * total, len(labels))
    quotas[np.argsort(-remainders, kind="stable")[: total - quotas.sum()]] += 1
    mask = np.zeros(len(labels), dtype=np.bool_)
    drawn = np.random.RandomState(SPLIT_SEED).random_sample(len(labels))
    single = np.ones(len(labels), dtype=np.bool_)
    if groups is not None:
        _, of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        single = sizes[of] == 1
        for members in _largest_first(of, sizes, drawn):
            content = np.bincount(labels[members], minlength=len(quotas))
            if np.sum((quotas - content) ** 2) < np.sum(quotas**2):
                mask[members] = True
                quotas = quotas - content
    places = np.flatnonzero(single)
    shuffled = places[np.lexsort((drawn[places], labels[places]))]
    counts = np.bincount(labels[places], minlength=len(quotas))
    rank_in_class = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
    mask[shuffled] = rank_in_class < np.repeat(np.maximum(quotas, 0), counts)
    return mask


def _largest_first(
    of: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], drawn: npt.NDArray[np.float64]
) -> list[npt.NDArray[np.int64]]:
    """The places of the members of each group of several, groups of one size in a drawn order."""
    order = np.argsort(of, kind="stable")
    several = [members for members in np.split(order, np.cumsum(sizes)[:-1]) if len(members) > 1]
    return sorted(several, key=lambda members: (-len(members), drawn[members[0]]))
