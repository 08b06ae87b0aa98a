"""A candidate: an architecture and the recipe it is trained by; its JSON and its digest."""

import hashlib
import json
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any, get_args

from nas.errors import UserError, require
from nas.network.architecture import RECENT, Architecture
from nas.network.layers import Block, Head, Layer
from nas.network.operations import MapOperation
from nas.space.recipe import Augmentation, Recipe

LAYERS = {kind.__name__: kind for kind in get_args(Layer)}
OPERATIONS = {kind.__name__: kind for kind in get_args(MapOperation)}
NAMED = (*get_args(Layer), *get_args(MapOperation))  # whose JSON says what they are


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An architecture and the recipe it is trained by: all that decides a training but the data and the seed.

    Raises:
        UserError: one of them is something else.
    """

    architecture: Architecture
    recipe: Recipe

    def __post_init__(self) -> None:
        known = isinstance(self.architecture, Architecture)
        require(known, "Candidate", "architecture", self.architecture, "an Architecture")
        require(isinstance(self.recipe, Recipe), "Candidate", "recipe", self.recipe, "a Recipe")


def plain(value: Any) -> Any:
    """What JSON can hold; a float field is written as a float even when it was given as 0 or -0.0, equal to 0.0."""
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    if not is_dataclass(value):
        return value
    found: dict[str, Any] = {"kind": type(value).__name__} if isinstance(value, NAMED) else {}
    for field in fields(value):
        part = getattr(value, field.name)
        if not (field.metadata.get("later") and part == field.default):
            found[field.name] = float(part) + 0.0 if field.type is float else plain(part)
    return found


@lru_cache(maxsize=RECENT)
def to_json(candidate: Candidate) -> str:
    """Canonical JSON: equal candidates, and only those, give equal text."""
    return json.dumps(plain(candidate), sort_keys=True, separators=(",", ":"))


def _layer(values: dict[str, Any]) -> Layer:
    """A layer as its JSON has it. A study names kinds of this package only: nothing is imported because it says so."""
    kind = LAYERS[values.pop("kind")]
    if kind is Block:
        values["operations"] = tuple(OPERATIONS[part.pop("kind")](**part) for part in values["operations"])
    layer: Layer = kind(**values)
    return layer


@lru_cache(maxsize=RECENT)
def from_json(text: str) -> Candidate:
    """The candidate that `to_json` wrote.

    Raises:
        UserError: text that is not such a candidate, with what is wrong.
    """
    try:
        values = json.loads(text)
        architecture, recipe = values["architecture"], values["recipe"]
        layers = tuple(map(_layer, architecture["layers"]))
        channels, height, width = architecture["input_shape"]
        return Candidate(
            architecture=Architecture(
                input_shape=(channels, height, width),
                num_classes=architecture["num_classes"],
                layers=layers,
                head=Head(**architecture["head"]),
            ),
            recipe=Recipe(**{**recipe, "augmentation": Augmentation(**recipe["augmentation"])}),
        )
    except (TypeError, KeyError, AttributeError, ValueError, RecursionError) as error:
        raise UserError(f"candidate JSON: {error} in {text[:80]!r}; it must be as to_json writes it") from error


def digest(candidate: Candidate) -> str:
    """Twelve hexadecimal digits that tell candidates apart (48 bits of SHA-256 over the canonical JSON)."""
    return hashlib.sha256(to_json(candidate).encode()).hexdigest()[:12]
