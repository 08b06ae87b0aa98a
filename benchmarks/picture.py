"""The picture of docs/benchmarks.md: what the validation images say of every candidate after each epoch.

`benchmarks/data/curves.json` in, docs/curves.svg out; the same table gives the same picture.
"""

import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.curves import load
from benchmarks.search_cost import CORRELATED_EPOCHS
from nas.cli.terminal import run

FILE = Path(__file__).parent.parent / "docs" / "curves.svg"
BEST = 5


def panel(axes: Axes, title: str, scores: list[list[float]], ranks: list[int]) -> None:
    """One line a candidate: its error in per cent after each epoch; the best at the end stand out."""
    for accuracies, rank in zip(scores, ranks, strict=True):
        errors = [100 * (1 - accuracy) for accuracy in accuracies]
        color, width, layer = ("#0969da", 1.6, 3) if rank < BEST else ("#9aa4af", 0.8, 2)
        axes.plot(range(1, len(errors) + 1), errors, color=color, linewidth=width, zorder=layer)
    axes.set_yscale("log")
    axes.set_yticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    axes.minorticks_off()
    axes.set_xticks([*CORRELATED_EPOCHS, len(scores[0])])
    axes.set_xlabel("epoch")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)


def main() -> int:
    """Draw it."""
    mpl.rcParams["svg.hashsalt"] = "nas"  # the same file every time
    table = load()
    order = sorted(range(len(table)), key=lambda i: -table[i].accuracy[-1])
    ranks = [order.index(i) for i in range(len(table))]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    panel(left, "averaged weights: what trials are judged by", [curves.accuracy for curves in table], ranks)
    panel(right, "raw weights", [curves.raw_accuracy for curves in table], ranks)
    left.set_ylabel("validation error, %")
    figure.suptitle(
        f"{len(table)} candidates of the default space, none stopped; blue: the {BEST} best at the end", fontsize=10
    )
    figure.savefig(FILE, metadata={"Date": None})
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
