"""python -m nas.noise: how far one network's accuracy moves from seed to seed, and what a difference must exceed."""

import argparse

import optuna
import torch
from rich.console import Console

from nas.choice import TestSet
from nas.commands import this_command
from nas.console import follow
from nas.data import load_training
from nas.errors import UserError
from nas.finalists import noise, runs_of
from nas.options import (
    DONE,
    NOTHING_FEASIBLE,
    Parser,
    add_data_dir,
    add_location,
    add_loudness,
    add_workers,
    existing_location,
    natural,
    positive,
    resumable,
    run,
)
from nas.results import write_tables
from nas.runs import Runs, accuracies, paces, run_records
from nas.spread import binomial_sd, spread
from nas.storage import StudyLocation, command_line, open_study, writing
from nas.study import TrialRecord, constraints_of, ranked, records, settings_of
from nas.trials import dataset_of
from nas.workers import devices

DESCRIPTION = """\
Train one network of a study to the end on several fresh seeds, and say how far its validation accuracy moves from seed
to seed: two trials that differ by less than that tell nothing. The runs are kept in the study, an interrupted
measurement goes on, and the summary of a search uses it.
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog="python -m nas.noise", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--study-name", metavar="NAME", default="mnist", help="the study (default: mnist)")
    options.add_argument("--trial", metavar="N", type=natural, help="whose network (default: the winner's)")
    options.add_argument("--seeds", metavar="N", type=positive, default=5, help="trainings (default: 5)")
    add_workers(options)
    add_location(options)
    add_data_dir(options)
    add_loudness(options)
    return options


def chosen(study: optuna.Study, location: StudyLocation, number: int | None) -> TrialRecord:
    """The trial of this number, by default the winner of the search, or the best so far when there is none yet.

    Raises:
        UserError: there is no such trial.
    """
    trials = records(study)
    if number is None:
        finals = [record.run.trial for record in run_records(study) if record.run.stage == "final"]
        winners = [trial for trial in finals if trial is not None] or [trial.number for trial in ranked(trials)]
        if not winners:
            raise UserError(f"study {location.name!r} has no trial that was trained to the end; name one with --trial")
        number = winners[0] if not finals else winners[-1]
    found = next((trial for trial in trials if trial.number == number), None)
    if found is None:
        held = f"0 to {trials[-1].number}" if trials else "none"
        raise UserError(f"--trial {number}: study {location.name!r} has no such trial; it has {held}")
    return found


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    location, console = existing_location(args), Console(highlight=False)
    existing = open_study(location)
    trial = chosen(existing, location, args.trial)
    dataset, workers = dataset_of(existing, args.data_dir), devices(args.device, args.jobs)
    n_val = len(load_training(dataset).validation)
    torch.set_num_threads(1)  # the workers have the cores
    command = this_command(command_line("nas.noise", location), workers, {})
    with resumable("nas.noise", location), writing(location, None, command) as study:
        wanted = runs_of([trial], "noise", args.seeds, settings_of(study)["seed"])
        runs = Runs(
            study,
            location,
            wanted,
            dataset=dataset,
            constraints=constraints_of(study),
            devices=workers,
            judge=TestSet(dataset).judge,
            paces=paces([*records(study), *run_records(study)]),
        )
        title = f"study {location.name} · noise of trial {trial.number} on {args.seeds} seeds"
        follow(runs.events(), title, console, args.verbosity)
        write_tables(study, location)
        found = run_records(study)
        keys = {run.key for run in wanted}
        scores = accuracies((record for record in found if record.run.key in keys), trial.candidate)
    if len(scores) < 2:
        print(f"{len(scores)} of {args.seeds} trainings came to their end: the noise needs two. Give --seeds more.")
        return NOTHING_FEASIBLE
    measured, overall = spread(scores), noise(found, scores[0], n_val)
    print(f"trial {trial.number}, {trial.notation}")
    print(f"validation accuracy on n = {measured.n} seeds: {', '.join(f'{score:.2%}' for score in scores)}")
    print(
        f"mean ± sd: {measured}; one score of {n_val:,} images has a binomial deviation of "
        f"{100 * binomial_sd(measured.mean, n_val):.2f} points"
    )
    print(
        f"Two single scores that differ by less than {100 * overall.least_difference:.2f} points mean nothing "
        f"(95 %, Student's t)."
    )
    return DONE


if __name__ == "__main__":
    run(main)
