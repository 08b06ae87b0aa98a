"""An ablation in words: a table of its effects, worst first, how they were measured, and what a limit rules out."""

import io
import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from nas.analysis.ablation import METHOD, Ablation, said_loss, said_points
from nas.datasets.metrics import EvaluationSet
from nas.study.records import TrialRecord

WIDTH = 140  # columns


def effects_table(found: Ablation) -> Table:
    """One row a variant, worst first."""
    shown = Table(box=box.SIMPLE_HEAD)
    shown.add_column("change")
    for column in ("params", "accuracy", "n", "points", "loss", "effect"):
        shown.add_column(column, justify="right")
    for effect in found.effects:
        accuracy = str(effect.accuracy) if effect.accuracy else "–"
        cells = [accuracy, effect.trained, said_points(effect.points), said_loss(effect.log_loss), effect.verdict]
        shown.add_row(effect.variant.change, f"{effect.params:,}", *cells)
    return shown


def ablation_text(trial: TrialRecord, found: Ablation, validation: EvaluationSet, choices: Sequence[str]) -> str:
    """What was found, and what of these choices a limit rules out."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    with console.capture() as capture:
        console.print(effects_table(found))
    lines = [
        f"trial {trial.number}, {trial.notation}: {found.accuracy} of {validation.images:,} validation images, "
        f"n = {found.accuracy.n}",
        "\n".join(line.rstrip() for line in capture.get().splitlines()),
        textwrap.fill(METHOD, WIDTH),
        *(f"not trained: {variant.change}: {why}" for variant, why in found.forbidden if variant.choice in choices),
    ]
    return "\n".join(lines)
