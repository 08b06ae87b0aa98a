"""The picture of docs/benchmarks.md: the validation loss of every random candidate of the table after each epoch.

The same table gives the same picture, docs/curves.svg.
"""

import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.search_cost import CORRELATED_EPOCHS, candidates
from nas.cli.terminal import run

FILE = Path(__file__).parent.parent / "docs" / "curves.svg"
BEST = 5


def main() -> int:
    """Draw it: one line a candidate; the best at the end stand out."""
    mpl.rcParams["svg.hashsalt"] = "nas"  # the same file every time
    table = sorted(candidates(), key=lambda row: row.loss[-1])
    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    for rank, row in enumerate(table):
        color, width, layer = ("#0969da", 1.6, 3) if rank < BEST else ("#9aa4af", 0.8, 2)
        axes.plot(range(1, len(row.loss) + 1), row.loss, color=color, linewidth=width, zorder=layer)
    axes.set_yscale("log")
    axes.set_yticks([0.01, 0.02, 0.05, 0.1, 0.2], ["0.01", "0.02", "0.05", "0.1", "0.2"])
    axes.minorticks_off()
    axes.set_xticks([*CORRELATED_EPOCHS, len(table[0].loss)])
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation loss")
    axes.set_title(f"{len(table)} random candidates, none stopped; blue: the {BEST} best at the end", fontsize=10)
    axes.grid(alpha=0.3)
    figure.savefig(FILE, metadata={"Date": None})
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
