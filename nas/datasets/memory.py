"""Images from memory: arrays, tensors, or a torch data set, checked and kept as one file in a study's folder.

The file is what worker processes, later commands and other sessions read. It is a safetensors file, of which the test
images are read only when they are asked for.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from nas.datasets.dataset import IN_MEMORY
from nas.datasets.split import MIN_IMAGES, MIN_IMAGES_BEFORE_TEST, Images, Pool, drawn_pool, stratified_sixth
from nas.errors import UserError
from nas.network.layers import Shape
from nas.system.files import write_whole

HELD_OUT = "train.held_out"  # the tensor that says which images are, where a person has said so


def collected(data: Any, what: str, shape: Shape) -> Images:
    """Images uint8 (N, C, H, W) and labels (N,) from `(images, labels)` or a torch data set of such pairs.

    Images are uint8 from 0 to 255, or floats from 0 to 1, which are rounded to 256 levels. Their shape is that of the
    networks' input, (N, C, H, W), or (N, H, W, C), or (N, H, W) for one channel.

    Raises:
        UserError: another shape or range, or labels that do not number the classes from 0.
    """
    images, labels = data if isinstance(data, tuple) and len(data) == 2 else _unzipped(data, what)
    numbers = _as_tensor(labels, f"{what}: the labels")
    found = Images(images=as_pixels(images, what, shape), labels=_as_labels(numbers, what))
    if len(found.images) != len(found.labels):
        raise UserError(f"{what}: {len(found.images)} images and {len(found.labels)} labels; give as many of each")
    return found


def as_pixels(images: Any, what: str, shape: Shape) -> Tensor:
    """Images as `collected` takes them, as uint8 (N, C, H, W). Raises UserError as that does."""
    return _shaped(_as_bytes(_as_tensor(images, f"{what}: the images"), what), what, shape)


def _unzipped(data: Any, what: str) -> tuple[list[Any], list[Any]]:
    try:
        pairs = [data[i] for i in range(len(data))]
        images, labels = zip(*((np.asarray(image), int(label)) for image, label in pairs), strict=True)
    except (TypeError, ValueError, LookupError) as error:
        raise UserError(
            f"{what}: {type(data).__name__} is neither (images, labels) nor a data set of such pairs; give one of them"
        ) from error
    return list(images), list(labels)


def _as_tensor(values: Any, what: str) -> Tensor:
    try:
        return values.detach().cpu() if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values))
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} are no array of numbers; give them one shape, and one type of number") from error


def _as_bytes(pixels: Tensor, what: str) -> Tensor:
    """The values as uint8, from 0 to 255."""
    if pixels.dtype is torch.uint8 or not pixels.numel():
        return pixels.to(torch.uint8)
    most = 1 if pixels.is_floating_point() else 255
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype is torch.bool or not (low >= 0 and high <= most):  # NaN is in no range
        kind = str(pixels.dtype).removeprefix("torch.")
        raise UserError(
            f"{what}: images of {kind} from {low:g} to {high:g} must be whole numbers from 0 to 255, or floats from 0 "
            "to 1, and not normalised: nas does that itself"
        )
    return (pixels * 255).round().to(torch.uint8) if pixels.is_floating_point() else pixels.to(torch.uint8)


def _shaped(pixels: Tensor, what: str, shape: Shape) -> Tensor:
    """The images as (N, C, H, W)."""
    channels, height, width = shape
    match tuple(pixels.shape):
        case (_, *sizes) if tuple(sizes) == shape:
            return pixels.contiguous()
        case (_, *sizes) if sizes == [height, width] and channels == 1:
            return pixels.unsqueeze(1).contiguous()
        case (_, *sizes) if sizes == [height, width, channels]:
            return pixels.permute(0, 3, 1, 2).contiguous()
    raise UserError(
        f"{what}: images of shape {tuple(pixels.shape)} must be (N, {channels}, {height}, {width}), as the networks of "
        "the space take them; resize them, or give another input_shape"
    )


def _as_labels(labels: Tensor, what: str) -> Tensor:
    """The labels as int64 (N,)."""
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype is torch.bool)
    if labels.ndim != 1 or not whole or not len(labels) or int(labels.min()) < 0:
        raise UserError(f"{what}: labels must be whole numbers from 0, one for each image, such as [0, 2, 1]")
    return labels.to(torch.int64)


def class_names(data: Any, labels: Tensor) -> tuple[str, ...]:
    """The `classes` of a data set that names them, else their numbers."""
    count = int(labels.max()) + 1
    names: Sequence[Any] = getattr(data, "classes", ())
    known = [str(name) for name in names] if len(names) >= count else [str(number) for number in range(count)]
    return tuple(name if name.isprintable() else str(number) for number, name in enumerate(known))


def split(data: Any, validation: Any, test: Any, shape: Shape) -> tuple[Pool, Images]:
    """Training images with those held out, and test images.

    Without `test`, a sixth of the data is kept for it; without `validation`, a sixth of the rest is held out.

    Raises:
        UserError: as `collected` does, or a class with too few images.
    """
    images = collected(data, "data", shape)
    classes, drawn = class_names(data, images.labels), (validation is None) + (test is None)
    fewest = (1, MIN_IMAGES, MIN_IMAGES_BEFORE_TEST)[drawn]
    counts = torch.bincount(images.labels, minlength=len(classes))
    if len(classes) < 2 or int(counts.min()) < fewest:
        name = classes[int(counts.argmin())]
        raise UserError(
            f"data: class {name} has {int(counts.min())} images of {len(classes)} classes; there must be 2 classes or "
            f"more, each with at least {fewest} images"
        )
    if test is None:
        kept = torch.from_numpy(stratified_sixth(images.labels.numpy()))
        images, judged = _part(images, ~kept), _part(images, kept)
    else:
        judged = _of_classes(test, "test", shape, classes)
    if validation is None:
        return drawn_pool(images, classes), judged
    own = _of_classes(validation, "validation", shape, classes)
    held_out = np.arange(len(images) + len(own)) >= len(images)
    both = Images(images=torch.cat([images.images, own.images]), labels=torch.cat([images.labels, own.labels]))
    return Pool(images=both, held_out=held_out, classes=classes, drawn=False), judged


def _of_classes(data: Any, what: str, shape: Shape, classes: Sequence[str]) -> Images:
    """Images whose labels are those of these classes."""
    images = collected(data, what, shape)
    if (most := int(images.labels.max())) >= len(classes):
        raise UserError(f"{what}: label {most} is of no class in data, which has 0 to {len(classes) - 1}")
    return images


def _part(images: Images, mask: Tensor) -> Images:
    return Images(images=images.images[mask].contiguous(), labels=images.labels[mask].contiguous())


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenImages:
    """A data set that was given in memory; its name holds a digest of all of it."""

    name: str
    pool: Pool  # to train on, and of them those that are held out
    test: Images

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""
        return self.pool.classes

    @property
    def train(self) -> Images:
        """The images that are not for the test."""
        return self.pool.images

    @property
    def parts(self) -> dict[str, Images]:
        """The training and the test images."""
        return {"train": self.train, "test": self.test}

    def keep(self, folder: Path) -> None:
        """Write the images into a study's folder, unless they are there, whole and the same."""
        if not self._is_kept(folder):
            tensors = {f"{name}.images": part.images for name, part in self.parts.items()}
            tensors |= {f"{name}.labels": part.labels for name, part in self.parts.items()}
            if not self.pool.drawn:
                tensors[HELD_OUT] = torch.from_numpy(self.pool.held_out)
            content = safetensors.torch.save(tensors, {"classes": json.dumps(self.classes)})
            write_whole(_file(folder, self.name), content)

    def _is_kept(self, folder: Path) -> bool:
        try:
            kept = {name: read_given(folder, self.name, train=name == "train") for name in self.parts}
        except UserError:
            return False
        return np.array_equal(kept["train"].held_out, self.pool.held_out) and all(
            torch.equal(kept[name].images.images, part.images) and torch.equal(kept[name].images.labels, part.labels)
            for name, part in self.parts.items()
        )


