"""python -m nas.studies: which studies there are, and how each of them stands."""

import argparse
import json
from dataclasses import asdict

from nas.cli.options import Parser, add_location, program
from nas.cli.terminal import DONE, run
from nas.errors import printable, without_passwords

HEADER = ("study", "task", "trained", "best", "params", "state")


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog=program("studies"), description="List the studies of the output folder, or of a storage, by name."
    )
    options.add_argument("--format", choices=("table", "json"), default="table", help="table (default) or json")
    add_location(options)
    return options


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from nas.api.listing import studies

    found = studies(args.output_dir, args.storage)
    if args.format == "json":
        print(json.dumps([asdict(one) for one in found], indent=2))
        return DONE
    if not found:
        place = args.output_dir if args.storage is None else without_passwords(args.storage)
        print(f"There is no study in {place}; {program('search')} makes one.")
        return DONE
    table = Table(*HEADER, box=box.SIMPLE_HEAD)
    for one in found:
        table.add_row(*map(escape, one.cells))
    Console(highlight=False).print(table)
    for one in found:
        if one.problem:
            print(f"{one.name}: {printable(one.problem)}")
    return DONE


if __name__ == "__main__":
    run(main)
