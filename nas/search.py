"""python -m nas.search: search for the best network of a space within its limits."""

import argparse
import sys
from typing import TYPE_CHECKING

from nas.cli.options import (
    Parser,
    add_data_dir,
    add_location,
    add_loudness,
    add_pictures,
    add_workers,
    fraction,
    limit,
    natural,
    pictures_asked,
    positive,
    positive_seconds,
    program,
    seed,
    shape,
    workers_of,
)
from nas.cli.terminal import DONE, NOTHING_FEASIBLE, Interruption, command_line, resumable, run, view_for
from nas.network.limits import ACTIVATION_BYTES, MACS, PARAMS, RECEPTIVE_FIELD
from nas.samplers.names import DEFAULT_SAMPLER, SAMPLERS
from nas.space.loading import known_spaces, space_name
from nas.space.objective import METRIC_NAMES
from nas.space.recipe import FEW_IMAGES, ROUNDS
from nas.study.location import StudyLocation, locate
from nas.tuner.names import DEFAULT_PRUNER, PRUNERS

if TYPE_CHECKING:  # torch takes seconds to import, Optuna a part of one, and --help needs neither
    from nas.api.searching import SearchOptions
    from nas.space.search_space import SearchSpace

TIGHTENED = (PARAMS, MACS, ACTIVATION_BYTES, RECEPTIVE_FIELD)
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
  python -m nas.search --data photos --shape 3x48x48
  python -m nas.search --space my_space.py --trials 100
  python -m nas.search --baseline                   compare the winner with the network to beat

exit status: 0 done, 1 nothing feasible or no winner, 2 bad input, 130 interrupted, 141 nobody reads the output
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog=program("search"),
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
    what.add_argument("--data", metavar="PATH", help="search its networks for this data set: a name, folder or table")
    what.add_argument(
        "--shape",
        metavar="CxHxW",
        type=shape,
        help="in which the networks see the data (default: its own, else 3x32x32)",
    )
    add_pictures(what)
    what.add_argument(
        "--cross-validation",
        metavar="N",
        type=natural,
        help=f"hold every sixth image out in turn, N times over; 0: one sixth only (default for --data: {ROUNDS} below "
        f"{FEW_IMAGES:,} images to train on, else 0)",
    )
    what.add_argument("--metric", choices=METRIC_NAMES, help="what scores are (default: the space's, else accuracy)")
    what.add_argument(
        "--fit-recipe",
        action=argparse.BooleanOptionalAction,
        help="train two networks before the search, to find the recipe that fits the pictures (default: for --data)",
    )
    what.add_argument(
        "--study-name", metavar="NAME", help="resumes where it exists (default: that of the data or the space)"
    )
    add_location(what)
    add_data_dir(what)
    limits = options.add_argument_group("tighter than the space")
    limits.add_argument("--epochs", metavar="N", type=positive, help="epochs of a full training")
    for bound in TIGHTENED:
        limits.add_argument(bound.option, metavar="N", type=limit, help=bound.described)
    limits.add_argument("--target", metavar="X", type=fraction, help="accuracy asked for, such as 0.994")
    how = options.add_argument_group("how to search")
    told = f"who proposes candidates (default: {DEFAULT_SAMPLER})"
    how.add_argument("--sampler", choices=SAMPLERS, default=DEFAULT_SAMPLER, help=told)
    how.add_argument("--pruner", choices=PRUNERS, default=DEFAULT_PRUNER, help="who stops trials (default: rungs)")
    how.add_argument("--seed", metavar="N", type=seed, default=0, help="of everything drawn (default: 0)")
    add_workers(how)
    how.add_argument(
        "--timeout", metavar="SECONDS", type=positive_seconds, help="begin no trial after this time; final runs follow"
    )
    how.add_argument(
        "--until-target", action="store_true", help="end the search when a network is sure to reach the target"
    )
    final = options.add_argument_group("after the search")
    final.add_argument(
        "--finalists",
        metavar="K",
        type=natural,
        default=1,
        help="trials to choose among by training them again on fresh seeds (default: 1; 0: no final models either)",
    )
    final.add_argument(
        "--final-seeds",
        metavar="S",
        type=positive,
        default=3,
        help="fresh seeds of the final models, and at most of a finalist (default: 3)",
    )
    final.add_argument("--baseline", action="store_true", help="train the network to beat, too, by the winner's recipe")
    how.add_argument("--dry-run", action="store_true", help="train nothing; say what the space holds and costs")
    add_loudness(how)
    return options


def options_of(args: argparse.Namespace) -> "SearchOptions":
    """How to search, as the options say."""
    from nas.api.searching import SearchOptions

    how = ("trials", "sampler", "pruner", "seed", "timeout", "finalists", "final_seeds", "baseline", "until_target")
    return SearchOptions(**{name: getattr(args, name) for name in (*how, "data_dir")}, workers=workers_of(args))


def space_of(args: argparse.Namespace) -> "SearchSpace":
    """The space that is named, on other data and with tighter limits where they are given."""
    from nas.api.task import asked_for, with_given

    space = asked_for(args.space, args.data, args.shape, args.metric, pictures_asked(args))
    space = space.restrict(epochs=args.epochs, **{limit.name: getattr(args, limit.name) for limit in TIGHTENED})
    return with_given(space, **{name: getattr(args, name) for name in ("target", "cross_validation", "fit_recipe")})


def search(args: argparse.Namespace, space: "SearchSpace", location: StudyLocation, interruption: Interruption) -> int:
    """Run a search, or go on with one, and print what it found."""
    from nas.api.searching import search

    def say(text: str) -> None:
        if args.verbosity >= 0:
            print(text)

    command, show = command_line("nas.search", location), view_for(interruption, args.verbosity)
    found = search(space, location, options_of(args), command=command, show=show, say=say, quiet=args.verbosity < 0)
    if found.winner is not None:
        print(found.summary)
    print("written: " + ", ".join(map(str, found.written)))
    if found.complaint:
        print(found.complaint, file=sys.stderr)
    return DONE if found.winner is not None else NOTHING_FEASIBLE


def dry_run(args: argparse.Namespace, space: "SearchSpace") -> int:
    """Print what the space holds, and how long the search would take."""
    from rich.console import Console

    from nas.api.searching import preview
    from nas.cli.dry_run import show_preview

    show_preview(preview(space, options_of(args), None, print), space, args.pruner, Console(highlight=False))
    return DONE


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    from nas.space.rejections import NothingFeasibleError
    from nas.system.processes import start_server

    space = space_of(args)
    own_name = space_name(args.space) if args.data is None or space.name is None else space.name
    name = own_name if args.study_name is None else args.study_name
    location = locate(name, args.output_dir, args.storage)
    try:
        with resumable("nas.search", location) as interruption:
            start_server()
            return dry_run(args, space) if args.dry_run else search(args, space, location, interruption)
    except NothingFeasibleError as error:
        print(error, file=sys.stderr)
        return NOTHING_FEASIBLE


if __name__ == "__main__":
    run(main)
