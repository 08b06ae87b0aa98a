"""Option values: what is taken, and the sentence about what is not."""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nas.cli.options import (
    Parser,
    add_data_dir,
    add_location,
    add_workers,
    fraction,
    limit,
    natural,
    positive,
    positive_seconds,
    seed,
    workers_of,
)
from nas.cli.terminal import Interruption, run
from nas.errors import UserError, printable
from nas.workers.fleet import make_fleet


@pytest.mark.parametrize(
    ("option_type", "text", "value"),
    [
        (positive, "1", 1),
        (positive, "20000", 20_000),
        (natural, "0", 0),
        (natural, "100000", 100_000),
        (seed, str(2**40), 2**40),
        (limit, "1000000000000000000", 10**18),
        (positive_seconds, "0.5", 0.5),
        (positive_seconds, "1e3", 1000.0),
        (fraction, "0.994", 0.994),
        (fraction, "1", 1.0),
    ],
)
def test_option_types_take_values_up_to_their_bounds(
    option_type: Callable[[str], float], text: str, value: float
) -> None:
    assert option_type(text) == value
    assert type(option_type(text)) is type(value)


WHOLE = "must be a whole number of at least"
SECONDS = "must be a number of seconds above 0"
FRACTION = "must be a fraction above 0 and at most 1, such as 0.994"


@pytest.mark.parametrize(
    ("option_type", "texts", "rule"),
    [
        (positive, ("0", "-3", "x", "1.5", "", "+-3", "²", "9" * 5000), f"{WHOLE} 1"),
        (natural, ("-1", "x", "", "++3", "1e3"), f"{WHOLE} 0"),
        (positive, ("100001", "1" + "0" * 12, "9" * 400), "must be a whole number from 1 to 100,000"),
        (natural, ("100001", "9" * 400), "must be a whole number from 0 to 100,000"),
        (seed, ("1" + "0" * 17 + "10", "9" * 400), "must be a whole number from 0 to 1,000,000,000,000,000,000"),
        (limit, ("9" * 400,), "must be a whole number from 1 to 1,000,000,000,000,000,000"),
        (positive_seconds, ("0", "-1", "x", "nan", "inf", ""), SECONDS),
        (fraction, ("0", "1.01", "99.4", "nan", "-inf", "x"), FRACTION),
    ],
)
def test_option_types_say_what_they_want(
    option_type: Callable[[str], float], texts: tuple[str, ...], rule: str
) -> None:
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError, match=f"^{re.escape(f'{text!r} {rule}')}$"):
            option_type(text)


def test_parser_raises_a_sentence_instead_of_printing_usage() -> None:
    options = Parser(prog="x")
    options.add_argument("--trials", type=positive)
    with pytest.raises(UserError, match=r"^argument --trials: '0' must be a whole number of at least 1; see --help$"):
        options.parse_args(["--trials", "0"])
    with pytest.raises(UserError, match=r"^unrecognized arguments: --trails 3; did you mean --trials\?; see --help$"):
        options.parse_args(["--trails", "3"])
    with pytest.raises(UserError, match=r"^unrecognized arguments: --trial 3; did you mean --trials\?; see --help$"):
        options.parse_args(["--trial", "3"])  # a beginning of an option is none: here it would be another command's
    with pytest.raises(UserError, match=r"^unrecognized arguments: --colour 3; see --help$"):
        options.parse_args(["--colour", "3"])


def test_location_options_have_defaults_and_honour_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", "sqlite:///env.db")
    options = Parser(prog="x")
    add_location(options)
    add_data_dir(options)
    args = options.parse_args([])
    assert (args.storage, args.output_dir, args.data_dir) == ("sqlite:///env.db", Path("results"), None)
    assert options.parse_args(["--storage", "sqlite:///other.db"]).storage == "sqlite:///other.db"
    monkeypatch.setenv("OPTUNA_STORAGE", "")  # as good as none
    options = Parser(prog="x")
    add_location(options)
    assert options.parse_args([]).storage is None
    assert options.parse_args(["--storage", ""]).storage == "", "which is refused"


