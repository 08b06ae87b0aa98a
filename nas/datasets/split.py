"""A stratified sixth of some images is held out: for validation, and for a test where there are no test images.

Of few images every sixth is held out in turn, which is called a fold, and that several times over.
"""

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Mask: TypeAlias = npt.NDArray[np.bool_]
Numbers: TypeAlias = npt.NDArray[np.int64]

SPLIT_SEED = 0
RARE = 30  # images of a class in a part, all of which are used where others are used in part
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
    held_out: Mask
    classes: tuple[str, ...]
    drawn: bool = True  # whether those that are held out were drawn, and not given
    groups: Numbers | None = None  # (N,), images of one of which stay together


def epochs_on_all_images(rounds: int) -> float:
    """What an epoch on all images takes, in epochs of a trial: of one network, or of those of cross-validation."""
    return HOLDOUT / (HOLDOUT - 1) / max(1, HOLDOUT * rounds)


def drawn_pool(images: Images, classes: tuple[str, ...]) -> Pool:
    """Images of which a sixth is held out."""
    return Pool(images=images, held_out=stratified_sixth(images.labels.numpy()), classes=classes)


def taken(images: Images, mask: Mask) -> Images:
    """Some of the images; all of them are not copied."""
    if mask.all():
        return images
    chosen = torch.from_numpy(mask)
    return Images(images=images.images[chosen], labels=images.labels[chosen])


def at_most(pool: Pool, images: int) -> Pool:
    """About so many of the images at most, shared among the classes, of both parts; all of rare classes; 0: all."""
    parts = math.ceil(len(pool.images) / images) if images else 1
    if parts == 1:
        return pool
    labels, some = pool.images.labels.numpy(), np.zeros(len(pool.images), dtype=np.bool_)
    for part in (np.flatnonzero(pool.held_out), np.flatnonzero(~pool.held_out)):
        of = labels[part]
        rare = np.bincount(of)[of] <= RARE
        some[part] = rare
        if not rare.all():
            common = part[~rare]
            some[common] = stratified_part(labels[common], None, parts, SPLIT_SEED)
    groups = None if pool.groups is None else pool.groups[some]
    return replace(pool, images=taken(pool.images, some), held_out=pool.held_out[some], groups=groups)


def stratified_sixth(labels: Numbers, groups: Numbers | None = None) -> Mask:
    """Mask (N,) of a sixth of the images: see `stratified_part`."""
    return stratified_part(labels, groups, HOLDOUT, SPLIT_SEED)


def stratified_folds(labels: Numbers, groups: Numbers | None, seed: int) -> list[Mask]:
    """Masks (N,) of sixths of the images, each image in one; fewer, where large groups leave one without images."""
    left, folds = np.arange(len(labels)), list[Mask]()
    for parts in range(HOLDOUT, 0, -1):
        part = stratified_part(labels[left], None if groups is None else groups[left], parts, seed)
        if part.any():
            folds.append(np.isin(np.arange(len(labels)), left[part]))
        left = left[~part]
    return folds


def stratified_part(labels: Numbers, groups: Numbers | None, parts: int, seed: int) -> Mask:
    """Mask (N,) of one of so many parts of the images, rounded up, shared among the classes by largest remainder.

    The images of one of the `groups` (N,) stay together, so that the shares are as near to that as they allow.
    RandomState and not default_rng: NumPy has frozen its stream for good (NEP 19), so the split is the same anywhere.
    """
    total = math.ceil(len(labels) / parts)
    counts = np.bincount(labels)
    quotas, remainders = np.divmod(counts * total, len(labels))
    quotas[np.argsort(-remainders, kind="stable")[: total - quotas.sum()]] += 1
    mask = np.zeros(len(labels), dtype=np.bool_)
    drawn = np.random.RandomState(seed).random_sample(len(labels))
    single = np.ones(len(labels), dtype=np.bool_)
    if groups is not None:
        _, of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        single = sizes[of] == 1
        for members in _largest_first(of, sizes, drawn, exactly=seed == SPLIT_SEED):
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


def _largest_first(of: Numbers, sizes: Numbers, drawn: npt.NDArray[np.float64], *, exactly: bool) -> list[Numbers]:
    """The places of the members of each group of several; those of one size, or of about one, in a drawn order."""
    order = np.argsort(of, kind="stable")
    several = [members for members in np.split(order, np.cumsum(sizes)[:-1]) if len(members) > 1]
    if exactly:
        return sorted(several, key=lambda members: (-len(members), drawn[members[0]]))
    return sorted(several, key=lambda members: -len(members) * (0.5 + drawn[members[0]]))
