"""The optimizer: torch.optim.SGD and a moving average by hand as the judges of what works on one vector."""

import copy

import pytest
import torch
from helpers import small_architecture
from torch import nn

from nas.network.module import build
from nas.space.recipe import Recipe
from nas.training.optimizer import SGD, FlatState, WeightAverage, learning_rate
from nas.training.training import weights_of


def test_learning_rate_rises_to_the_peak_and_falls_to_zero() -> None:
    recipe = Recipe(learning_rate=0.4, warmup=0.2)
    rates = [learning_rate(recipe, step, 10) for step in range(10)]
    assert rates == pytest.approx([0.2, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.0])


def test_learning_rate_without_warmup_only_falls() -> None:
    recipe = Recipe(learning_rate=0.4, warmup=0.0)
    assert [learning_rate(recipe, step, 4) for step in range(4)] == pytest.approx([0.3, 0.2, 0.1, 0.0])


def test_flat_state_holds_all_of_a_network_and_leaves_its_values_and_scores() -> None:
    network = build(small_architecture())
    before, twin = weights_of(network), copy.deepcopy(network)
    state = FlatState(network)
    assert weights_of(network) == before
    images = torch.randn(4, 1, 28, 28)
    torch.testing.assert_close(network.eval()(images), twin.eval()(images))
    state.values.zero_()
    floating = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
    assert len(floating) > 10
    assert not any(tensor.any() for tensor in floating)


def test_flat_state_gathers_the_gradients() -> None:
    network = build(small_architecture())
    state, twin = FlatState(network), copy.deepcopy(network)
    images = torch.randn(4, 1, 28, 28)
    twin.zero_grad()
    for each in (network, twin):
        torch.manual_seed(1)  # dropout
        each(images).square().sum().backward()
    expected = [parameter.grad for parameter in twin.parameters() if parameter.grad is not None]
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert state.gradients.abs().sum().item() == pytest.approx(sum(g.abs().sum().item() for g in expected), rel=1e-5)


def random_gradients(network: nn.Module) -> None:
    for parameter in network.parameters():
        assert parameter.grad is not None
        parameter.grad.normal_()


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_sgd_steps_as_torch_does(momentum: float) -> None:
    torch.manual_seed(0)
    ours, theirs = build(small_architecture()), build(small_architecture())
    theirs.load_state_dict(ours.state_dict())
    recipe = Recipe(momentum=momentum, weight_decay=0.01)
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in theirs.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    state = FlatState(ours)
    optimizer, reference = SGD(state, recipe), torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0)
    for rate in (0.1, 0.2, 0.05):
        random_gradients(ours)
        for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert our.grad is not None
            their.grad = our.grad.clone()
        for group in reference.param_groups:
            group["lr"] = rate
        optimizer.step(rate)
        reference.step()
        assert not state.gradients.any()
    for our, their in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(our, their)


def test_sgd_shrinks_kernels_and_nothing_else() -> None:
    network = build(small_architecture())
    before = {name: value.clone() for name, value in network.named_parameters()}
    SGD(FlatState(network), Recipe(momentum=0.0, weight_decay=0.5)).step(0.1)
    for name, value in network.named_parameters():
        shrunk = 0.95 if value.ndim == 4 else 1.0
        torch.testing.assert_close(value, before[name] * shrunk)


def fill(network: nn.Module, value: float) -> None:
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.fill_(value)


def test_weight_average_of_four_updates_by_hand() -> None:
    network = nn.BatchNorm2d(2)
    fill(network, 11.0)
    averaged = copy.deepcopy(network)
    average = WeightAverage(FlatState(averaged), FlatState(network), decay=0.3)
    for value in (0.0, 4.0, 8.0, 8.0):
        fill(network, value)
        average.update()
    # decays: 2/11, 3/12, then 4/13 = 0.3077 and 5/14, both cut to 0.3
    expected = 11 * 2 / 11  # 2
    expected = expected * 3 / 12 + 4 * 9 / 12  # 3.5
    expected = expected * 0.3 + 8 * 0.7
    expected = expected * 0.3 + 8 * 0.7
    means = averaged.state_dict()
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert means[name].tolist() == pytest.approx([expected, expected]), name
    assert network.weight.tolist() == [8.0, 8.0]
