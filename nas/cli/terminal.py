"""What every command does at a terminal: signals, exit statuses, a terminal that goes away."""

import atexit
import errno
import io
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import active_children
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, TypeVar

from nas.errors import UserError, printable, without_passwords
from nas.study.location import StudyLocation

if TYPE_CHECKING:  # torch takes seconds to import, and --help needs none of it
    from nas.tuner.progress import Show

DONE, NOTHING_FEASIBLE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
READER_GONE = 141  # as a shell tells of a program that SIGPIPE has ended: 128 and the signal's number
SHOW_CURSOR = b"\x1b[?25h"  # which the live view hides
Event = TypeVar("Event")


def command_line(module: str, location: StudyLocation) -> str:
    """What was typed, without the passwords that storage URLs may hold; of several, the last one is in use."""
    arguments = (argument.replace(location.storage, location.public_storage) for argument in sys.argv[1:])
    return shlex.join(["python", "-m", module, *map(without_passwords, arguments)])


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

    _ask.deferrable = True  # type: ignore[attr-defined]  # see nas.system.interrupts

    def heeding(self, events: Iterator[Event]) -> Iterator[Event]:
        """The events, until an interruption."""
        for event in events:
            if self._asked:
                raise KeyboardInterrupt
            yield event


def view_for(interruption: Interruption, verbosity: int) -> "Show":
    """What a command shows of its trainings, until it is interrupted."""
    from rich.console import Console

    from nas.reporting.live_view import follow

    console = Console(highlight=False)
    return lambda events, title: follow(interruption.heeding(events), title, console, verbosity)


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
