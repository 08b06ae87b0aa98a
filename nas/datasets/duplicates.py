"""Copies among images: those that are equal, and those that only look so, such as a picture that was saved anew."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

Pixels = npt.NDArray[np.uint8]
Groups = npt.NDArray[np.int64]

SIDE = 8  # to which grey pictures are averaged before they are compared
COMPONENTS = 16  # of these, which differ most
CORRELATION = 0.99  # of small pictures that are compared, about
NEIGHBOURS = 8  # with which an image is compared
LEAST_CONTRAST = 1.0  # length of a small picture's deviations from its mean, in grey levels
CHUNK = 4_096  # images that are looked at together
DIFFERENCE = 0.05  # mean absolute difference of near copies, at most, in deviations of the pixels of a channel;
# photographs saved as JPEG of quality 60 have up to 0.044. Below 0.05 lie 0.1 % of MNIST's digits, all of them ones.


def equal_images(images: Pixels) -> Groups:
    """A number for each of the images (N, C, H, W), the same for those that are equal."""
    numbers: dict[bytes, int] = {}
    found = [numbers.setdefault(hashlib.blake2b(image.tobytes()).digest(), len(numbers)) for image in images]
    return np.array(found, dtype=np.int64)


def near_images(images: Pixels, numbers: Groups) -> list[tuple[int, int]]:
    """Pairs of images (N, C, H, W) that look the same and do not have the same of the `numbers` (N,).

    Pictures of one grey never do. Of many that look the same, each is paired with the nearest ones.
    """
    from scipy.spatial import cKDTree  # which workers need not import

    _, first = np.unique(numbers, return_index=True)
    if len(first) < 2:
        return []
    small = torch.cat([_small(images[first[i : i + CHUNK]]) for i in range(0, len(first), CHUNK)])
    lengths = small.norm(dim=1).numpy()
    places = first[lengths > LEAST_CONTRAST]
    if len(places) < 2:
        return []
    rows = functional.normalize(small[torch.from_numpy(lengths > LEAST_CONTRAST)]).numpy()
    _, _, axes = np.linalg.svd(rows[:: max(1, len(rows) // 10_000)], full_matrices=False)
    points = rows @ axes[:COMPONENTS].T
    radius = np.sqrt(2 - 2 * CORRELATION)
    _, nearest = cKDTree(points).query(points, k=1 + NEIGHBOURS, distance_upper_bound=radius)
    found = {
        (min(i, j), max(i, j)) for i, row in enumerate(nearest.tolist()) for j in row if j < len(points) and j != i
    }
    pairs = [tuple(sorted((int(places[i]), int(places[j])))) for i, j in found]
    return sorted((i, j) for i, j in pairs if _look_the_same(images[i], images[j]))


def _small(images: Pixels) -> torch.Tensor:
    """Grey pictures of SIDE × SIDE pixels, (N, SIDE²), about their mean."""
    grey = torch.from_numpy(images).float().mean(1, keepdim=True)
    small = functional.adaptive_avg_pool2d(grey, SIDE).flatten(1)
    return small - small.mean(1, keepdim=True)


def _look_the_same(one: Pixels, other: Pixels) -> bool:
    """Whether two images (C, H, W) differ by little of what varies within each."""
    difference = np.abs(one.astype(np.int16) - other).mean()
    varies = min(float(image.reshape(len(image), -1).std(axis=1).mean()) for image in (one, other))
    return bool(difference <= DIFFERENCE * varies)


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
