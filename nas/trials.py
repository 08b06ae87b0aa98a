"""python -m nas.trials: the trials of a study, as a table, as JSON or as CSV."""

import argparse
import json

from nas.cli.options import Parser, add_location, add_study, program, study_location
from nas.cli.terminal import DONE, run

COLUMNS = ("number", "state", "epochs", "val_accuracy", "params", "macs", "notation")  # of the table


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog=program("trials"),
        description="List the trials of a study, running or not. JSON and CSV hold all that trials.csv holds.",
    )
    add_study(options)
    formats = ("table", "json", "csv")
    options.add_argument("--format", choices=formats, default="table", help="table (default), json or csv")
    add_location(options)
    return options


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    from rich.console import Console

    from nas.reporting.tables import as_csv, as_table, trial_rows
    from nas.study.history import history_at

    rows = trial_rows(history_at(study_location(args)).trials)
    match args.format:
        case "json":
            print(json.dumps(rows, indent=2))
        case "csv":
            print(as_csv(rows), end="")
        case _:
            Console(highlight=False).print(as_table(rows, COLUMNS))
    return DONE


if __name__ == "__main__":
    run(main)
