"""Images in folders of class folders."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nas.data.split import Images, stratified_sixth
from nas.errors import UserError

MOST_PIXELS = 50_000_000  # of one image, since it is unpacked before it is resized
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # as in torchvision
IMAGE_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # by content; decoders of others run programs
MIN_IMAGES = 6  # a class this large has a validation image (HOLDOUT) ...
MIN_IMAGES_BEFORE_TEST = 8  # ... and one this large still has MIN_IMAGES after the test images are taken


def load_folder(root: Path, shape: tuple[int, int, int], *, train: bool) -> tuple[Images, tuple[str, ...]]:
    """The training or the test images of a folder of class folders, resized to `shape`, and the names of its classes.

    Raises:
        UserError: a shape, class folder or image that cannot be used.
    """
    if shape[0] not in (1, 3):
        raise UserError(f"folder {root}: input_shape {shape} must have 1 channel (grey) or 3 (colour)")
    if (root / "train").is_dir() and (root / "test").is_dir():
        samples, classes = _list_samples(root / "train", min_images=MIN_IMAGES)
        test_samples, test_classes = _list_samples(root / "test", min_images=1)
        if test_classes != classes:
            odd = ", ".join(sorted(set(classes) ^ set(test_classes)))
            raise UserError(f"folder {root}: train/ and test/ must have the same class folders, but differ in {odd}")
        samples = samples if train else test_samples
    else:
        samples, classes = _list_samples(root, min_images=MIN_IMAGES_BEFORE_TEST)
        held_out = stratified_sixth(np.array([label for _, label in samples], dtype=np.int64))
        samples = [sample for sample, is_test in zip(samples, held_out, strict=True) if is_test != train]
    pixels = np.stack([_read_image(path, shape) for path, _ in samples])
    labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
    return Images(images=torch.from_numpy(pixels), labels=labels), classes


def _list_samples(folder: Path, *, min_images: int) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    """The image files of a folder of class folders, with their labels; lists names and opens nothing."""
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."))
    if odd := [name for name in classes if not name.isprintable()]:
        raise UserError(f"folder {folder}: the class folder {odd[0]!r} must have a name of printable characters")
    if len(classes) < 2:
        found = f"only the class folder {classes[0]!r}" if classes else "no class folders"
        raise UserError(f"folder {folder}: has {found}; it needs at least 2, one for each class")
    samples = [
        (path, label)
        for label, name in enumerate(classes)
        for path in _files_below(folder / name)
        if path.lower().endswith(IMAGE_EXTENSIONS)
    ]
    counts = np.bincount([label for _, label in samples], minlength=len(classes))
    if (fewest := int(counts.min())) < min_images:
        name = classes[int(counts.argmin())]
        raise UserError(
            f"folder {folder}: class {name!r} has {fewest} images; every class needs at least {min_images}"
            f" ({', '.join(IMAGE_EXTENSIONS)})"
        )
    return samples, classes


def _files_below(folder: Path) -> Iterator[str]:
    """The files in torchvision's order, on which splits depend; links to folders may loop and are not followed."""
    for place, _, names in sorted(os.walk(folder)):
        yield from (str(Path(place) / name) for name in sorted(names))


def _read_image(path: str, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """One file as uint8 (C, H, W): grey or colour, resized."""
    from PIL import Image

    channels, height, width = shape
    try:
        if not Path(path).is_file():  # a pipe would be waited for, a device never ends
            raise ValueError("it is no file")
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=IMAGE_FORMATS) as image:
            if image.mode[0] in "IF":  # Pillow would clip them, mostly to white
                raise ValueError(f"mode {image.mode} has more than 8 bits a channel")
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it has {image.width:,} × {image.height:,} pixels, more than {MOST_PIXELS:,}")
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # MPO: a photograph and its previews
                raise ValueError("it has several frames")
            resized = image.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)
    except Exception as error:  # whatever a damaged file makes a decoder raise
        raise UserError(
            f"image {path} cannot be read ({error}); replace it, or remove it before a study begins"
        ) from error
    return np.asarray(resized, dtype=np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
