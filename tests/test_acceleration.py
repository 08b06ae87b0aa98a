"""The forms in which networks are executed: the same scores and gradients as the network that is described."""

import copy
import re
from dataclasses import replace

import pytest
import torch
from helpers import sampled
from torch import Tensor, nn
from torch.nn import functional as F

from nas.network.architecture import Architecture
from nas.network.layers import HEADS, Conv, Head, MaxPool, Transition
from nas.network.module import build
from nas.training.acceleration import (
    Classifier,
    Convolution,
    Float32,
    GlobalAverage,
    activation_dtype,
    faster,
    training_form,
)
from search_spaces.mnist import SEED

CPU = torch.device("cpu")
ODD = Architecture(
    input_shape=(3, 20, 26),
    num_classes=10,
    layers=(
        Conv(out_channels=4, kernel_size=1, padding=1, bias=True, batch_norm=False, activation="gelu"),
        *(MaxPool(kernel_size=3), Transition(out_channels=3, padding=2, bias=False)),
        Conv(out_channels=6, padding=0, activation="silu", dropout=0.1),
    ),
    head=Head(),
)
ARCHITECTURES = (SEED, *(replace(ODD, head=Head(kind=kind)) for kind in HEADS), *(a for a, _ in sampled(12, seed=1)))
pytestmark = pytest.mark.usefixtures("one_thread")


def scores_and_gradients(network: nn.Sequential, executed: nn.Sequential, images: Tensor) -> list[Tensor]:
    torch.manual_seed(1)  # dropout
    network.zero_grad()
    scores = executed(images)
    (scores * torch.arange(10.0)).sum().backward()
    return [scores.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]


@pytest.mark.parametrize("training", [True, False])
def test_faster_gives_the_same_scores_and_gradients(training: bool) -> None:
    torch.manual_seed(0)
    reordered = 0
    for architecture, _ in sampled(12):
        network = build(architecture).train(training)
        images = torch.randn(5, 1, 28, 28)
        executed = faster(network)
        reordered += [type(m) for m in executed] != [type(m) for m in network]
        before = scores_and_gradients(network, network, images)
        (ours, *our_gradients), (theirs, *their_gradients) = scores_and_gradients(network, executed, images), before
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(our_gradients, their_gradients, rtol=1e-4, atol=1e-4)
    assert reordered > 3


def test_faster_leaves_functions_alone_that_fall_somewhere() -> None:
    """SiLU falls below 0, and element dropout is no factor of the whole map."""
    for kept in ((nn.SiLU(),), (nn.SiLU(), nn.Dropout2d(0.5)), (nn.Dropout(0.5),)):
        network = nn.Sequential(nn.Conv2d(1, 2, 3), *kept, nn.MaxPool2d(2))
        assert [type(module) for module in faster(network)][1] is type(kept[0])


def images_for(network: Architecture, count: int) -> Tensor:
    return torch.randn(count, *network.input_shape)


@pytest.mark.parametrize("training", [True, False])
def test_training_form_gives_the_scores_and_gradients_up_to_rounding(training: bool) -> None:
    torch.manual_seed(0)
    kinds: set[type[nn.Module]] = set()
    for architecture in ARCHITECTURES:
        network, images = build(architecture).train(training), images_for(architecture, 5)
        executed = training_form(network, torch.float32)
        kinds |= {type(module) for module in executed}
        theirs = scores_and_gradients(network, network, images)
        torch.testing.assert_close(scores_and_gradients(network, executed, images), theirs, rtol=1e-3, atol=1e-3)
    assert {Convolution, GlobalAverage, Classifier, Float32} < kinds
    assert not {nn.Conv2d, nn.AdaptiveAvgPool2d} & kinds


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect"), "padding_mode='zeros' instead of 'reflect'"),
        (nn.AdaptiveAvgPool2d(2), "output_size=1 instead of 2"),
        (nn.AdaptiveAvgPool2d((1, 2)), "output_size=1 instead of (1, 2)"),
    ],
)
def test_training_form_refuses_an_option_that_it_would_train_without(module: nn.Module, said: str) -> None:
    message = (
        f"{module} would be trained with {said}; teach nas.training.acceleration that option before building with it"
    )
    with pytest.raises(NotImplementedError, match=f"^{re.escape(message)}$"):
        training_form(nn.Sequential(module), torch.float32)


