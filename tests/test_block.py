"""Layers of one's own: a strided convolution that only a space file knows is priced, trained, exported and drawn."""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from helpers import ENVIRONMENT, make_task
from hypothesis import given, settings
from hypothesis import strategies as st
from test_export import CARD, SMALL, trained_weights
from torch import Tensor, nn
from torch.nn import functional as F

import nas
from nas.analysis.questions import QUESTIONS
from nas.codegen.exporting import export
from nas.codegen.source import model_source
from nas.errors import UserError
from nas.network.architecture import Architecture, names, notation
from nas.network.cost import LayerCost, MapTooSmallError, cost, lower
from nas.network.layers import Block, Conv, Head, MaxPool
from nas.network.limits import Constraints
from nas.network.measure import measure
from nas.network.module import build
from nas.network.operations import (
    Activation,
    BatchNorm,
    Convolution,
    Dense,
    Depthwise,
    Dropout,
    Flatten,
    GlobalAveragePooling,
    MapOperation,
    MaxPooling,
)
from nas.reporting.drawing import columns
from nas.reporting.notes import layer_table
from nas.space.candidate import Candidate, digest, from_json, to_json
from nas.space.loading import load_space
from nas.space.recipe import Recipe
from nas.space.variants import forbidden_by, variants
from nas.study.location import StudyLocation, locate
from nas.study.opening import open_study
from nas.study.records import records
from nas.training.acceleration import training_form

pytestmark = pytest.mark.usefixtures("one_thread")

SPACE_FILE = Path(__file__).parent / "data" / "strided.py"
STRIDED = Block(
    name="strided 3×3",
    notation="s6",
    operations=(Convolution(out_channels=6, kernel_size=3, stride=2, padding=1), BatchNorm(), Activation()),
)
NETWORK = Architecture(
    input_shape=(1, 9, 12),
    num_classes=5,
    layers=(STRIDED, Conv(out_channels=4), MaxPool()),
    head=Head(),
)
CANDIDATE = Candidate(architecture=NETWORK, recipe=Recipe())
small = st.integers(1, 4)
operations: st.SearchStrategy[MapOperation] = st.one_of(
    st.builds(
        Convolution,
        out_channels=small,
        kernel_size=small,
        stride=st.integers(1, 3),
        padding=st.integers(0, 2),
        dilation=st.integers(1, 3),
        bias=st.booleans(),
    ),
    st.builds(
        Depthwise,
        kernel_size=small,
        stride=st.integers(1, 3),
        padding=st.integers(0, 2),
        dilation=st.integers(1, 3),
        bias=st.booleans(),
    ),
    st.builds(Activation, function=st.sampled_from(("relu", "silu", "gelu"))),
    st.builds(Dropout, rate=st.sampled_from((0.0, 0.1))),
    st.builds(MaxPooling, kernel_size=st.integers(2, 3)),
    st.just(BatchNorm()),
    st.just(GlobalAveragePooling()),
)
blocks = st.builds(
    Block,
    name=st.sampled_from(("a b", "x")),
    notation=st.just("x"),
    operations=st.lists(operations, min_size=1, max_size=5).map(tuple),
)
architectures = st.builds(
    Architecture,
    input_shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20)),
    num_classes=st.just(10),
    layers=st.lists(blocks | st.just(Conv(out_channels=3)) | st.just(MaxPool()), max_size=3).map(tuple),
    head=st.sampled_from((Head(), Head(kind="conv_pool", padding=1), Head(kind="linear"))),
)


# costs


def test_cost_of_a_strided_convolution_is_as_computed_by_hand() -> None:
    price = cost(NETWORK)
    assert price.rows[:2] == (
        LayerCost("block", (6, 5, 6), 54 + 6 + 12, 54 * 30, 3, 4 * (108 + 180)),
        LayerCost("conv", (4, 5, 6), 216 + 8, 216 * 30, 7, 4 * (180 + 120)),  # two pixels of the image to a step
    )
    assert price.receptive_field == 9
    assert measure(build(NETWORK), NETWORK.input_shape) == replace(price, rows=())


