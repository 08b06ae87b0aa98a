"""What smaller batches are worth where images are few: networks trained by both recipes, judged on test images.

Random feasible networks of the MNIST space on faces and on digits of `benchmarks.tasks`, of which only some are trained
on. Both recipes have the same networks and seeds. It takes some minutes of one core.
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from math import log
from statistics import fmean

from rich.console import Console
from rich.table import Table

from benchmarks.search_quality import mean_and_error
from benchmarks.tasks import Task, dataset_in_this_process, digits, faces
from nas.cli.options import positive
from nas.cli.terminal import run
from nas.datasets.images import take_back
from nas.samplers.drafts import Drafts
from nas.space.recipe import Recipe
from nas.training.job import TrainingJob
from nas.training.score import Score
from nas.training.training import Training, evaluate

NETWORKS = 3
SEEDS = 5
TASKS: dict[str, tuple[Callable[[], Task], int]] = {  # and how many images there are to train on and to validate with
    "faces": (faces, 133),
    "digits": (digits, 360),
    "more digits": (digits, 1_198),
}


def scores(task: Task, change: Callable[[Recipe], Recipe], seeds: int) -> Iterator[Score]:
    """What each network with each seed comes to on the test images."""
    given = task.given
    space, dataset = task.space(given), dataset_in_this_process(given, task.input_shape)
    for draft in islice(Drafts(space).drawn(random.Random(0)), NETWORKS):
        candidate = replace(draft.candidate, recipe=change(draft.candidate.recipe))
        for seed in range(seeds):
            job = TrainingJob(candidate=candidate, constraints=space.constraints, dataset=dataset, seed=seed)
            training = Training(job)
            for epoch in range(1, training.recipe.epochs + 1):
                training.epoch(epoch)
            yield evaluate(training.averaged, given.test, training.data, training.device)
    take_back(dataset)


def row_of(make: Callable[[], Task], images: int, seeds: int) -> tuple[str, ...]:
    """Errors by both recipes, and the mean difference of log losses."""
    whole = make()
    task = replace(whole, train=(whole.train[0][:images], whole.train[1][:images]))
    trained_on = images - -(-images // 6)
    recipe = Recipe().for_few(trained_on)
    usual, smaller = (
        [*scores(task, change, seeds)] for change in (lambda recipe: recipe, lambda recipe: recipe.for_few(trained_on))
    )
    changes = [log(b.loss / a.loss) for a, b in zip(usual, smaller, strict=True)]
    errors = [f"{100 * (1 - fmean(score.accuracy for score in of)):.2f} %" for of in (usual, smaller)]
    return f"{trained_on:,}", str(recipe.batch_size), str(len(usual)), *errors, mean_and_error(changes, 2)


def main() -> int:
    """Train, and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.few_images", description=__doc__)
    options.add_argument("--seeds", type=positive, default=SEEDS, help=f"of each network (default: {SEEDS})")
    args = options.parse_args()
    batch = Recipe().batch_size
    columns = ("task", "trained on", "batches of", "n", f"errors with {batch}", "errors", "difference of log losses")
    table = Table(*columns, title="Test images, after the last epoch")
    for name, (make, images) in TASKS.items():
        table.add_row(name, *row_of(make, images, args.seeds))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
