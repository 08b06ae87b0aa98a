"""Seconds of training until the validation images are answered well enough, one training at a time.

The clock runs from the first step, with the images in memory, to the end of the first epoch whose averaged weights
reach the target. Judging every epoch on the 10,000 validation images counts. The learning rate falls to 0 at the
last epoch, so that fewer epochs reach a low target sooner.
"""

import argparse
import sys
from statistics import fmean, stdev

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.networks import TRAINED, job
from nas.cli.options import fraction, positive
from nas.cli.terminal import run
from nas.network.cost import cost
from nas.system.processes import keep_freed_memory
from nas.training.training import train


def seconds_to(target: float, name: str, seed: int, epochs: int) -> tuple[float | None, int, float]:
    """The seconds, or None where the target is missed; the epochs; and the accuracy after the last of them."""
    seconds, accuracy, epoch = 0.0, 0.0, 0
    for report in train(job(name, seed=seed, epochs=epochs)):
        assert report.val_accuracy is not None
        seconds, accuracy, epoch = seconds + report.seconds, report.val_accuracy, report.epoch
        if accuracy >= target:
            return seconds, epoch, accuracy
    return None, epoch, accuracy


def main() -> int:
    """Train and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.seconds", description=__doc__)
    options.add_argument("--network", choices=TRAINED, default="10k", help="(default: 10k)")
    options.add_argument("--target", type=fraction, default=0.99, help="accuracy as a fraction (default: 0.99)")
    options.add_argument("--epochs", type=positive, default=3, help="of the schedule (default: 3)")
    options.add_argument("--seeds", type=positive, default=3, help="trainings (default: 3)")
    options.add_argument("--threads", type=positive, default=1, help="of torch (default: 1)")
    args = options.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    found = [seconds_to(args.target, args.network, seed, args.epochs) for seed in range(args.seeds)]
    table = Table("seed", "seconds", "epochs", "accuracy")
    for seed, (seconds, epochs, accuracy) in enumerate(found):
        table.add_row(str(seed), "missed" if seconds is None else f"{seconds:.1f}", str(epochs), f"{accuracy:.2%}")
    console = Console()
    console.print(table)
    reached = [seconds for seconds, _, _ in found if seconds is not None]
    spread = f"{fmean(reached):.1f} s" if reached else "never"
    if len(reached) > 1:
        spread += f" ± {stdev(reached):.1f}"
    console.print(
        f"{args.network}, {cost(TRAINED[args.network]).params:,} parameters, {args.threads} threads: "
        f"{args.target:.1%} after {spread}; {len(reached)} of {len(found)} seeds reach it"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
