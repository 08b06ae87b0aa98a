"""python -m nas.ablate: what each design choice of a network is worth, by changing one at a time."""

import argparse
import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nas.cli.options import Parser, add_options, positive, program
from nas.cli.terminal import run
from nas.space.variants import CHOICES

if TYPE_CHECKING:  # torch takes seconds to import, and --help needs none of it
    from rich.table import Table

    from nas.analysis.ablation import Ablation
    from nas.api.measuring import Work
    from nas.study.records import TrialRecord
    from nas.tuner.progress import Show

WIDTH = 140
DESCRIPTION = """\
Change one design choice of a network at a time (a pool or transition removed or moved, dropout, kernel sizes, batch
normalization, depth, batch size, augmentation, …), train every variant on the same fresh seeds, and say what each
change does to the validation accuracy, worst first. Variants that break a limit of the study are listed, not trained.
The runs are kept in the study, an interrupted ablation goes on, and the report that nas.report writes shows the table.

exit status: 0 done, 1 the network unchanged did not come to its end, 2 bad input, 130 interrupted,
141 nobody reads the output
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog=program("ablate"), description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seeds", metavar="N", type=positive, default=3, help="trainings of each (default: 3)")
    options.add_argument("--choices", metavar="NAME,…", type=choices, default=tuple(CHOICES), help=CHOICES_HELP)
    add_options(options)
    return options


CHOICES_HELP = f"which choices to change, of: {', '.join(CHOICES)} (default: all)"


def choices(text: str) -> tuple[str, ...]:
    """Names of design choices, separated by commas."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in CHOICES:
            raise argparse.ArgumentTypeError(f"{name!r} is unknown; known are {', '.join(CHOICES)}")
    return names


def table(found: "Ablation") -> "Table":
    """One row a variant, worst first."""
    from rich import box
    from rich.table import Table

    from nas.analysis.ablation import said_loss, said_points

    shown = Table(box=box.SIMPLE_HEAD)
    shown.add_column("change")
    for column in ("params", "accuracy", "n", "points", "loss", "effect"):
        shown.add_column(column, justify="right")
    for effect in found.effects:
        accuracy = str(effect.accuracy) if effect.accuracy else "–"
        cells = [accuracy, effect.trained, said_points(effect.points), said_loss(effect.log_loss), effect.verdict]
        shown.add_row(effect.variant.change, f"{effect.params:,}", *cells)
    return shown


def report(trial: "TrialRecord", found: "Ablation", n_val: int, choices: Sequence[str]) -> str:
    """What was found, in plain text, and what of these choices a limit rules out."""
    from rich.console import Console

    from nas.analysis.ablation import METHOD

    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    with console.capture() as capture:
        console.print(table(found))
    lines = [
        f"trial {trial.number}, {trial.notation}: {found.accuracy} of {n_val:,} validation images, "
        f"n = {found.accuracy.n}",
        "\n".join(line.rstrip() for line in capture.get().splitlines()),
        textwrap.fill(METHOD, WIDTH),
        *(f"not trained: {variant.change}: {why}" for variant, why in found.forbidden if variant.choice in choices),
    ]
    return "\n".join(lines)


def main() -> int:
    """The command; its exit status."""
    from nas.api.measuring import ablate
    from nas.cli.further import further
    from nas.data.images import load_training

    args = parser().parse_args()

    def measured(work: "Work", command: str, show: "Show") -> str:
        found = ablate(work, args.choices, args.seeds, command, show)
        return report(work.trial, found, len(load_training(work.plan.dataset).validation), args.choices)

    return further("nas.ablate", args, measured)


if __name__ == "__main__":
    run(main)
