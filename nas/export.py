"""python -m nas.export: write any trial of a study as source code and weights, proven before they appear."""

import argparse
from pathlib import Path

from nas.cli.options import Parser, add_data_dir, add_location, add_study, natural, program, study_location
from nas.cli.terminal import DONE, run


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog=program("export"),
        description="Write any trial of a study as model.py and weights.safetensors, as it was after its last epoch.",
    )
    add_study(options)
    options.add_argument("--trial", metavar="N", type=natural, help="number of the trial (default: the winner's)")
    options.add_argument("--folder", metavar="DIR", type=Path, help="where to (default: DIR/NAME/trials/N)")
    add_location(options)
    add_data_dir(options)
    return options


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    from nas.api.study import Study
    from nas.codegen.proof import MODEL, WEIGHTS

    folder = Study(study_location(args), args.data_dir).export(args.trial, args.folder)
    print(f"written: {folder / MODEL}, {folder / WEIGHTS}")
    return DONE


if __name__ == "__main__":
    run(main)
