"""A network as a picture: one column a layer, maps to scale, and the costs that the description has."""

import pytest
from helpers import sampled

from nas.network.architecture import Architecture, names
from nas.network.cost import cost
from nas.network.layers import Conv, Head, MaxPool, Transition
from nas.reporting.drawing import FRONT, columns

LAYERS = (Conv(out_channels=20, kernel_size=5, padding=2), Transition(out_channels=8), MaxPool())
NETWORK = Architecture(input_shape=(1, 28, 28), num_classes=10, layers=LAYERS, head=Head())


def test_names_say_what_each_layer_is() -> None:
    assert names(NETWORK) == ["conv 5×5", "transition", "pool 2×2", "global pool", "classifier"]
    turned = Architecture(input_shape=(1, 28, 28), num_classes=10, layers=LAYERS, head=Head(kind="conv_pool"))
    assert names(turned)[3:] == ["classifier", "global pool"]
    linear = Architecture(input_shape=(1, 28, 28), num_classes=10, layers=LAYERS, head=Head(kind="linear"))
    assert names(linear)[3:] == ["linear"]


def test_columns_are_to_scale() -> None:
    start, conv, transition, pool, pooled, classifier = columns(NETWORK)
    assert (start.name, start.tall, start.receptive_field) == ("input", FRONT, 1)
    assert (conv.tall, pool.tall) == (FRONT, FRONT / 2)
    assert conv.thick / transition.thick == pytest.approx(20 / 8)
    assert conv.macs_share == 1, "392,000 of 523,912"
    assert transition.macs_share == pytest.approx(125_440 / 392_000)
    assert (conv.params, conv.macs, conv.receptive_field) == (540, 392_000, 5)
    assert conv.seen == pytest.approx(5 / 28)
    assert (pooled.shape, classifier.shape) == ((8, 1, 1), (10, 1, 1))


@pytest.mark.parametrize("seed", range(2))
def test_columns_tell_of_every_layer_of_a_network(seed: int) -> None:
    for architecture, price in sampled(20, seed):
        found = columns(architecture)
        assert [column.params for column in found[1:]] == [row.params for row in price.rows]
        assert sum(column.macs for column in found) == cost(architecture).macs
        assert all(0 <= column.seen <= 1 and 0 <= column.params_share <= 1 for column in found)
        assert [column.x for column in found] == sorted(column.x for column in found)
