"""Changes of a recipe that may fit other pictures better: mirroring, how strong the augmentation is, rate and decay."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from nas.space.recipe import Recipe

STRENGTHS = {
    0.0: "no augmentation otherwise",
    0.5: "half the augmentation",
    2.0: "twice the augmentation",
}
RATES = {0.5: "half the learning rate", 2.0: "twice the learning rate"}
DECAYS = {0.25: "a quarter of the weight decay", 4.0: "four times the weight decay"}
HORIZONTAL, VERTICAL = "mirrored left to right", "mirrored upside down"
AS_IT_IS = "as it is"
LARGEST = 0.9  # that a change makes of a scale or a weight decay, which must be below 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeChange:
    """What is done to a recipe; its text says it."""

    strength: float = 1.0  # of rotation, shift, scale and shear: one of STRENGTHS, or 1
    horizontal_flip: bool = False
    vertical_flip: bool = False
    rate: float = 1.0  # of RATES, or 1
    decay: float = 1.0  # of DECAYS, or 1

    def __call__(self, recipe: Recipe) -> Recipe:
        """The recipe with the change."""
        usual = recipe.augmentation
        return replace(
            recipe,
            learning_rate=self.rate * recipe.learning_rate,
            weight_decay=min(max(LARGEST, recipe.weight_decay), self.decay * recipe.weight_decay),
            augmentation=replace(
                usual,
                rotation=self.strength * usual.rotation,
                shift=self.strength * usual.shift,
                scale=min(max(LARGEST, usual.scale), self.strength * usual.scale),
                shear=self.strength * usual.shear,
                horizontal_flip=usual.horizontal_flip or self.horizontal_flip,
                vertical_flip=usual.vertical_flip or self.vertical_flip,
            ),
        )

    def __str__(self) -> str:
        flips = [text for text, is_on in ((HORIZONTAL, self.horizontal_flip), (VERTICAL, self.vertical_flip)) if is_on]
        factors = ((STRENGTHS, self.strength), (RATES, self.rate), (DECAYS, self.decay))
        return "; ".join([*flips, *(said[factor] for said, factor in factors if factor != 1)]) or AS_IT_IS


UNCHANGED = RecipeChange()
GROUPS: tuple[tuple[RecipeChange, ...], ...] = (  # of each at most one is made
    (RecipeChange(horizontal_flip=True),),
    (RecipeChange(vertical_flip=True),),
    tuple(RecipeChange(strength=factor) for factor in STRENGTHS),
    tuple(RecipeChange(rate=factor) for factor in RATES),
    tuple(RecipeChange(decay=factor) for factor in DECAYS),
)


def combined(changes: Iterable[RecipeChange]) -> RecipeChange:
    """Several changes of different groups as one."""
    found = UNCHANGED
    for change in changes:
        found = RecipeChange(
            strength=found.strength * change.strength,
            horizontal_flip=found.horizontal_flip or change.horizontal_flip,
            vertical_flip=found.vertical_flip or change.vertical_flip,
            rate=found.rate * change.rate,
            decay=found.decay * change.decay,
        )
    return found
