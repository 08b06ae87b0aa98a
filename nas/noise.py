"""python -m nas.noise: how far one network's accuracy moves from seed to seed, and what a difference must exceed."""

import argparse

from nas.cli.options import Parser, add_options, program, whole
from nas.cli.terminal import run

DESCRIPTION = """\
Train one network of a study to the end on several fresh seeds, and say how far its validation accuracy moves from seed
to seed: two trials that differ by less than that tell nothing. The runs are kept in the study, an interrupted
measurement goes on, and the summary of a search uses it. While a search works on the study, they are not kept.

exit status: 0 done, 1 too few trainings came to their end, 2 bad input, 130 interrupted, 141 nobody reads the output
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog=program("noise"), description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seeds", metavar="N", type=several, default=5, help="trainings, at least 2 (default: 5)")
    add_options(options)
    return options


def several(text: str) -> int:
    """A whole number of at least 2: one training has no deviation."""
    return whole(text, 2)


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    from nas.api.measuring import measure_noise
    from nas.cli.measuring import run_measurement

    return run_measurement(
        "nas.noise", args, lambda work, command, show: str(measure_noise(work, args.seeds, command, show))
    )


if __name__ == "__main__":
    run(main)
