"""The text of an exported network: a source file as a person would have written it, that imports torch only.

The templates are Python but for what differs from network to network; how long lines are broken is decided here.
"""

from collections.abc import Sequence
from inspect import getsource
from typing import Any

from nas.codegen.card import ModelCard
from nas.codegen.docstring import WIDTH, docstring
from nas.datasets.pixels import SHARED
from nas.datasets.reading import KNOWN
from nas.network.architecture import Architecture
from nas.network.cost import Step, cost, lower
from nas.system.templates import templates

TEMPLATES = templates("nas.codegen", autoescape=False)


def model_source(architecture: Architecture, card: ModelCard) -> str:
    """The text of model.py: clean for ruff's default settings, made of nothing but the architecture and the card.

    Of a data set that torchvision has, it can also judge its weights and train itself.
    """
    known = KNOWN.get(card.dataset)
    return TEMPLATES.get_template("model.py.jinja").render(
        docstring=docstring(architecture, card, runs=known is not None),
        **_network(architecture),
        classes=_tuple("CLASSES", [_literal(name) for name in card.classes]),
        mean=_tuple("MEAN", [repr(float(value)) for value in card.mean]),
        std=_tuple("STD", [repr(float(value)) for value in card.std]),
        recipe=card.recipe,
        pictures=card.pictures,
        of_pictures=architecture.input_shape[0] in (1, 3),
        picture_functions=[getsource(function).rstrip() for function in SHARED],
        test_correct=_test_correct(card),
        torchvision=known,
    )


def _network(architecture: Architecture) -> dict[str, Any]:
    price = cost(architecture)
    return {
        "input_shape": architecture.input_shape,
        "num_classes": architecture.num_classes,
        "params": f"{price.params:_}",
        "dense_layers": price.linear_layers,
        "layers": [_layer_line(call) for call in lower(architecture)],
    }


def _test_correct(card: ModelCard) -> str | None:
    """How many test images the weights get right, as a literal; None where the test set was not read for them."""
    return None if card.judged is None else f"{round(card.judged.accuracy * card.judged.n):_}"


def _literal(text: str) -> str:
    """A string literal in ASCII; double quotes are escaped by number, so that ruff keeps the quotes around it."""
    return '"' + text.encode("unicode_escape").decode("ascii").replace('"', r"\x22") + '"'


def _tuple(name: str, items: Sequence[str]) -> str:
    """A tuple literal that is assigned to a name: in one line where it fits, else one item a line."""
    line = f"({', '.join(items)}{',' * (len(items) == 1)})"
    fits = len(f"{name} = {line}") <= WIDTH
    return line if fits else "\n".join(["(", *(f"    {item}," for item in items), ")"])


def _layer_line(step: Step) -> str:
    """The call with its comment behind it, or above it where the line would be too long."""
    indent, call = " " * 12, step.call
    comment = f"# {'×'.join(map(str, step.output_shape))} · {step.receptive_field} · {step.params:,}"
    line = f"{indent}{call.source()},"
    if len(line) + 2 + len(comment) <= WIDTH:
        return f"{line}  {comment}"
    if len(line) > WIDTH:
        arguments = "".join(f"\n{indent}    {argument}," for argument in call.arguments())
        line = f"{indent}nn.{call.name}({arguments}\n{indent}),"
    return f"{indent}{comment}\n{line}"
