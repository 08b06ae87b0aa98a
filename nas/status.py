"""python -m nas.status: where a study stands, running or not."""

import argparse
import json
from dataclasses import asdict

from nas.cli.options import Parser, add_location, add_study, program, study_location
from nas.cli.terminal import DONE, run


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(prog=program("status"), description="Say where a study stands, running or not.")
    add_study(options)
    options.add_argument("--format", choices=("text", "json"), default="text", help="text (default) or json")
    add_location(options)
    return options


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    from nas.reporting.status import status
    from nas.study.history import history_at

    location = study_location(args)
    found = status(history_at(location), location)
    print(json.dumps(asdict(found), indent=2) if args.format == "json" else found)
    return DONE


if __name__ == "__main__":
    run(main)
