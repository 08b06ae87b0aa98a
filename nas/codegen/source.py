"""The text of an exported network: a source file as a person would have written it, that imports torch only."""

import textwrap
from collections.abc import Sequence

from nas.analysis.statistics import Spread
from nas.codegen.card import ModelCard
from nas.codegen.template import CHECK, COMMANDS, CONSTANTS, NETWORK, TRAINING
from nas.data.datasets import MNIST, TORCHVISION, TorchvisionSet
from nas.network.architecture import Architecture
from nas.network.cost import cost
from nas.network.operations import ModuleCall, lower
from nas.training.environment import versions

WIDTH = 88  # columns of the exported file: the default of ruff and black
LONGEST_NAME = 60  # characters of a study's or data set's name that its docstring shows
CHECK_IMPORTS = "import argparse\nimport sys\nfrom pathlib import Path\n\nimport torch\nfrom torch import nn"
COMMAND_IMPORTS = """\
import argparse
import copy
import math
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn"""


def model_source(architecture: Architecture, card: ModelCard) -> str:
    """The text of model.py: clean for ruff's default settings, made of nothing but the architecture and the card.

    Of a data set that torchvision has, it can also judge its weights and train itself.
    """
    price, known = cost(architecture), {"mnist": MNIST, **TORCHVISION}.get(card.dataset)
    shape = ", ".join(map(str, architecture.input_shape))
    parts = [
        NETWORK.substitute(
            docstring=_docstring(architecture, card, runs=known is not None),
            imports=CHECK_IMPORTS if known is None else COMMAND_IMPORTS,
            input_shape=architecture.input_shape,
            classes=_tuple("CLASSES", [_literal(name) for name in card.classes]),
            mean=_tuple("MEAN", [repr(float(value)) for value in card.mean]),
            std=_tuple("STD", [repr(float(value)) for value in card.std]),
            params=f"{price.params:_}",
            dense_layers=price.linear_layers,
            constants="" if known is None else _constants(card),
            shape=shape,
            num_classes=architecture.num_classes,
            layers="\n".join(map(_layer_line, lower(architecture))),
        )
    ]
    if known is None:
        parts.append(CHECK)
    else:
        parts += [_training(known, architecture), COMMANDS.substitute(folder=known.exported_folder)]
    return "".join(parts)


def _constants(card: ModelCard) -> str:
    recipe, change = card.recipe, card.recipe.augmentation
    correct = card.judged and round(card.judged.accuracy * card.judged.n)
    return CONSTANTS.substitute(
        test_correct=f"{correct:_}" if correct is not None else None,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        warmup=recipe.warmup,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        ema_decay=recipe.ema_decay,
        rotation=change.rotation,
        shift=change.shift,
        scale=change.scale,
        shear=change.shear,
    )


def _training(source: TorchvisionSet, architecture: Architecture) -> str:
    channels = architecture.input_shape[0]
    options = [f'{name}="{value}"' for name, value in source.options]
    images = "torch.as_tensor(data.data).permute(0, 3, 1, 2)" if channels > 1 else "data.data.unsqueeze(1)"
    return TRAINING.substitute(
        shape=", ".join(map(str, architecture.input_shape)),
        constructor=source.constructor,
        folder=source.exported_folder,
        options=", ".join([*options, "train=train"]),
        images=f"{images}.transpose(2, 3)" if source.on_their_side else images,
    )


def _accuracy(card: ModelCard) -> str:
    """What is known of the accuracy, the most trustworthy first."""
    recipe = card.recipe
    said = []
    if card.test is None or card.judged is None:
        said.append("the test set was not read for this network")
    else:
        said.append(f"test {_spread(card.test)}, {card.judged.n:,} images")
        if card.test.n > 1:
            said.append(f"these weights {100 * card.judged.accuracy:.2f} %")
    if card.rerun is not None:
        said.append(f"validation on fresh seeds {_spread(card.rerun)}, {card.n_val:,} images")
        said.append(f"the search score that chose it {100 * card.search_accuracy:.2f} %")
    else:
        said.append(f"validation {100 * card.search_accuracy:.2f} %, n\xa0=\xa01, {card.n_val:,} images")
    end = "After the final epoch," if card.epochs == recipe.epochs else "Stopped after epoch"
    return f"{'; '.join(said)}. {end} {card.epochs} of {recipe.epochs}."


def _spread(accuracies: Spread) -> str:
    if accuracies.sd is None:
        return f"{100 * accuracies.mean:.2f} %, n\xa0=\xa01"
    return f"{100 * accuracies.mean:.2f} ± {100 * accuracies.sd:.2f} % (mean ± sd, n\xa0=\xa0{accuracies.n} seeds)"


def _docstring(architecture: Architecture, card: ModelCard, *, runs: bool) -> str:
    price, recipe, change = cost(architecture), card.recipe, card.recipe.augmentation
    precision = card.environment.get("precision")
    activations = f"activations in {_plain(precision)}; " if precision else ""
    seeds = f"seed {card.seeds[0]}" + (f" (the others {', '.join(map(str, card.seeds[1:]))})" if card.seeds[1:] else "")
    told = _plain(versions(card.environment))
    usage = "`python model.py` loads weights.safetensors and checks the network"
    if runs:
        usage += (
            "; with --evaluate it also judges them on the test images, and with --train it trains itself "
            "from scratch by the recipe (in float32) on all the training images, on images that torchvision finds or "
            "downloads"
        )
    paragraphs = (
        f'"""Convolutional network for {_plain(card.dataset)}: {architecture.num_classes} classes, '
        f"{price.params:,} parameters.",
        f"Accuracy: {_accuracy(card)}",
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
        f"Origin: study '{_plain(card.study)}', trial {card.trial}; trained on {card.n_train:,} images, {seeds}"
        f"{told and f'; {told}'}.",
        f"{usage}.",
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
