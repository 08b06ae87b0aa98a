"""Before a search of other pictures than the recipe was made for: trainings that say which recipe fits them."""

from collections.abc import Sequence

import optuna

from nas.analysis.recipe_fit import TRAININGS, RecipeFit, first_runs, fit_of, further_runs, promising
from nas.datasets.dataset import Dataset, for_recipes
from nas.datasets.images import load_training
from nas.errors import UserError
from nas.network.architecture import Architecture
from nas.space.rejections import MAX_PROPOSALS, probe
from nas.space.search_space import SearchSpace
from nas.study.history import History
from nas.study.location import StudyLocation
from nas.study.runs import Run
from nas.tuner.progress import Show
from nas.tuner.reruns import train_runs
from nas.tuner.trials import Plan

SIZES = (1 / 3, 2 / 3)  # of the feasible draws in order of MACs: the networks that are trained


def recipe_epochs(space: SearchSpace, dataset: Dataset) -> float:
    """What the trainings take at most, in epochs of a trial."""
    if not space.fit_recipe:
        return 0
    own, small = (sum(len(fold.train) for fold in load_training(of).folds) for of in (dataset, for_recipes(dataset)))
    return len(SIZES) * TRAININGS * space.recipe.epochs * small / own


def networks_of(space: SearchSpace, seed: int) -> list[Architecture]:
    """The networks that are trained, of which at least one is feasible."""
    feasible, _ = probe(space, seed, draws=MAX_PROPOSALS, until_feasible=False)
    by_cost = sorted(feasible, key=lambda found: found.cost.macs)
    chosen = [by_cost[int(size * len(by_cost))].candidate.architecture for size in SIZES]
    return [*dict.fromkeys(chosen)]


def fit_recipe(
    study: optuna.Study, location: StudyLocation, history: History, space: SearchSpace, plan: Plan, show: Show
) -> tuple[History, RecipeFit]:
    """Train what is missing; the history with it, and what it says, which stands as soon as there are trials."""
    if history.trials and (found := fit_of(history)) is not None:
        return history, found
    networks = networks_of(space, plan.seed)

    def train(history: History, wanted: Sequence[Run], title: str) -> History:
        settled = {run.key for run in history.runs if run.settled}
        if settled >= {run.key for run in wanted}:
            return history
        return train_runs(study, location, history, wanted, plan, show, title)

    first = first_runs(networks, space.recipe, plan.seed)
    history = train(history, first, f"which recipe fits the pictures: {len(first)} trainings")
    change = promising(history.runs, plan.seed)
    further = further_runs(networks, space.recipe, change, plan.seed)
    history = train(history, further, f"{change}: compared with the recipe as it is on fresh seeds")
    found = fit_of(history)
    if found is None:
        raise UserError("the trainings that find the recipe were left before their end; the same call goes on")
    return history, found
