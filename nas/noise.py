"""python -m nas.noise: how far one network's accuracy moves from seed to seed, and what a difference must exceed."""

import argparse
import sys
from collections.abc import Iterator

import optuna
from rich.console import Console

from nas.commands import this_command
from nas.console import follow
from nas.data import load_training
from nas.errors import UserError
from nas.finalists import Noise, measured_noise, runs_of
from nas.options import (
    DONE,
    Parser,
    add_data_dir,
    add_location,
    add_loudness,
    add_workers,
    existing_location,
    natural,
    resumable,
    run,
    whole,
)
from nas.progress import Progress
from nas.results import write_tables
from nas.runs import accuracies, run_records, train_runs
from nas.spread import binomial_sd, spread
from nas.storage import StudyLocation, command_line, open_study, writing
from nas.study import TrialRecord, constraints_of, ranked, records, settings_of, winner_of
from nas.trials import Plan, dataset_of
from nas.workers import devices

UNMEASURED = 1

DESCRIPTION = """\
Train one network of a study to the end on several fresh seeds, and say how far its validation accuracy moves from seed
to seed: two trials that differ by less than that tell nothing. The runs are kept in the study, an interrupted
measurement goes on, and the summary of a search uses it.

exit status: 0 done, 1 too few trainings came to their end, 2 bad input, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog="python -m nas.noise", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--study-name", metavar="NAME", default="mnist", help="the study (default: mnist)")
    options.add_argument("--trial", metavar="N", type=natural, help="whose network (default: the winner's)")
    options.add_argument("--seeds", metavar="N", type=several, default=5, help="trainings, at least 2 (default: 5)")
    add_workers(options)
    add_location(options)
    add_data_dir(options)
    add_loudness(options)
    return options


def several(text: str) -> int:
    """A whole number of at least 2: one training has no deviation."""
    return whole(text, 2)


def chosen(study: optuna.Study, location: StudyLocation, number: int | None) -> TrialRecord:
    """The trial of this number, by default the winner of the search, or the best so far when there is none yet.

    Raises:
        UserError: there is no such trial.
    """
    trials = records(study)
    if number is None:
        best = [trial.number for trial in ranked(trials)]
        if not best:
            raise UserError(f"study {location.name!r} has no trial that was trained to the end; name one with --trial")
        winner = winner_of(study)
        number = best[0] if winner is None else winner
    found = next((trial for trial in trials if trial.number == number), None)
    if found is None:
        held = f"0 to {trials[-1].number}" if trials else "none"
        raise UserError(f"--trial {number}: study {location.name!r} has no such trial; it has {held}")
    return found


def report(trial: TrialRecord, scores: list[float], noise: Noise, n_val: int) -> str:
    """What was measured, in a few lines."""
    measured = spread(scores)
    binomial = 100 * binomial_sd(measured.mean, n_val)
    return (
        f"trial {trial.number}, {trial.notation}\n"
        f"validation accuracy on n = {measured.n} seeds: {', '.join(f'{score:.2%}' for score in scores)}\n"
        f"mean ± sd: {measured}; one score of {n_val:,} images has a binomial deviation of {binomial:.2f} points\n"
        f"Two single scores that differ by less than {100 * noise.least_difference:.2f} points mean nothing "
        f"(95 %, Student's t, as from n = {noise.n})."
    )


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    location, console = existing_location(args), Console(highlight=False)
    existing = open_study(location)
    stored, trial = settings_of(existing), chosen(existing, location, args.trial)
    plan = Plan(
        trials=0,
        devices=devices(args.device, args.jobs),
        dataset=dataset_of(existing, args.data_dir),
        constraints=constraints_of(existing),
        seed=stored["seed"],
    )
    n_val = len(load_training(plan.dataset).validation)
    command = this_command(command_line("nas.noise", location), plan.devices, {})

    with resumable("nas.noise", location) as interruption, writing(location, None, command) as study:

        def show(events: Iterator[Progress], title: str) -> None:
            follow(interruption.heeding(events), title, console, args.verbosity)

        wanted = runs_of([trial], "noise", args.seeds, plan.seed)
        title = f"study {location.name} · noise of trial {trial.number} on {args.seeds} seeds"
        runs = train_runs(study, location, wanted, plan, show, title)
        write_tables(study, location)
        noise = measured_noise(run_records(study))
    scores = accuracies(runs, trial.candidate)
    if len(scores) < 2 or noise is None:
        print(f"{len(scores)} of {args.seeds} trainings came to their end, which is too few", file=sys.stderr)
        return UNMEASURED
    print(report(trial, scores, noise, n_val))
    return DONE


if __name__ == "__main__":
    run(main)
