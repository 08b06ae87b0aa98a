"""Architectures, candidates and recipes: what they refuse, their JSON, their digest and their notation."""

import json
import random
import re
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import UserError
from nas.network.architecture import Architecture, notation
from nas.network.layers import ACTIVATIONS, HEADS, Conv, Head, Layer, MaxPool, Transition
from nas.space.candidate import Candidate, digest, from_json, to_json
from nas.space.loading import load_space
from nas.space.recipe import Augmentation, Recipe

Json: TypeAlias = Any

settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=200)
settings.load_profile("repeatable")

sizes = st.integers(1, 64)
fractions = st.floats(0, 1, exclude_max=True)
convs = st.builds(
    Conv,
    out_channels=sizes,
    kernel_size=st.integers(1, 9),
    padding=st.integers(0, 4),
    bias=st.booleans(),
    batch_norm=st.booleans(),
    activation=st.sampled_from(ACTIVATIONS),
    dropout=fractions,
)
transitions = st.builds(Transition, out_channels=sizes, padding=st.integers(0, 2), bias=st.booleans())
pools = st.builds(MaxPool, kernel_size=st.integers(2, 4))
layers: st.SearchStrategy[Layer] = st.one_of(convs, transitions, pools)
heads = st.builds(Head, kind=st.sampled_from(HEADS), bias=st.booleans()) | st.builds(
    Head, kind=st.just("conv_pool"), padding=st.integers(0, 2), bias=st.booleans()
)
architectures = st.builds(
    Architecture,
    input_shape=st.tuples(sizes, sizes, sizes),
    num_classes=st.integers(2, 100),
    layers=st.lists(layers, max_size=6).map(tuple),
    head=heads,
)
amounts = st.floats(0, 1e6)
augmentations = st.builds(
    Augmentation,
    rotation=amounts,
    shift=amounts,
    scale=fractions,
    shear=amounts,
    horizontal_flip=st.booleans(),
    vertical_flip=st.booleans(),
)
recipes = st.builds(
    Recipe,
    epochs=st.integers(1, 200),
    batch_size=st.integers(2, 512),
    learning_rate=st.floats(0, 10, exclude_min=True),
    warmup=fractions,
    momentum=fractions,
    weight_decay=fractions,
    ema_decay=fractions,
    augmentation=augmentations,
)
candidates = st.builds(Candidate, architecture=architectures, recipe=recipes)

SEED = load_space("mnist").baseline
SMALL = Architecture(
    input_shape=(1, 28, 28),
    num_classes=10,
    layers=(Conv(out_channels=8), Transition(out_channels=4), MaxPool()),
    head=Head(kind="conv_pool"),
)
CANDIDATE = Candidate(architecture=SMALL, recipe=Recipe())


@given(candidates)
def test_json_round_trip_gives_an_equal_candidate(candidate: Candidate) -> None:
    assert from_json(to_json(candidate)) == candidate


@given(candidates, candidates)
def test_json_is_equal_exactly_when_candidates_are(first: Candidate, second: Candidate) -> None:
    assert (to_json(first) == to_json(second)) == (first == second)


def test_json_round_trip_of_the_default_space() -> None:
    space, rng = load_space("mnist"), random.Random(0)
    drawn = [space.decode(space.draw(rng)) for _ in range(300)]
    texts = [to_json(candidate) for candidate in drawn]
    assert [from_json(text) for text in texts] == drawn
    assert len(set(texts)) == len(set(drawn)) == len({digest(candidate) for candidate in drawn})


def test_json_is_compact_sorted_and_names_the_kind_of_each_layer() -> None:
    text = to_json(CANDIDATE)
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    assert [layer["kind"] for layer in json.loads(text)["architecture"]["layers"]] == ["Conv", "Transition", "MaxPool"]


@pytest.mark.parametrize("zero", [0, -0.0])
def test_json_writes_equal_numbers_in_one_way(zero: float) -> None:
    same = Candidate(
        architecture=replace(SMALL, layers=(Conv(out_channels=8, dropout=zero), *SMALL.layers[1:])),
        recipe=replace(CANDIDATE.recipe, augmentation=Augmentation(rotation=10)),
    )
    assert same == CANDIDATE
    assert to_json(same) == to_json(CANDIDATE)


