"""Descending the gradient: the learning rate of each step, SGD, and the moving average of the weights.

A network's parameters and running statistics are views of one vector, its gradients of another. One call works on a
whole vector; on networks of this size, a call for each tensor costs more than its arithmetic. Measured with 10,634
parameters on one core: 0.16 ms a step instead of 0.60, the same weights bit for bit.
"""

import torch
from torch import Tensor, nn

from nas.space.recipe import Recipe

ALIGNMENT = 16  # values; each tensor begins on a cache line


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Linear warm-up from 0 to the peak over `warmup` of the steps, then linear decay to 0 at the last."""
    progress, warmup = (step + 1) / steps, recipe.warmup
    factor = progress / warmup if progress < warmup else (1 - progress) / (1 - warmup)
    return recipe.learning_rate * factor


class FlatState:
    """The floating-point state of a network: its tensors become views of `values`.

    Kernels come first, then the other parameters, then statistics; `gradients` are those of the parameters. Convolution
    kernels lie in the channels_last format. A parameter is no view any more once it is moved to another device or
    format; nor is a gradient after `network.zero_grad()`.
    """

    def __init__(self, network: nn.Module) -> None:
        kernels = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        statistics = [b for b in network.buffers() if b.is_floating_point()]
        self.kernels = sum(map(_aligned, kernels))
        self.parameters = self.kernels + sum(map(_aligned, others))
        device = next((tensor.device for tensor in (*kernels, *others, *statistics)), None)
        self.values = torch.zeros(self.parameters + sum(map(_aligned, statistics)), device=device)
        self.gradients = torch.zeros(self.parameters, device=device)
        start = 0
        for tensor in (*kernels, *others, *statistics):
            view = _view(self.values[start : start + tensor.numel()], tensor)
            tensor.data = view.copy_(tensor.data)
            if isinstance(tensor, nn.Parameter):
                tensor.grad = _view(self.gradients[start : start + tensor.numel()], tensor)
            start += _aligned(tensor)


def _aligned(tensor: Tensor) -> int:
    return -(-tensor.numel() // ALIGNMENT) * ALIGNMENT


def _view(values: Tensor, like: Tensor) -> Tensor:
    if like.ndim == 4:
        out_channels, in_channels, height, width = like.shape
        return values.view(out_channels, height, width, in_channels).permute(0, 3, 1, 2)
    return values.view(like.shape)


class SGD:
    """SGD with Nesterov momentum; weight decay on kernels, none on biases and batch normalization.

    The arithmetic is torch.optim.SGD's. That class imports torch._dynamo when it is made: measured, 150 MB and 907
    modules in every worker process.
    """

    def __init__(self, state: FlatState, recipe: Recipe) -> None:
        self._state = state
        self._momentum = recipe.momentum
        self._weight_decay = recipe.weight_decay
        self._buffer = torch.zeros_like(state.gradients)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move the parameters against their gradients, which are 0 afterwards."""
        state, gradients = self._state, self._state.gradients
        gradients[: state.kernels].add_(state.values[: state.kernels], alpha=self._weight_decay)
        self._buffer.mul_(self._momentum).add_(gradients)
        gradients.add_(self._buffer, alpha=self._momentum)
        state.values[: state.parameters].add_(gradients, alpha=-rate)
        gradients.zero_()


class WeightAverage:
    """An exponential moving average: `means` follows `values`, the state of another network.

    The decay grows to its value as min(decay, (1 + n) / (10 + n)), n counting updates, so that the first weights do not
    linger (the rule of TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, means: FlatState, values: FlatState, decay: float) -> None:
        self._means = means.values
        self._values = values.values
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Move the means towards the present values."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        self._means.lerp_(self._values, 1 - decay)