def test_training_form_refuses_padding_without_numbers() -> None:
    with pytest.raises(
        NotImplementedError, match=r"^Conv2d\(.*\) would be trained without padding; give it as numbers$"
    ):
        training_form(nn.Sequential(nn.Conv2d(4, 8, 3, padding="same")), torch.float32)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 8, 3, stride=(1, 2)),
        nn.Conv2d(4, 8, 3, dilation=2),
        nn.Conv2d(4, 8, 3, groups=2, padding=1),
        nn.Conv2d(4, 8, 1, stride=2, padding=1),
        nn.Conv2d(4, 8, 1, groups=2, padding=1),
    ],
)
@pytest.mark.parametrize("after", [(), (nn.AdaptiveAvgPool2d(1),)])
def test_training_form_computes_what_a_convolution_says(conv: nn.Conv2d, after: tuple[nn.Module, ...]) -> None:
    images = torch.rand(3, 4, 9, 9, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(conv, *after)
    torch.testing.assert_close(training_form(network, torch.float32)(images), network(images))


@pytest.mark.parametrize(
    "conv", [nn.Conv2d(4, 10, 3, padding=1), nn.Conv2d(4, 10, 1, padding=1), nn.Conv2d(4, 10, 1, groups=2)]
)
def test_training_form_computes_a_classifier_that_is_no_matrix_product(conv: nn.Conv2d) -> None:
    images = torch.rand(3, 4, 9, 9, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv, nn.Flatten())
    torch.testing.assert_close(training_form(network, torch.float32)(images), network(images))


@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm2d(4, eps=0.1, momentum=0.5, affine=False),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.MaxPool2d(3, stride=1, padding=1, dilation=2),
        nn.MaxPool2d(3, ceil_mode=True),
        nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    ],
)
def test_training_form_computes_with_the_options_of_what_it_keeps(module: nn.Module) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout2d(0.5), module, nn.AdaptiveAvgPool2d(1))
    images, executed = torch.randn(8, 1, 14, 14), training_form(network, torch.float32)
    outputs = []
    for form in (network, executed):
        torch.manual_seed(1)  # dropout
        outputs.append(form(images))
    torch.testing.assert_close(*outputs)


def test_training_form_in_bfloat16_gives_float32_scores_gradients_and_statistics_nearby() -> None:
    torch.manual_seed(0)
    seen: set[torch.dtype] = set()
    for architecture in ARCHITECTURES:
        network, images = build(architecture), images_for(architecture, 64)
        twin = copy.deepcopy(network)
        executed = training_form(network, torch.bfloat16)
        for module in executed:
            if isinstance(module, Convolution):
                module.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
        scores, *gradients = scores_and_gradients(network, executed, images)
        true_scores, *true_gradients = scores_and_gradients(twin, twin, images)
        assert {tensor.dtype for tensor in (scores, *gradients)} == {torch.float32}
        assert alike([scores], [true_scores]) > 0.999
        assert alike(gradients, true_gradients) > 0.95
        torch.testing.assert_close(network.state_dict(), twin.state_dict(), rtol=0.05, atol=0.02)  # dtypes, too
    assert seen == {torch.bfloat16}


def alike(a: list[Tensor], b: list[Tensor]) -> float:
    """The cosine between two lists of tensors."""
    one, other = (torch.cat([tensor.flatten() for tensor in tensors]) for tensors in (a, b))
    return float(F.cosine_similarity(one, other, dim=0))


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [({"avx512_bf16": True}, torch.bfloat16), ({"avx512_bf16": False}, torch.float32), ({"sve": True}, torch.float32)],
)
def test_activation_dtype_is_what_the_cpu_computes_in(
    capabilities: dict[str, bool], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert activation_dtype(CPU) == dtype
    assert activation_dtype(torch.device("cuda")) == torch.float32


def test_activation_dtype_of_a_torch_that_cannot_tell_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert activation_dtype(CPU) == torch.float32
