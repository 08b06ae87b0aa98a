"""How a candidate is trained: plain values, no torch."""

from dataclasses import dataclass, field, replace
from math import sqrt

from nas.errors import require, require_bool, require_number, require_whole

UNBOUNDED = float("inf")
STEPS = 20  # of an epoch, as long as ...
FEWEST = 16  # ... a batch has so many images; measured: 8 are no better
FEW_IMAGES = 1_280  # training images, of which a sixth says too little of a network, so that they have ...
ROUNDS = 2  # ... of cross-validation; see `benchmarks.cross_validation`
LATER = {"later": True}  # marks a field that earlier versions lacked: JSON holds it where it is not its default


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Random changes of the training images, drawn per image: each affine one uniformly from ± the value.

    Raises:
        UserError: a value outside its range.
    """

    rotation: float = 10.0  # degrees
    shift: float = 2.0  # pixels, in each direction
    scale: float = 0.1  # fraction of the size
    shear: float = 0.2  # tangent of the shear angle
    horizontal_flip: bool = field(default=False, metadata=LATER)  # mirror every second image, left to right
    vertical_flip: bool = field(default=False, metadata=LATER)  # and, apart from that, upside down

    def __post_init__(self) -> None:
        for name in ("rotation", "shift", "shear"):
            require_number("Augmentation", name, getattr(self, name), low=0, below=UNBOUNDED)
        require_number("Augmentation", "scale", self.scale, low=0, below=1)
        for name in ("horizontal_flip", "vertical_flip"):
            require_bool("Augmentation", name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """SGD with Nesterov momentum; the rate rises linearly over `warmup` of the steps, then falls linearly to 0.

    The defaults are the ones measured for MNIST below 20,000 parameters: small batches, decay to zero and light
    affine augmentation are what has evidence on networks of this size.

    Raises:
        UserError: a value outside its range.
    """

    epochs: int = 19
    batch_size: int = 64
    learning_rate: float = 0.1  # at its peak
    warmup: float = 0.2  # fraction of all steps
    momentum: float = 0.9
    weight_decay: float = 5e-4  # on convolution and linear weights only
    ema_decay: float = 0.998  # of the averaged weights, per step; every evaluation uses them
    mixed_precision: bool = True  # activations in bfloat16 on CPUs with AVX512-BF16
    augmentation: Augmentation = field(default_factory=Augmentation)
    balanced_batches: bool = field(default=False, metadata=LATER)  # draw images of every class equally often

    def __post_init__(self) -> None:
        require_whole("Recipe", "epochs", self.epochs, 1)
        require_whole("Recipe", "batch_size", self.batch_size, 2)
        require_number("Recipe", "learning_rate", self.learning_rate, low=0, below=UNBOUNDED)
        for name in ("warmup", "momentum", "weight_decay", "ema_decay"):
            require_number("Recipe", name, getattr(self, name), low=0, below=1)
        require_bool("Recipe", "mixed_precision", self.mixed_precision)
        require_bool("Recipe", "balanced_batches", self.balanced_batches)
        where = isinstance(self.augmentation, Augmentation)
        require(where, "Recipe", "augmentation", self.augmentation, "an Augmentation")

    def for_few(self, images: int) -> "Recipe":
        """The recipe for so many training images: of few, smaller batches, so that an epoch has STEPS of them.

        The learning rate goes with the square root of the size (Hoffer et al., Train longer, generalize better, NeurIPS
        2017). `benchmarks.few_images` measures what that is worth.
        """
        size = self.batch_size
        while size > FEWEST and images < STEPS * size:
            size = max(FEWEST, size // 2)
        return replace(self, batch_size=size, learning_rate=self.learning_rate * sqrt(size / self.batch_size))
