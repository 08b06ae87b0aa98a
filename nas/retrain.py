"""python -m nas.retrain: train a trial again, and compare it with what the study says, epoch by epoch."""

import argparse
import sys

from nas.cli.options import (
    Parser,
    add_data_dir,
    add_device,
    add_location,
    add_study,
    natural,
    program,
    study_location,
    workers_of,
)
from nas.cli.terminal import DONE, run

DIFFERENT = 1
DESCRIPTION = """\
Train a trial again with its own seed, and compare every epoch with what the study says: equal to the last digit on the
same machine with the same versions, or else it says what is not the same. Nothing is written.

exit status: 0 equal, 1 not equal, 2 bad input, 141 nobody reads the output
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog=program("retrain"), description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_study(options)
    which = options.add_mutually_exclusive_group(required=True)
    which.add_argument("--trial", metavar="N", type=natural, help="number of the trial")
    which.add_argument("--final-run", metavar="N", type=natural, help="number of the final run, as in final_runs.csv")
    add_device(options)
    options.set_defaults(jobs=1, jobs_per_gpu=None, epoch_timeout=None)
    add_location(options)
    add_data_dir(options)
    return options


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    from nas.api.retraining import retrain, trained_before
    from nas.api.study import Study
    from nas.study.history import dataset_of

    location = study_location(args)
    history = Study(location).history()
    record = trained_before(history, args.trial, args.final_run)
    what = f"{record.title}, seed {record.seed}"
    if args.final_run is not None:
        what = f"final run {record.number} ({record.title})"
    print(f"{what}, again to epoch {record.epochs}: {record.notation}", flush=True)
    dataset = dataset_of(history, location, args.data_dir)
    found = retrain(history, record, dataset, workers_of(args), tell=_print, say=_warn)
    print(found, file=sys.stdout if found.equal else sys.stderr)
    return DONE if found.equal else DIFFERENT


def _print(text: object) -> None:
    print(text, flush=True)


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    run(main)
