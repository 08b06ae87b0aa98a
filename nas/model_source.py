"""The text of an exported network: a source file as a person would have written it, that imports torch only."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from nas.architecture import Architecture
from nas.cost import cost
from nas.network import ModuleCall, lower
from nas.recipe import Recipe

WIDTH = 88  # columns of the exported file: the default of ruff and black
LONGEST_NAME = 60  # characters of a study's or data set's name that its docstring shows


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What the exported file says about itself; accuracies are fractions."""

    study: str
    trial: int
    dataset: str
    seed: int
    epochs: int  # trained
    recipe: Recipe
    precision: str | None  # of the activations in training, such as bfloat16; None: not told
    val_accuracy: float
    n_val: int
    test_accuracy: float | None  # None, as n_test: the test set was not read for this network
    n_test: int | None
    mean: tuple[float, ...]  # per channel, pixels scaled to 0..1
    std: tuple[float, ...]
    classes: tuple[str, ...]
    versions: str  # such as "nas 0.1.0, torch 2.15.0"


SOURCE = '''\
{docstring}

import torch
from torch import nn

INPUT_SHAPE = {input_shape}
{classes}
{mean}
{std}
PARAMS = {params:_}
DENSE_LAYERS = {dense_layers}  # fully connected, or a convolution that covers its whole input


class Net(nn.Sequential):
    """Normalised images (N, {shape}) in, class scores (N, {num_classes}) out."""

    def __init__(self) -> None:
        super().__init__(
            # output shape · receptive field · parameters
{layers}
        )


def preprocess(images: torch.Tensor) -> torch.Tensor:
    """Scale uint8 images (N, {shape}) to 0..1 and normalise each channel."""
    mean = torch.tensor(MEAN, device=images.device).view(-1, 1, 1)
    std = torch.tensor(STD, device=images.device).view(-1, 1, 1)
    return (images.float() / 255 - mean) / std


def count_dense_layers(net: Net) -> int:
    """Linear layers, and convolutions larger than 1×1 that cover their whole input."""
    count, x = 0, torch.zeros(1, *INPUT_SHAPE)
    for layer in net:
        if isinstance(layer, nn.Linear):
            count += 1
        elif isinstance(layer, nn.Conv2d):
            count += min(layer.kernel_size) >= max(2, *x.shape[2:])
        x = layer(x)
    return count


if __name__ == "__main__":
    import sys
    from pathlib import Path

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    net = Net().eval()
    try:
        net.load_state_dict(load_file(Path(__file__).with_name("weights.safetensors")))
    except (OSError, RuntimeError, SafetensorError) as error:
        sys.exit(f"weights.safetensors cannot be loaded into this network: {{error}}")
    params = sum(parameter.numel() for parameter in net.parameters())
    if params != PARAMS:
        sys.exit(f"the network has {{params:,}} parameters, not {{PARAMS:,}}")
    if (dense := count_dense_layers(net)) != DENSE_LAYERS:
        sys.exit(f"the network has {{dense}} fully connected layers, not {{DENSE_LAYERS}}")
    classes = net(preprocess(torch.zeros(1, *INPUT_SHAPE, dtype=torch.uint8))).shape[1]
    if classes != len(CLASSES):
        sys.exit(f"the network predicts {{classes}} classes, not {{len(CLASSES)}}")
    print(f"weights loaded: {{params:,}} parameters, predicts {{classes}} classes")
    print(f"fully connected layers: {{DENSE_LAYERS or 'none'}}")
'''


def model_source(architecture: Architecture, card: ModelCard) -> str:
    """The text of model.py: clean for ruff's default settings, made of nothing but the architecture and the card."""
    price = cost(architecture)
    return SOURCE.format(
        docstring=_docstring(architecture, card),
        input_shape=architecture.input_shape,
        classes=_tuple("CLASSES", [_literal(name) for name in card.classes]),
        mean=_tuple("MEAN", [repr(float(value)) for value in card.mean]),
        std=_tuple("STD", [repr(float(value)) for value in card.std]),
        params=price.params,
        dense_layers=price.linear_layers,
        shape=", ".join(map(str, architecture.input_shape)),
        num_classes=architecture.num_classes,
        layers="\n".join(map(_layer_line, lower(architecture))),
    )


