"""python -m nas.status: where a study stands, running or not."""

import argparse
import json
from dataclasses import asdict

from nas.cli.options import Parser, add_location, existing_location
from nas.cli.terminal import DONE, run
from nas.reporting.status import status, text_of
from nas.study.history import read_history
from nas.study.opening import open_study


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(prog="python -m nas.status", description="Say where a study stands, running or not.")
    options.add_argument("--study-name", metavar="NAME", default="mnist", help="the study (default: mnist)")
    options.add_argument("--format", choices=("text", "json"), default="text", help="text (default) or json")
    add_location(options)
    return options


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    location = existing_location(args)
    found = status(read_history(open_study(location)), location)
    print(json.dumps(asdict(found), indent=2) if args.format == "json" else text_of(found))
    return DONE


if __name__ == "__main__":
    run(main)
