"""A trained candidate as a source file that a person could have written, and its weights; proven before they appear.

In a fresh interpreter the written file is imported and the weights are loaded strictly; its costs are held against the
description and the limits, and its class scores for eight fixed images must equal those of the trained network to the
last bit. Then the file must pass its own check, run as a script.
"""

import multiprocessing
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from nas.architecture import Architecture, Shape
from nas.constraints import Constraints
from nas.cost import cost
from nas.data import normalize
from nas.network import ModuleCall, build, check_built, lower
from nas.recipe import Recipe

MODEL, WEIGHTS = "model.py", "weights.safetensors"
WIDTH = 88  # columns of the exported file: the default of ruff and black
LONGEST_NAME = 60  # characters of a study's or data set's name that its docstring shows


class ExportError(Exception):
    """The files would not be the trained network within its limits; the message says what differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What the exported file says about itself; accuracies are fractions."""

    study: str
    trial: int
    dataset: str
    seed: int
    epochs: int  # trained
    recipe: Recipe
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
        f"Recipe: SGD with Nesterov momentum {recipe.momentum:g}, batches of {recipe.batch_size}, weight decay "
        f"{recipe.weight_decay:g} on kernels; the learning rate rises to {recipe.learning_rate:g} in the first "
        f"{100 * recipe.warmup:g} % of {recipe.epochs} epochs, then falls linearly to 0; weights averaged with a decay "
        f"of {recipe.ema_decay:g} per step; images turned by up to {change.rotation:g} degrees, shifted by up to "
        f"{change.shift:g} pixels, scaled by up to {100 * change.scale:g} % and sheared by up to {change.shear:g}.",
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


def export(folder: Path, architecture: Architecture, weights: bytes, card: ModelCard, constraints: Constraints) -> None:
    """Write model.py and weights.safetensors into `folder`, each whole, and neither unless the proof succeeds.

    `weights` are the safetensors bytes of the state of `nas.network.build(architecture)`.

    Raises:
        ExportError: the weights do not fit, a limit is broken, or the written files are not the trained network.
    """
    expected = _trained_scores(architecture, weights, card)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        draft = Path(name)
        (draft / MODEL).write_text(model_source(architecture, card), encoding="utf-8", newline="\n")
        (draft / WEIGHTS).write_bytes(weights)
        with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as fresh:
            try:
                scores = fresh.submit(_written_scores, draft, architecture, constraints, card.recipe.epochs).result()
            except Exception as error:  # whatever the written file raises is what the proof is there to find
                raise ExportError(f"{MODEL} fails in a fresh interpreter: {_one_line(str(error))}") from error
        if scores != expected:
            raise ExportError(f"{MODEL} gives other class scores than the trained network for the same images, or NaN")
        script = subprocess.run([sys.executable, MODEL], cwd=draft, capture_output=True, text=True, check=False)
        if script.returncode:
            raise ExportError(f"{MODEL} does not pass its own check: {_one_line(script.stderr)}")
        folder.mkdir(exist_ok=True)
        for file in (WEIGHTS, MODEL):
            (draft / file).replace(folder / file)


def _trained_scores(architecture: Architecture, weights: bytes, card: ModelCard) -> list[list[float]]:
    network = build(architecture)
    try:
        network.load_state_dict(safetensors.torch.load(weights))
    except (SafetensorError, RuntimeError) as error:
        raise ExportError(f"the weights do not fit the architecture: {_one_line(str(error))}") from error
    return _scores(network, lambda images: normalize(images, card.mean, card.std), architecture.input_shape)


def _written_scores(folder: Path, architecture: Architecture, limits: Constraints, epochs: int) -> list[list[float]]:
    """In a fresh interpreter: the class scores of the written files, after their costs were checked."""
    model = ModuleType("exported_model")
    SourceFileLoader(model.__name__, str(folder / MODEL)).exec_module(model)
    network = model.Net()
    network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
    check_built(network, architecture, limits, epochs)
    return _scores(network, model.preprocess, architecture.input_shape)


def _scores(network: nn.Module, preprocess: Callable[[Tensor], Tensor], shape: Shape) -> list[list[float]]:
    """Class scores of eight fixed images, on one thread: several may add in another order. (8, num_classes), exact."""
    images = torch.randint(256, (8, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return cast(list[list[float]], network.eval()(preprocess(images)).tolist())
    finally:
        torch.set_num_threads(threads)


def _one_line(text: str) -> str:
    return " ".join(text.split())
