"""What an exported file says of itself: the paragraphs of its docstring."""

import textwrap

from nas.analysis.statistics import Spread
from nas.codegen.card import ModelCard
from nas.datasets.metrics import ACCURACY
from nas.network.architecture import Architecture
from nas.network.cost import Cost, cost
from nas.space.recipe import Augmentation
from nas.training.environment import versions

WIDTH = 88  # columns of the exported file: the default of ruff and black
LONGEST_NAME = 60  # characters of a study's or data set's name that the docstring shows
USAGE = "`python model.py` loads weights.safetensors and checks the network"
FILES = "; `python model.py photo.jpg` also says which class an image file is of"
COMMANDS = (
    "; with --evaluate it also judges them on the test images, and with --train it trains itself from scratch by the "
    "recipe (in float32) on all the training images, on images that torchvision finds or downloads"
)


def docstring(architecture: Architecture, card: ModelCard, *, runs: bool) -> str:
    """The docstring with its quotes; `runs` says that the file can judge its weights and train itself."""
    price = cost(architecture)
    paragraphs = (
        f'"""Convolutional network for {_plain(card.dataset)}: {architecture.num_classes} classes, '
        f"{price.params:,} parameters.",
        f"{card.metric.name.capitalize()}: {_accuracy(card)}",
        f"Cost of one image: {_cost(price)}",
        f"Input: float32 images (N, {', '.join(map(str, architecture.input_shape))}), pixels scaled to 0..1, then per "
        "channel minus MEAN and divided by STD; `preprocess` does this to uint8 images.",
        f"Recipe: {_recipe(card)}",
        f"Origin: {_origin(card)}",
        f"{USAGE}{FILES if architecture.input_shape[0] in (1, 3) else ''}{COMMANDS if runs else ''}.",
    )
    return "\n\n".join(map(_filled, paragraphs)) + '\n"""'


def _filled(paragraph: str) -> str:
    """The paragraph in lines of WIDTH columns; a per cent sign stays with its number."""
    tied = paragraph.replace(" %", "\xa0%")
    return textwrap.fill(tied, WIDTH, break_on_hyphens=False).replace("\xa0", " ")


def _accuracy(card: ModelCard) -> str:
    """What is known of the accuracy, the most trustworthy first."""
    end = "After the final epoch," if card.epochs == card.recipe.epochs else "Stopped after epoch"
    said = "; ".join([*_on_test_images(card), *_on_validation_images(card)])
    return f"{said}. {end} {card.epochs} of {card.recipe.epochs}."


def _on_test_images(card: ModelCard) -> list[str]:
    if card.test is None or card.judged is None:
        return ["the test set was not read for this network"]
    said = [f"test {_spread(card.test)}, {card.judged.n:,} images"]
    if card.test.n > 1:
        said.append(f"these weights {card.metric.shown(card.judged.accuracy)}")
    return said


def _on_validation_images(card: ModelCard) -> list[str]:
    if card.rerun is None:
        return [f"validation {card.metric.shown(card.search_accuracy)}, n\xa0=\xa01, {_images(card)}"]
    return [
        f"validation on fresh seeds {_spread(card.rerun)}, {_images(card)}",
        f"the search score that chose it {card.metric.shown(card.search_accuracy)}",
    ]


def _images(card: ModelCard) -> str:
    """How many judged the network, in the search."""
    return f"{card.n_val:,} images" + (f" by cross-validation with {card.folds} networks" if card.folds > 1 else "")


def _spread(accuracies: Spread) -> str:
    if accuracies.sd is None:
        return f"{ACCURACY.shown(accuracies.mean)}, n\xa0=\xa01"
    return f"{100 * accuracies.mean:.2f} ± {100 * accuracies.sd:.2f} % (mean ± sd, n\xa0=\xa0{accuracies.n} seeds)"


def _cost(price: Cost) -> str:
    return (
        f"{price.macs:,} multiply-accumulates (MACs), {price.peak_activation_bytes:,} bytes of activations at the peak "
        f"(float32); fully connected layers: {price.linear_layers or 'none'}. "
        f"Receptive field: {price.receptive_field} pixels."
    )


def _recipe(card: ModelCard) -> str:
    recipe, change, precision = card.recipe, card.recipe.augmentation, card.environment.get("precision")
    return (
        f"{f'activations in {_plain(precision)}; ' if precision else ''}SGD with Nesterov momentum "
        f"{recipe.momentum:g}, batches of {recipe.batch_size}, weight decay {recipe.weight_decay:g} on kernels; the "
        f"learning rate rises to {recipe.learning_rate:g} in the first {100 * recipe.warmup:g} % of {recipe.epochs} "
        f"epochs, then falls linearly to 0; weights averaged with a decay of {recipe.ema_decay:g} per step; images "
        f"{_moved(change)}{_flips(change)}"
        f"{'; images of every class drawn equally often' if recipe.balanced_batches else ''}."
    )


def _moved(change: Augmentation) -> str:
    if not any((change.rotation, change.shift, change.scale, change.shear)):
        return "neither turned, shifted, scaled nor sheared"
    return (
        f"turned by up to {change.rotation:g} degrees, shifted by up to {change.shift:g} pixels, scaled by up to "
        f"{100 * change.scale:g} % and sheared by up to {change.shear:g}"
    )


def _flips(change: Augmentation) -> str:
    flips = {"left to right": change.horizontal_flip, "upside down": change.vertical_flip}
    said = [f"every second one flipped {how}" for how, flipped in flips.items() if flipped]
    return "".join(f", {text}" for text in said)


def _origin(card: ModelCard) -> str:
    first, *others = card.seeds
    seeds = f"seed {first}" + (f" (the others {', '.join(map(str, others))})" if others else "")
    parts = [f"study '{_plain(card.study)}', trial {card.trial}", f"trained on {card.n_train:,} images, {seeds}"]
    if told := _plain(versions(card.environment)):
        parts.append(told)
    return "; ".join(parts) + "."


def _plain(text: str) -> str:
    """Somebody else's text for a docstring: printable ASCII without quotes or backslashes, not long."""
    safe = "".join(c if c.isascii() and c.isprintable() and c not in "\"'\\" else "?" for c in text)
    return safe if len(safe) <= LONGEST_NAME else safe[: LONGEST_NAME - 3] + "..."
