"""One design choice at a time: each change is the one it says, and nothing else."""

from dataclasses import replace

import pytest
from helpers import sampled, small_architecture

from nas.network.architecture import Architecture, notation
from nas.network.cost import MapTooSmallError, cost
from nas.network.layers import Conv, Head, MaxPool, Transition
from nas.network.limits import Constraints, violations
from nas.space.candidate import Candidate, digest
from nas.space.recipe import Augmentation, Recipe
from nas.space.variants import CHOICES, Variant, as_large, forbidden_by, variants

LIMITS = Constraints(max_params=20_000, max_macs=2_000_000, max_epochs=19, forbid=("linear",))
LAYERS = (
    *(Conv(out_channels=20), MaxPool(), Transition(out_channels=16)),
    *(Conv(out_channels=16, kernel_size=5, padding=2), MaxPool(), Transition(out_channels=8)),
    *(Conv(out_channels=12), Conv(out_channels=28, kernel_size=5, padding=0, dropout=0.05)),
)
NETWORK = Architecture(input_shape=(1, 28, 28), num_classes=10, layers=LAYERS, head=Head())
CANDIDATE = Candidate(architecture=NETWORK, recipe=Recipe())


def told(choice: str) -> dict[str, str]:
    """What each change of a choice makes of the candidate."""
    return {v.change: notation(v.candidate.architecture) for v in variants(CANDIDATE) if v.choice == choice}


def changed(change: str) -> Variant:
    return next(variant for variant in variants(CANDIDATE) if variant.change == change)


def test_pools_are_removed_and_moved_over_one_cell() -> None:
    assert notation(NETWORK) == "c20 p2 t16 c16k5 p2 t8 c12 c28k5vd5 | gap 1×1"
    assert told("pools") == {
        "pool after cell 1 removed": "c20 t16 c16k5 p2 t8 c12 c28k5vd5 | gap 1×1",
        "pool after cell 1 one cell earlier": "p2 c20 t16 c16k5 p2 t8 c12 c28k5vd5 | gap 1×1",
        "pool after cell 1 one cell later": "c20 t16 c16k5 p2 p2 t8 c12 c28k5vd5 | gap 1×1",
        "pool after cell 2 removed": "c20 p2 t16 c16k5 t8 c12 c28k5vd5 | gap 1×1",
        "pool after cell 2 one cell earlier": "c20 p2 t16 p2 c16k5 t8 c12 c28k5vd5 | gap 1×1",
        "pool after cell 2 one cell later": "c20 p2 t16 c16k5 t8 c12 p2 c28k5vd5 | gap 1×1",
    }


def test_transitions_are_removed_and_moved_but_never_before_the_first_cell() -> None:
    assert told("transitions") == {
        "transition after cell 1 removed": "c20 p2 c16k5 p2 t8 c12 c28k5vd5 | gap 1×1",
        "transition after cell 1 one cell later": "c20 p2 c16k5 t16 p2 t8 c12 c28k5vd5 | gap 1×1",
        "transition after cell 2 removed": "c20 p2 t16 c16k5 p2 c12 c28k5vd5 | gap 1×1",
        "transition after cell 2 one cell earlier": "c20 p2 t16 t8 c16k5 p2 c12 c28k5vd5 | gap 1×1",
        "transition after cell 2 one cell later": "c20 p2 t16 c16k5 p2 c12 t8 c28k5vd5 | gap 1×1",
    }


def test_pools_after_the_same_cell_have_names_of_their_own() -> None:
    layers = (Conv(out_channels=4), MaxPool(), Transition(out_channels=8), MaxPool(), Conv(out_channels=4))
    two = replace(CANDIDATE, architecture=replace(NETWORK, layers=layers))
    removed = [v.change for v in variants(two) if v.choice == "pools" and v.change.endswith("removed")]
    assert removed == ["pool after cell 1 removed", "second pool after cell 1 removed"]


def test_dropout_takes_one_rate_in_every_cell() -> None:
    assert told("dropout") == {
        "no dropout": "c20 p2 t16 c16k5 p2 t8 c12 c28k5v | gap 1×1",
        "dropout 5 % in every cell": "c20d5 p2 t16 c16k5d5 p2 t8 c12d5 c28k5vd5 | gap 1×1",
        "dropout 10 % in every cell": "c20d10 p2 t16 c16k5d10 p2 t8 c12d10 c28k5vd10 | gap 1×1",
        "dropout 20 % in every cell": "c20d20 p2 t16 c16k5d20 p2 t8 c12d20 c28k5vd20 | gap 1×1",
    }


def test_kernel_sizes_change_in_one_cell_and_keep_its_kind_of_padding() -> None:
    assert told("kernel sizes") == {
        "cell 1: 5×5 kernels instead of 3×3": "c20k5 p2 t16 c16k5 p2 t8 c12 c28k5vd5 | gap 1×1",
        "cell 2: 3×3 kernels instead of 5×5": "c20 p2 t16 c16 p2 t8 c12 c28k5vd5 | gap 1×1",
        "cell 3: 5×5 kernels instead of 3×3": "c20 p2 t16 c16k5 p2 t8 c12k5 c28k5vd5 | gap 1×1",
        "cell 4: 3×3 kernels instead of 5×5": "c20 p2 t16 c16k5 p2 t8 c12 c28vd5 | gap 1×1",
    }


