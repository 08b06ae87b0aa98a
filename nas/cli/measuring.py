"""What the commands share that train networks of a study again, outside its search."""

import argparse
import sys
from collections.abc import Callable

from nas.api.measuring import TooFewTrainedError, Work, work_on
from nas.api.study import Study
from nas.cli.options import study_location, workers_of
from nas.cli.terminal import DONE, command_line, resumable, view_for
from nas.study.history import dataset_of
from nas.tuner.progress import Show

UNMEASURED = 1


def run_measurement(module: str, args: argparse.Namespace, measure: Callable[[Work, str, Show], str]) -> int:
    """Measure what is asked for, print it, and give the exit status; an interrupted command goes on later."""
    location = study_location(args)
    history = Study(location).history()
    dataset = dataset_of(history, location, args.data_dir)
    work = work_on(history, location, args.trial, dataset, workers_of(args))
    with resumable(module, location) as interruption:
        try:
            print(measure(work, command_line(module, location), view_for(interruption, args.verbosity)))
        except TooFewTrainedError as error:
            print(error, file=sys.stderr)
            return UNMEASURED
    return DONE
