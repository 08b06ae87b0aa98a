"""Costs against numbers computed by hand and the published table of the seed network."""

import pytest

from nas.network.architecture import Architecture
from nas.network.cost import LayerCost, MapTooSmallError, cost
from nas.network.layers import Conv, Head, Layer, MaxPool, Shape, Transition
from nas.network.operations import covers_map
from nas.space.loading import load_space

SMALL = (
    Conv(out_channels=2),
    MaxPool(),
    Transition(out_channels=3, padding=1),
    Conv(out_channels=4, kernel_size=5, padding=1, bias=True, batch_norm=False),
)


def network(input_shape: Shape, *layers: Layer, head: Head | None = None, num_classes: int = 5) -> Architecture:
    return Architecture(input_shape=input_shape, num_classes=num_classes, layers=layers, head=head or Head())


def test_cost_of_the_seed_network_is_its_published_table() -> None:
    seed = load_space("mnist").baseline
    assert seed is not None
    price = cost(seed)
    assert [(row.output_shape, row.params) for row in price.rows] == [
        ((128, 28, 28), 1280 + 256),
        ((8, 30, 30), 1032),
        ((16, 30, 30), 1168 + 32),
        ((16, 15, 15), 0),
        ((16, 15, 15), 2320 + 32),
        ((32, 15, 15), 4640 + 64),
        ((32, 7, 7), 0),
        ((16, 9, 9), 528),
        ((16, 9, 9), 2320 + 32),
        ((32, 9, 9), 4640 + 64),
        ((10, 11, 11), 330),
        ((10, 1, 1), 0),
    ]
    assert [row.kind for row in price.rows] == [
        *("conv", "transition", "conv", "max_pool", "conv", "conv", "max_pool", "transition", "conv", "conv"),
        *("classifier", "global_pool"),
    ]
    assert [row.receptive_field for row in price.rows] == [3, 3, 5, 6, 10, 14, 16, 16, 24, 32, 32, 32]
    assert price.params == 18_738
    # Kernel weights times output positions, layer by layer.
    assert price.macs == (
        (1_152 * 784 + 1_024 * 900 + 1_152 * 900)
        + (2_304 * 225 + 4_608 * 225)
        + (512 * 81 + 2_304 * 81 + 4_608 * 81 + 320 * 121)
    )
    assert price.peak_activation_bytes == 4 * (128 * 28 * 28 + 8 * 30 * 30)
    assert price.receptive_field == 32
    assert price.linear_layers == 0


def test_cost_of_a_small_network_is_as_computed_by_hand() -> None:
    price = cost(network((1, 6, 8), *SMALL))
    assert price.rows == (
        LayerCost("conv", (2, 6, 8), 9 * 2 + 2 * 2, 18 * 48, 3, 4 * (48 + 96)),
        LayerCost("max_pool", (2, 3, 4), 0, 0, 4, 4 * (96 + 24)),
        LayerCost("transition", (3, 5, 6), 6 + 3, 6 * 30, 4, 4 * (24 + 90)),
        LayerCost("conv", (4, 3, 4), 300 + 4, 300 * 12, 12, 4 * (90 + 48)),
        LayerCost("global_pool", (4, 1, 1), 0, 0, 12, 4 * (48 + 4)),
        LayerCost("classifier", (5, 1, 1), 20 + 5, 20, 12, 4 * (4 + 5)),
    )
    totals = (price.params, price.macs, price.peak_activation_bytes, price.receptive_field, price.linear_layers)
    assert totals == (360, 4664, 576, 12, 0)


def test_cost_of_the_other_heads() -> None:
    conv_pool = Head(kind="conv_pool", padding=1, bias=False)
    assert cost(network((2, 3, 4), head=conv_pool)).rows == (
        LayerCost("classifier", (5, 5, 6), 10, 10 * 30, 1, 4 * (24 + 150)),
        LayerCost("global_pool", (5, 1, 1), 0, 0, 1, 4 * (150 + 5)),
    )
    linear = LayerCost("linear", (5, 1, 1), 120 + 5, 120, 1, 4 * (24 + 5))
    assert cost(network((2, 3, 4), head=Head(kind="linear"))).rows == (linear,)
    without_bias = linear._replace(params=120)
    assert cost(network((2, 3, 4), head=Head(kind="linear", bias=False))).rows == (without_bias,)


def test_cost_counts_transition_padding() -> None:
    plain, padded = (cost(network((4, 7, 7), Transition(out_channels=8, padding=p))).rows[0] for p in (0, 1))
    assert (plain.output_shape, plain.macs) == ((8, 7, 7), 32 * 49)
    assert (padded.output_shape, padded.macs) == ((8, 9, 9), 32 * 81)
    assert plain.params == padded.params == 32 + 8
    assert (plain.activation_bytes, padded.activation_bytes) == (4 * (196 + 392), 4 * (196 + 648))


def test_cost_drops_what_is_left_over_at_the_edge_of_a_pool() -> None:
    assert cost(network((1, 8, 9), MaxPool(kernel_size=3))).rows[0].output_shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("input_shape", "layer"),
    [
        ((1, 4, 6), Conv(out_channels=1, kernel_size=5, padding=0)),
        ((1, 6, 4), Conv(out_channels=1, kernel_size=5, padding=0)),
        ((1, 2, 2), Conv(out_channels=1, kernel_size=5, padding=1)),
        ((1, 1, 4), MaxPool()),
        ((1, 4, 2), MaxPool(kernel_size=3)),
    ],
)
def test_cost_refuses_a_layer_larger_than_its_map(input_shape: Shape, layer: Layer) -> None:
    with pytest.raises(MapTooSmallError):
        cost(network(input_shape, layer))


def test_cost_accepts_a_layer_as_large_as_its_map() -> None:
    assert cost(network((1, 5, 5), Conv(out_channels=2, kernel_size=5, padding=0))).rows[0].output_shape == (2, 1, 1)
    assert cost(network((1, 2, 2), MaxPool())).rows[0].output_shape == (1, 1, 1)


@pytest.mark.parametrize(
    ("kernel_size", "height", "width", "dense"),
    [
        (3, 3, 3, 1),  # with padding: the output is 3×3 again, and every output sees every input
        (5, 4, 3, 1),
        (3, 1, 1, 1),
        (1, 1, 1, 0),
        (3, 4, 3, 0),
        (3, 3, 4, 0),
        (5, 6, 6, 0),
    ],
)
def test_cost_counts_a_convolution_over_its_whole_map_as_dense(
    kernel_size: int, height: int, width: int, dense: int
) -> None:
    layer = Conv(out_channels=2, kernel_size=kernel_size, padding=kernel_size // 2)
    price = cost(network((1, height, width), layer))
    assert price.linear_layers == dense
    assert price.rows[0].kind == ("linear" if dense else "conv")


def test_covers_map_of_oblong_kernels() -> None:
    assert covers_map(3, 5, 3, 5)
    assert covers_map(1, 5, 1, 5)
    assert not covers_map(3, 5, 5, 3)
    assert not covers_map(5, 1, 5, 5)


def test_cost_counts_every_dense_layer() -> None:
    twice = network((1, 3, 3), Conv(out_channels=2), Conv(out_channels=2), head=Head(kind="linear"))
    assert cost(twice).linear_layers == 3