def raising(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("command", "status", "printed"),
    [
        (lambda: 0, 0, ""),
        (lambda: 1, 1, ""),
        (raising(UserError("two\nlines")), 2, "error: two lines\n"),
        (
            raising(UserError(f"{'x' * 9_000} must be shorter")),
            2,
            f"error: {'x' * 1000} … {'x' * 984} must be shorter\n",
        ),
        (
            raising(UserError("no option postgresql://me:my/p:w@host/x; see")),
            2,
            "error: no option postgresql://me:***@host/x; see\n",
        ),
        (
            raising(UserError(f"{'x ' * 9} at 'sqlite:///x', 'mysql://me@there:p@s:s/w@host:1/x?b=1', {'y ' * 9}.")),
            2,
            f"error: {'x ' * 9} at 'sqlite:///x', 'mysql://me@there:***@host:1/x?b=1', {'y ' * 9}.\n".replace(
                "  ", " "
            ),
        ),
        (
            raising(
                UserError("no postgresql://me@host/x?sslPassword=se@cret&a=1 and mysql://host?a=b&password=secret")
            ),
            2,
            "error: no postgresql://me@host/x?sslPassword=***&a=1 and mysql://host?a=b&password=***\n",
        ),
        (
            raising(UserError("no folder /a/postgresql:/me:secret@host/x")),
            2,
            "error: no folder /a/postgresql:/me:***@host/x\n",
        ),
        (raising(UserError("\x1b[2J\x85\u202e\udc80")), 2, "error: \\x1b[2J \\u202e\\udc80\n"),
        (raising(SystemExit(0)), 0, ""),
    ],
)
def test_run_exits_with_the_status(
    command: Callable[[], int], status: int, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run(command)
    assert exit_info.value.code == status
    assert capsys.readouterr() == ("", printed)


@pytest.mark.parametrize("part", ["://:", "x://u:p", "@", "?pass", "&a=", "?", "\x1b"])
def test_a_hostile_text_of_a_million_characters_is_printed_within_seconds(part: str) -> None:
    """With time in proportion to its square, it would take hours."""
    began = time.process_time()
    assert len(printable(part * (1_000_000 // len(part)))) < 10_000
    assert time.process_time() - began < 5


def test_run_of_what_is_interrupted_ends_as_atexit_wants_and_waits_for_no_thread() -> None:
    source = (
        "import atexit, threading, time\n"
        "from nas.cli.terminal import run\n"
        "def command():\n"
        "    print('half a ', end='')\n"
        "    atexit.register(print, 'line')\n"
        "    threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "    raise KeyboardInterrupt\n"
        "run(command)"
    )
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "half a line\n", "")


def test_run_lets_a_bug_keep_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError()))


def test_a_password_is_not_given_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which keeps the command lines of its jobs, for all who can look at the cluster."""
    options = argparse.ArgumentParser()
    add_location(options)
    add_workers(options)
    args = options.parse_args(["--ray", "nowhere", "--storage", "postgresql://me:secret@host/db"])
    with pytest.raises(UserError, match=r"^--storage has a password, and Ray keeps command lines; give it as \$OPTUNA"):
        workers_of(args)
    monkeypatch.setenv("OPTUNA_STORAGE", args.storage)
    with pytest.raises(UserError, match=r"^--ray 'nowhere' is no address"):
        make_fleet(workers_of(args), lambda: pytest.fail("not needed"))


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (("--jobs", "1001"), "--jobs 1,001 must be at most 1,000 on one machine; each is a process"),
        (("--device", "cuda:" + "9" * 5000), "--device 'cuda:9"),
        (("--device", "cuda:²"), "--device 'cuda:²' is unknown; give auto, cpu, cuda or cuda:N"),
    ],
)
def test_workers_that_cannot_be_are_refused(given: tuple[str, str], rule: str) -> None:
    options = argparse.ArgumentParser()
    add_location(options)
    add_workers(options)
    with pytest.raises(UserError, match="^" + re.escape(rule)):
        make_fleet(workers_of(options.parse_args(given)), lambda: pytest.fail("not needed"))


def test_options_import_nothing_heavy() -> None:
    code = "import sys, nas.cli.options; sys.exit(' '.join({'torch', 'sqlalchemy', 'alembic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr == "\n"


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Those of before, afterwards."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Garbage:
    """A signal comes while Python collects it."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_an_interruption_that_python_dropped_is_heeded_at_the_next_event(
    handlers: None, capsys: pytest.CaptureFixture[str]
) -> None:
    interruption = Interruption()
    events = interruption.heeding(iter([1, 2, 3]))
    assert next(events) == 1
    Garbage()
    assert capsys.readouterr() == ("", "")
    with pytest.raises(KeyboardInterrupt):
        next(events)


def test_an_interrupt_that_the_shell_ignores_stays_ignored(handlers: None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Interruption()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


STUBBORN = """
import sys, time
from pathlib import Path
from nas.cli.terminal import resumable, run
from nas.study.location import locate

def command():
    with resumable("nas.search", locate("x", Path("results"), None)):
        try:
            print("begun", flush=True)
            time.sleep(60)
        finally:
            print("ending", flush=True)
            time.sleep(60)
    return 0

run(command)
"""


def test_a_second_interrupt_ends_the_program_on_the_spot() -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "ending\n"
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(timeout=30) == 130
        assert time.monotonic() - began < 1


def test_a_value_of_two_dashes_is_refused() -> None:
    parser = Parser()
    parser.add_argument("--trials", type=positive)
    with pytest.raises(UserError, match=r"^argument --trials: expected one argument; see --help$"):
        parser.parse_args(["--trials=--"])


@pytest.mark.parametrize(
    "command",
    [
        "lambda: [print('x' * 1000, flush=True) for _ in range(1000)] and 0",
        "lambda: print('kept in the buffer until the end')",
        "argparse.ArgumentParser().parse_args",
        "lambda: [Console().print('x' * 1000) for _ in range(1000)] and 0",
    ],
)
def test_a_reader_that_closes_the_output_ends_the_program_quietly(command: str) -> None:
    code = (
        f"import argparse; from nas.cli.terminal import run; from rich.console import Console; input(); run({command})"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code, "--help"], stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stderr is not None
        assert (process.stderr.read(), process.wait(timeout=30)) == ("", 128 + signal.SIGPIPE)


OUTLIVES = """\
import sys
from pathlib import Path
from nas.reporting.live_view import NORMAL, follow
from nas.cli.terminal import run
from rich.console import Console

def events():
    from test_live_view import progress
    print("ready", flush=True)
    sys.stdin.readline()  # until the terminal is gone
    for done in range(9):
        yield progress(done=done, news="x")
    Path(sys.argv[1]).write_text(f"done={done}")

def command():
    follow(events(), "study a", Console(), NORMAL)
    print("more")
    return 0

run(command)
"""


@pytest.mark.parametrize("terminal", ["xterm", "dumb"])
def test_a_command_works_on_when_its_terminal_is_gone(terminal: str, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "TERM": terminal}
    with subprocess.Popen(
        [sys.executable, "-c", OUTLIVES, str(tmp_path / "end")],
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = b""
        while b"ready" not in shown:
            shown += os.read(ours, 1_000)
        os.close(ours)
        process.communicate(b"\n", timeout=60)
    assert (process.returncode, (tmp_path / "end").read_text()) == (0, "done=8")
