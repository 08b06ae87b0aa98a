"""An image file as pixels. Those of SHARED also stand in every exported `model.py`."""

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

    from nas.space.pictures import Pictures

FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP")
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".bmp"),
    *(".dib", ".tif", ".tiff", ".webp", ".gif", ".avif", ".jp2", ".j2k", ".jpx", ".ico", ".tga", ".qoi"),
)
MOST_PIXELS = 120_000_000  # of one image, since it is unpacked before it is resized


def read_image(path: str, shape: tuple[int, int, int], pictures: "Pictures") -> "tuple[PILImage, str, tuple[int, int]]":
    """One file in grey or colour, of the height and width of `shape` (C, H, W); its own mode, width and height.

    Raises:
        ValueError: why it cannot be used, in a few words; also for whatever a damaged file makes a decoder raise.
    """
    from PIL import Image

    try:
        if not Path(path).is_file():  # a pipe would be waited for, a device never ends
            raise ValueError("it is no file" if Path(path).exists() else "there is no such file")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it has {image.width:,} × {image.height:,} pixels, more than {MOST_PIXELS:,}")
            kind = image.mode, image.size
            return as_network_sees(image, shape, pictures.fit, pictures.background, pictures.value_range), *kind
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def as_network_sees(
    image: Any,  # from Pillow
    shape: tuple[int, ...],
    fit: str,
    background: str,
    value_range: Any,
) -> Any:
    """An open Pillow image upright, on its background, in grey or colour, fitted."""
    from PIL import Image, ImageOps

    channels, height, width = shape
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # MPO has previews
        raise ValueError("it has several frames")
    longer = 2 * max(height, width)
    image.draft(None, (longer, longer))  # a large JPEG is unpacked smaller
    image = in_8_bits(ImageOps.exif_transpose(image), value_range)
    image = opaque(image, background).convert("L" if channels == 1 else "RGB")
    bilinear, size = Image.Resampling.BILINEAR, (width, height)
    if fit == "pad":
        return ImageOps.pad(image, size, bilinear, color=background)
    if fit == "crop":
        return ImageOps.fit(image, size, bilinear)
    return image.resize(size, bilinear)


def in_8_bits(image: Any, value_range: Any) -> Any:
    """The same image; one of more than 8 bits a pixel is made grey, black to white."""
    from PIL import Image

    if image.mode[0] not in "IF":
        return image
    mean = image.convert("F").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    if not isfinite(mean):
        raise ValueError("it has values that are no numbers")
    least, most = image.getextrema()
    black, white = value_range or ((0, 1) if image.mode == "F" else (0, 65535))
    if value_range is None and not black <= least <= most <= white:
        usual = f"values from {least:g} to {most:g}, not from {black} to {white}"
        raise ValueError(f"it has {usual}; set value_range=({least:g}, {most:g})")
    factor = 255 / (white - black)
    shift = 0.5 - black * factor  # half a level, since the rest is cut off
    return image.convert("F").point(lambda value: value * factor + shift).convert("L")


def opaque(image: Any, background: str) -> Any:
    """The same image; a transparent one stands on the background."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    least, most = image.getchannel("A").getextrema()
    if most == 0:
        raise ValueError("it is wholly transparent")
    below = Image.new("RGBA", image.size, background)
    found = Image.alpha_composite(below, image).convert("RGB")
    if least < most and found.getcolors(maxcolors=1):
        other = "black" if background == "white" else "white"
        raise ValueError(f"it cannot be seen on {background}; set background={other}")
    return found


SHARED = (as_network_sees, in_8_bits, opaque)
