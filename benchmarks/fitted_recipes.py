"""What a recipe that is fitted to the pictures is worth: networks trained by it and by MNIST's, judged on test images.

On each task of `benchmarks.tasks`, searches with seeds of their own find a recipe before their first trial. Then two
random networks are trained by it and by the recipe as it was, on all training images and the same seeds. Where a search
left the recipe as it was there is no difference. A task takes a quarter of an hour of two cores; interrupted, the same
command goes on.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from math import log
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

import nas
from benchmarks.search_quality import mean_and_error
from benchmarks.table import appending, objects
from benchmarks.tasks import Task, colour, dataset_in_this_process, digits, faces, letters, textures
from nas.analysis.recipe_fit import RecipeFit, fit_of
from nas.cli.options import positive
from nas.cli.terminal import run
from nas.datasets.images import take_back
from nas.samplers.drafts import Drafts
from nas.space.recipe_change import UNCHANGED
from nas.space.search_space import SearchSpace
from nas.training.job import TrainingJob
from nas.training.training import Training, evaluate

FILE = Path(__file__).parent / "data" / "fitted_recipes.jsonl"
TASKS: dict[str, Callable[[], Task]] = {
    "faces": faces,
    "digits": digits,
    "letters": letters,
    "textures": textures,
    "colour": colour,
}
SEEDS = 5
NETWORKS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A recipe that was found; losses and errors are those of the test images, by both recipes where they differ."""

    task: str
    seed: int
    change: str
    changed: bool
    tried: str
    trainings: int
    epochs: int
    log_losses: list[tuple[float, float]]  # of each network: as it is, fitted
    errors: list[tuple[float, float]]


def row_of(name: str, seed: int, folder: Path) -> Row:
    """Find a recipe, and train by it and by the usual one."""
    task = TASKS[name]()
    given = task.given
    space = task.space(given).for_few(int((~given.pool.held_out).sum()))
    result = nas.search(
        trials=1,
        data=task.train,
        test=task.test,
        input_shape=task.input_shape,
        seed=seed,
        finalists=0,
        study=f"{name}-{seed}",
        output_dir=folder,
    )
    fit = fit_of(result.history)
    assert fit is not None
    changed = fit.change != UNCHANGED
    scores = [_scores(task, space, fit, seed, number) for number in range(NETWORKS)] if changed else []
    return Row(
        task=name,
        seed=seed,
        change=str(fit.change),
        changed=changed,
        tried=str(fit.tried),
        trainings=fit.trainings,
        epochs=fit.epochs,
        log_losses=[losses for losses, _ in scores],
        errors=[errors for _, errors in scores],
    )


def _scores(
    task: Task, space: SearchSpace, fit: RecipeFit, seed: int, number: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Log losses and errors of a network that no search has seen, by the usual recipe and by the other."""
    given = task.given
    dataset = dataset_in_this_process(given, task.input_shape)
    losses, errors = list[float](), list[float]()
    for of in (space, space.trained_by(fit.change)):
        draft = [*islice(Drafts(of).drawn(random.Random(1_000 + seed)), NETWORKS)][number]
        job = TrainingJob(
            candidate=draft.candidate, constraints=of.constraints, dataset=dataset, seed=seed, hold_out=False
        )
        training = Training(job)
        for epoch in range(1, training.recipe.epochs + 1):
            training.epoch(epoch)
        score = evaluate(training.averaged, given.test, training.data, training.device)
        losses.append(round(log(score.loss), 5))
        errors.append(round(1 - score.accuracy, 5))
    take_back(dataset)
    return (losses[0], losses[1]), (errors[0], errors[1])


def table_of(rows: list[Row]) -> Table:
    """A row for each task; a difference is the mean over the searches, of which those without a change count as 0."""
    columns = ("task", "n", "changed", "epochs of a search for it", "difference of log losses", "difference of errors")
    table = Table(*columns, title="Test images, fitted recipe minus MNIST's; mean ± standard error")
    for name in dict.fromkeys(row.task for row in rows):
        known = [row for row in rows if row.task == name]
        losses, errors = (
            [_difference(of) for of in part] for part in zip(*((r.log_losses, r.errors) for r in known), strict=True)
        )
        table.add_row(
            name,
            str(len(known)),
            str(sum(row.changed for row in known)),
            f"{fmean(row.epochs for row in known):,.0f}",
            mean_and_error(losses, 2) if len(known) > 1 else "",
            f"{mean_and_error([100 * error for error in errors], 2)} points" if len(known) > 1 else "",
        )
    return table


def _difference(pairs: list[tuple[float, float]]) -> float:
    return fmean(after - before for before, after in pairs) if pairs else 0.0


def main() -> int:
    """Search and train what is missing, and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.fitted_recipes", description=__doc__)
    options.add_argument("--seeds", type=positive, default=SEEDS, help=f"searches of each task (default: {SEEDS})")
    options.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="(default: all)")
    options.add_argument("--output-dir", type=Path, default=Path("results/fitted_recipes"), help="of the studies")
    args = options.parse_args()
    rows = [Row(**found) for found in objects(FILE)]
    known = {(row.task, row.seed) for row in rows}
    wanted = [(name, seed) for seed in range(args.seeds) for name in args.tasks if (name, seed) not in known]
    with appending(FILE) as file:
        for name, seed in wanted:
            rows.append(row_of(name, seed, args.output_dir))
            print(json.dumps(asdict(rows[-1])), file=file, flush=True)
    Console().print(table_of(rows))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
