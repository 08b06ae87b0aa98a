"""python -m nas.noise: how far one network's accuracy moves from seed to seed, and what a difference must exceed."""

import argparse
import sys

from nas.analysis.finalists import Noise, measured_noise, runs_of
from nas.analysis.statistics import binomial_sd, spread
from nas.api import train, work_of
from nas.cli.options import Parser, add_options, whole
from nas.cli.terminal import DONE, run
from nas.data.images import load_training
from nas.study.records import TrialRecord
from nas.study.runs import accuracies

UNMEASURED = 1
DESCRIPTION = """\
Train one network of a study to the end on several fresh seeds, and say how far its validation accuracy moves from seed
to seed: two trials that differ by less than that tell nothing. The runs are kept in the study, an interrupted
measurement goes on, and the summary of a search uses it.

exit status: 0 done, 1 too few trainings came to their end, 2 bad input, 130 interrupted, 141 nobody reads the output
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog="python -m nas.noise", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seeds", metavar="N", type=several, default=5, help="trainings, at least 2 (default: 5)")
    add_options(options)
    return options


def several(text: str) -> int:
    """A whole number of at least 2: one training has no deviation."""
    return whole(text, 2)


def report(trial: TrialRecord, scores: list[float], noise: Noise) -> str:
    """What was measured, in a few lines."""
    measured = spread(scores)
    binomial = 100 * binomial_sd(measured.mean, noise.images)
    source = f"Student's t, as from n = {noise.n}"
    if noise.of_images:
        source = f"from the choice of {noise.images:,} images; the seeds, n = {noise.n}, differ less"
    return (
        f"trial {trial.number}, {trial.notation}\n"
        f"validation accuracy on n = {measured.n} seeds: {', '.join(f'{score:.2%}' for score in scores)}\n"
        f"mean ± sd: {measured}; "
        f"one score of {noise.images:,} images has a binomial deviation of {binomial:.2f} points\n"
        f"Two single scores that differ by less than {100 * noise.least_difference:.2f} points mean nothing "
        f"(95 %, {source})."
    )


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    work = work_of(args)
    trial, location = work.trial, work.location
    n_val = len(load_training(work.plan.dataset).validation)
    wanted = runs_of([trial], "noise", args.seeds, work.plan.seed)
    title = f"study {location.name} · noise of trial {trial.number} on {args.seeds} seeds"
    history, keys = train("nas.noise", work, wanted, title, args.verbosity), {run.key for run in wanted}
    scores = accuracies((run for run in history.runs if run.key in keys), trial.candidate)
    noise = measured_noise(history.runs, n_val)
    if len(scores) < 2 or noise is None:
        print(f"{len(scores)} of {args.seeds} trainings came to their end, which is too few", file=sys.stderr)
        return UNMEASURED
    print(report(trial, scores, noise))
    return DONE


if __name__ == "__main__":
    run(main)