def test_cost_of_a_dilated_depthwise_convolution_is_as_computed_by_hand() -> None:
    depthwise = Depthwise(kernel_size=3, padding=2, dilation=2)
    block = Block(name="dilated", notation="dw", operations=(STRIDED.operations[0], depthwise))
    row = cost(replace(NETWORK, layers=(block,))).rows[0]
    assert row == LayerCost("block", (6, 5, 6), 54 + 6 + 54 + 6, 54 * 30 + 54 * 30, 3 + 4 * 2, 4 * (180 + 180))


@settings(deadline=None, derandomize=True, max_examples=300)
@given(architectures)
def test_cost_of_any_blocks_is_that_of_the_built_module(architecture: Architecture) -> None:
    module = build_or_none(architecture)
    try:
        described = cost(architecture)
    except MapTooSmallError:
        assert module is None
        return
    assert module is not None
    assert measure(module, architecture.input_shape) == replace(described, rows=())
    assert described.params == sum(parameter.numel() for parameter in module.parameters())
    shapes = [step.output_shape for step in lower(architecture)]
    x = torch.zeros(1, *architecture.input_shape)
    for part, shape in zip(module.eval(), shapes, strict=True):
        x = part(x)
        assert x.shape[1:] == shape


def build_or_none(architecture: Architecture) -> nn.Sequential | None:
    """The network as torch alone finds it, None where a layer does not fit on its map: channels are counted here."""
    channels, modules = architecture.input_shape[0], list[nn.Module]()
    for layer in architecture.layers:
        for operation in layer.operations:
            match operation:
                case Convolution(out_channels=out_channels):
                    groups = 1
                case Depthwise():
                    out_channels = groups = channels
                case _:
                    modules.append(build_alone(operation, channels))
                    continue
            modules.append(
                nn.Conv2d(
                    channels,
                    out_channels,
                    operation.kernel_size,
                    operation.stride,
                    operation.padding,
                    operation.dilation,
                    groups,
                    operation.bias,
                )
            )
            channels = out_channels
    features = nn.Sequential(*modules).eval()
    try:
        shape = features(torch.zeros(1, *architecture.input_shape)).shape
    except RuntimeError:
        return None
    conv = nn.Conv2d(channels, 10, 1, padding=architecture.head.padding)
    heads: dict[str, list[nn.Module]] = {
        "pool_conv": [nn.AdaptiveAvgPool2d(1), conv, nn.Flatten()],
        "conv_pool": [conv, nn.AdaptiveAvgPool2d(1), nn.Flatten()],
        "linear": [nn.Flatten(), nn.Linear(shape[1:].numel(), 10)],
    }
    return nn.Sequential(*modules, *heads[architecture.head.kind])


def build_alone(operation: object, channels: int) -> nn.Module:
    match operation:
        case BatchNorm():
            return nn.BatchNorm2d(channels)
        case Activation(function=function):
            functions: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}
            return functions[function]()
        case Dropout(rate=rate):
            return nn.Dropout2d(rate)
        case MaxPooling(kernel_size=size):
            return nn.MaxPool2d(size)
        case _:
            assert operation == GlobalAveragePooling()
            return nn.AdaptiveAvgPool2d(1)


def test_cost_counts_each_dense_layer_inside_a_block() -> None:
    whole = Convolution(out_channels=4, kernel_size=3, padding=1)
    block = Block(name="whole", notation="w4", operations=(whole, Activation(), whole))
    price = cost(Architecture(input_shape=(1, 3, 3), num_classes=2, layers=(block,), head=Head()))
    assert (price.linear_layers, price.rows[0].kind) == (2, "linear")


def test_receptive_field_of_strides_and_dilation_is_what_the_gradient_reaches() -> None:
    dilated = Convolution(out_channels=1, kernel_size=3, dilation=3, stride=3)
    block = Block(
        name="strided", notation="s", operations=(Convolution(out_channels=1, kernel_size=3, stride=2), dilated)
    )
    network = Architecture(input_shape=(1, 120, 120), num_classes=2, layers=(block, block), head=Head())
    features = nn.Sequential(*list(build(network))[:4]).double()
    for parameter in features.parameters():
        nn.init.constant_(parameter, 1.0)
    image = torch.ones(1, 1, 120, 120, dtype=torch.double, requires_grad=True)
    features(image)[0, 0, 0, 0].backward()
    assert image.grad is not None
    seen = image.grad[0, 0].any(dim=1).nonzero().flatten()
    assert int(seen.max() - seen.min()) + 1 == cost(network).receptive_field


