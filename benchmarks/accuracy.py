"""Final validation accuracy at equal epochs: the search's training against another way, on the same seeds.

The other is the usual way, or the search's training with torch's own kernels instead of compiled ones. Only accuracy is
compared, so all train in as many processes as there are cores, one thread each.
"""

import argparse
import sys
from collections import deque
from math import sqrt
from statistics import fmean, stdev
from unittest import mock

from rich.console import Console
from rich.table import Table

from benchmarks.networks import NETWORKS, job
from benchmarks.usual import UsualTraining
from nas.cli.options import positive
from nas.cli.terminal import run
from nas.errors import UserError
from nas.system.processes import process_pool
from nas.training.kernels import TORCHS_OWN
from nas.training.training import train
from nas.workers.local import devices
from search_spaces.mnist import RECIPE


def ours(name: str, seed: int, epochs: int) -> float:
    """Of the averaged weights after the last epoch, as a fraction."""
    (last,) = deque(train(job(name, seed=seed, epochs=epochs)), maxlen=1)
    assert last.val_accuracy is not None
    return last.val_accuracy


def torchs(name: str, seed: int, epochs: int) -> float:
    """The same with torch's own kernels."""
    with mock.patch("nas.training.training.kernels", return_value=TORCHS_OWN):
        return ours(name, seed, epochs)


def usual(name: str, seed: int, epochs: int) -> float:
    """Of the weights after the last epoch, as a fraction."""
    (last,) = deque(UsualTraining(job(name, seed=seed, epochs=epochs)).epochs(), maxlen=1)
    return last.accuracy


WAYS = {"usual": ("usual way", usual), "torch": ("torch's kernels", torchs)}


def main() -> int:
    """Train and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    options.add_argument("--epochs", type=positive, default=RECIPE.epochs, help="of a training (default: the recipe's)")
    options.add_argument("--seeds", type=positive, default=3, help="of each network and way, at least 2 (default: 3)")
    options.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="(default: all)")
    options.add_argument("--against", choices=WAYS, default="usual", help="the other way (default: usual)")
    args = options.parse_args()
    other, function = WAYS[args.against]
    if args.seeds < 2:
        raise UserError(f"--seeds {args.seeds} gives no standard error; give at least 2")
    table = Table(title=f"Validation accuracy after {args.epochs} epochs in per cent, mean ± sd of {args.seeds} seeds")
    table.add_column("network")
    for column in ("ours", other, "difference ± standard error"):
        table.add_column(column, justify="right")
    differences = []
    workers = len(devices("cpu", None))
    with process_pool(workers) as pool:
        futures = {
            (name, way): [pool.submit(way, name, seed, args.epochs) for seed in range(args.seeds)]
            for name in args.networks
            for way in (ours, function)
        }
        for name in args.networks:
            a, b = ([100 * future.result() for future in futures[name, way]] for way in (ours, function))
            difference = fmean(a) - fmean(b)
            error = sqrt((stdev(a) ** 2 + stdev(b) ** 2) / args.seeds)
            table.add_row(
                name,
                f"{fmean(a):.2f} ± {stdev(a):.2f}",
                f"{fmean(b):.2f} ± {stdev(b):.2f}",
                f"{difference:+.2f} ± {error:.2f}",
            )
            differences.append(f"{difference:+.2f} on {name}")
    console = Console()
    console.print(table)
    console.print(f"ours - {other}, points: {', '.join(differences)}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
