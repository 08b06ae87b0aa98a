"""python -m nas.report: one page that shows what a study has found, how sure that is, and what each choice is worth."""

import argparse

from nas.cli.options import Parser, add_data_dir, add_location, add_study, program, study_location
from nas.cli.terminal import DONE, run

DESCRIPTION = """\
Write results/NAME/report.html: one page that opens offline and shows what a study has found, how sure that is, and
what each design choice is worth. A search writes it at its end; this command writes it at any time, also while the
search runs, and changes nothing in the study.
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog=program("report"), description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_study(options)
    add_location(options)
    add_data_dir(options)
    return options


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    from nas.api.study import Study

    print(f"written: {Study(study_location(args), args.data_dir).report()}")
    return DONE


if __name__ == "__main__":
    run(main)