# training


def results(network: nn.Sequential, executed: nn.Module, images: Tensor) -> list[Tensor]:
    """Scores, then gradients; images stay as they were."""
    torch.manual_seed(1)  # dropout
    network.zero_grad()
    before = images.clone()
    scores = executed(images)
    (scores * torch.arange(float(scores.shape[1]))).sum().backward()
    assert torch.equal(images, before)
    return [scores.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_training_form_of_a_strided_convolution_is_torchs_own(kernel_size: int) -> None:
    convolution = Convolution(out_channels=6, kernel_size=kernel_size, stride=2, padding=1, dilation=2)
    block = Block(name="strided", notation="s6", operations=(convolution, Depthwise(kernel_size=3, stride=2)))
    network = build(Architecture(input_shape=(2, 12, 15), num_classes=3, layers=(block,), head=Head(kind="conv_pool")))
    ours, depthwise, head = (module for module in network if isinstance(module, nn.Conv2d))
    images = torch.randn(4, 2, 12, 15)

    def theirs(x: Tensor) -> Tensor:
        x = F.conv2d(x, ours.weight, ours.bias, stride=2, padding=1, dilation=2)
        x = F.conv2d(x, depthwise.weight, depthwise.bias, stride=2, groups=6)
        return F.conv2d(x, head.weight, head.bias).mean((2, 3))

    class Theirs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return theirs(x)

    mine = results(network, training_form(network, torch.float32), images)
    assert all(map(torch.equal, mine, results(network, Theirs(), images)))


RELU, GLOBAL = Activation(), GlobalAveragePooling()
NARROW = Convolution(out_channels=3, kernel_size=1)


@pytest.mark.parametrize(
    "operations",
    [
        (RELU, NARROW),  # on images
        (NARROW, RELU, RELU),  # on what the first keeps for its gradient
        (NARROW, RELU, Dropout(rate=0.1), RELU, MaxPooling(kernel_size=2)),
        (GLOBAL, Convolution(out_channels=3, kernel_size=3, padding=1)),  # no matrix product, as the next
        (GLOBAL, Depthwise(kernel_size=1)),
        (GLOBAL, NARROW, Convolution(out_channels=3, kernel_size=3, padding=2), RELU),  # of a product
    ],
)
def test_training_form_of_operations_in_an_unusual_order(operations: tuple[MapOperation, ...]) -> None:
    torch.manual_seed(0)
    block = Block(name="unusual", notation="u", operations=operations)
    for head in (Head(), Head(kind="conv_pool"), Head(kind="linear")):
        network = build(Architecture(input_shape=(3, 6, 6), num_classes=4, layers=(block,), head=head))
        images = torch.randn(5, 3, 6, 6)
        theirs = results(network, network, images)
        torch.testing.assert_close(results(network, training_form(network, torch.float32), images), theirs)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(architectures, st.booleans())
def test_training_form_of_any_blocks_gives_the_scores_and_gradients(architecture: Architecture, training: bool) -> None:
    torch.manual_seed(0)
    try:
        network = build(architecture).train(training)
    except MapTooSmallError:
        return
    images = torch.randn(3, *architecture.input_shape)
    theirs = results(network, network, images)
    torch.testing.assert_close(
        results(network, training_form(network, torch.float32), images), theirs, rtol=1e-2, atol=1e-2
    )
    assert training_form(network, torch.bfloat16)(images).dtype == torch.float32


# descriptions


@given(architectures)
def test_json_round_trip_of_blocks_gives_an_equal_candidate(architecture: Architecture) -> None:
    candidate = replace(CANDIDATE, architecture=architecture)
    assert from_json(to_json(candidate)) == candidate


def test_digest_differs_when_an_operation_differs() -> None:
    first = STRIDED.operations[0]
    assert isinstance(first, Convolution)
    others: list[MapOperation] = [first, Depthwise(kernel_size=3, stride=2, padding=1)]
    others += [replace(first, out_channels=2), replace(first, kernel_size=2), replace(first, padding=2)]
    others += [replace(first, dilation=2), replace(first, stride=1), replace(first, bias=False)]
    blocks = [replace(STRIDED, operations=(other, *STRIDED.operations[1:])) for other in others]
    blocks += [replace(STRIDED, name="other"), replace(STRIDED, notation="o"), replace(STRIDED, operations=(first,))]
    found = [digest(replace(CANDIDATE, architecture=replace(NETWORK, layers=(block,)))) for block in blocks]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("kind", ["os.system", "Flatten", "Dense", "Operation", "Block", "nas.network.layers.Conv", 7])
def test_from_json_knows_the_operations_of_maps_only(kind: object) -> None:
    spoilt = json.loads(to_json(CANDIDATE))
    spoilt["architecture"]["layers"][0]["operations"][0]["kind"] = kind
    with pytest.raises(
        UserError, match=rf"^candidate JSON: {re.escape(repr(kind))} in '.*'; it must be as to_json wri"
    ):
        from_json(json.dumps(spoilt))


WORDS = "1 to 24 letters, digits or ×+-./_"
KINDS = "a tuple of at least one of Convolution, Depthwise, BatchNorm, Activation, Dropout, MaxPooling, GlobalAver"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(STRIDED, name=""), f"Block: name '' must be {WORDS}, with single spaces"),
        (lambda: replace(STRIDED, name="<b>"), f"Block: name '<b>' must be {WORDS}, with single spaces"),
        (lambda: replace(STRIDED, name="a" * 25), f"Block: name '{'a' * 25}' must be {WORDS}, with single spaces"),
        (lambda: replace(STRIDED, notation="s 6"), f"Block: notation 's 6' must be {WORDS}"),
        (lambda: replace(STRIDED, notation="s6\n"), f"Block: notation 's6\\n' must be {WORDS}"),
        (lambda: replace(STRIDED, operations=()), f"Block: operations () must be {KINDS}agePooling"),
        (
            lambda: replace(STRIDED, operations=(Flatten(), Dense(out_features=2))),  # type: ignore[arg-type]
            f"Block: operations (Flatten(), Dense(out_features=2, bias=True)) must be {KINDS}agePooling",
        ),
        (
            lambda: Convolution(out_channels=0, kernel_size=3),
            "Convolution: out_channels 0 must be a whole number, at least 1",
        ),
        (lambda: Depthwise(kernel_size=0), "Depthwise: kernel_size 0 must be a whole number, at least 1"),
        (lambda: Depthwise(kernel_size=3, stride=0), "Depthwise: stride 0 must be a whole number, at least 1"),
        (
            lambda: Depthwise(kernel_size=3, padding="same"),  # type: ignore[arg-type]
            "Depthwise: padding 'same' must be a whole number, at least 0",
        ),
        (lambda: Depthwise(kernel_size=3, dilation=0), "Depthwise: dilation 0 must be a whole number, at least 1"),
        (lambda: Depthwise(kernel_size=3, bias=1), "Depthwise: bias 1 must be True or False"),  # type: ignore[arg-type]
        (
            lambda: Activation(function="tanh"),  # type: ignore[arg-type]
            "Activation: function 'tanh' must be one of ('relu', 'silu', 'gelu')",
        ),
        (lambda: Dropout(rate=1), "Dropout: rate 1 must be a number, at least 0 and below 1"),
        (lambda: MaxPooling(kernel_size=1), "MaxPooling: kernel_size 1 must be a whole number, at least 2"),
        (lambda: Dense(out_features=0), "Dense: out_features 0 must be a whole number, at least 1"),
        (lambda: Dense(out_features=2, bias=0), "Dense: bias 0 must be True or False"),  # type: ignore[arg-type]
    ],
)
def test_bad_blocks_and_operations_are_refused_in_words(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        make()


# readers


def test_a_block_is_named_written_and_drawn() -> None:
    assert notation(NETWORK) == "s6 c4 p2 | gap 1×1"
    assert names(NETWORK)[0] == "strided 3×3"
    assert "| strided 3×3 | 6×5×6 | 72 | 1620 | 3 |" in layer_table(NETWORK).replace(",", "")
    drawn = columns(NETWORK)[1]
    assert (drawn.name, drawn.kind, drawn.shape, drawn.params) == ("strided 3×3", "block", (6, 5, 6), 72)


def test_variants_and_questions_leave_blocks_as_they_are() -> None:
    for layers in (NETWORK.layers, (STRIDED,), (STRIDED, STRIDED, MaxPool())):
        candidate = replace(CANDIDATE, architecture=replace(NETWORK, layers=layers))
        assert all(isinstance(question.said(question.number(candidate)), str) for question in QUESTIONS)
        for variant in variants(candidate):
            kept = [layer for layer in variant.candidate.architecture.layers if isinstance(layer, Block)]
            assert kept == [STRIDED] * layers.count(STRIDED)
            forbidden_by(variant.candidate, Constraints())


def test_source_of_long_calls_is_clean_for_default_ruff(tmp_path: Path) -> None:
    long = Convolution(out_channels=100_000, kernel_size=11, stride=2, padding=150, dilation=10, bias=False)
    wide = Depthwise(kernel_size=11, stride=200, padding=1500, dilation=100, bias=False)
    block = Block(name="long", notation="l", operations=(long, wide, Activation()))
    source = model_source(Architecture(input_shape=(1, 28, 28), num_classes=10, layers=(block,), head=Head()), CARD)
    file = tmp_path / "model.py"
    file.write_text(source, encoding="utf-8")
    for command in (["check"], ["format", "--diff"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--isolated", "--no-cache", str(file)]
        result = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    assert "            nn.Conv2d(\n                100000,\n" in source


# the whole way, with nothing but the space file


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """A search in two calls, after which its space file is gone."""

    folder: Path
    location: StudyLocation


def call(folder: Path, module: str, *arguments: str) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", module, *arguments]
    ended = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    folder = make_task(tmp_path_factory.mktemp("strided"))
    space = folder / "strided.py"
    space.write_bytes(SPACE_FILE.read_bytes())
    with contextlib.chdir(folder):
        nas.search("strided.py", trials=1, finalists=0, jobs=1, device="cpu", progress=False)
        nas.search("strided.py", trials=3, finalists=1, final_seeds=1, jobs=1, device="cpu", progress=False)
    space.unlink()
    return Searched(folder=folder, location=locate("strided", folder / "results", None))


def test_a_search_trains_layers_that_only_its_space_file_knows(searched: Searched) -> None:
    trials = records(open_study(searched.location))
    assert len(trials) == 3
    space = load_space(str(SPACE_FILE))
    for trial in trials:
        assert trial.candidate == space.decode(trial.suggestions)
        assert re.fullmatch(r"s\d+ s\d+ ds16 c8 \| gap 1×1", trial.notation)
        assert trial.val_accuracy is not None or trial.state.name == "PRUNED"


def test_the_winner_of_blocks_is_exported_and_drawn(searched: Searched) -> None:
    best = searched.location.folder / "best"
    source = (best / "model.py").read_text(encoding="utf-8")
    assert re.search(r"nn\.Conv2d\(1, \d+, 3, stride=2, padding=1, bias=False\),  # \d+×14×14 · 3 · \d+\n", source)
    assert re.search(r"nn\.Conv2d\((\d+), \1, 3, padding=2, dilation=2, groups=\1, bias=False\),", source)
    assert "weights loaded" in call(best, "model")
    page = (searched.location.folder / "report.html").read_text(encoding="utf-8")
    assert page.count('<rect class="block"') == 3
    assert ">strided 3×3</text>" in page
    assert ".network .block {" in page


def test_a_study_with_blocks_is_read_without_its_space_file(searched: Searched) -> None:
    with contextlib.chdir(searched.folder):
        study = nas.open_study("strided")
        assert study.retrain(trial=0, device="cpu", progress=False).equal
        assert study.export(trial=0).is_dir()
        assert study.report().is_file()


def test_export_of_a_strided_convolution_is_proven(tmp_path: Path) -> None:
    architecture = replace(SMALL, layers=(STRIDED, *SMALL.layers[:1]))
    export(tmp_path / "best", architecture, trained_weights(architecture), CARD, Constraints(forbid=("linear",)))
    assert "stride=2" in (tmp_path / "best" / "model.py").read_text(encoding="utf-8")
