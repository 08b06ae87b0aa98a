"""From an architecture to module calls, and from those to an nn.Module; the costs of any built module, measured.

There is one lowering: `lower` says which torch modules a network is made of. Building runs these calls, exporting
writes them down, so the trained network and the exported text cannot drift apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias, assert_never

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from nas.architecture import Activation, Architecture, Conv, Layer, MaxPool, Shape, Transition, notation
from nas.constraints import Constraints, violations
from nas.cost import BYTES_PER_VALUE, Cost, LayerCost, cost, covers_map
from nas.errors import UserError

ACTIVATION_MODULES: Mapping[Activation, str] = {"relu": "ReLU", "silu": "SiLU", "gelu": "GELU"}

Argument: TypeAlias = int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleCall:
    """A call of one of torch.nn's classes, with the output shape and receptive field of the module for one image."""

    name: str
    args: tuple[Argument, ...] = ()
    kwargs: tuple[tuple[str, Argument], ...] = ()
    params: int = 0
    output_shape: Shape | tuple[int]
    receptive_field: int

    def build(self) -> nn.Module:
        """The module itself."""
        module = getattr(nn, self.name)(*self.args, **dict(self.kwargs))
        assert isinstance(module, nn.Module)
        return module

    def source(self) -> str:
        """The call as Python source, such as `nn.Conv2d(1, 16, 3, padding=1, bias=False)`."""
        arguments = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs)]
        return f"nn.{self.name}({', '.join(arguments)})"


def _convolution(in_channels: int, row: LayerCost, kernel_size: int, padding: int, bias: bool) -> ModuleCall:
    out_channels = row.output_shape[0]
    options: list[tuple[str, Argument]] = []
    if padding:
        options.append(("padding", padding))
    if not bias:
        options.append(("bias", False))
    return ModuleCall(
        name="Conv2d",
        args=(in_channels, out_channels, kernel_size),
        kwargs=tuple(options),
        params=in_channels * out_channels * kernel_size**2 + bias * out_channels,
        output_shape=row.output_shape,
        receptive_field=row.receptive_field,
    )


def _lower_layer(layer: Layer, in_channels: int, row: LayerCost) -> list[ModuleCall]:
    def then(name: str, *args: Argument, params: int = 0) -> ModuleCall:
        field = row.receptive_field
        return ModuleCall(name=name, args=args, params=params, output_shape=row.output_shape, receptive_field=field)

    match layer:
        case Conv():
            calls = [_convolution(in_channels, row, layer.kernel_size, layer.padding, layer.bias)]
            if layer.batch_norm:
                calls.append(then("BatchNorm2d", layer.out_channels, params=2 * layer.out_channels))
            if layer.activation != "none":
                calls.append(then(ACTIVATION_MODULES[layer.activation]))
            if layer.dropout:
                calls.append(then("Dropout2d", layer.dropout))
            return calls
        case Transition():
            return [_convolution(in_channels, row, 1, layer.padding, layer.bias)]
        case MaxPool():
            return [then("MaxPool2d", layer.kernel_size)]
        case _:
            assert_never(layer)


def _lower_head(architecture: Architecture, in_shape: Shape, rows: tuple[LayerCost, ...]) -> list[ModuleCall]:
    head, classes, field = architecture.head, architecture.num_classes, rows[-1].receptive_field
    if head.kind == "linear":
        inputs = prod(in_shape)
        flatten = ModuleCall(name="Flatten", output_shape=(inputs,), receptive_field=field)
        options = () if head.bias else (("bias", False),)
        linear = ModuleCall(
            name="Linear",
            args=(inputs, classes),
            kwargs=options,
            params=rows[-1].params,
            output_shape=(classes,),
            receptive_field=field,
        )
        return [flatten, linear]
    calls = []
    for row in rows:
        if row.kind == "classifier":
            calls.append(_convolution(in_shape[0], row, 1, head.padding, head.bias))
        else:
            pool = ModuleCall(
                name="AdaptiveAvgPool2d", args=(1,), output_shape=row.output_shape, receptive_field=row.receptive_field
            )
            calls.append(pool)
    return [*calls, ModuleCall(name="Flatten", output_shape=(classes,), receptive_field=field)]


def lower(architecture: Architecture) -> tuple[ModuleCall, ...]:
    """The network as a flat list of module calls; images (N, C, H, W) in, class scores (N, num_classes) out.

    Raises:
        MapTooSmallError: a layer does not fit on the map that reaches it.
    """
    rows = cost(architecture).rows
    calls: list[ModuleCall] = []
    shape = architecture.input_shape
    for layer, row in zip(architecture.layers, rows, strict=False):
        calls += _lower_layer(layer, shape[0], row)
        shape = row.output_shape
    return (*calls, *_lower_head(architecture, shape, rows[len(architecture.layers) :]))


