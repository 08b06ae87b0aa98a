"""What cross-validation is worth where images are few: how well scores choose among networks, by how they are found.

Random feasible networks of the MNIST space on few digits and faces of `benchmarks.tasks`. A network is worth the mean
test loss of three trainings on all the training images. It is scored on the sixth that is held out by one training or
by as many as a round has folds, or by one or two rounds of cross-validation. The samples of images are drawn anew. It
takes half an hour of one core.
"""

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from math import log
from statistics import fmean

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.search_quality import mean_and_error
from benchmarks.tasks import Task, dataset_in_this_process, digits, faces
from nas.cli.options import positive
from nas.cli.terminal import run
from nas.datasets.split import HOLDOUT
from nas.samplers.drafts import Drafts
from nas.space.recipe import ROUNDS
from nas.training.job import TrainingJob
from nas.training.training import Training, evaluate, trainings_of

TASKS: dict[str, tuple[Callable[[], Task], int]] = {"digits": (digits, 360), "faces": (faces, 100)}  # images
NETWORKS = 10
SAMPLES = 3
WAYS = ("one sixth", f"one sixth, {HOLDOUT} seeds", "1 round", f"{ROUNDS} rounds")
MODELS = 3  # that say what a network is worth


def sampled(task: Task, images: int, sample: int) -> Task:
    """The task with so many images to train on, drawn anew."""
    pixels, labels = task.train
    chosen = np.random.default_rng(sample).permutation(len(labels))[:images]
    return replace(task, train=(pixels[chosen], labels[chosen]))


def found(task: Task) -> tuple[list[list[float]], list[float]]:
    """The scores of each network in each of the WAYS, and what the networks are worth; logarithms of losses."""
    given = task.given
    dataset = dataset_in_this_process(given, task.input_shape, ROUNDS)
    space = task.space(given).for_few(len(given.train))
    drafts = [*islice(Drafts(space).drawn(random.Random(0)), NETWORKS)]
    jobs = [
        TrainingJob(candidate=draft.candidate, constraints=space.constraints, dataset=dataset, seed=number)
        for number, draft in enumerate(drafts)
    ]
    return [_scores(job) for job in jobs], [_worth(job, task) for job in jobs]


def _scores(job: TrainingJob) -> list[float]:
    seeds = range(1_000 * (1 + job.seed), 1_000 * (1 + job.seed) + HOLDOUT - 1)
    folds = [_loss(training) for training in trainings_of(job)]
    repeats = [_loss(Training(replace(job, seed=seed))) for seed in seeds]
    ways = folds[:1], [folds[0], *repeats], folds[:HOLDOUT], folds
    return [log(fmean(losses)) for losses in ways]


def _worth(job: TrainingJob, task: Task) -> float:
    test, losses = task.given.test, list[float]()
    for seed in range(MODELS):
        training = Training(replace(job, seed=seed, hold_out=False))
        _loss(training)
        losses.append(evaluate(training.averaged, test, training.data, training.device).loss)
    return log(fmean(losses))


def _loss(training: Training) -> float:
    """On the images that are held out, after the last epoch; 0 where none are."""
    *_, (_, score) = (training.epoch(epoch) for epoch in range(1, training.recipe.epochs + 1))
    return score.loss if score else 0.0


def rows_of(name: str, samples: int) -> list[tuple[str, ...]]:
    """A row for each way: rank correlation with what networks are worth, and what the chosen one lacks of the best."""
    make, images = TASKS[name]
    known = [found(sampled(make(), images, sample)) for sample in range(samples)]
    rows = list[tuple[str, ...]]()
    for place, way in enumerate(WAYS):
        rows.append((name, way, *_judged([([of[place] for of in scores], worth) for scores, worth in known])))
    return rows


def _judged(samples: Sequence[tuple[Sequence[float], Sequence[float]]]) -> tuple[str, str]:
    ranks = [float(spearmanr(scores, worth).statistic) for scores, worth in samples]
    lacking = [worth[int(np.argmin(scores))] - min(worth) for scores, worth in samples]
    return mean_and_error(ranks, 2), mean_and_error(lacking, 3)


def main() -> int:
    """Train, and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.cross_validation", description=__doc__)
    options.add_argument("--samples", type=positive, default=SAMPLES, help=f"of images (default: {SAMPLES})")
    options.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="(default: all)")
    args = options.parse_args()
    columns = ("task", "scored by", "rank correlation", "log loss above the best")
    table = Table(*columns, title=f"{NETWORKS} networks, {args.samples} samples of images; mean ± standard error")
    for name in args.tasks:
        for row in rows_of(name, args.samples):
            table.add_row(*row)
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
