"""A trained candidate as a source file that a person could have written, and its weights; proven before they appear.

python -m nas.export --study-name S --trial N writes those of any trial.

In a fresh interpreter the written file is imported and the weights are loaded strictly; its costs are held against the
description and the limits, and its class scores for eight fixed images must equal those of the trained network to the
last bit. Then the file must pass its own check, run as a script.
"""

import argparse
from pathlib import Path

from nas.cli.options import Parser, add_data_dir, add_location, existing_location, natural
from nas.cli.terminal import DONE, run
from nas.codegen.exporting import export_trial
from nas.codegen.proof import MODEL, WEIGHTS
from nas.errors import UserError
from nas.study.history import read_history
from nas.study.opening import open_study
from nas.study.settings import dataset_of
from nas.system.files import writable


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog="python -m nas.export",
        description="Write any trial of a study as model.py and weights.safetensors, as it was after its last epoch.",
    )
    options.add_argument("--study-name", metavar="NAME", default="mnist", help="the study (default: mnist)")
    options.add_argument("--trial", metavar="N", type=natural, required=True, help="number of the trial")
    options.add_argument("--folder", metavar="DIR", type=Path, help="where to (default: DIR/NAME/trials/N)")
    add_location(options)
    add_data_dir(options)
    return options


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    location = existing_location(args)
    study = open_study(location)
    history = read_history(study)
    trial = history.trial(args.trial)
    if trial is None or trial.val_accuracy is None:
        trained = [record.number for record in history.trials if record.val_accuracy is not None]
        held = f"{min(trained)} to {max(trained)}" if trained else "none"
        raise UserError(f"--trial {args.trial}: study {location.name!r} has no such trained trial; it has {held}")
    dataset = dataset_of(study, args.data_dir)
    folder = args.folder or location.folder / "trials" / str(trial.number)
    with writable(f"folder {folder}", "give another --folder"):
        folder.mkdir(parents=True, exist_ok=True)
        export_trial(history, location, trial, dataset, folder)
    print(f"written: {folder / MODEL}, {folder / WEIGHTS}")
    return DONE


if __name__ == "__main__":
    run(main)