def _file(folder: Path, name: str) -> Path:
    """Where the images of this name are kept in a folder."""
    return folder / f"images-{name.removeprefix(IN_MEMORY).strip()}.safetensors"


def given_images(data: Any, test: Any, shape: Shape, *, validation: Any = None) -> GivenImages:
    """The images that a person gives: see `collected`. Raises UserError as `split` does."""
    pool, judged = split(data, validation, test, shape)
    digest = hashlib.sha256(json.dumps(pool.classes).encode())
    for part in (pool.images, judged):
        digest.update(part.images.numpy().tobytes())
        digest.update(part.labels.numpy().tobytes())
    if not pool.drawn:
        digest.update(pool.held_out.tobytes())
    name = f"{IN_MEMORY} {digest.hexdigest()[:12]}"
    return GivenImages(name=name, pool=pool, test=judged)


def read_given(folder: Path, name: str, *, train: bool) -> Pool:
    """The training or the test images that were kept under this name.

    Raises:
        UserError: the file is missing or damaged.
    """
    part, path = "train" if train else "test", _file(folder, name)
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            images, labels = (file.get_tensor(f"{part}.{name}") for name in ("images", "labels"))
            tensors, classes = file.keys(), tuple(map(str, json.loads((file.metadata() or {})["classes"])))
            held_out = file.get_tensor(HELD_OUT).numpy() if train and HELD_OUT in tensors else None
    except Exception as error:  # whatever a damaged file makes the library raise
        raise UserError(
            f"the images of the study cannot be read from {path} ({error}); call nas.search with the same data again"
        ) from error
    found = Images(images=images, labels=labels)
    if held_out is None:
        return drawn_pool(found, classes)
    return Pool(images=found, held_out=held_out, classes=classes, drawn=False)
