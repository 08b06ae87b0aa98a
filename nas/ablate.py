"""python -m nas.ablate: what each design choice of a network is worth, by changing one at a time."""

import argparse

from nas.cli.options import Parser, add_options, positive, program
from nas.cli.terminal import run
from nas.space.variants import CHOICES

CHOICES_HELP = f"which choices to change, of: {', '.join(CHOICES)} (default: all)"
DESCRIPTION = """\
Change one design choice of a network at a time (a pool or transition removed or moved, dropout, kernel sizes, batch
normalization, depth, batch size, augmentation, …), train every variant on the same fresh seeds, and say what each
change does to the validation accuracy, worst first. Variants that break a limit of the study are listed, not trained.
The runs are kept in the study, an interrupted ablation goes on, and the report that nas.report writes shows the table.
While a search works on the study, they are not kept.

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


def choices(text: str) -> tuple[str, ...]:
    """Names of design choices, separated by commas."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in CHOICES:
            raise argparse.ArgumentTypeError(f"{name!r} is unknown; known are {', '.join(CHOICES)}")
    return names


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    from nas.api.measuring import ablate
    from nas.cli.measuring import run_measurement

    return run_measurement(
        "nas.ablate", args, lambda work, command, show: str(ablate(work, args.choices, args.seeds, command, show))
    )


if __name__ == "__main__":
    run(main)
