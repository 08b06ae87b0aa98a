"""The torch modules that an architecture stands for, as calls: building runs them, exporting writes them down."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TypeAlias, assert_never

from torch import nn

from nas.network.architecture import Architecture
from nas.network.cost import LayerCost, cost
from nas.network.layers import Activation, Conv, Layer, MaxPool, Shape, Transition

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
