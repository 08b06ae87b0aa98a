"""Whether losses go with what the default sampler expects before it knows any, on tasks that are not MNIST.

Random feasible networks of the MNIST space are trained to the end on each of `benchmarks.tasks`. Printed is how the
logarithm of the last loss goes with the expectation, and with the parameters alone: 1 where they rank them alike. A
network takes some seconds of one core; those that are trained already, in `data/slopes.jsonl`, are not trained again.
"""

import argparse
import itertools
import json
import random
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.table import appending, objects
from benchmarks.tasks import TASKS, Task, dataset_in_this_process
from nas.cli.options import positive
from nas.cli.terminal import run
from nas.datasets.images import take_back
from nas.network.features import features
from nas.samplers.description import SLOPES
from nas.samplers.drafts import Drafts
from nas.space.candidate import Candidate
from nas.space.seeds import derive_seed
from nas.training.job import TrainingJob
from nas.training.training import Training, evaluate

FILE = Path(__file__).parent / "data" / "slopes.jsonl"
NETWORKS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A network of a task, trained to the end."""

    task: str
    number: int
    features: dict[str, float]  # those that something is expected of
    val_loss: float
    test_loss: float


def trained(name: str, task: Task, numbers: Iterable[int]) -> Iterable[Row]:
    """Train the networks of these numbers."""
    given = task.given
    space, dataset = task.space(given), dataset_in_this_process(given, task.input_shape)
    for number in numbers:
        draft = next(Drafts(space).drawn(random.Random(derive_seed("slopes", name, number))))
        job = TrainingJob(candidate=draft.candidate, constraints=space.constraints, dataset=dataset, seed=number)
        training = Training(job)
        *_, (_, last) = (training.epoch(epoch) for epoch in range(1, training.recipe.epochs + 1))
        assert last is not None
        score = evaluate(training.averaged, given.test, training.data, training.device)
        yield Row(
            task=name,
            number=number,
            features=_expected_of(draft.candidate),
            val_loss=round(last.loss, 5),
            test_loss=round(score.loss, 5),
        )
    take_back(dataset)


def _expected_of(candidate: Candidate) -> dict[str, float]:
    known = features(candidate.architecture)
    return {name: round(known.get(name, 0.0), 5) for name in SLOPES}


def load() -> list[Row]:
    """The networks that are trained already."""
    return [Row(**found) for found in objects(FILE)]


def table_of(rows: Iterable[Row]) -> Table:
    """Correlations, by task."""
    title = "How log losses go with what is expected: correlations"
    columns = ("task", "networks", "validation", "by parameters alone", "test", "by parameters alone")
    table = Table(*columns, title=title)
    for task, of in itertools.groupby(sorted(rows, key=lambda row: row.task), lambda row: row.task):
        several = [*of]
        expected = [sum(SLOPES[name] * value for name, value in row.features.items()) for row in several]
        size = [-row.features["log parameters"] for row in several]
        losses = [[log(row.val_loss) for row in several], [log(row.test_loss) for row in several]]
        told = [np.corrcoef(by, loss)[0, 1] for loss in losses for by in (expected, size)]
        table.add_row(task, str(len(several)), *(f"{r:.2f}" for r in told))
    return table


def main() -> int:
    """Train what is missing, and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.slopes", description=__doc__)
    options.add_argument("--networks", type=positive, default=NETWORKS, help=f"of each task (default: {NETWORKS})")
    args = options.parse_args()
    known = {(row.task, row.number) for row in load()}
    with appending(FILE) as file:
        for name, make in TASKS.items():
            missing = [number for number in range(args.networks) if (name, number) not in known]
            for row in trained(name, make(), missing) if missing else ():
                print(json.dumps(asdict(row)), file=file, flush=True)
    Console().print(table_of(load()))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
