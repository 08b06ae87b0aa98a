"""Built networks against their descriptions, with torchinfo, forward hooks and gradients as the judges."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
import torchinfo
from helpers import sampled
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from nas.network.architecture import Architecture
from nas.network.cost import MapTooSmallError, cost, lower
from nas.network.layers import Conv, Head, Layer, MaxPool, Shape, Transition
from nas.network.limits import Constraints
from nas.network.measure import LimitBrokenError, check_built, measure
from nas.network.module import build, build_module
from nas.space.loading import load_space

pytestmark = pytest.mark.usefixtures("one_thread")


SMALL = Architecture(
    input_shape=(1, 6, 8),
    num_classes=5,
    layers=(
        Conv(out_channels=2),
        MaxPool(),
        Transition(out_channels=3, padding=1),
        Conv(out_channels=4, kernel_size=5, bias=True, batch_norm=False, dropout=0.1, activation="gelu"),
    ),
    head=Head(kind="conv_pool"),
)
small = st.integers(1, 6)
layers: st.SearchStrategy[Layer] = st.one_of(
    st.builds(
        Conv,
        out_channels=small,
        kernel_size=small,
        padding=st.integers(0, 2),
        bias=st.booleans(),
        batch_norm=st.booleans(),
        activation=st.sampled_from(("relu", "silu", "gelu", "none")),
        dropout=st.sampled_from((0.0, 0.1)),
    ),
    st.builds(Transition, out_channels=small, padding=st.integers(0, 2), bias=st.booleans()),
    st.builds(MaxPool, kernel_size=st.integers(2, 3)),
)
architectures = st.builds(
    Architecture,
    input_shape=st.tuples(small, st.integers(1, 12), st.integers(1, 12)),
    num_classes=st.integers(2, 12),
    layers=st.lists(layers, max_size=4).map(tuple),
    head=st.builds(Head, kind=st.sampled_from(("pool_conv", "conv_pool", "linear")), bias=st.booleans())
    | st.builds(Head, kind=st.just("conv_pool"), padding=st.integers(1, 2)),
)


def test_cost_of_the_description_is_that_of_the_built_module_in_the_default_space() -> None:
    for architecture, described in sampled(300):
        module = build(architecture)
        assert measure(module, architecture.input_shape) == replace(described, rows=())
        assert described.params == sum(parameter.numel() for parameter in module.parameters())


@settings(deadline=None, derandomize=True, max_examples=200)
@given(architectures)
def test_cost_of_the_description_is_that_of_the_built_module_for_every_option(architecture: Architecture) -> None:
    try:
        described = cost(architecture)
    except MapTooSmallError:
        return
    assert measure(build(architecture), architecture.input_shape) == replace(described, rows=())


def test_build_agrees_with_torchinfo() -> None:
    for architecture, described in sampled(300, seed=1):
        info = torchinfo.summary(build(architecture), (1, *architecture.input_shape), device="cpu", verbose=0)
        assert info.total_params == described.params
        assert info.summary_list[0].output_size == [1, 10]


def test_build_of_the_seed_network_has_18738_parameters() -> None:
    seed = load_space("mnist").baseline
    assert seed is not None
    assert sum(parameter.numel() for parameter in build(seed).parameters()) == 18_738


@settings(deadline=None, derandomize=True, max_examples=200)
@given(layer=layers, height=st.integers(1, 8), width=st.integers(1, 8))
def test_cost_finds_a_map_too_small_exactly_when_torch_does(layer: Layer, height: int, width: int) -> None:
    image = torch.zeros(1, 1, height, width)

    def convolve(out_channels: int, kernel_size: int, padding: int) -> None:
        F.conv2d(image, torch.zeros(out_channels, 1, kernel_size, kernel_size), padding=padding)

    def run() -> None:
        match layer:
            case Conv():
                convolve(layer.out_channels, layer.kernel_size, layer.padding)
            case Transition():
                convolve(layer.out_channels, 1, layer.padding)
            case MaxPool():
                F.max_pool2d(image, layer.kernel_size)

    architecture = Architecture(input_shape=(1, height, width), num_classes=2, layers=(layer,), head=Head())
    try:
        cost(architecture)
    except MapTooSmallError:
        with pytest.raises(RuntimeError):
            run()
    else:
        run()


def output_shapes(module: nn.Sequential, input_shape: Shape) -> list[tuple[int, ...]]:
    """What forward hooks see come out of each module for one image."""
    shapes: list[tuple[int, ...]] = []

    def note(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        shapes.append(tuple(output.shape[1:]))

    for part in module:
        part.register_forward_hook(note)
    with torch.no_grad():
        module.eval()(torch.zeros(1, *input_shape))
    return shapes


def test_lower_says_each_output_shape_and_parameter_count() -> None:
    linear = replace(SMALL, head=Head(kind="linear", bias=False))
    for architecture in [SMALL, linear, *(architecture for architecture, _ in sampled(100, seed=2))]:
        steps, module = lower(architecture), build(architecture)
        assert [step.output_shape for step in steps] == output_shapes(module, architecture.input_shape)
        assert [step.params for step in steps] == [sum(p.numel() for p in part.parameters()) for part in module]


def test_source_of_a_call_is_the_module_that_is_built() -> None:
    for architecture in [SMALL, *(architecture for architecture, _ in sampled(100, seed=3))]:
        for step, module in zip(lower(architecture), build(architecture), strict=True):
            assert repr(eval(step.call.source(), {"nn": nn})) == repr(build_module(step.call)) == repr(module)


def test_source_of_the_small_network_in_full() -> None:
    assert [step.call.source() for step in lower(SMALL)] == [
        "nn.Conv2d(1, 2, 3, padding=1, bias=False)",
        "nn.BatchNorm2d(2)",
        "nn.ReLU()",
        "nn.MaxPool2d(2)",
        "nn.Conv2d(2, 3, 1, padding=1)",
        "nn.Conv2d(3, 4, 5, padding=1)",
        "nn.GELU()",
        "nn.Dropout2d(0.1)",
        "nn.Conv2d(4, 5, 1)",
        "nn.AdaptiveAvgPool2d(1)",
        "nn.Flatten()",
    ]


def test_lower_says_the_receptive_field_after_each_module() -> None:
    assert [step.receptive_field for step in lower(SMALL)] == [3, 3, 3, 4, 4, 12, 12, 12, 12, 12, 12]


def test_lower_refuses_a_layer_larger_than_its_map() -> None:
    with pytest.raises(MapTooSmallError):
        lower(replace(SMALL, input_shape=(1, 1, 1)))


def field_by_gradient(architecture: Architecture, size: int) -> int:
    """Input rows that the centre of the last feature map depends on, with a single channel and weights above 0.

    Average pools stand in for max-pools, whose gradient reaches only the largest value of each window.
    """
    thin = [
        replace(layer, out_channels=1) if isinstance(layer, Conv | Transition) else layer
        for layer in architecture.layers
    ]
    steps = lower(replace(architecture, layers=tuple(thin), input_shape=(1, size, size), head=Head()))[:-3]
    calls = [step.call._replace(name=step.call.name.replace("MaxPool", "AvgPool")) for step in steps]
    features = nn.Sequential(*map(build_module, calls)).double().eval()
    for parameter in features.parameters():
        nn.init.constant_(parameter, 1 / parameter.numel())
    image = torch.ones(1, 1, size, size, dtype=torch.double, requires_grad=True)
    output = features(image)
    output[0, 0, output.shape[2] // 2, output.shape[3] // 2].backward()
    assert image.grad is not None
    seen = image.grad[0, 0].any(dim=1)
    assert not seen[0]  # else the edge of the image would hide a larger field
    assert not seen[-1]
    return int(seen.sum())


def test_receptive_field_is_what_the_gradient_reaches() -> None:
    fields = set()
    for architecture, described in sampled(40, seed=4):
        if described.receptive_field <= 100:
            assert field_by_gradient(architecture, size=250) == described.receptive_field
            fields.add(described.receptive_field)
    assert len(fields) >= 10
    seed = load_space("mnist").baseline
    assert seed is not None
    assert field_by_gradient(seed, size=150) == cost(seed).receptive_field == 32


class Hiding(nn.Module):
    """A network with a part deep inside, which the forward pass uses or leaves out."""

    def __init__(self, part: nn.Module, *, used: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 2, 3)
        self.deep = nn.ModuleDict({"a": nn.ModuleList([nn.Identity(), nn.Sequential(part)])})
        self.part, self.used = [part], used

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.convolution(images)
        if not self.used:
            return features
        (part,) = self.part
        flat = features.flatten(1)
        match part:
            case nn.Bilinear():
                output = part(flat, flat)
            case nn.LazyConv2d():
                output = part(features)
            case _:
                output = part(flat)
        assert isinstance(output, Tensor)
        return output


@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("kind", ["Linear", "Bilinear", "LazyLinear", "LazyConv2d"])
def test_measure_finds_a_dense_layer_anywhere(kind: str, used: bool) -> None:
    arguments = {"Linear": (32, 3), "Bilinear": (32, 32, 3), "LazyLinear": (3,), "LazyConv2d": (3, 1)}[kind]
    part = getattr(nn, kind)(*arguments)
    measured = measure(Hiding(part, used=used), (1, 6, 6))
    assert measured.linear_layers == 1
    dense = {"Linear": 32 * 3 + 3, "Bilinear": 32 * 32 * 3 + 3}
    lazy = {"LazyLinear": 32 * 3 + 3, "LazyConv2d": 2 * 3 + 3} if used else {"LazyLinear": 0, "LazyConv2d": 0}
    assert measured.params == 20 + (dense | lazy)[kind]


@pytest.mark.parametrize(
    ("convolution", "shape", "dense"),
    [
        (nn.Conv2d(1, 4, 3, padding=1), (1, 3, 3), 1),
        (nn.Conv2d(1, 4, (3, 5)), (1, 3, 5), 1),
        (nn.Conv2d(1, 4, (1, 5)), (1, 1, 5), 1),
        (nn.Conv2d(1, 4, 3), (1, 3, 4), 0),
        (nn.Conv2d(1, 4, 1), (1, 1, 1), 0),
    ],
)
def test_measure_finds_a_disguised_dense_layer(convolution: nn.Module, shape: Shape, dense: int) -> None:
    assert measure(nn.Sequential(nn.Sequential(convolution)), shape).linear_layers == dense


def state(module: nn.Module) -> list[tuple[bool, int, int]]:
    return [
        (part.training, len(part._forward_hooks), len(part._forward_pre_hooks))  # torch has no public view of them
        for part in module.modules()
    ]


def test_measure_leaves_modes_hooks_and_weights_as_they_were() -> None:
    module = build(SMALL)
    module[1].eval()
    module[2].register_forward_hook(lambda *_: None)
    before, weights = state(module), {name: value.clone() for name, value in module.state_dict().items()}
    measure(module, SMALL.input_shape)
    assert state(module) == before
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())


def test_measure_leaves_modes_and_hooks_as_they_were_when_the_network_fails() -> None:
    module = build(SMALL)
    before = state(module)
    with pytest.raises(RuntimeError):
        measure(module, (3, 6, 8))
    assert state(module) == before


def test_check_built_accepts_what_was_built_within_its_limits() -> None:
    price = cost(SMALL)
    exact = Constraints(max_params=price.params, max_macs=price.macs, max_epochs=19, forbid=("linear",))
    check_built(build(SMALL), SMALL, exact, 19)


WIDER = replace(SMALL, layers=(Conv(out_channels=3), *SMALL.layers[1:]))


@pytest.mark.parametrize(
    ("module", "constraints", "message"),
    [
        # 360 parameters, one more kernel (9), its batch normalization (2) and its weights of the transition (3).
        (build(WIDER), Constraints(), "params is 374 as built, 360 described"),
        (nn.Sequential(*build(SMALL), nn.Linear(5, 5)), Constraints(), "params is 390 as built, 360 described"),
        (build(SMALL), Constraints(max_params=300), "360 params, 20.0 % over the limit of 300"),
        (
            build(SMALL),
            Constraints(max_params=359, max_epochs=18),
            "360 params, 0.3 % over the limit of 359; 19 epochs, 5.6 % over the limit of 18",
        ),
    ],
)
def test_check_built_says_what_is_broken(module: nn.Module, constraints: Constraints, message: str) -> None:
    with pytest.raises(LimitBrokenError, match=f"^{re.escape(message)}$"):
        check_built(module, SMALL, constraints, 19)


def test_check_built_finds_a_difference_that_parameters_do_not_show() -> None:
    modules: list[Any] = list(build(SMALL))
    del modules[3]  # the pool
    with pytest.raises(LimitBrokenError, match=r"^macs is \d+ as built, \d+ described$"):
        check_built(nn.Sequential(*modules), SMALL, Constraints(), 19)
