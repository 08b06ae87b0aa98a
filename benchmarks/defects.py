"""3,000 good parts and 30 defective ones: what a search finds by accuracy, and what by balanced accuracy.

The parts are made up: grey discs with a hole on a noisy ground; a defective one has a scratch. The test images are 500
of each, so that recalls are known well. Each search is `nas.search` with its defaults but for the trials. Both take
half an hour of two cores together; interrupted, the same command goes on.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

import nas
from nas.cli.options import positive
from nas.cli.terminal import run
from nas.reporting.conclusions import recalls
from nas.space.objective import METRIC_NAMES

GOOD, DEFECTIVE, OF_EACH = 3_000, 30, 500
SIDE, LARGE = 28, 112  # pixels of an image, and of what it is drawn on
CLASSES = ("good", "defect")
TRIALS = 30


def part(rng: np.random.Generator, *, defective: bool) -> NDArray[np.uint8]:
    """A picture (SIDE, SIDE) of a part."""
    ground, light = rng.uniform(20, 60), rng.uniform(130, 200)
    paper = Image.new("L", (LARGE, LARGE), int(ground))
    draw, middle, radius = ImageDraw.Draw(paper), rng.uniform(50, 62, 2), rng.uniform(36, 46)
    draw.ellipse([*(middle - radius), *(middle + radius)], fill=int(light))
    hole = rng.uniform(8, 14)
    draw.ellipse([*(middle - hole), *(middle + hole)], fill=int(ground))
    if defective:
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(14, 24)
        start = middle + rng.uniform(0.5, 0.8) * radius * np.array([np.cos(angle), np.sin(angle)])
        turn = angle + rng.uniform(0.3, 0.7) * np.pi
        end = start + length * np.array([np.cos(turn), np.sin(turn)])
        draw.line([*start, *end], fill=int(light - rng.uniform(45, 70)), width=5)
    small = np.asarray(paper.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=float)
    return (small + rng.normal(0, 6, small.shape)).clip(0, 255).astype(np.uint8)


def parts(seed: int, good: int, defective: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures (N, SIDE, SIDE) and labels (N,): 1 for a defective part."""
    rng, labels = np.random.default_rng(seed), np.repeat([0, 1], [good, defective])
    return np.stack([part(rng, defective=bool(label)) for label in labels]), labels.astype(np.int64)


class Parts:
    """The parts as a data set that names its classes."""

    classes = CLASSES

    def __init__(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        self._pairs = [*zip(pixels, labels.tolist(), strict=True)]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        return self._pairs[place]


def main() -> int:
    """Search, and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.defects", description=__doc__)
    options.add_argument("--trials", type=positive, default=TRIALS, help=f"of each search (default: {TRIALS})")
    options.add_argument("--output-dir", type=Path, default=Path("results/defects"), help="of the studies")
    args = options.parse_args()
    columns = ("metric", "winner", "parameters", "recall of good parts", "recall of defects", "95 %")
    table = Table(*columns, title=f"{GOOD:,} good and {DEFECTIVE} defective parts; {OF_EACH} test images of each")
    data, test = Parts(*parts(0, GOOD, DEFECTIVE)), Parts(*parts(1, OF_EACH, OF_EACH))
    for metric in METRIC_NAMES:
        result = nas.search(
            trials=args.trials,
            data=data,
            test=test,
            input_shape=(1, SIDE, SIDE),
            metric=metric,
            study=metric,
            output_dir=args.output_dir,
        )
        if result.winner is None:
            continue
        of = {row.name: row for row in recalls(result.winner.judged, CLASSES)}
        good, defect = of["good"], of["defect"]
        record = result.winner.record
        shares = f"{100 * defect.low:.1f} to {100 * defect.high:.1f} %"
        table.add_row(
            metric, record.notation, f"{record.params:,}", f"{good.recall:.1%}", f"{defect.recall:.1%}", shares
        )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
