"""python -m nas.report: one page that shows what a study has found, how sure that is, and what each choice is worth."""

import argparse

from nas.cli.options import Parser, add_data_dir, add_location, existing_location
from nas.cli.terminal import DONE, run
from nas.reporting.page import write_report
from nas.study.history import read_history
from nas.study.locks import is_being_worked_on
from nas.study.opening import open_study
from nas.study.settings import dataset_of
from nas.system.files import writable
from nas.tuner.selection import TestSet

DESCRIPTION = """\
Write results/NAME/report.html: one page that opens offline and shows what a study has found, how sure that is, and
what each design choice is worth. A search writes it at its end; this command writes it at any time, also while the
search runs, and changes nothing in the study.
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog="python -m nas.report", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--study-name", metavar="NAME", default="mnist", help="the study (default: mnist)")
    add_location(options)
    add_data_dir(options)
    return options


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    location = existing_location(args)
    study = open_study(location)
    dataset = dataset_of(study, args.data_dir)
    with writable(str(location.folder), "give another --output-dir"):
        path = write_report(
            read_history(study), location, dataset, TestSet(dataset), running=is_being_worked_on(location)
        )
    print(f"written: {path}")
    return DONE


if __name__ == "__main__":
    run(main)