# One change of every field of every kind of value.
CHANGES: dict[type, dict[str, Any]] = {
    Conv: {
        "out_channels": 9,
        "kernel_size": 5,
        "padding": 0,
        "bias": True,
        "batch_norm": False,
        "activation": "gelu",
        "dropout": 0.05,
    },
    Transition: {"out_channels": 5, "padding": 1, "bias": False},
    MaxPool: {"kernel_size": 3},
    Head: {"kind": "pool_conv", "padding": 1, "bias": False},
    Architecture: {"input_shape": (1, 28, 27), "num_classes": 11, "layers": (), "head": Head(kind="linear")},
    Augmentation: {
        "rotation": 9.0,
        "shift": 1.0,
        "scale": 0.2,
        "shear": 0.3,
        "horizontal_flip": True,
        "vertical_flip": True,
    },
    Recipe: {
        "epochs": 18,
        "batch_size": 65,
        "learning_rate": 0.2,
        "warmup": 0.3,
        "momentum": 0.8,
        "weight_decay": 1e-4,
        "ema_decay": 0.9,
        "mixed_precision": False,
        "balanced_batches": True,
        "augmentation": Augmentation(scale=0.0),
    },
    Candidate: {"architecture": replace(SMALL, layers=SMALL.layers[::-1]), "recipe": Recipe(epochs=1)},
}


def with_part(part: Any) -> Candidate:
    """The candidate with this value in the place of its like."""
    match part:
        case Candidate():
            return part
        case Recipe():
            return replace(CANDIDATE, recipe=part)
        case Augmentation():
            return replace(CANDIDATE, recipe=replace(CANDIDATE.recipe, augmentation=part))
        case Architecture():
            return replace(CANDIDATE, architecture=part)
        case Head():
            return replace(CANDIDATE, architecture=replace(SMALL, head=part))
        case _:
            changed = tuple(part if type(layer) is type(part) else layer for layer in SMALL.layers)
            return replace(CANDIDATE, architecture=replace(SMALL, layers=changed))


PARTS = (*SMALL.layers, SMALL.head, SMALL, CANDIDATE.recipe.augmentation, CANDIDATE.recipe, CANDIDATE)


def test_digest_differs_when_any_field_differs() -> None:
    digests = [digest(CANDIDATE)]
    for part in PARTS:
        changes = CHANGES[type(part)]
        assert set(changes) == {field.name for field in fields(part)}
        digests += [digest(with_part(replace(part, **{name: value}))) for name, value in changes.items()]
    assert len(set(digests)) == len(digests)
    assert all(re.fullmatch("[0-9a-f]{12}", text) for text in digests)


def test_notation_of_the_seed_network() -> None:
    assert SEED is not None
    assert notation(SEED) == "c128d5 t8+1 c16d5 p2 c16d5 c32d5 p2 t16+1 c16d5 c32d5 | 1×1+1 gap"


@pytest.mark.parametrize(
    ("row", "head", "text"),
    [
        ((), Head(), "| gap 1×1"),
        ((), Head(kind="linear"), "| linear"),
        ((Conv(out_channels=16),), Head(kind="conv_pool"), "c16 | 1×1 gap"),
        ((Conv(out_channels=16, kernel_size=5, padding=2),), Head(), "c16k5 | gap 1×1"),
        ((Conv(out_channels=16, kernel_size=5, padding=0),), Head(), "c16k5v | gap 1×1"),
        ((Conv(out_channels=16, kernel_size=5),), Head(), "c16k5+1 | gap 1×1"),
        ((Conv(out_channels=16, kernel_size=1, padding=0),), Head(), "c16k1 | gap 1×1"),
        ((Conv(out_channels=16, batch_norm=False, activation="silu"),), Head(), "c16n-silu | gap 1×1"),
        ((Conv(out_channels=16, dropout=0.07),), Head(), "c16d7 | gap 1×1"),
        ((Conv(out_channels=16, dropout=0.025, activation="none"),), Head(), "c16-noned2.5 | gap 1×1"),
        ((Transition(out_channels=8), MaxPool(kernel_size=3)), Head(), "t8 p3 | gap 1×1"),
    ],
)
def test_notation_in_full(row: tuple[Layer, ...], head: Head, text: str) -> None:
    assert notation(Architecture(input_shape=(1, 28, 28), num_classes=10, layers=row, head=head)) == text


def test_notation_example_of_its_docstring() -> None:
    row = (
        Conv(out_channels=12),
        MaxPool(),
        Conv(out_channels=16),
        Conv(out_channels=16, dropout=0.05),
        Transition(out_channels=8),
        Conv(out_channels=24, padding=0),
    )
    text = notation(Architecture(input_shape=(1, 28, 28), num_classes=10, layers=row, head=Head()))
    assert text == "c12 p2 c16 c16d5 t8 c24v | gap 1×1"
    assert f"`{text}`" in (notation.__doc__ or "")


