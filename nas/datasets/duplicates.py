"""Copies among images: those that are equal, and those that only look so, such as a picture that was saved anew."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree
from torch.nn import functional

Pixels = npt.NDArray[np.uint8]
Groups = npt.NDArray[np.int64]

SIDE = 8  # to which grey pictures are averaged before they are compared
COMPONENTS = 16  # of these, which differ most
CORRELATION = (
    0.99  # of the small pictures, at least; pictures saved as JPEG of quality 20 or at another size have 0.996
)
DIFFERENCE = 0.1  # mean absolute difference of near copies, at most, in deviations of the pixels of a channel


def equal_images(images: Pixels) -> Groups:
    """A number for each of the images (N, C, H, W), the same for those that are equal."""
    numbers: dict[bytes, int] = {}
    found = [numbers.setdefault(hashlib.blake2b(image.tobytes()).digest(), len(numbers)) for image in images]
    return np.array(found, dtype=np.int64)


def near_images(images: Pixels) -> list[tuple[int, int]]:
    """Pairs of images (N, C, H, W) that look the same and are not equal; pictures of one grey never do."""
    deviation = images.reshape(*images.shape[:2], -1).std(axis=2).mean(axis=1)
    small = functional.adaptive_avg_pool2d(torch.from_numpy(images).float().mean(1, keepdim=True), SIDE).flatten(1)
    small = small - small.mean(1, keepdim=True)
    places = np.flatnonzero((small.norm(dim=1).numpy() > 1) & (deviation > 0))
    if len(places) < 2:
        return []
    rows = functional.normalize(small[places]).numpy()
    _, _, axes = np.linalg.svd(rows[:: max(1, len(rows) // 10_000)], full_matrices=False)
    tree = cKDTree(rows @ axes[:COMPONENTS].T)
    found = tree.query_pairs(np.sqrt(2 - 2 * CORRELATION), output_type="ndarray")
    near = []
    for i, j in np.sort(places[found], axis=1).tolist():
        difference = np.abs(images[i].astype(int) - images[j]).mean()
        if 0 < difference <= DIFFERENCE * min(deviation[i], deviation[j]):
            near.append((i, j))
    return sorted(near)


def joined(numbers: Groups, pairs: Iterable[tuple[int, int]]) -> Groups:
    """Numbers (N,) of groups, where the groups of the two of each pair have become one."""
    parent = {number: number for number in np.unique(numbers).tolist()}

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for i, j in pairs:
        a, b = sorted((root(int(numbers[i])), root(int(numbers[j]))))
        parent[b] = a
    return np.array([root(number) for number in numbers.tolist()], dtype=np.int64)
