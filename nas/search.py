"""python -m nas.search: search for the best network of a space within its limits."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nas.cli.options import (
    Parser,
    add_data_dir,
    add_location,
    add_loudness,
    add_workers,
    fleet_of,
    fraction,
    limit,
    natural,
    positive,
    positive_seconds,
    seed,
)
from nas.cli.terminal import DONE, NOTHING_FEASIBLE, Interruption, command_line, resumable, run
from nas.errors import UserError
from nas.network.cost import cost
from nas.reporting.sentences import diagnosis, headline
from nas.space.loading import known_spaces, load_space, space_name
from nas.space.rejections import MAX_PROPOSALS, Ledger, probe
from nas.space.search_space import SearchSpace, restrict
from nas.study.commands import this_command
from nas.study.location import StudyLocation, locate
from nas.study.opening import writing
from nas.study.records import TrialRecord, ranked, records
from nas.study.settings import remember_task, settings
from nas.tuner.pruning import DEFAULT_PRUNER, PRUNERS, make_pruner
from nas.tuner.sampler import SAMPLERS, FeasibleSampler, make_sampler

if TYPE_CHECKING:  # torch takes seconds to import, and --help needs none of it
    from nas.tuner.progress import Progress
    from nas.tuner.trials import Plan


DESCRIPTION = """\
Search for the best network of a search space within its limits, and write it as source code.

Candidates that break a limit are rejected before anything is trained. The others are trained as Optuna trials, the
hopeless ones stopped early. The best few are trained again on fresh seeds; the winner is trained on all training
images, judged on the test set, once, and written to DIR/NAME/best/model.py with its weights. The same command continues
an interrupted search to the same total.
"""
EXAMPLES = """\
examples:
  python -m nas.search --trials 50                  MNIST within 20,000 parameters
  python -m nas.search --dry-run                    what the space holds, and how long a search would take
  python -m nas.search --max-params 5000 --study-name small
  python -m nas.search --space my_space.py --trials 100
  python -m nas.search --baseline                   compare the winner with the network to beat