def _docstring(architecture: Architecture, card: ModelCard) -> str:
    price, recipe, change = cost(architecture), card.recipe, card.recipe.augmentation
    test = "the test set was not read for this network"
    if card.test_accuracy is not None:
        test = f"test {100 * card.test_accuracy:.2f} % ({card.n_test:,} images)"
    activations = f"activations in {card.precision}; " if card.precision else ""
    end = "final" if card.epochs == recipe.epochs else "stopped after"
    paragraphs = (
        f'"""Convolutional network for {_plain(card.dataset)}: {architecture.num_classes} classes, '
        f"{price.params:,} parameters.",
        f"Accuracy: validation {100 * card.val_accuracy:.2f} % ({card.n_val:,} images), {test}, one run, n\xa0=\xa01, "
        f"{end} epoch {card.epochs} of {recipe.epochs}.",
        f"Cost of one image: {price.macs:,} multiply-accumulates (MACs), {price.peak_activation_bytes:,} bytes of "
        f"activations at the peak (float32); fully connected layers: {price.linear_layers or 'none'}. "
        f"Receptive field: {price.receptive_field} pixels.",
        f"Input: float32 images (N, {', '.join(map(str, architecture.input_shape))}), pixels scaled to 0..1, then per "
        "channel minus MEAN and divided by STD; `preprocess` does this to uint8 images.",
        f"Recipe: {activations}SGD with Nesterov momentum {recipe.momentum:g}, batches of "
        f"{recipe.batch_size}, weight decay {recipe.weight_decay:g} on kernels; the learning rate rises to "
        f"{recipe.learning_rate:g} in the first {100 * recipe.warmup:g} % of {recipe.epochs} epochs, then falls "
        f"linearly to 0; weights averaged with a decay of {recipe.ema_decay:g} per step; images turned by up to "
        f"{change.rotation:g} degrees, shifted by up to {change.shift:g} pixels, scaled by up to "
        f"{100 * change.scale:g} % and sheared by up to {change.shear:g}.",
        f"Origin: study '{_plain(card.study)}', trial {card.trial}, seed {card.seed}; {_plain(card.versions)}.",
        "`python model.py` loads weights.safetensors and checks the network.",
    )
    tied = (text.replace(" %", "\xa0%") for text in paragraphs)  # a per cent sign stays with its number
    filled = "\n\n".join(textwrap.fill(text, WIDTH, break_on_hyphens=False) for text in tied)
    return filled.replace("\xa0", " ") + '\n"""'


def _plain(text: str) -> str:
    """Somebody else's text for a docstring: printable ASCII without quotes or backslashes, not long."""
    safe = "".join(c if c.isascii() and c.isprintable() and c not in "\"'\\" else "?" for c in text)
    return safe if len(safe) <= LONGEST_NAME else safe[: LONGEST_NAME - 3] + "..."


def _literal(text: str) -> str:
    """A string literal in ASCII; double quotes are escaped by number, so that ruff keeps the quotes around it."""
    return '"' + text.encode("unicode_escape").decode("ascii").replace('"', r"\x22") + '"'


def _tuple(name: str, items: Sequence[str]) -> str:
    line = f"{name} = ({', '.join(items)}{',' * (len(items) == 1)})"
    return line if len(line) <= WIDTH else "\n".join([f"{name} = (", *(f"    {item}," for item in items), ")"])


def _layer_line(call: ModuleCall) -> str:
    indent = " " * 12
    comment = f"# {'×'.join(map(str, call.output_shape))} · {call.receptive_field} · {call.params:,}"
    line = f"{indent}{call.source()},  {comment}"
    return line if len(line) <= WIDTH else f"{indent}{comment}\n{indent}{call.source()},"
