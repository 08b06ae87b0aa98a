"""python -m nas: which commands there are."""

from nas.cli.terminal import DONE, run

COMMANDS = {
    "search": "search for the best network of a space within its limits",
    "status": "say where a study stands, running or not",
    "report": "write one page of what has been found, which opens offline",
    "dashboard": "look at a study's trials in optuna-dashboard",
    "retrain": "train a trial again and compare it epoch by epoch",
    "noise": "measure what difference between two scores means nothing",
    "ablate": "measure what each design choice of a network is worth",
    "export": "write any trial of a study as source code and weights",
}


def main() -> int:
    """List the commands."""
    width = max(map(len, COMMANDS))
    for name, purpose in COMMANDS.items():
        print(f"python -m nas.{name:{width}}  {purpose}")
    print("Each answers --help.")
    return DONE


if __name__ == "__main__":
    run(main)
