"""python -m nas.ablate: what each design choice of a network is worth, by changing one at a time."""

import argparse
import io
import sys
import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from nas.analysis.ablation import METHOD, Ablation, ablation, ablation_runs, said_loss, said_points
from nas.api import train, work_of
from nas.cli.options import Parser, add_options, positive
from nas.cli.terminal import DONE, run
from nas.data.images import load_training
from nas.space.variants import CHOICES
from nas.study.records import TrialRecord

UNMEASURED = 1
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
        prog="python -m nas.ablate", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
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


def table(found: Ablation) -> Table:
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


def report(trial: TrialRecord, found: Ablation, n_val: int, choices: Sequence[str]) -> str:
    """What was found, in plain text, and what of these choices a limit rules out."""
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
    args = parser().parse_args()
    work = work_of(args)
    trial, limits = work.trial, work.plan.constraints
    n_val = len(load_training(work.plan.dataset).validation)
    wanted = ablation_runs(trial, args.choices, limits, args.seeds, work.plan.seed)
    networks = len({run.candidate for run in wanted})
    title = f"study {work.location.name} · ablation of trial {trial.number}: {networks} networks on {args.seeds} seeds"
    history = train("nas.ablate", work, wanted, title, args.verbosity)
    found = ablation(trial, history.runs, limits, n_val)
    if found is None:
        print(f"trial {trial.number}, unchanged, did not come to its end on any seed", file=sys.stderr)
        return UNMEASURED
    print(report(trial, found, n_val, args.choices))
    return DONE


if __name__ == "__main__":
    run(main)
