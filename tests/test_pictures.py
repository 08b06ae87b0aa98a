"""Files that people bring: which are found, how they become pixels and parts, and what is refused."""

import csv
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchvision.datasets
from PIL import Image, ImageDraw
from test_data import recorded_files, says

from nas.datasets import files
from nas.datasets.dataset import Dataset, data_folder
from nas.datasets.duplicates import equal_images, near_images
from nas.datasets.files import UnreadableError, keep_files, sheet_of_files
from nas.datasets.images import forget, load_test, load_training
from nas.datasets.listing import Part, listed, part_named
from nas.datasets.pixels import EXTENSIONS, as_network_sees
from nas.datasets.reading import Extent, extent, read_once
from nas.datasets.sheet import DataSheet
from nas.datasets.split import Images, stratified_sixth
from nas.errors import UserError
from nas.space.pictures import Pictures

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(autouse=True)
def nothing_kept(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds the pixels of another."""
    monkeypatch.setattr("nas.datasets.dataset.DATA_DIR", str(tmp_path_factory.mktemp("kept")))
    forget()


def write_images(folder: Path, classes: dict[str, int], size: tuple[int, int] = (6, 4), first: int = 0) -> None:
    """PNG files of width × height `size`; class number and running number are in their grey value."""
    for label, (name, count) in enumerate(classes.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("L", size, 100 * label + first + i).save(folder / name / f"{i:03}.png")


def folder_dataset(folder: Path, shape: tuple[int, int, int] = (1, 4, 6)) -> Dataset:
    return Dataset(name=str(folder), input_shape=shape)


def grey_values(images: torch.Tensor) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def test_folder_is_split_in_three(tmp_path: Path) -> None:
    write_images(tmp_path, {"cat": 36, "dog": 72})
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    data = load_training(folder_dataset(tmp_path))
    test = load_test(folder_dataset(tmp_path))
    assert data.classes == ("cat", "dog")
    assert torch.bincount(test.labels).tolist() == [6, 12]
    assert torch.bincount(data.validation.labels).tolist() == [5, 10]
    assert torch.bincount(data.train.labels).tolist() == [25, 50]
    parts = [grey_values(part.images) for part in (data.train, data.validation, test)]
    assert sorted(parts[0] + parts[1] + parts[2]) == [*range(36), *range(100, 172)]
    assert all(part == sorted(part) for part in parts)


def test_folder_with_train_and_test_keeps_its_split(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"cat": 6, "dog": 12})
    write_images(tmp_path / "test", {"cat": 1, "dog": 2}, first=50)
    data = load_training(folder_dataset(tmp_path))
    assert torch.bincount(data.train.labels).tolist() == [5, 10]
    assert torch.bincount(data.validation.labels).tolist() == [1, 2]
    assert grey_values(load_test(folder_dataset(tmp_path)).images) == [50, 150, 151]


def test_links_within_a_class_are_not_followed_and_class_folders_may_be_links(tmp_path: Path) -> None:
    """Two links to their own folder would be two to the power of forty paths."""
    write_images(tmp_path / "images", {"cat": 8, "dog": 9})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "images" / "dog").rename(tmp_path / "elsewhere" / "dog")
    (tmp_path / "images" / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    for name in ("x", "y"):
        (tmp_path / "images" / "cat" / name).symlink_to(".")
    (tmp_path / "images" / "cat" / "z").symlink_to("../dog")
    dataset = folder_dataset(tmp_path / "images")
    images = torch.cat([load_training(dataset, hold_out=False).train.images, load_test(dataset).images])
    assert sorted(grey_values(images)) == [*range(8), *range(100, 109)]


def test_images_of_a_folder_come_in_torchvisions_order(tmp_path: Path) -> None:
    """The split of a folder, on which published scores depend, follows from it."""
    grey = 0
    for part, names in (
        ("train", ("z/b.png", "b/2.png", "b.png", "B/1.PNG", "b-c/1.png", "a.Jpg", "ä/1.bmp", "b/b/9.tif")),
        ("test", ("1.png",)),
    ):
        for label in ("one", "two"):
            for name in names:
                path = tmp_path / part / label / (name if label == "one" else f"x{name}")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (6, 4), 5 * (grey := grey + 1)).save(path)
    assert set(torchvision.datasets.folder.IMG_EXTENSIONS) <= {*EXTENSIONS}
    samples = torchvision.datasets.folder.make_dataset(tmp_path / "train", {"one": 0, "two": 1}, extensions=EXTENSIONS)
    train = load_training(folder_dataset(tmp_path), hold_out=False).train
    theirs = [np.asarray(Image.open(path)).item(0) for path, _ in samples]
    assert grey_values(train.images) == theirs
    assert len(set(theirs)) == 16
    assert train.labels.tolist() == [label for _, label in samples]


def test_folder_images_are_converted_and_resized(tmp_path: Path) -> None:
    for name, colour in (("blue", (0, 0, 200)), ("red", (200, 0, 0))):
        (tmp_path / name).mkdir()
        for i in range(8):
            red, green, blue = colour
            Image.new("RGB", (10 + i, 9), (red, green + 8 * i, blue)).save(tmp_path / name / f"{i}.png")
    rgb = load_training(folder_dataset(tmp_path, (3, 5, 7)), hold_out=False).train
    assert rgb.images.shape[1:] == (3, 5, 7)
    assert {tuple(image[:, 0, 0].tolist())[::2] for image in rgb.images[rgb.labels == 0]} == {(0, 200)}
    assert all((image == image[:, :1, :1]).all() for image in rgb.images)
    grey = load_training(folder_dataset(tmp_path, (1, 5, 7))).train.images
    assert grey.shape[1:] == (1, 5, 7)
    least = round(0.114 * 200)  # ITU-R 601-2 luma, as Pillow documents
    assert {*grey[0].flatten().tolist()} <= {*range(least, least + 40)}


def test_folder_with_two_channels_is_an_error(tmp_path: Path) -> None:
    message = f"folder {tmp_path}: input_shape (2, 4, 6) must have 1 channel (grey) or 3 (colour)"
    with pytest.raises(UserError, match=says(message)):
        load_training(folder_dataset(tmp_path, (2, 4, 6)))


def test_folder_without_class_folders_is_an_error(tmp_path: Path) -> None:
    message = f"folder {tmp_path}: has no class folders; it needs at least 2, one for each class"
    with pytest.raises(UserError, match=says(message)):
        load_training(folder_dataset(tmp_path))


def test_folder_with_one_class_is_an_error(tmp_path: Path) -> None:
    write_images(tmp_path, {"cat": 9})
    message = f"folder {tmp_path}: has only the class folder 'cat'; it needs at least 2, one for each class"
    with pytest.raises(UserError, match=says(message)):
        load_training(folder_dataset(tmp_path))


@pytest.mark.parametrize("count", [0, 7])
def test_folder_with_a_small_class_is_an_error(count: int, tmp_path: Path) -> None:
    write_images(tmp_path, {"cat": 9, "dog": count})
    message = f"folder {tmp_path}: class 'dog' has {count} images; every class needs at least 8"
    with pytest.raises(UserError, match=says(message)):
        load_training(folder_dataset(tmp_path))


def test_smallest_classes_reach_every_part(tmp_path: Path) -> None:
    write_images(tmp_path, {"cat": 8, "dog": 8, "owl": 50})
    data = load_training(folder_dataset(tmp_path))
    for part in (data.train, data.validation, load_test(folder_dataset(tmp_path))):
        assert torch.bincount(part.labels).min() >= 1


def test_train_folder_with_a_small_class_is_an_error(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"cat": 5, "dog": 6})
    write_images(tmp_path / "test", {"cat": 1, "dog": 1})
    message = f"folder {tmp_path}: class 'cat' has 5 train images; every class needs at least 6"
    with pytest.raises(UserError, match=says(message)):
        load_training(folder_dataset(tmp_path))


def test_test_folder_with_an_empty_class_is_an_error(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"cat": 6, "dog": 6})
    write_images(tmp_path / "test", {"cat": 1, "dog": 0})
    message = f"folder {tmp_path}: class 'dog' has 0 test images; every class needs at least 1"
    with pytest.raises(UserError, match=says(message)):
        load_training(folder_dataset(tmp_path))


def test_train_and_test_folders_must_have_the_same_classes(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"cat": 6, "dog": 6})
    write_images(tmp_path / "test", {"cat": 1, "owl": 1})
    message = f"folder {tmp_path}: train/ and test/ must have the same class folders, but differ in dog, owl"
    with pytest.raises(UserError, match=says(message)):
        load_training(folder_dataset(tmp_path))


def test_all_files_that_cannot_be_read_are_told_at_once(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"cat": 6, "dog": 6}, size=(60, 40))
    write_images(tmp_path / "test", {"cat": 1, "dog": 1})
    broken = [tmp_path / "train" / "dog" / f"00{i}.png" for i in range(4)] + [tmp_path / "test" / "cat" / "000.png"]
    for kept, path in enumerate(broken):
        path.write_bytes(path.read_bytes()[: 10 * kept])
    dataset = folder_dataset(tmp_path)
    with pytest.raises(
        UnreadableError, match=r"^folder .*: 5 of 14 images cannot be read: .*; and 2 more; replace"
    ) as told:
        load_training(dataset)
    assert "\n" not in str(told.value)
    sheet = told.value.sheet
    assert [path for path, _ in sheet.unreadable] == sorted(map(str, broken))
    assert all(reason in str(sheet) for _, reason in sheet.unreadable)


# splits


def noise(seed: int, size: tuple[int, int] = (12, 12)) -> Image.Image:
    """A picture like no other."""
    pixels: Pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write_noise(folder: Path, classes: dict[str, int], first: int = 0) -> int:
    """Different pictures of each class; the number of the next one."""
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            noise(first).save(folder / name / f"{first:05}.png")
            first += 1
    return first


def sizes_of(folder: Path) -> tuple[int, int, int]:
    """How many images are trained on, validate and test."""
    dataset = folder_dataset(folder, (3, 12, 12))
    data = load_training(dataset)
    return len(data.train), len(data.validation), len(load_test(dataset))


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Training", "Validation", "Testing"),
        ("TRAIN", "dev", "holdout"),
        ("seg_train", "seg_valid", "seg_test"),
        ("train_images", "eval-images", "hold-out"),
        ("my train set", "my val set", "my test set"),
        ("train2017", "val2017", "test2017"),
    ],
)
def test_splits_are_known_by_their_names(names: tuple[str, str, str], tmp_path: Path) -> None:
    first = 0
    for name, count in zip(names, (5, 3, 2), strict=True):
        first = write_noise(tmp_path / name, {"cat": count, "dog": count}, first)
    assert sizes_of(tmp_path) == (10, 6, 4)


def test_how_many_images_are_trained_on_is_known_before_they_are_read(tmp_path: Path) -> None:
    write_noise(tmp_path / "whole", {"a": 20, "b": 40})
    whole = extent(str(tmp_path / "whole"))
    assert whole == Extent(classes=2, images=42), "of 60, a sixth is kept for the test, and one of the rest"
    first = write_noise(tmp_path / "parts" / "train", {"a": 20, "b": 20})
    write_noise(tmp_path / "parts" / "val", {"a": 3, "b": 3}, first)
    assert extent(str(tmp_path / "parts")) == Extent(classes=2, images=33, own_validation=True)
    assert extent("mnist") == Extent(classes=10)


def test_own_validation_images_are_used_and_the_test_is_drawn(tmp_path: Path) -> None:
    first = write_noise(tmp_path / "train", {"cat": 18, "dog": 12})
    write_noise(tmp_path / "Val", {"cat": 3, "dog": 4}, first)
    assert sizes_of(tmp_path) == (25, 7, 5)
    data = load_training(folder_dataset(tmp_path, (3, 12, 12)))
    assert torch.bincount(data.validation.labels).tolist() == [3, 4]


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("train", "bus", "car"), None),
        (("valid", "invalid"), None),
        (("test_tube", "beaker"), None),
        (("dev", "ops"), None),
    ],
)
def test_classes_that_are_called_like_a_split_stay_classes(names: tuple[str, ...], parts: None, tmp_path: Path) -> None:
    write_noise(tmp_path, dict.fromkeys(names, 8))
    assert load_training(folder_dataset(tmp_path)).classes == tuple(sorted(names))


def test_an_empty_test_folder_is_an_error_and_no_reason_to_draw(tmp_path: Path) -> None:
    write_noise(tmp_path / "train", {"a": 9, "b": 9})
    write_noise(tmp_path / "test", {"a": 0, "b": 0})
    with pytest.raises(UserError, match="class 'a' has 0 test images; every class needs at least 1"):
        load_training(folder_dataset(tmp_path))


def folders(root: Path, *paths: str) -> None:
    first = 0
    for path in paths:
        first = write_noise(root / path, {".": 9}, first)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("train/a", "train/b", "test/a", "test/b", "c"), "test/, train/ seem to be splits, but c/ stand beside them"),
        (("train/a", "train/b", "val/a", "val/b", "dev/a", "dev/b"), "dev/, val/ all seem to be validation images"),
        (("val/a", "val/b", "test/a", "test/b"), "test/, val/ seem to be splits, but none is of training images"),
        (
            ("cat/train", "cat/test", "dog/train", "dog/test"),
            "each of cat/, dog/ holds test/, train/, which seem to be",
        ),
        (("cat/Val", "cat/x", "dog/Val", "dog/y"), "each of cat/, dog/ holds Val/, which seem to be splits"),
        (("site1/cat", "site1/dog", "site2/cat", "site2/dog"), "each of site1/, site2/ holds cat/, dog/; give one"),
        (("ill/images", "ill/masks", "well/images", "well/masks"), "each of ill/, well/ holds images/, masks/; give"),
        (("train/a", "train/b", "unlabeled"), "train/ seems to hold the classes, but unlabeled/ stand beside it; move"),
        (
            ("photos/cat", "photos/dog"),
            "has only the class folder 'photos'; it needs at least 2, one for each class; if",
        ),
        (
            ("train/a", "train/b", "val/a", "val/c"),
            "train/ and val/ must have the same class folders, but differ in b, c",
        ),
    ],
)
def test_folders_of_unclear_meaning_are_refused(paths: tuple[str, ...], message: str, tmp_path: Path) -> None:
    folders(tmp_path, *paths)
    with pytest.raises(UserError, match=f"^{re.escape(f'folder {tmp_path}: {message}')}") as told:
        load_training(folder_dataset(tmp_path))
    assert "\n" not in str(told.value)


def test_words_that_name_a_part() -> None:
    assert {part_named(word) for word in ("TRAIN", "training_set", "x-train")} == {"train"}
    assert {part_named(word) for word in ("Dev", "valid", "VALIDATION 2")} == {"validation"}
    assert {part_named(word) for word in ("testing", "hold_out", "held-out", "HoldOut")} == {"test"}
    assert {part_named(word) for word in ("cat", "trained", "contest", "train_test", "", "invalid")} == {None}


# clutter, links, other formats


def test_what_systems_leave_behind_is_passed_over_and_told(tmp_path: Path) -> None:
    write_noise(tmp_path, {"a": 9, "b": 9})
    image = (tmp_path / "a" / "00000.png").read_bytes()
    clutter = (
        *("__MACOSX/a/._x.png", ".ipynb_checkpoints/x.png", "a/.ipynb_checkpoints/00000-checkpoint.png"),
        *("a/deep/.git/x.png", "b/._00012.png", "b/.hidden.jpg", "b/@eaDir/x.png", "b/__MACOSX/x.png"),
    )
    for path in clutter:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(image)
    for name in ("a/.DS_Store", "b/Thumbs.db", "b/desktop.ini"):
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / "a" / "readme.md").write_text("no image")
    (tmp_path / "loose.png").write_bytes(image)
    assert sum(sizes_of(tmp_path)) == 18
    told = listed(str(tmp_path)).skipped
    assert {reason: len(paths) for reason, paths in told.items()} == {
        "hidden, or left behind by a program": 11,
        "no image by its name": 1,
        "in no class folder": 1,
    }


def test_links_to_elsewhere_are_followed_and_those_within_the_data_set_are_told(tmp_path: Path) -> None:
    root = tmp_path / "images"
    first = write_noise(root, {"cat": 9, "dog": 9})
    first = write_noise(tmp_path / "more", {"cats": 5, "one": 1}, first)
    (root / "cat" / "more").symlink_to(tmp_path / "more" / "cats")
    (root / "dog" / "one.png").symlink_to(next((tmp_path / "more" / "one").iterdir()))
    (tmp_path / "more" / "cats" / "round").symlink_to(tmp_path / "more")
    for name, target in (("loop", "."), ("up", ".."), ("dogs", "../dog")):
        (root / "cat" / name).symlink_to(target)
    assert sum(sizes_of(root)) == 9 + 9 + 5 + 1 + 1, "the way round leads to the one other picture as well"
    assert len(listed(str(root)).skipped["a link to a folder of the data set"]) >= 3


@pytest.mark.parametrize(
    "kind", ["gif", "webp", "bmp", "tif", "jp2", "tga", "ppm", "avif", "ico", "qoi", "jfif", "GIF"]
)
def test_pictures_of_many_formats_are_read(kind: str, tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(8):
            noise(8 * (label == "b") + i, (16, 16)).save(tmp_path / label / f"{i}.{kind}")
    assert sum(sizes_of(tmp_path)) == 16


# pixels as meant


def arrow(mode: str = "RGB", size: tuple[int, int] = (40, 20)) -> Image.Image:
    """A picture that is different from all its turned and mirrored ones."""
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, size[0] // 2, size[1] // 3), "black")
    draw.rectangle((0, 0, size[0] // 5, size[1] - 5), "red")
    return image.convert(mode)


def seen(path: Path, shape: tuple[int, int, int] = (3, 20, 40), **how: Any) -> Pixels:
    """What a network is given of a file."""
    how = {"fit": "squash", "background": "white", "value_range": None, **how}
    with Image.open(path) as image:
        found = np.asarray(as_network_sees(image, shape, **how))
    return found.reshape(*shape[1:], shape[0])


TURNS = {  # Exif 2.32, tag 274: how an upright picture is stored
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("kind", ["png", "tiff", "webp", "jpg"])
@pytest.mark.parametrize("orientation", TURNS)
def test_photographs_stand_upright(orientation: int, kind: str, tmp_path: Path) -> None:
    upright, turn = arrow(), TURNS[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[274] = orientation
    known: dict[str, dict[str, Any]] = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}
    options = known.get(kind, {})
    stored.save(tmp_path / f"x.{kind}", exif=exif, **options)
    difference = np.abs(seen(tmp_path / f"x.{kind}").astype(int) - np.asarray(upright))
    assert difference.max() <= (8 if kind == "jpg" else 0)


def in_alpha(mode: str, colour: str = "black") -> Image.Image:
    """An icon whose shape is in its transparency."""
    image = Image.new("RGBA", (12, 12), colour)
    image.putalpha(Image.fromarray(np.pad(np.full((6, 6), 255, np.uint8), 3)))
    if mode == "P":
        image = image.quantize(4)
    return image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGBA", "png"), ("LA", "png"), ("P", "png"), ("RGBA", "webp"), ("RGBA", "tiff")]
)
def test_transparent_pixels_show_the_background(mode: str, kind: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"lossless": True} if kind == "webp" else {}
    in_alpha(mode).save(tmp_path / f"x.{kind}", **options)
    expected = np.pad(np.zeros((6, 6), np.uint8), 3, constant_values=255)
    for channels in (1, 3):
        found = seen(tmp_path / f"x.{kind}", (channels, 12, 12))
        assert (found == expected[..., None]).all()
    with pytest.raises(ValueError, match="it cannot be seen on black; set background=white"):
        seen(tmp_path / f"x.{kind}", (1, 12, 12), background="black")


def test_white_icons_are_seen_on_black(tmp_path: Path) -> None:
    in_alpha("RGBA", "white").save(tmp_path / "x.png")
    with pytest.raises(ValueError, match="it cannot be seen on white; set background=black"):
        seen(tmp_path / "x.png", (1, 12, 12))
    assert seen(tmp_path / "x.png", (1, 12, 12), background="black")[6, 6] == 255
    Image.new("RGBA", (12, 12), (9, 9, 9, 0)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match="it is wholly transparent"):
        seen(tmp_path / "x.png", (1, 12, 12))


def test_a_colour_that_is_transparent_shows_the_background(tmp_path: Path) -> None:
    image = Image.new("RGB", (12, 12), (1, 2, 3))
    image.paste((200, 0, 0), (0, 0, 6, 12))
    image.save(tmp_path / "x.png", transparency=(1, 2, 3))
    found = seen(tmp_path / "x.png", (3, 12, 12))
    assert found[0, 0].tolist() == [200, 0, 0]
    assert found[0, 11].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("mode", "kind"), [("CMYK", "tiff"), ("CMYK", "jpg"), ("P", "png"), ("P", "gif"), ("1", "png"), ("YCbCr", "jpg")]
)
def test_other_colour_models_are_converted(mode: str, kind: str, tmp_path: Path) -> None:
    image = arrow()
    if mode == "1":
        image = image.convert("L").point(lambda value: 255 * (value > 128)).convert("RGB")
    image.convert(mode).save(tmp_path / f"x.{kind}")
    assert np.abs(seen(tmp_path / f"x.{kind}").astype(int) - np.asarray(image)).mean() < 8


def deep(values: Any, dtype: Any) -> Image.Image:
    return Image.fromarray(np.array([values] * 4, dtype=dtype))


@pytest.mark.parametrize(
    ("values", "dtype", "value_range", "expected"),
    [
        ((0, 257, 32_896, 65_535), np.uint16, None, (0, 1, 128, 255)),
        ((0, 16, 2_056, 4_095), np.uint16, (0, 4_095), (0, 1, 128, 255)),
        ((1_000, 1_500, 2_000, 9_000), np.uint16, (1_000, 2_000), (0, 128, 255, 255)),
        ((0, 257, 32_896, 65_535), np.int32, None, (0, 1, 128, 255)),
        ((-1_000, 0, 1_000, 3_000), np.int32, (-1_000, 1_000), (0, 128, 255, 255)),
        ((0.0, 0.5, 1.0, 0.25), np.float32, None, (0, 128, 255, 64)),
        ((0.0, 5.0, 10.0, 20.0), np.float32, (0, 10), (0, 128, 255, 255)),
        ((0, 10, 5, 2), np.float32, (10, 0), (255, 0, 128, 204)),
    ],
)
def test_more_than_8_bits_are_scaled_from_black_to_white(
    values: Any, dtype: Any, value_range: Any, expected: tuple[int, ...], tmp_path: Path
) -> None:
    deep(values, dtype).save(tmp_path / "x.tif")
    for channels in (1, 3):
        found = seen(tmp_path / "x.tif", (channels, 4, 4), value_range=value_range)
        assert found[0].tolist() == [[grey] * channels for grey in expected]


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        ((0, 5, 70_000), np.int32, "values from 0 to 70000, not from 0 to 65535; set value_range=(0, 70000)"),
        ((-5, 5, 9), np.int32, "values from -5 to 9, not from 0 to 65535; set value_range=(-5, 9)"),
        ((0, 3, 255), np.float32, "values from 0 to 255, not from 0 to 1; set value_range=(0, 255)"),
        ((0, float("nan"), 1), np.float32, "values that are no numbers"),
        ((0, float("inf"), 1), np.float32, "values that are no numbers"),
    ],
)
def test_values_beyond_the_usual_range_are_refused_with_the_way_out(
    values: Any, dtype: Any, message: str, tmp_path: Path
) -> None:
    deep(values, dtype).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match=f"^{re.escape(f'it has {message}')}$"):
        seen(tmp_path / "x.tif", (1, 4, 3))


def test_pictures_are_squashed_padded_or_cropped(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), (0, 0, 0))
    image.paste((100, 100, 100), (10, 0, 30, 20))
    image.save(tmp_path / "x.png")
    squashed, padded, cropped = (
        seen(tmp_path / "x.png", (1, 20, 20), fit=fit)[..., 0] for fit in ("squash", "pad", "crop")
    )
    assert (squashed[:, 0] < 20).all()
    assert (padded[[0, 1, 2, 3, 4, 15, 16, 17, 18, 19]] == 255).all()
    assert (padded[5:15, 0] < 20).all()
    assert (cropped == 100).all()
    dark = seen(tmp_path / "x.png", (1, 20, 20), fit="pad", background="black")[..., 0]
    assert (dark[:5] == 0).all()


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"fit": "stretch"}, "fit 'stretch' must be one of squash, pad, crop"),
        ({"background": "pink"}, "background 'pink' must be white or black"),
        ({"value_range": (1, 1)}, "value_range (1, 1) must be two numbers"),
        ({"value_range": (True, 5)}, "value_range (True, 5) must be two numbers"),
        ({"value_range": (0, 10**400)}, "value_range (0, 1"),
        ({"value_range": 4095}, "value_range 4095 must be two numbers"),
        ({"value_range": (0, float("inf"))}, "value_range (0, inf) must be two numbers"),
    ],
)
def test_pictures_say_what_they_may_be(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(f'Pictures: {rule}')}"):
        Pictures(**change)


def test_a_value_range_is_kept_as_plain_numbers() -> None:
    found = Pictures(value_range=[np.float64(0), np.int64(9)])  # type: ignore[arg-type]
    assert (repr(found.value_range), hash(found) is not None) == ("(0.0, 9.0)", True)


# copies


def parts_of(dataset: Dataset) -> tuple[Images, Images, Images]:
    data = load_training(dataset)
    return data.train, data.validation, load_test(dataset)


def contents(images: Images) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.images}


def test_copies_of_a_picture_stay_on_one_side(tmp_path: Path) -> None:
    write_noise(tmp_path, {"a": 24, "b": 24})
    for i, path in enumerate(sorted(tmp_path.rglob("*.png"))[:36]):
        for copy in range(i % 4):
            Image.open(path).save(path.with_name(f"{path.stem}-{copy}.{('bmp', 'tif', 'png')[copy]}"))
    dataset = folder_dataset(tmp_path, (3, 12, 12))
    train, validation, test = map(contents, parts_of(dataset))
    assert len(train) + len(validation) + len(test) == len(train | validation | test)
    assert len(train | validation | test) == 48
    sheet = sheet_of_files(dataset)
    assert len(sheet.copies) == 9 * (1 + 2 + 3)
    assert len(validation) >= 3


def a_photo(seed: int) -> Image.Image:
    """Smooth shapes, as photographs have."""
    coarse: Pixels = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)


def test_pictures_that_were_saved_anew_stay_with_the_first(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(20):
            photo = a_photo(100 * (label == "b") + i)
            photo.save(tmp_path / label / f"{i:02}.png")
            photo.save(tmp_path / label / f"{19 - i:02} copy.jpg", quality=60)
            photo.resize((50, 50)).save(tmp_path / label / f"small {i}.webp", quality=90)
    dataset = folder_dataset(tmp_path, (3, 32, 32))
    train, validation, test = parts_of(dataset)

    def nearest(image: torch.Tensor, others: Images) -> float:
        return float((others.images.float() - image.float()).abs().mean(dim=(1, 2, 3)).min())

    assert min(nearest(image, train) for image in validation.images) > 15
    assert min(nearest(image, train) for image in test.images) > 15


def test_training_images_that_are_judged_on_are_left_out_and_told(tmp_path: Path) -> None:
    first = write_noise(tmp_path / "train", {"a": 10, "b": 10})
    first = write_noise(tmp_path / "val", {"a": 3, "b": 3}, first)
    write_noise(tmp_path / "test", {"a": 3, "b": 3}, first)
    of_test, of_validation = (sorted((tmp_path / part / "a").iterdir())[0] for part in ("test", "val"))
    Image.open(of_test).save(tmp_path / "train" / "a" / "leak.bmp")
    Image.open(of_test).save(tmp_path / "val" / "a" / "leak.bmp")
    Image.open(of_validation).save(tmp_path / "train" / "a" / "other.tif")
    photo = a_photo(5).resize((12, 12))
    photo.save(tmp_path / "train" / "b" / "photo.png")
    photo.save(tmp_path / "test" / "b" / "photo.jpg", quality=95, subsampling=0)
    assert sizes_of(tmp_path) == (21, 6, 7)
    sheet = sheet_of_files(folder_dataset(tmp_path, (3, 12, 12)))
    assert len(sheet.leaks) == 3
    assert "3 images left out: copies of images in another part" in str(sheet)
    assert "1 pair of images of two parts that look alike" in str(sheet), "which is told, and no more"


@pytest.mark.parametrize(
    ("validation", "given", "told"),
    [
        ((4, 5), ("validation",), ["9 validation images: one of them moves an accuracy by 11.1 points"]),
        ((50, 50), ("validation",), []),
        ((4, 5), (), []),  # a search says how it judges
    ],
)
def test_a_handful_of_own_validation_images_is_told(
    validation: tuple[int, int], given: tuple[Part, ...], told: list[str]
) -> None:
    counts: dict[Part, tuple[int, ...]] = {"train": (90, 90), "validation": validation, "test": (9, 9)}
    assert DataSheet(name="photos", classes=("cat", "dog"), counts=counts, given=given).warnings == told


def test_a_picture_in_two_classes_is_told(tmp_path: Path) -> None:
    write_noise(tmp_path, {"a": 9, "b": 9})
    source = sorted((tmp_path / "a").iterdir())[0]
    Image.open(source).save(tmp_path / "b" / "same.bmp")
    sheet = sheet_of_files(folder_dataset(tmp_path, (3, 12, 12)))
    assert sheet.conflicts == ((str(tmp_path / "b" / "same.bmp"), str(source)),)
    assert "these are few: a search with --data holds every sixth image out in turn" in str(sheet)
    assert "1 picture in two classes" in str(sheet)


def test_a_class_of_copies_is_refused(tmp_path: Path) -> None:
    write_noise(tmp_path, {"a": 12})
    (tmp_path / "b").mkdir()
    for i in range(12):
        noise(99).save(tmp_path / "b" / f"{i}.png")
    with pytest.raises(UserError, match=r"class 'b' has no \w+ images, since copies of a picture .* stay together"):
        sizes_of(tmp_path)


def test_copies_of_own_validation_images_are_not_tested_on(tmp_path: Path) -> None:
    write_noise(tmp_path / "train", {"a": 40, "b": 40})
    (tmp_path / "val" / "a").mkdir(parents=True)
    (tmp_path / "val" / "b").mkdir()
    for path in sorted((tmp_path / "train").rglob("*.png"))[::2]:
        Image.open(path).save(tmp_path / "val" / path.parent.name / path.name)
    train, validation, test = map(contents, parts_of(folder_dataset(tmp_path, (3, 12, 12))))
    assert len(train) + len(validation) + len(test) == len(train | validation | test) == 80


def test_frames_of_one_camera_are_no_copies_of_each_other(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scene = np.asarray(a_photo(7))
    for label in ("whole", "broken"):
        (tmp_path / label).mkdir()
        for i in range(30):
            frame = np.clip(scene + rng.normal(0, 1, scene.shape), 0, 255).astype(np.uint8)
            if label == "broken":
                frame[20:26, 20:26] = 255
            Image.fromarray(frame).save(tmp_path / label / f"{i}.png")
    assert sizes_of(tmp_path) == (41, 9, 10)


def test_many_copies_and_many_classes_take_little_time(tmp_path: Path) -> None:
    pixels = np.repeat(np.asarray(a_photo(1))[None].transpose(0, 3, 1, 2), 3_000, axis=0)
    noisy = np.clip(pixels.astype(int) + np.random.default_rng(0).integers(-1, 2, pixels.shape), 0, 255).astype(
        np.uint8
    )
    started = time.process_time()
    assert near_images(pixels, equal_images(pixels)) == []
    assert len(near_images(noisy, equal_images(noisy))) < 9 * len(noisy)
    for i in range(150):
        for part in ("train", "val"):
            (tmp_path / part / f"{i}").mkdir(parents=True)
    started_listing = time.process_time()
    listed(str(tmp_path))
    assert started_listing - started < 30
    assert time.process_time() - started_listing < 3


# tables and groups


def write_table(file: Path, rows: list[tuple[str, ...]], *, delimiter: str = ",", encoding: str = "utf-8") -> None:
    with file.open("w", newline="", encoding=encoding) as opened:
        csv.writer(opened, delimiter=delimiter).writerows(rows)


def flat(folder: Path, count: int) -> list[str]:
    write_noise(folder, {"images": count})
    return [f"images/{i:05}.png" for i in range(count)]


@pytest.mark.parametrize("path", ["~x.png", "~nobody/x.png", "a\0b.png", "n" * 300 + ".png", "", " ", "/dev/zero"])
def test_odd_paths_in_a_table_are_sentences(path: str, tmp_path: Path) -> None:
    names = flat(tmp_path, 24)
    text = "".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(names))
    (tmp_path / "labels.csv").write_text(f"path,label\n{text}{path},a\n")
    with pytest.raises(UserError, match=r"^table .*(1 of 25 images cannot be read|line 26 has no path|is no table)"):
        load_training(folder_dataset(tmp_path / "labels.csv", (3, 12, 12)))


def test_a_table_whose_files_are_all_elsewhere_is_a_sentence(tmp_path: Path) -> None:
    write_table(tmp_path / "l.csv", [("path", "label"), *((f"gone/{i}.png", "ab"[i % 2]) for i in range(24))])
    with pytest.raises(UnreadableError, match="24 of 24 images cannot be read") as told:
        load_training(folder_dataset(tmp_path / "l.csv", (3, 12, 12)))
    assert "gone/23.png" in str(told.value.sheet)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", [("path", "label"), ("File Name", "Class"), ("image_path", "target")])
def test_a_table_lists_files(header: tuple[str, str], delimiter: str, tmp_path: Path) -> None:
    names = flat(tmp_path, 24)
    rows = [(name, ("10", "9")[i % 2]) for i, name in enumerate(names)]
    write_table(tmp_path / "labels.csv", [header, *rows], delimiter=delimiter, encoding="utf-8-sig")
    dataset = folder_dataset(tmp_path / "labels.csv", (3, 12, 12))
    assert load_training(dataset).classes == ("9", "10")
    assert sizes_of(tmp_path / "labels.csv") == (16, 4, 4)


def test_a_table_may_say_parts_and_groups(tmp_path: Path) -> None:
    names = flat(tmp_path, 60)
    parts = ("Train", "train", "training", "val", "TEST")
    rows = [(name, "ab"[i % 2], parts[i % 5]) for i, name in enumerate(names)]
    write_table(tmp_path / "a.tsv", [("path", "label", "split"), *rows], delimiter="\t")
    assert sizes_of(tmp_path / "a.tsv") == (36, 12, 12)
    grouped = [(name, "ab"[i % 2], f"patient {i // 6}") for i, name in enumerate(names)]
    write_table(tmp_path / "b.csv", [("path", "label", "patient"), *grouped])
    patients = {noise(i).tobytes(): i // 6 for i in range(60)}
    sides = [
        {patients[image.permute(1, 2, 0).numpy().tobytes()] for image in part.images}
        for part in parts_of(folder_dataset(tmp_path / "b.csv", (3, 12, 12)))
    ]
    assert sum(map(len, sides)) == 10, "each patient is on one side"
    assert all(sides)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("file", "size"), ("x.png", "3")], "no column 'label' among file, size"),
        ([("path", "label"), ("x.png",)], "line 2 has 1 cells, and the first line 2"),
        ([("path", "label"), ("x.png", "")], "line 2 has no path or no label"),
        ([("path", "label", "split"), ("x.png", "a", "maybe")], "line 2 has the split 'maybe'"),
        ([("path", "label"), ("x.png", "a"), ("y.png", "a")], "has 1 classes; it needs at least 2"),
        ([("path", "label"), ("x.png", "a"), ("x.png", "b")], "x.png stands in several rows"),
        ([("path", "label", "split"), ("x.png", "a", ""), ("y.png", "b", "test")], "some rows have a split and some"),
        ([], "is no table"),
    ],
)
def test_tables_of_unclear_meaning_are_refused(rows: list[tuple[str, ...]], message: str, tmp_path: Path) -> None:
    write_table(tmp_path / "labels.csv", rows)
    with pytest.raises(UserError, match=f"^table .*{re.escape(message)}") as told:
        load_training(folder_dataset(tmp_path / "labels.csv"))
    assert "\n" not in str(told.value)


def test_files_of_a_table_that_are_missing_are_told(tmp_path: Path) -> None:
    names = [*flat(tmp_path, 24), "gone.png", "../away.png"]
    write_table(tmp_path / "labels.csv", [("path", "label"), *((name, "ab"[i % 2]) for i, name in enumerate(names))])
    with pytest.raises(UserError, match=r"2 of 26 images cannot be read: .*gone\.png \(there is no such file\)"):
        load_training(folder_dataset(tmp_path / "labels.csv", (3, 12, 12)))


def test_a_group_in_two_parts_is_refused(tmp_path: Path) -> None:
    names = flat(tmp_path, 36)
    rows = [(name, "ab"[i % 2], ("train", "val", "test")[i % 3], f"g{i // 4}") for i, name in enumerate(names)]
    write_table(tmp_path / "labels.csv", [("path", "label", "split", "group"), *rows])
    with pytest.raises(
        UserError, match=r"group 'g0' is in train and in validation; the images of a group must be in one"
    ):
        load_training(folder_dataset(tmp_path / "labels.csv", (3, 12, 12)))


def test_groups_stay_together_and_shares_stay_near_a_sixth() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        count = int(rng.integers(60, 600))
        labels = np.sort(rng.integers(0, 3, count))
        groups = rng.integers(0, count // 4, count)
        mask = stratified_sixth(labels, groups)
        assert not set(groups[mask]) & set(groups[~mask])
        shares = np.bincount(labels[mask], minlength=3) / np.bincount(labels, minlength=3)
        assert 0.08 < shares.min() <= shares.max() < 0.4
    single = np.arange(100)
    labels = single % 3
    assert (stratified_sixth(labels, single) == stratified_sixth(labels)).all()


# read once


def test_files_that_change_end_what_has_begun(tmp_path: Path) -> None:
    write_noise(tmp_path, {"a": 20, "b": 20})
    begun = read_once(folder_dataset(tmp_path, (3, 12, 12)), lambda done, total: None)
    data = load_training(begun)
    write_noise(tmp_path, {"a": 7}, first=100)
    assert len(load_test(begun)) == 7, "of the images that were there when it began"
    assert len(load_training(begun, hold_out=False).train) == len(data.train) + len(data.validation) == 33
    (data_folder(begun) / "pictures" / f"{begun.files}.safetensors").unlink()
    with pytest.raises(
        UserError, match="its files have changed since this began; begin anew, or bring the old ones back"
    ):
        load_test(begun)
    assert len(load_test(folder_dataset(tmp_path, (3, 12, 12)))) == 8


def test_folders_of_one_name_in_two_places_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for place in ("one", "two"):
        write_noise(tmp_path / place / "photos", {"a": 8, "b": 8}, first=100 * (place == "two"))
        for path in (tmp_path / place).rglob("*.png"):
            noise(int(path.stem)).save(path.with_suffix(".bmp"))
            path.unlink()
            path = path.with_suffix(".bmp")
            path.rename(path.with_name(f"{int(path.stem) % 100:03}.bmp"))
        for path in (tmp_path / place).rglob("*.bmp"):
            os.utime(path, (1, 1))
        monkeypatch.chdir(tmp_path / place)
        forget()
        found.append(load_training(Dataset(name="photos", input_shape=(3, 12, 12))).train.images)
    assert not torch.equal(*found)


def test_what_is_passed_over_is_told_as_it_is_now(tmp_path: Path) -> None:
    write_noise(tmp_path, {"a": 8, "b": 8})
    dataset = folder_dataset(tmp_path, (3, 12, 12))
    assert not sheet_of_files(dataset).skipped
    (tmp_path / "loose.png").write_bytes(b"")
    (tmp_path / "a" / "x\x1b[31m\nwarning: none.heic").write_bytes(b"")
    told = str(sheet_of_files(dataset))
    assert "in no class folder: 1" in told
    assert "no image by its name: 1" in told
    assert "\x1b" not in told
    assert "\nwarning: none" not in told


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_noise(tmp_path, {"a/below": 8, "b": 8})
    listing = os.scandir

    def scandir(path: Any = ".") -> Any:
        if str(path).endswith("below"):
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"^folder .*below cannot be read \(Permission denied\)"):
        listed(str(tmp_path))


def test_files_are_decoded_once(tmp_path: Path) -> None:
    write_noise(tmp_path, {"a": 20, "b": 20})
    dataset, told = folder_dataset(tmp_path, (3, 12, 12)), list[tuple[int, int]]()
    name = keep_files(dataset, lambda done, total: told.append((done, total)))
    assert told[-1] == (40, 40)
    with recorded_files() as opened:
        data = load_training(dataset)
    assert not [path for path in opened if path.startswith(str(tmp_path))]
    path = sorted((tmp_path / "a").iterdir())[0]
    state = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))
    assert keep_files(dataset) != name, "a file has changed"
    forget()
    assert torch.equal(load_training(dataset).train.images, data.train.images)
    padded = Dataset(name=dataset.name, input_shape=dataset.input_shape, pictures=Pictures(fit="pad"))
    assert keep_files(padded) != keep_files(dataset)


def kept(dataset: Dataset) -> Path:
    """The file of a data set's pixels."""
    return data_folder(dataset) / "pictures" / f"{keep_files(dataset)}.safetensors"


def test_the_oldest_kept_pixels_make_room_and_nothing_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_noise(tmp_path, {"a": 20, "b": 20})
    first, second = kept(folder_dataset(tmp_path, (3, 12, 12))), kept(folder_dataset(tmp_path, (3, 14, 14)))
    somebodys = first.with_name("my weights.safetensors")
    somebodys.write_bytes(b"x" * 10**6)
    os.utime(first, (1, 1))
    monkeypatch.setattr(files, "MOST_KEPT", 3 * second.stat().st_size // 2)
    third = kept(folder_dataset(tmp_path, (1, 12, 12)))
    assert [path.exists() for path in (first, second, third, somebodys)] == [False, True, True, True]


def test_kept_pixels_that_are_damaged_are_named(tmp_path: Path) -> None:
    write_noise(tmp_path, {"a": 20, "b": 20})
    dataset = folder_dataset(tmp_path, (3, 12, 12))
    path = kept(dataset)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=rf"^the kept pixels {re.escape(str(path))} cannot be read"):
        load_training(dataset)
