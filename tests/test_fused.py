"""Fused blocks: the results and gradients of torch's modules, for every shape and kind that networks have."""

import copy
import ctypes
import itertools

import pytest
import torch
from helpers import sampled
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.network.module import build
from nas.training.acceleration import training_form
from nas.training.fused import FirstBlock, FusedBlock, fused

RELU, DROPOUT, POOL = nn.ReLU(), nn.Dropout2d(0.3), nn.MaxPool2d(2)


def maps(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=generator).to(dtype).to(memory_format=torch.channels_last)


def made(channels: int, *after: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """A batch normalization whose state is no default, and what follows it."""
    norm = nn.BatchNorm2d(channels, momentum=0.3, eps=1e-3, dtype=dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 1.5, channels)).mul_(torch.tensor([1, -1]).repeat(channels)[:channels])
        norm.bias.copy_(torch.linspace(0.5, -0.5, channels))
    return nn.Sequential(norm, *copy.deepcopy(after))


def results(network: nn.Module, norm: nn.BatchNorm2d, images: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Output, gradients and running statistics of one step."""
    torch.manual_seed(seed)
    x = images.detach().clone().requires_grad_()
    norm.zero_grad()
    y = network(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    (y * weights).sum().backward()
    assert x.grad is not None
    assert norm.weight.grad is not None
    assert norm.bias.grad is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    found = {"y": y.detach(), "dx": x.grad, "dweight": norm.weight.grad, "dbias": norm.bias.grad}
    return found | {"mean": norm.running_mean.clone(), "var": norm.running_var.clone()}


def both(plain: nn.Sequential, library: ctypes.CDLL, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What torch's modules give, and what one fused block of the same gives."""
    twin = copy.deepcopy(plain)
    (block,) = fused(list(twin), library, torch.float32)
    assert isinstance(block, FusedBlock)
    return results(plain, plain[0], images), results(block, twin[0], images)  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    images=st.integers(1, 5),
    channels=st.integers(1, 41),
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    window=st.integers(1, 4),
    relu=st.booleans(),
    dropout=st.booleans(),
)
def test_a_block_gives_what_the_modules_give(
    library: ctypes.CDLL, images: int, channels: int, height: int, width: int, window: int, relu: bool, dropout: bool
) -> None:
    if images * height * width < 2 or min(height, width) < window:
        return
    after = [*[nn.MaxPool2d(window)] * (window > 1), *[RELU] * relu, *[DROPOUT] * dropout]
    theirs, ours = both(
        made(channels, *after), library, maps(torch.Generator().manual_seed(0), images, channels, height, width)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("after", list(itertools.permutations((RELU, DROPOUT, POOL))))
def test_the_order_of_what_follows_does_not_matter(library: ctypes.CDLL, after: tuple[nn.Module, ...]) -> None:
    theirs, ours = both(made(12, *after), library, maps(torch.Generator().manual_seed(0), 4, 12, 9, 8))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("after", [(), (RELU,), (RELU, POOL), (nn.MaxPool2d(3), RELU)])
@pytest.mark.parametrize("channels", [3, 20])
def test_gradients_are_those_of_the_function(library: ctypes.CDLL, after: tuple[nn.Module, ...], channels: int) -> None:
    """In double precision, against finite differences."""
    (block,) = fused(list(made(channels, *after, dtype=torch.float64)), library, torch.float32)
    assert isinstance(block, FusedBlock)
    norm = block.each[0]
    assert isinstance(norm, nn.BatchNorm2d)
    x = maps(torch.Generator().manual_seed(0), 2, channels, 7, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: block(x), (x, norm.weight, norm.bias))


def test_a_step_repeats_bit_for_bit(library: ctypes.CDLL) -> None:
    images = maps(torch.Generator().manual_seed(0), 8, 20, 14, 14, dtype=torch.bfloat16)
    first, second = (both(made(20, RELU, DROPOUT, POOL), library, images)[1] for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_in_bfloat16_it_is_nearer_to_the_truth_than_torchs_modules(library: ctypes.CDLL) -> None:
    generator = torch.Generator().manual_seed(0)
    images = maps(generator, 32, 16, 14, 14, dtype=torch.bfloat16)
    plain = made(16, RELU, POOL)
    theirs, ours = both(plain, library, images)
    truth, _ = both(made(16, RELU, POOL), library, images.float())
    for name in ("y", "dx", "dweight", "dbias"):
        wrong, true = ((found[name].float() - truth[name]).norm() for found in (theirs, ours))
        assert true <= 1.05 * wrong, name


@pytest.mark.parametrize(
    "modules",
    [
        (nn.ReLU(),),
        (nn.BatchNorm2d(4, affine=False),),
        (nn.BatchNorm2d(4, track_running_stats=False),),
        (nn.BatchNorm2d(4, momentum=None),),
    ],
)
def test_what_the_library_does_not_compute_stays_as_it_is(library: ctypes.CDLL, modules: tuple[nn.Module, ...]) -> None:
    assert list(fused(modules, library, torch.float32)) == list(modules)


@pytest.mark.parametrize(
    "kept",
    [
        nn.SiLU(),
        nn.Dropout(0.5),
        nn.MaxPool2d(3, stride=2),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(2, padding=1),
        nn.MaxPool2d((2, 1)),
        nn.MaxPool2d(2, dilation=2),
    ],
)
def test_a_block_ends_where_something_else_begins(library: ctypes.CDLL, kept: nn.Module) -> None:
    block, *rest = fused([nn.BatchNorm2d(4), nn.ReLU(), kept, nn.Dropout2d(0.5)], library, torch.float32)
    assert isinstance(block, FusedBlock)
    assert [type(module) for module in block.each] == [nn.BatchNorm2d, nn.ReLU]
    assert [type(module) for module in rest] == [type(kept), nn.Dropout2d]


def test_nothing_is_fused_twice(library: ctypes.CDLL) -> None:
    parts = [nn.BatchNorm2d(4), nn.Dropout2d(0.5), nn.Dropout2d(0.5), nn.BatchNorm2d(4), nn.MaxPool2d(2)]
    found = list(fused(parts, library, torch.float32))
    assert [type(part) for part in found] == [FusedBlock, nn.Dropout2d, FusedBlock]


def test_evaluation_is_that_of_the_modules(library: ctypes.CDLL) -> None:
    plain = made(4, RELU, DROPOUT, POOL).eval()
    (block,) = fused(list(plain), library, torch.float32)
    images = maps(torch.Generator().manual_seed(0), 3, 4, 6, 6)
    assert torch.equal(block.eval()(images), plain(images))
    with torch.inference_mode():
        torch.testing.assert_close(block(images), plain(images))


@pytest.mark.parametrize("after", [(), (RELU,), (RELU, POOL, DROPOUT), (nn.MaxPool2d(3),)])
@pytest.mark.parametrize("bias", [False, True])
def test_whole_networks_are_judged_alike(library: ctypes.CDLL, after: tuple[nn.Module, ...], bias: bool) -> None:
    """Also a first convolution with its block."""
    torch.manual_seed(2)
    plain = nn.Sequential(nn.Conv2d(1, 20, 3, padding=1, bias=bias), *made(20, *after), nn.Conv2d(20, 7, 2), *made(7))
    plain(torch.randn(8, 1, 12, 11))  # so that the running statistics are no defaults
    images = torch.randn(5, 1, 12, 11)
    with torch.inference_mode():
        expected = plain.eval()(images)
        torch.testing.assert_close(training_form(plain, torch.float32, library).eval()(images), expected)
    assert not any(torch.isnan(buffer).any() for buffer in plain.buffers())


def test_one_value_a_channel_is_refused_as_torch_does(library: ctypes.CDLL) -> None:
    (block,) = fused(list(made(4, RELU)), library, torch.float32)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        block(torch.zeros(1, 4, 1, 1))
    (first,) = fused([nn.Conv2d(1, 4, 3), *made(4, RELU)], library, torch.float32)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        first(torch.zeros(1, 1, 3, 3))


def test_whole_networks_give_the_scores_and_gradients(library: ctypes.CDLL) -> None:
    torch.manual_seed(0)
    for architecture, _ in sampled(8, seed=3):
        network = build(architecture)
        twin = copy.deepcopy(network)
        images, scores = torch.randn(16, 1, 28, 28), []
        for net, form in ((network, network), (twin, training_form(twin, torch.float32, library))):
            torch.manual_seed(1)
            scores.append(form(images))
            scores[-1].square().sum().backward()
            assert net is network or any(isinstance(part, FusedBlock) for part in form)
        torch.testing.assert_close(scores[1], scores[0], rtol=1e-3, atol=1e-3)
        gradients = [[p.grad for p in net.parameters()] for net in (network, twin)]
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-2, atol=2e-3)
        torch.testing.assert_close(twin.state_dict(), network.state_dict(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("after", [(), (RELU,), (RELU, POOL, DROPOUT)])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("channels", [3, 20])
@pytest.mark.parametrize("bias", [False, True])
def test_the_first_convolution_is_part_of_its_block(
    library: ctypes.CDLL, after: tuple[nn.Module, ...], padding: int, channels: int, bias: bool
) -> None:
    torch.manual_seed(2)
    plain = nn.Sequential(nn.Conv2d(1, channels, 3, padding=padding, bias=bias), *made(channels, *after))
    twin, found = copy.deepcopy(plain), []
    (block,) = fused(list(twin), library, torch.float32)
    assert isinstance(block, FirstBlock)
    for network, form in ((plain, plain), (twin, block)):
        torch.manual_seed(1)
        y = form(maps(torch.Generator().manual_seed(0), 6, 1, 11, 10))
        (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
        gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
        found.append({"y": y.detach()} | gradients | dict(network.named_buffers()))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("after", [(RELU,), (RELU, POOL)])
def test_gradients_of_the_first_convolution_are_those_of_the_function(
    library: ctypes.CDLL, after: tuple[nn.Module, ...]
) -> None:
    conv = nn.Conv2d(1, 5, 3, padding=1, bias=False, dtype=torch.float64)
    (block,) = fused([conv, *made(5, *after, dtype=torch.float64)], library, torch.float64)
    images = maps(torch.Generator().manual_seed(0), 3, 1, 7, 6, dtype=torch.float64)
    assert isinstance(block, FirstBlock)
    norm = block.each[0]
    assert isinstance(norm, nn.BatchNorm2d)
    assert torch.autograd.gradcheck(lambda *_: block(images), (conv.weight, norm.weight, norm.bias))


@pytest.mark.parametrize(
    "before",
    [
        nn.Conv2d(1, 4, 5),
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(1, 4, 3, stride=2),
        nn.Conv2d(1, 4, 3, dilation=2),
        nn.Conv2d(1, 4, 3, padding=(1, 0)),
        nn.Conv2d(1, 4, 3, padding="same"),
        nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"),
    ],
)
def test_other_first_convolutions_are_not_part_of_it(library: ctypes.CDLL, before: nn.Conv2d) -> None:
    assert [type(part) for part in fused([before, *made(4, RELU)], library, torch.float32)] == [nn.Conv2d, FusedBlock]


def test_only_the_first_convolution_does_without_a_gradient_of_what_it_sees(library: ctypes.CDLL) -> None:
    grey = (nn.Conv2d(1, 1, 1), nn.Conv2d(1, 4, 3), *made(4, RELU))
    assert [type(part) for part in fused(grey, library, torch.float32)] == [nn.Conv2d, nn.Conv2d, FusedBlock]
    pooled = (nn.MaxPool2d(2), *grey[1:])
    assert [type(part) for part in fused(pooled, library, torch.float32)] == [nn.MaxPool2d, FirstBlock]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_what_is_no_number_stays_none(library: ctypes.CDLL, first: bool, training: bool) -> None:
    convs = [nn.Conv2d(1, 4, 3, padding=1)] if first else []
    network = nn.Sequential(*fused([*convs, *made(4, RELU)], library, torch.float32)).train(training)
    with torch.no_grad():
        next(network.parameters())[0] = float("nan")
        assert network(torch.randn(3, 1 if first else 4, 5, 5)).isnan().any()


def test_maps_that_do_not_fit_are_refused(library: ctypes.CDLL) -> None:
    for wrong in (torch.zeros(2, 3, 6, 6), torch.zeros(2, 4, 1, 6), torch.zeros(2, 4, 6, 6, dtype=torch.float64)):
        (block,) = fused(list(made(4, POOL)), library, torch.float32)
        with pytest.raises(RuntimeError, match="a fused block was given"):
            block(wrong)
    (grey,) = fused([nn.Conv2d(1, 4, 3), *made(4)], library, torch.float32)
    with pytest.raises(RuntimeError, match="3 channels instead of 1"):
        grey(torch.zeros(2, 3, 6, 6))
    with pytest.raises(RuntimeError, match="images too small"):
        grey(torch.zeros(2, 1, 2, 6))


def test_larger_images_in_between_leave_a_gradient_alone(library: ctypes.CDLL) -> None:
    torch.manual_seed(0)
    found = []
    for between in (False, True):
        torch.manual_seed(0)
        (block,) = fused([nn.Conv2d(1, 4, 3), *made(4, RELU)], library, torch.float32)
        y = block(torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(0)))
        if between:
            block(torch.randn(3, 1, 90, 90))
        y.sum().backward()
        found.append([parameter.grad for parameter in block.parameters()])
    torch.testing.assert_close(found[1], found[0])