def test_a_cell_that_keeps_its_maps_size_keeps_it_with_other_kernels() -> None:
    small = replace(CANDIDATE, architecture=replace(NETWORK, layers=(Conv(out_channels=4, kernel_size=1, padding=0),)))
    (change,) = (v for v in variants(small) if v.choice == "kernel sizes")
    assert notation(change.candidate.architecture) == "c4 | gap 1×1"


def test_batch_normalization_goes_from_the_end_and_leaves_a_bias() -> None:
    assert told("batch normalization") == {
        "no batch normalization": "c20n p2 t16 c16k5n p2 t8 c12n c28k5vnd5 | gap 1×1",
        "batch normalization in the first 2 cells only": "c20 p2 t16 c16k5 p2 t8 c12n c28k5vnd5 | gap 1×1",
        "batch normalization in the first 3 cells only": "c20 p2 t16 c16k5 p2 t8 c12 c28k5vnd5 | gap 1×1",
    }
    without = changed("no batch normalization").candidate.architecture.layers
    assert [(layer.batch_norm, layer.bias) for layer in without if isinstance(layer, Conv)] == [(False, True)] * 4


def test_depth_and_kernel_counts_keep_the_number_of_parameters() -> None:
    wanted = cost(NETWORK).params
    found = [
        variant
        for variant in variants(CANDIDATE)
        if variant.choice in ("depth", "kernels of the first cell", "kernels of the last cell")
    ]
    assert len(found) == 4
    for variant in found:
        params = cost(variant.candidate.architecture).params
        assert 0.95 * wanted <= params <= wanted, variant.change
    cells = {v.change: [layer for layer in v.candidate.architecture.layers if isinstance(layer, Conv)] for v in found}
    assert len(cells["cell 3 removed, the others widened to as many parameters"]) == 3
    assert len(cells["cell 3 twice, all narrowed to as many parameters"]) == 5
    assert cells["half the kernels in the first cell, more in the others"][0].out_channels == 10
    assert cells["half the kernels in the last cell, more in the others"][-1].out_channels == 14


def test_a_candidate_scaled_to_its_own_size_is_itself() -> None:
    assert as_large(CANDIDATE, cost(NETWORK).params) == CANDIDATE
    smaller = as_large(CANDIDATE, 5_000)
    assert 4_500 < cost(smaller.architecture).params <= 5_000


def test_the_recipe_changes_alone() -> None:
    recipes = {v.change: v.candidate for v in variants(CANDIDATE) if v.choice in ("batch size", "augmentation")}
    assert {name: c.recipe.batch_size for name, c in recipes.items() if "batches" in name} == {
        "batches of 32": 32,
        "batches of 128": 128,
        "batches of 256": 256,
    }
    assert {candidate.architecture for candidate in recipes.values()} == {NETWORK}
    none = Augmentation(rotation=0.0, shift=0.0, scale=0.0, shear=0.0)
    assert recipes["no augmentation"].recipe == replace(CANDIDATE.recipe, augmentation=none)


def test_padding_and_head_change_one_thing() -> None:
    assert told("padding") == {"padding in every cell": "c20 p2 t16 c16k5 p2 t8 c12 c28k5d5 | gap 1×1"}
    assert told("head") == {"1×1 convolution before global pooling": notation(NETWORK).replace("gap 1×1", "1×1 gap")}
    padded = replace(CANDIDATE, architecture=replace(NETWORK, head=Head(kind="conv_pool", padding=1)))
    (head,) = (v.candidate.architecture.head for v in variants(padded) if v.choice == "head")
    assert head == Head(kind="pool_conv")


def test_a_variant_is_forbidden_for_the_limits_it_breaks() -> None:
    assert forbidden_by(CANDIDATE, LIMITS) == ""
    removed = changed("pool after cell 2 removed").candidate
    assert forbidden_by(removed, LIMITS) == "2,492,952 MACs, 24.6 % over the limit of 2,000,000"
    longer = replace(CANDIDATE, recipe=Recipe(epochs=20))
    assert forbidden_by(longer, LIMITS) == "20 epochs, 5.3 % over the limit of 19"
    small = (Conv(out_channels=4), MaxPool(kernel_size=14), Conv(out_channels=4, kernel_size=5, padding=0))
    too_small = replace(CANDIDATE, architecture=replace(NETWORK, layers=small))
    assert forbidden_by(too_small, LIMITS) == "a kernel is larger than the map that reaches it"


@pytest.mark.parametrize("seed", range(3))
def test_variants_of_sampled_networks_differ_and_are_each_there_once(seed: int) -> None:
    for architecture, _ in sampled(8, seed):
        candidate = Candidate(architecture=architecture, recipe=Recipe())
        found = variants(candidate)
        assert len({digest(candidate), *(digest(variant.candidate) for variant in found)}) == 1 + len(found)
        assert {variant.choice for variant in found} <= set(CHOICES)
        assert len({variant.change for variant in found}) == len(found)
        for variant in found:
            try:
                broken = violations(LIMITS, cost(variant.candidate.architecture), 19)
            except MapTooSmallError:
                assert forbidden_by(variant.candidate, LIMITS).startswith("a kernel")
            else:
                assert (forbidden_by(variant.candidate, LIMITS) == "") == (broken == ())


def test_a_network_of_one_cell_has_variants_too() -> None:
    layers = (Conv(out_channels=4), MaxPool())
    one = replace(CANDIDATE, architecture=replace(small_architecture(), layers=layers))
    names = [variant.change for variant in variants(one)]
    assert "no batch normalization" in names
    assert "cell 1 twice, all narrowed to as many parameters" in names
    assert not any(name.startswith("cell 1 removed") for name in names)