ACTIVATION_RULE = "one of ('relu', 'silu', 'gelu', 'none')"
HEAD_RULE = "one of ('pool_conv', 'conv_pool', 'linear')"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv(out_channels=0), "Conv: out_channels 0 must be a whole number, at least 1"),
        (lambda: Conv(out_channels=24.0), "Conv: out_channels 24.0 must be a whole number, at least 1"),  # type: ignore[arg-type]
        (lambda: Conv(out_channels=True), "Conv: out_channels True must be a whole number, at least 1"),
        (lambda: Conv(out_channels=8, kernel_size=0), "Conv: kernel_size 0 must be a whole number, at least 1"),
        (lambda: Conv(out_channels=8, padding=-1), "Conv: padding -1 must be a whole number, at least 0"),
        (lambda: Conv(out_channels=8, bias=1), "Conv: bias 1 must be True or False"),  # type: ignore[arg-type]
        (lambda: Conv(out_channels=8, batch_norm=None), "Conv: batch_norm None must be True or False"),  # type: ignore[arg-type]
        (lambda: Conv(out_channels=8, dropout=1.0), "Conv: dropout 1.0 must be a number, at least 0 and below 1"),
        (lambda: Conv(out_channels=8, dropout=-0.1), "Conv: dropout -0.1 must be a number, at least 0 and below 1"),
        (
            lambda: Conv(out_channels=8, dropout=float("nan")),
            "Conv: dropout nan must be a number, at least 0 and below 1",
        ),
        (lambda: Conv(out_channels=8, activation="tanh"), f"Conv: activation 'tanh' must be {ACTIVATION_RULE}"),  # type: ignore[arg-type]
        (lambda: Transition(out_channels=0), "Transition: out_channels 0 must be a whole number, at least 1"),
        (
            lambda: Transition(out_channels=8, padding=-2),
            "Transition: padding -2 must be a whole number, at least 0",
        ),
        (lambda: Transition(out_channels=8, bias=0), "Transition: bias 0 must be True or False"),  # type: ignore[arg-type]
        (lambda: MaxPool(kernel_size=1), "MaxPool: kernel_size 1 must be a whole number, at least 2"),
        (lambda: Head(kind="softmax"), f"Head: kind 'softmax' must be {HEAD_RULE}"),  # type: ignore[arg-type]
        (lambda: Head(kind="conv_pool", padding=-1), "Head: padding -1 must be a whole number, at least 0"),
        (lambda: Head(padding=1), "Head: padding 1 must be 0 unless conv_pool"),
        (lambda: Head(kind="linear", padding=1), "Head: padding 1 must be 0 unless conv_pool"),
        (lambda: Head(bias="no"), "Head: bias 'no' must be True or False"),  # type: ignore[arg-type]
        (
            lambda: replace(SMALL, input_shape=(1, 0, 28)),
            "Architecture: input_shape (1, 0, 28) must be three whole numbers, each at least 1",
        ),
        (
            lambda: replace(SMALL, input_shape=(28, 28)),  # type: ignore[arg-type]
            "Architecture: input_shape (28, 28) must be three whole numbers, each at least 1",
        ),
        (lambda: replace(SMALL, num_classes=1), "Architecture: num_classes 1 must be a whole number, at least 2"),
        (
            lambda: replace(SMALL, layers=[MaxPool()]),  # type: ignore[arg-type]
            "Architecture: layers [MaxPool(kernel_size=2)] must be a tuple of Conv, Transition, MaxPool and Block",
        ),
        (
            lambda: replace(SMALL, layers=(None,)),  # type: ignore[arg-type]
            "Architecture: layers (None,) must be a tuple of Conv, Transition, MaxPool and Block",
        ),
    ],
)
def test_bad_values_are_refused_in_words(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        make()


@given(st.text())
def test_from_json_of_any_text_is_a_user_error(text: str) -> None:
    with pytest.raises(UserError):
        from_json(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Json) -> list[tuple[Json, Any]]:
    """Every (container, key) in a JSON value."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


@given(candidates, st.randoms(use_true_random=False), json_values, st.booleans())
def test_from_json_of_spoilt_json_never_fails_otherwise(
    candidate: Candidate, rng: random.Random, value: Json, remove: bool
) -> None:
    spoilt = json.loads(to_json(candidate))
    container, key = rng.choice(places(spoilt))
    if remove:
        del container[key]
    else:
        container[key] = value
    try:
        from_json(json.dumps(spoilt))  # one float in place of another may do no harm
    except UserError as error:
        message = str(error)
    else:
        return
    assert re.fullmatch(r"candidate JSON: .* in .*; it must be as to_json writes it", message, re.DOTALL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "candidate JSON: 'architecture' in '{}'; it must be as to_json writes it"),
        (
            "",
            "candidate JSON: Expecting value: line 1 column 1 (char 0) in ''; it must be as to_json writes it",
        ),
        (
            '{"architecture":{"layers":[{"kind":"Dense"}]},"recipe":{}}',
            'candidate JSON: \'Dense\' in \'{"architecture":{"layers":[{"kind":"Dense"}]},"recipe":{}}\'; '
            "it must be as to_json writes it",
        ),
    ],
)
def test_from_json_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        from_json(text)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"architecture": ' + "9" * 5_000 + "}"])
def test_from_json_of_text_beyond_the_parser_is_a_user_error(text: str) -> None:
    with pytest.raises(UserError):
        from_json(text)
