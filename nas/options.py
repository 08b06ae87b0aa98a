"""What the commands have in common: options, one-sentence errors, exit statuses. Nothing heavy is imported here."""

import argparse
import atexit
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import active_children
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, TypeAlias, TypeVar

from nas.errors import UserError, printable
from nas.storage import DEFAULT_OUTPUT, StudyLocation, command_line, has_password, locate

if TYPE_CHECKING:  # torch takes seconds to import, and --help needs none of it
    from nas.training import TrainingJob
    from nas.workers import Fleet

MOST = 100_000  # of what is counted off, such as trainings and epochs: there are lists of them
LARGEST = 10**18  # of other whole numbers
DONE, NOTHING_FEASIBLE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
READER_GONE = 141  # as a shell tells of a program that SIGPIPE has ended: 128 and the signal's number
SHOW_CURSOR = b"\x1b[?25h"  # which the live view hides

Event = TypeVar("Event")
Options: TypeAlias = argparse.ArgumentParser | argparse._ArgumentGroup


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one sentence, without the usage."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As always, but a value of two dashes is refused; Python up to 3.12 makes an empty list of it."""
        for argument in sys.argv[1:] if args is None else args:
            option, given, value = argument.partition("=")
            if option.startswith("-") and given and value == "--":
                self.error(f"argument {option}: expected one argument")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


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
    """An accuracy: above 0, at most 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a fraction above 0 and at most 1, such as 0.994")
    return value


def add_location(parser: Options) -> None:
    """The options that say where a study lives."""
    parser.add_argument(
        "--storage",
        metavar="URL",
        default=os.environ.get("OPTUNA_STORAGE") or None,
        help="Optuna storage (default: $OPTUNA_STORAGE, else SQLite in the output folder)",
    )
    parser.add_argument(
        "--output-dir",
        metavar="DIR",
        type=Path,
        default=DEFAULT_OUTPUT,
        help="folder of all results (default: results)",
    )


def add_data_dir(parser: Options) -> None:
    """The option that says where data sets are kept."""
    parser.add_argument("--data-dir", metavar="DIR", help="folder of torchvision's data sets (default: ~/.cache/nas)")


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


def fleet_of(args: argparse.Namespace, typical: "Callable[[], TrainingJob]") -> "Fleet":
    """The workers that the options name; `typical` is a training that takes as much memory as any will.

    Raises:
        UserError: an unknown device, one that is not there, or no Ray cluster.
    """
    from nas.workers import LocalFleet, devices

    if args.ray is not None:
        if args.storage != os.environ.get("OPTUNA_STORAGE") and args.storage and has_password(args.storage):
            raise UserError("--storage has a password, and Ray keeps command lines; give it as $OPTUNA_STORAGE")
        try:
            from nas.cluster import RayFleet
        except ImportError as error:
            raise UserError(
                f"--ray needs Ray, which is not installed ({error}); install it with: pip install -e '.[ray]'"
            ) from error
        return RayFleet(args.ray, args.device, args.jobs, args.jobs_per_gpu, typical)
    if args.jobs_per_gpu is not None:
        raise UserError("--jobs-per-gpu is for --ray; give --jobs, which are shared out among the GPUs of this machine")
    return LocalFleet(devices(args.device, args.jobs))


def add_loudness(parser: Options) -> None:
    """The options that say how much is printed meanwhile."""
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument(
        "-q", "--quiet", dest="verbosity", action="store_const", const=-1, default=0, help="no progress"
    )
    loudness.add_argument("-v", "--verbose", dest="verbosity", action="store_const", const=1, help="every epoch")


def existing_location(args: argparse.Namespace) -> StudyLocation:
    """Where the study that `--study-name` names lives."""
    return locate(args.study_name, args.output_dir, args.storage)


class Interruption:
    """Whether Ctrl+C or SIGTERM has come.

    It is raised as KeyboardInterrupt at once, which Python drops where it happens to be collecting garbage, and says so
    at length; so that it is never lost, `heeding` asks again at every event. A second one ends the program on the spot:
    whatever it is doing, the database stays whole, and its workers end with it.
    """

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell starts what runs in the background
                signal.signal(number, self._ask)
        tell = sys.unraisablehook
        sys.unraisablehook = lambda dropped: None if dropped.exc_type is KeyboardInterrupt else tell(dropped)

    def _ask(self, signum: int, frame: object) -> None:
        if self._asked:
            with suppress(OSError):
                os.write(sys.stdout.fileno(), SHOW_CURSOR if sys.stdout.isatty() else b"")
            os._exit(INTERRUPTED)
        self._asked = True
        raise KeyboardInterrupt

    def heeding(self, events: Iterator[Event]) -> Iterator[Event]:
        """The events, until an interruption."""
        for event in events:
            if self._asked:
                raise KeyboardInterrupt
            yield event


@contextmanager
def resumable(module: str, location: StudyLocation) -> Iterator[Interruption]:
    """Ctrl+C and SIGTERM end the command with status 130, and with the line that continues it."""
    try:
        yield Interruption()
    except KeyboardInterrupt:
        for process in active_children():  # Ctrl+C may have come where the workers were being made or stopped
            process.kill()
        for thread in threading.enumerate():  # of their executors: at its exit, Python would trip over one half closed
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join(timeout=1.0)
        print(f"Interrupted; nothing finished is lost. Go on with: {command_line(module, location)}", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


class _Terminal(io.FileIO):
    """A terminal that may go away while a command works on: what is written then is dropped."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return memoryview(data).nbytes


def _lasting(stream: TextIO) -> TextIO:
    """A stream that prints what its encoding lacks in another way, and outlives its terminal."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    if sys.platform == "win32" or not stream.isatty():
        stream.reconfigure(errors="replace")
        return stream
    raw = io.BufferedWriter(_Terminal(stream.fileno(), "w", closefd=False))
    return io.TextIOWrapper(raw, encoding=stream.encoding, errors="replace", line_buffering=True)


def run(command: Callable[[], int]) -> NoReturn:
    """Run a command and exit with its status; bad input is one sentence and status 2.

    When whoever read the output has closed it, such as `head`, the command ends without a word.
    """
    status: int | str | None
    if sys.stdout is None:  # closed by whoever started it
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # for good
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)
    try:
        try:
            status = command()
        except SystemExit as end:  # such as after --help
            if isinstance(end.__context__, BrokenPipeError):  # rich has met it, and would end with status 1
                raise end.__context__ from None
            status = end.code
        except UserError as error:
            print(f"error: {printable(str(error))}", file=sys.stderr)
            status = BAD_INPUT
        except KeyboardInterrupt:
            status = INTERRUPTED
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would complain at its end
        status = READER_GONE
    if status == INTERRUPTED:  # Python would take seconds to put all objects away
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(INTERRUPTED)
    sys.exit(status)