exit status: 0 done, 1 nothing feasible or no winner, 2 bad input, 130 interrupted, 141 nobody reads the output
"""
NOTHING_TRAINED = "No network was trained to the end, so there is no winner; trials.csv says why."
NO_WINNER = "Every training on a fresh seed failed, so there is no winner; final_runs.csv says why."


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog="python -m nas.search",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = options.add_argument_group("what to search")
    what.add_argument(
        "--trials", metavar="N", type=positive, default=50, help="networks trained in total (default: 50)"
    )
    known = ", ".join(known_spaces())
    what.add_argument("--space", metavar="NAME", default="mnist", help=f"{known}, or a .py file (default: mnist)")
    what.add_argument("--study-name", metavar="NAME", help="resumes where the name exists (default: the space's name)")
    add_location(what)
    add_data_dir(what)
    limits = options.add_argument_group("tighter than the space")
    limits.add_argument("--epochs", metavar="N", type=positive, help="epochs of a full training")
    limits.add_argument("--max-params", metavar="N", type=limit, help="largest number of parameters")
    limits.add_argument("--max-macs", metavar="N", type=limit, help="largest number of multiply-accumulates")
    limits.add_argument("--target", metavar="X", type=fraction, help="accuracy asked for, such as 0.994")
    how = options.add_argument_group("how to search")
    how.add_argument(
        "--sampler", choices=SAMPLERS, default="tpe", help="who proposes candidates (default: tpe; gp: not with rungs)"
    )
    how.add_argument("--pruner", choices=PRUNERS, default=DEFAULT_PRUNER, help="who stops trials (default: rungs)")
    how.add_argument("--seed", metavar="N", type=seed, default=0, help="of everything drawn (default: 0)")
    add_workers(how)
    how.add_argument(
        "--timeout", metavar="SECONDS", type=positive_seconds, help="begin no trial after this time; final runs follow"
    )
    final = options.add_argument_group("after the search")
    final.add_argument(
        "--finalists",
        metavar="K",
        type=natural,
        default=4,
        help="trials as good as the best, trained again on fresh seeds (default: 4; 0: none)",
    )
    final.add_argument("--final-seeds", metavar="S", type=positive, default=3, help="fresh seeds of each (default: 3)")
    final.add_argument(
        "--baseline", action="store_true", help="train the network to beat, too, by the winner's recipe and seeds"
    )
    how.add_argument("--dry-run", action="store_true", help="train nothing; say what the space holds and costs")
    add_loudness(how)
    return options


def refuse_starved(args: argparse.Namespace) -> None:
    """GPSampler (Optuna 5.0) learns from completed trials only, and draws at random until it has ten.

    Measured by replaying `benchmarks/data/curves.json` in searches of 50 trials: with `rungs` 2 to 9 are completed,
    with `hyperband` or `median` 11 on average.

    Raises:
        UserError: the pruner leaves too few.
    """
    if (args.sampler, args.pruner) == ("gp", "rungs"):
        raise UserError(
            "--sampler gp with --pruner rungs (the default) would propose at random, since gp learns only from trials "
            "trained to the end, and rungs stops nine of ten before; give --pruner none, or --sampler tpe"
        )


def plan_of(args: argparse.Namespace, space: SearchSpace) -> "Plan":
    """What to train with what.

    Raises:
        UserError: an unknown device or data set, or one that does not fit the space's networks.
    """
    from nas.data.datasets import Dataset
    from nas.data.images import load_training
    from nas.training.training import TrainingJob
    from nas.tuner.trials import Plan

    dataset = Dataset(name=space.dataset, input_shape=space.input_shape, data_dir=args.data_dir)
    if (classes := len(load_training(dataset).classes)) != space.num_classes:
        raise UserError(
            f"data set {space.dataset!r} has {classes} classes, the networks of the space {space.num_classes}; "
            f"give their Architecture num_classes={classes}"
        )

    def largest() -> TrainingJob:
        feasible, _ = probe(space, args.seed, draws=MAX_PROPOSALS, until_feasible=False)
        candidate = max(feasible, key=lambda found: found.cost.peak_activation_bytes).candidate
        return TrainingJob(candidate=candidate, constraints=space.constraints, dataset=dataset, seed=args.seed)

    return Plan(
        trials=args.trials,
        fleet=fleet_of(args, largest),
        dataset=dataset,
        constraints=space.constraints,
        seed=args.seed,
        timeout=args.timeout,
        epoch_timeout=args.epoch_timeout,
        later_epochs=later_epochs(args, space),
    )


def later_epochs(args: argparse.Namespace, space: SearchSpace) -> float:
    """What the final runs take, in epochs of a trial; those of the network to beat cost as its MACs."""
    runs = (args.finalists + 1) * args.final_seeds if args.finalists else 0
    if args.finalists and args.baseline and space.baseline is not None:
        macs = cost(space.baseline).macs
        runs += args.final_seeds * macs / (space.constraints.max_macs or macs)
    return runs * space.recipe.epochs


def search(
    args: argparse.Namespace,
    space: SearchSpace,
    location: StudyLocation,
    console: Console,
    interruption: Interruption,
) -> int:
    """Run a search, or go on with one, and write its results; the exit status."""
    import optuna
    import torch

    from nas.api import finish
    from nas.cli.live_view import follow
    from nas.data.images import fingerprint
    from nas.reporting.notes import annotate_trial
    from nas.study.history import read_history
    from nas.tuner.selection import FinalSettings
    from nas.tuner.trials import Search

    torch.set_num_threads(1)  # the workers have the cores; measured beside them: gp proposes five times as fast
    plan = plan_of(args, space)
    wanted = settings(space, seed=args.seed, sampler=args.sampler, pruner=args.pruner)
    wanted["training_images"] = fingerprint(plan.dataset)
    final = FinalSettings(finalists=args.finalists, seeds=args.final_seeds, baseline=args.baseline)
    if final.baseline and not final.finalists:
        raise UserError("--baseline: the network to beat is trained beside finalists; give --finalists 1 or more")
    if final.baseline and space.baseline is None:
        raise UserError(f"--baseline: the search space {args.space!r} names no network to beat; set its baseline")

    def show(events: "Iterator[Progress]", title: str) -> None:
        follow(interruption.heeding(events), title, console, args.verbosity)

    goal = {name: getattr(args, name) for name in ("trials", "finalists", "final_seeds", "baseline")}
    with writing(
        location, wanted, this_command(command_line("nas.search", location), plan.fleet.devices, goal)
    ) as study:
        remember_task(study, space)
        known = read_history(study)
        sampler = FeasibleSampler(make_sampler(args.sampler, args.seed), space, args.seed, seen=known.digests)
        study.pruner = make_pruner(args.pruner, space.recipe.epochs)

        def annotate(trial: optuna.Trial, record: TrialRecord) -> dict[Path, str]:
            return annotate_trial(study, location, plan.dataset, trial, record)

        trials = Search(study, location, plan, sampler, annotate=annotate)
        trained = len(known.trained)
        if trained and args.verbosity >= 0:
            stands = f"{trained} of {args.trials} trained, {args.trials - trained} to go"
            if trained > args.trials:
                stands = f"{trained} trained, {args.trials} asked for"
            console.print(f"study {location.name} goes on: {stands}", markup=False)
        show(trials.events(), headline(space, location))
        winner = finish(study, location, plan, final, console, show)
        if trials.exhausted is not None:
            print(diagnosis(trials.exhausted), file=sys.stderr)
        if winner is None:
            print(NO_WINNER if ranked(records(study)) else NOTHING_TRAINED, file=sys.stderr)
        return DONE if winner is not None else NOTHING_FEASIBLE


def dry_run(args: argparse.Namespace, space: SearchSpace, console: Console) -> Ledger:
    """Say what the space holds, and how long the search would take."""
    from nas.cli.dry_run import dry_run

    return dry_run(space, plan_of(args, space), args.pruner, console)


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    refuse_starved(args)
    space = restrict(load_space(args.space), epochs=args.epochs, max_params=args.max_params, max_macs=args.max_macs)
    if args.target is not None:
        space = replace(space, target=args.target)
    name = space_name(args.space) if args.study_name is None else args.study_name
    location = locate(name, args.output_dir, args.storage)
    console = Console(highlight=False)
    feasible, ledger = probe(space, args.seed, draws=MAX_PROPOSALS, until_feasible=True)
    if not feasible:
        print(diagnosis(ledger), file=sys.stderr)
        return NOTHING_FEASIBLE
    with resumable("nas.search", location) as interruption:
        if not args.dry_run:
            return search(args, space, location, console, interruption)
        dry_run(args, space, console)
    return DONE


if __name__ == "__main__":
    run(main)