def build(architecture: Architecture) -> nn.Sequential:
    """The network, freshly initialised from torch's global random generator."""
    return nn.Sequential(*(call.build() for call in lower(architecture)))


def with_weights(architecture: Architecture, weights: bytes) -> nn.Sequential:
    """The network with the state that these safetensors bytes hold; what is no tensor is never loaded.

    Raises:
        UserError: the bytes are damaged, or of another network.
    """
    network = build(architecture)
    try:
        state = safetensors.torch.load(weights)
        network.load_state_dict(state)
        if not all(torch.isfinite(tensor).all() for tensor in state.values()):
            raise ValueError("they are not finite")
    except Exception as error:  # whatever damaged bytes make the library raise
        raise UserError(
            f"the weights do not fit the network {notation(architecture)} ({error}); they are damaged, or another's: "
            "put a copy in their place, or train it again"
        ) from error
    return network


def _height(size: int | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else size[0]


@dataclass(slots=True)
class _Meter:
    """What forward hooks saw; the one value here that changes, while a single image passes through."""

    macs: int = 0
    peak_activation_bytes: int = 0
    receptive_field: int = 1
    jump: int = 1
    disguised: set[nn.Module] = field(default_factory=set)

    def observe(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if not isinstance(module, nn.Conv2d | nn.Linear | nn.MaxPool2d | nn.AdaptiveAvgPool2d):
            return
        (x,) = inputs
        if isinstance(module, nn.Conv2d):
            self.macs += module.weight.numel() * output[0, 0].numel()
            self._see(module.kernel_size[0], module.stride[0])
            height, width = module.kernel_size
            if covers_map(height, width, x.shape[2], x.shape[3]):
                self.disguised.add(module)
        elif isinstance(module, nn.Linear):
            self.macs += module.weight.numel()
        elif isinstance(module, nn.MaxPool2d):
            self._see(_height(module.kernel_size), _height(module.stride))
        memory = BYTES_PER_VALUE * (x.numel() + output.numel())
        self.peak_activation_bytes = max(self.peak_activation_bytes, memory)

    def _see(self, kernel_size: int, stride: int) -> None:
        self.receptive_field += (kernel_size - 1) * self.jump
        self.jump *= stride


def _dense(module: nn.Module) -> set[nn.Module]:
    return {part for part in module.modules() if isinstance(part, nn.Linear | nn.Bilinear | LazyModuleMixin)}


def measure(module: nn.Module, input_shape: Shape) -> Cost:
    """The costs of a built module, counted on its parameters and by forward hooks: nothing is taken from a description.

    `linear_layers` counts nn.Linear, bilinear and lazy layers anywhere inside, and disguised ones. A lazy layer that
    the image does not reach has no parameters yet.
    """
    dense = _dense(module)  # before the forward pass: lazy layers turn into ordinary ones there
    meter, device = _Meter(), next((p.device for p in module.parameters()), torch.device("cpu"))
    leaves = [part for part in module.modules() if not list(part.children())]
    handles = [leaf.register_forward_hook(meter.observe) for leaf in leaves]
    training = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, *input_shape, device=device))
    finally:
        for part, mode in training.items():
            part.training = mode
        for handle in handles:
            handle.remove()
    return Cost(
        params=sum(parameter.numel() for parameter in module.parameters() if not is_lazy(parameter)),
        macs=meter.macs,
        peak_activation_bytes=meter.peak_activation_bytes,
        receptive_field=meter.receptive_field,
        linear_layers=len(dense | _dense(module) | meter.disguised),
    )


class LimitBrokenError(Exception):
    """A built module breaks a limit, or costs something else than its description says: a bug, never bad input."""


def check_built(module: nn.Module, architecture: Architecture, constraints: Constraints, epochs: int) -> None:
    """Count a built module's costs and hold them against its description and the limits.

    Raises:
        LimitBrokenError: it breaks a limit, or the two counts differ.
    """
    measured, described = measure(module, architecture.input_shape), cost(architecture)
    for name in ("params", "macs", "peak_activation_bytes", "receptive_field", "linear_layers"):
        found, expected = getattr(measured, name), getattr(described, name)
        if found != expected:
            raise LimitBrokenError(f"{name} is {found} as built, {expected} described")
    if broken := violations(constraints, measured, epochs):
        raise LimitBrokenError("; ".join(map(str, broken)))
