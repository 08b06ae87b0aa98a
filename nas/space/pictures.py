"""How image files become what a network sees, as a value."""

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from nas.errors import require

FITS = ("squash", "pad", "crop")
BACKGROUNDS = ("white", "black")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """How an image file of any size becomes what a network sees; the exported `prepare` does the same.

    `fit` says what becomes of a picture with other proportions: "squash" makes it as wide and as high as the input,
    "pad" puts it in the middle of the background, "crop" keeps its middle. `background` is what transparent pixels
    show. `value_range` are the values that are black and white, of images with more than 8 bits a pixel; what lies
    beyond is cut off. Without it 16 bits go from 0 to 65535, and floats from 0 to 1.

    Raises:
        UserError: another value.
    """

    fit: Literal["squash", "pad", "crop"] = "squash"
    background: Literal["white", "black"] = "white"
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        require(self.fit in FITS, "Pictures", "fit", self.fit, f"one of {', '.join(FITS)}")
        require(self.background in BACKGROUNDS, "Pictures", "background", self.background, "white or black")
        if self.value_range is not None:
            found = _range(self.value_range)
            rule = "two numbers, black and white, such as (0, 4095)"
            require(found is not None, "Pictures", "value_range", self.value_range, rule)
            object.__setattr__(self, "value_range", found)


def _range(values: object) -> tuple[float, float] | None:
    """Two different finite numbers as plain ones; None for anything else."""
    if not isinstance(values, tuple | list) or any(isinstance(value, bool) for value in values):
        return None
    try:
        black, white = (float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        return None
    return (black, white) if isfinite(black) and isfinite(white) and black != white else None
