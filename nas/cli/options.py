"""What the commands have in common: options, one-sentence errors, exit statuses. Nothing heavy is imported here."""

import argparse
import math
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from nas.errors import UserError, did_you_mean
from nas.space.objective import TARGET_RULE, is_target
from nas.space.pictures import BACKGROUNDS, FITS
from nas.study.location import DEFAULT_OUTPUT, StudyLocation, default_storage, has_password, locate

if TYPE_CHECKING:  # torch takes seconds to import, and --help needs none of it
    from nas.workers.fleet import Workers


DEFAULT_STUDY = "mnist"
MOST = 100_000  # of what is counted off, such as trainings and epochs: there are lists of them
LARGEST = 10**18  # of other whole numbers
Options: TypeAlias = argparse.ArgumentParser | argparse._ArgumentGroup


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one sentence, without the usage; options are written out."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As always, but a value of two dashes is refused; Python up to 3.12 makes an empty list of it."""
        for argument in sys.argv[1:] if args is None else args:
            option, given, value = argument.partition("=")
            if option.startswith("-") and given and value == "--":
                self.error(f"argument {option}: expected one argument")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}{self._meant(message)}; see --help")

    def _meant(self, message: str) -> str:
        """The option that an unknown one looks like."""
        unknown = re.fullmatch(r"unrecognized arguments: (--[\w-]+).*", message, re.DOTALL)
        return did_you_mean(unknown[1], self._option_string_actions) if unknown else ""


def program(command: str) -> str:
    """How a command is called here: `nas search`, or `python -m nas.search` where the module was run."""
    return f"nas {command}" if sys.argv[0].startswith("nas ") else f"python -m nas.{command}"


def whole(text: str, minimum: int, maximum: int = MOST) -> int:
    """A whole number from `minimum` to `maximum`."""
    try:
        value = int(text)
    except ValueError:
        value = minimum - 1
    if value < minimum:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {minimum}")
    if value > maximum:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from {minimum} to {maximum:,}")
    return value


def positive(text: str) -> int:
    """A count of at least 1."""
    return whole(text, 1)


def shape(text: str) -> tuple[int, int, int]:
    """Channels, height and width."""
    words = text.lower().replace("×", "x").replace(",", "x").split("x")
    if len(words) != 3 or not all(word.isascii() and word.isdigit() and 0 < int(word) < 10_000 for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} must be channels, height and width, such as 1x28x28")
    channels, height, width = map(int, words)
    return channels, height, width


def natural(text: str) -> int:
    """A count or the number of one, at least 0."""
    return whole(text, 0)


def seed(text: str) -> int:
    """What random numbers follow from, at least 0."""
    return whole(text, 0, LARGEST)


def limit(text: str) -> int:
    """The most that something may cost, at least 1."""
    return whole(text, 1, LARGEST)


def positive_seconds(text: str) -> float:
    """A duration above 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds above 0")
    return seconds


def fraction(text: str) -> float:
    """A target that a search may have."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not is_target(value):
        raise argparse.ArgumentTypeError(f"{text!r} {TARGET_RULE}")
    return value


def add_location(parser: Options) -> None:
    """The options that say where a study lives."""
    parser.add_argument(
        "--storage",
        metavar="URL",
        default=default_storage(),
        help="Optuna storage (default: $OPTUNA_STORAGE, else SQLite in the output folder)",
    )
    parser.add_argument(
        "--output-dir",
        metavar="DIR",
        type=Path,
        default=DEFAULT_OUTPUT,
        help="folder of all results (default: results)",
    )


def add_pictures(options: argparse._ArgumentGroup) -> None:
    """How image files are prepared."""
    options.add_argument("--fit", choices=FITS, help="what becomes of other proportions (default: squash)")
    options.add_argument("--background", choices=BACKGROUNDS, help="of transparent pixels (default: white)")
    options.add_argument(
        "--value-range",
        nargs=2,
        type=float,
        metavar=("BLACK", "WHITE"),
        help="of images with more than 8 bits a pixel (default: 0 to 65535, or 0 to 1 for floats)",
    )


def pictures_asked(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of `Pictures` that these options say."""
    asked = {name: getattr(args, name) for name in ("fit", "background")}
    asked["value_range"] = None if args.value_range is None else tuple(args.value_range)
    return {name: value for name, value in asked.items() if value is not None}


def add_data_dir(parser: Options) -> None:
    """The option that says where data sets are kept."""
    parser.add_argument(
        "--data-dir", metavar="DIR", help="folder of downloaded data sets and decoded pictures (default: ~/.cache/nas)"
    )


def add_device(parser: Options) -> None:
    """The options that say where training runs."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="train on a Ray cluster: auto, local, host:port or ray://host:port (default: on this machine)",
    )


def add_workers(parser: Options) -> None:
    """The options that say what trains."""
    add_device(parser)
    parser.add_argument(
        "--jobs", metavar="N", type=positive, help="workers, at most (default: one per core, or one per GPU)"
    )
    parser.add_argument(
        "--jobs-per-gpu",
        metavar="K",
        type=positive,
        help="workers that share a GPU of the cluster (default: as many as its memory holds, up to 8)",
    )
    parser.add_argument(
        "--epoch-timeout",
        metavar="SECONDS",
        type=positive_seconds,
        help="replace a worker that takes longer for an epoch (default: 20 times what is expected, at least 300)",
    )


def workers_of(args: argparse.Namespace) -> "Workers":
    """Who trains, as the options say.

    Raises:
        UserError: a password on the command line, which Ray would keep.
    """
    from nas.workers.fleet import Workers

    typed = args.storage if args.storage != os.environ.get("OPTUNA_STORAGE") else None
    if args.ray is not None and typed and has_password(typed):
        raise UserError("--storage has a password, and Ray keeps command lines; give it as $OPTUNA_STORAGE")
    return Workers(
        device=args.device,
        jobs=args.jobs,
        ray=args.ray,
        jobs_per_gpu=args.jobs_per_gpu,
        epoch_timeout=args.epoch_timeout,
    )


def add_loudness(parser: Options) -> None:
    """The options that say how much is printed meanwhile."""
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument(
        "-q", "--quiet", dest="verbosity", action="store_const", const=-1, default=0, help="no progress"
    )
    loudness.add_argument("-v", "--verbose", dest="verbosity", action="store_const", const=1, help="every epoch")


def add_study(parser: Options) -> None:
    """The study that is asked about, by its name."""
    parser.add_argument("study", metavar="STUDY", nargs="?", help="name of the study (default: mnist)")
    parser.add_argument("--study-name", metavar="NAME", help="the same, as an option")


def study_location(args: argparse.Namespace) -> StudyLocation:
    """Where the study that the options name lives.

    Raises:
        UserError: two names, or one that is not a plain file name.
    """
    if None not in (args.study, args.study_name) and args.study != args.study_name:
        raise UserError(f"the study is called {args.study!r} and --study-name {args.study_name!r}; give one of them")
    name = next((name for name in (args.study, args.study_name) if name is not None), DEFAULT_STUDY)
    return locate(name, args.output_dir, args.storage)


def add_options(options: argparse.ArgumentParser) -> None:
    """The study, the trial, and all that says how to train."""
    add_study(options)
    options.add_argument("--trial", metavar="N", type=natural, help="whose network (default: the winner's)")
    add_workers(options)
    add_location(options)
    add_data_dir(options)
    add_loudness(options)
