"""The forms in which networks are executed: the same scores and gradients as the network that is described."""

from collections.abc import Iterator

import pytest
import torch
from helpers import sampled
from torch import Tensor, nn
from torch.nn import functional as F

from nas.architecture import Architecture, Conv, Head, MaxPool, Transition
from nas.execution import Convolution, Scores, faster, fastest_dtype, training_form
from nas.network import build
from search_spaces.mnist import SEED

CPU = torch.device("cpu")
LINEAR = Architecture(
    input_shape=(1, 28, 28),
    num_classes=10,
    layers=(
        MaxPool(),
        Conv(out_channels=4, bias=True, batch_norm=False, activation="gelu"),
        Transition(out_channels=3),
    ),
    head=Head(kind="linear"),
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """As in a worker process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


@pytest.mark.parametrize("training", [True, False])
def test_training_form_gives_the_scores_and_gradients_up_to_rounding(training: bool) -> None:
    torch.manual_seed(0)
    kinds: set[type[nn.Module]] = set()
    for architecture in (SEED, LINEAR, *(architecture for architecture, _ in sampled(12, seed=1))):
        network = build(architecture).train(training)
        images = torch.randn(5, 1, 28, 28)
        executed = training_form(network, torch.float32)
        kinds |= {type(module) for module in executed}
        theirs = scores_and_gradients(network, network, images)
        torch.testing.assert_close(scores_and_gradients(network, executed, images), theirs, rtol=1e-3, atol=1e-3)
    assert {Convolution, Scores} < kinds


def test_training_form_in_bfloat16_gives_float32_scores_and_gradients_nearby() -> None:
    """Dropout is off, since it draws other numbers in bfloat16; a value of that precision has 8 bits."""
    torch.manual_seed(0)
    for architecture in (SEED, LINEAR, *(architecture for architecture, _ in sampled(6, seed=2))):
        network = build(architecture)
        for module in network:
            module.train(not isinstance(module, nn.Dropout2d))
        images = torch.randn(64, 1, 28, 28)
        scores, *gradients = scores_and_gradients(network, training_form(network, torch.bfloat16), images)
        true_scores, *true_gradients = scores_and_gradients(network, network, images)
        assert {tensor.dtype for tensor in (scores, *gradients)} == {torch.float32}
        assert alike(scores, true_scores) > 0.999
        assert alike(torch.cat([*map(torch.ravel, gradients)]), torch.cat([*map(torch.ravel, true_gradients)])) > 0.97


def alike(a: Tensor, b: Tensor) -> float:
    """The cosine between two tensors."""
    return float(F.cosine_similarity(a.flatten(), b.flatten(), dim=0))


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [({"avx512_bf16": True}, torch.bfloat16), ({"avx512_bf16": False}, torch.float32), ({"sve": True}, torch.float32)],
)
def test_fastest_dtype_is_what_the_cpu_computes_in(
    capabilities: dict[str, bool], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert fastest_dtype(CPU) == dtype
    assert fastest_dtype(torch.device("cuda")) == torch.float32


def test_fastest_dtype_of_a_torch_that_cannot_tell_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert fastest_dtype(CPU) == torch.float32
