"""nas, or python -m nas: which commands there are, and each of them as `nas COMMAND`."""

import importlib
import sys

import nas
from nas.cli.terminal import DONE, run
from nas.errors import UserError, did_you_mean

COMMANDS = {
    "data": "say what a data set holds, and what is odd about it",
    "search": "search for the best network of a space within its limits",
    "studies": "list the studies that there are, and how each stands",
    "status": "say where a study stands, running or not",
    "trials": "list the trials of a study: as a table, as JSON or as CSV",
    "report": "write one page of what has been found, which opens offline",
    "dashboard": "look at a study's trials in optuna-dashboard",
    "retrain": "train a trial again and compare it epoch by epoch",
    "noise": "measure what difference between two scores means nothing",
    "ablate": "measure what each design choice of a network is worth",
    "export": "write any trial of a study as source code and weights",
}


def main() -> int:
    """List the commands, tell the version, or run the command that is named; its exit status."""
    match sys.argv[1:]:
        case [] | ["-h" | "--help"]:
            width = max(map(len, COMMANDS))
            lines = (f"nas {name:{width}}  {purpose}" for name, purpose in COMMANDS.items())
            print(*lines, "Each answers --help, and to python -m nas.COMMAND as well.", sep="\n")
            return DONE
        case ["--version"]:
            print(f"nas {nas.__version__}")
            return DONE
        case [name, *rest] if name in COMMANDS:
            sys.argv = [f"nas {name}", *rest]
            status: int = importlib.import_module(f"nas.{name}").main()
            return status
        case [name, *_]:
            meant = did_you_mean(name, COMMANDS)
            raise UserError(f"unknown command {name!r}; known are {', '.join(COMMANDS)}{meant}")
    raise AssertionError(sys.argv)


def command() -> None:
    """The program `nas`."""
    run(main)


if __name__ == "__main__":
    command()
