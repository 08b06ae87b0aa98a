"""The recipe that fits the pictures: what is tried, what decides, and a search that finds it before its first trial."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import MNIST, small_architecture
from optuna.trial import TrialState

import nas
from nas.analysis.finalists import fresh_seeds
from nas.analysis.recipe_fit import CONFIRMATIONS, TRAININGS, first_runs, fit_of, further_runs, promising
from nas.api.result import Result
from nas.datasets.split import Images, Pool, at_most, drawn_pool
from nas.errors import UserError
from nas.network.architecture import Architecture
from nas.network.limits import Constraints
from nas.space.recipe import Augmentation, Recipe
from nas.space.recipe_change import GROUPS, UNCHANGED, RecipeChange, combined
from nas.study.curves import Epoch
from nas.study.history import History
from nas.study.runs import Run, RunRecord
from nas.study.settings import Task

SEED = 5
NETWORKS = [small_architecture(4), small_architecture(8)]
FLIP, OVER = RecipeChange(horizontal_flip=True), RecipeChange(vertical_flip=True)
STILL, HALF = RecipeChange(strength=0.0), RecipeChange(strength=0.5)


def record(run: Run, log_loss: float | None) -> RunRecord:
    """A run that ended with this logarithm of its loss; None: it diverged."""
    loss = math.nan if log_loss is None else math.exp(log_loss)
    return RunRecord(
        number=0,
        state=TrialState.FAIL if log_loss is None else TrialState.COMPLETE,
        candidate=run.candidate,
        params=1,
        macs=1,
        seed=run.seed,
        curve=() if log_loss is None else (Epoch(epoch=1, val_accuracy=0.5, val_loss=loss),),
        seconds=1.0,
        environment={},
        reason="diverged" if log_loss is None else "",
        run=run,
        test=None,
    )


def history_of(runs: list[RunRecord]) -> History:
    return History(
        name="a",
        settings={"dataset": "mnist", "metric": "accuracy", "cross_validation": 0, "seed": SEED},
        constraints=Constraints(),
        task=Task(target=None, baseline=None),
        commands=(),
        trials=(),
        runs=tuple(runs),
        choice=None,
        test_scores={},
    )


def first_round(gains: dict[RecipeChange, tuple[float, float]]) -> list[RunRecord]:
    """Trainings of two networks that end at -1 and -2, but for these changes at so much less."""
    told = {str(change): dict(zip(NETWORKS, of, strict=True)) for change, of in gains.items()}
    usual = dict(zip(NETWORKS, (-1.0, -2.0), strict=True))
    runs = first_runs(NETWORKS, Recipe(), SEED)
    return [record(run, usual[_of(run)] - told.get(run.change, {}).get(_of(run), 0.0)) for run in runs]


def _of(run: Run) -> Architecture:
    return run.candidate.architecture


def second_round(change: RecipeChange, gains: tuple[float, ...]) -> list[RunRecord]:
    """Trainings on fresh seeds, those with the change at so much less."""
    left = iter(gains)
    runs = further_runs(NETWORKS, Recipe(), change, SEED)
    return [record(run, -1.0 - (next(left) if run.change == str(change) else 0.0)) for run in runs]


def test_a_change_is_what_its_text_says() -> None:
    usual = Recipe()
    change = combined([FLIP, RecipeChange(strength=0.5), RecipeChange(rate=2.0), RecipeChange(decay=0.25)])
    assert str(change) == (
        "mirrored left to right; half the augmentation; twice the learning rate; a quarter of the weight decay"
    )
    assert change(usual) == replace(
        usual,
        learning_rate=0.2,
        weight_decay=1.25e-4,
        augmentation=Augmentation(rotation=5, shift=1, scale=0.05, shear=0.1, horizontal_flip=True),
    )
    assert UNCHANGED(usual) == usual
    assert str(UNCHANGED) == "as it is"
    large = replace(usual, augmentation=Augmentation(scale=0.7, vertical_flip=True))
    twice = RecipeChange(strength=2.0)(large).augmentation
    assert (twice.scale, twice.vertical_flip) == (0.9, True), "a scale of 1 would leave nothing of an image"
    singles = [change for group in GROUPS for change in group]
    assert len({str(change) for change in singles}) == len({change(usual) for change in singles}) == 9


def test_every_change_is_tried_on_both_networks_and_the_total_is_known() -> None:
    first, further = first_runs(NETWORKS, Recipe(), SEED), further_runs(NETWORKS, Recipe(), FLIP, SEED)
    assert (len(first), len({run.key for run in first})) == (20, 20)
    assert (len(further), len({run.key for run in further})) == (8, 8)
    assert len(first) + len(further) == len(NETWORKS) * TRAININGS
    seeds = fresh_seeds("recipe", 1 + CONFIRMATIONS, SEED)
    assert ({run.seed for run in first}, {run.seed for run in further}) == ({seeds[0]}, {*seeds[1:]})
    assert further_runs(NETWORKS, Recipe(), UNCHANGED, SEED) == []


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ({}, UNCHANGED),
        ({FLIP: (0.2, 0.1)}, FLIP),
        ({FLIP: (0.5, -0.01)}, UNCHANGED),  # one network is worse
        ({FLIP: (0.06, 0.03)}, UNCHANGED),  # what seeds do
        ({STILL: (0.2, 0.2), HALF: (0.1, 0.4)}, HALF),  # the better one
        ({STILL: (0.2, 0.2), FLIP: (0.1, 0.1)}, combined([FLIP, STILL])),  # both
        ({FLIP: (0.2, 0.2), OVER: (0.2, 0.2)}, combined([FLIP, OVER])),
    ],
)
def test_what_makes_both_networks_better_is_promising(
    gains: dict[RecipeChange, tuple[float, float]], expected: RecipeChange
) -> None:
    assert promising(first_round(gains), SEED) == expected


def test_a_recipe_that_has_a_change_already_is_not_tried_twice() -> None:
    """The recipe as it is keeps its trainings, for everything is compared with them."""
    mirrored = Recipe(augmentation=Augmentation(horizontal_flip=True), weight_decay=0)
    runs = first_runs(NETWORKS, mirrored, SEED)
    assert [run.change for run in runs][:2] == ["as it is", "as it is"]
    assert len({run.key for run in runs}) == len(runs) == 2 * (1 + 9 - 1 - 2)
    assert str(FLIP) not in {run.change for run in runs}
    nothing = Recipe(augmentation=Augmentation(rotation=0, shift=0, scale=0, shear=0))
    assert len(first_runs(NETWORKS, nothing, SEED)) == 2 * (1 + 9 - 3)
    heavy = Recipe(weight_decay=0.5, augmentation=Augmentation(scale=0.95))
    assert all(run.candidate.recipe.weight_decay < 1 for run in first_runs(NETWORKS, heavy, SEED))
    assert UNCHANGED(heavy) == heavy


def test_a_recipe_is_tried_on_some_images_wherever_the_run_is_trained() -> None:
    """Also when `nas retrain` repeats it."""
    dataset = replace(MNIST, cross_validation=2)
    job = first_runs(NETWORKS, Recipe(), SEED)[0].job(Constraints(max_params=1), dataset)
    assert job.dataset == replace(MNIST, cross_validation=1, at_most=5_000)
    assert job.constraints == Constraints()
    final = Run(stage="final", trial=1, candidate=job.candidate, seed=1).job(Constraints(), dataset)
    assert final.dataset == dataset


def test_a_stage_that_has_not_ended_says_nothing() -> None:
    runs = first_round({FLIP: (0.2, 0.2)})
    assert fit_of(history_of(runs)) is None, "the fresh seeds are still to come"
    assert fit_of(history_of([*runs, replace(runs[0], state=TrialState.RUNNING)])) is None


def test_trainings_that_diverged_speak_for_nothing() -> None:
    runs = first_round({FLIP: (0.2, 0.2)})
    lost = [record(run.run, None) if run.change == str(FLIP) and _of(run.run) is NETWORKS[0] else run for run in runs]
    assert promising(lost, SEED) == UNCHANGED
    no_base = [record(run.run, None) if run.change == "as it is" else run for run in runs]
    assert promising(no_base, SEED) == UNCHANGED


@pytest.mark.parametrize(
    ("gains", "change", "said"),
    [
        ((0.2, 0.3, 0.1, 0.2), FLIP, ": mirrored left to right (log loss -0.20 ± 0.04 on fresh seeds, n = 4)."),
        (
            (0.4, -0.3, 0.1, 0.2),
            UNCHANGED,
            ": as it is, for another (mirrored left to right) was not better beyond chance (log loss -0.10 ± 0.15 on "
            "fresh seeds, n = 4).",
        ),
        ((-0.2, -0.4, -0.2, -0.4), UNCHANGED, "not better beyond chance (log loss +0.30 ± 0.06"),
    ],
)
def test_fresh_seeds_decide(gains: tuple[float, ...], change: RecipeChange, said: str) -> None:
    found = fit_of(history_of([*first_round({FLIP: (0.2, 0.2)}), *second_round(FLIP, gains)]))
    assert found is not None
    assert (found.change, found.tried, found.trainings, found.epochs) == (change, FLIP, 28, 28)
    assert str(found).startswith("Recipe, from 28 trainings, 28 epochs in all: ")
    assert said in str(found)


def test_without_trainings_or_with_lost_ones_nothing_changes() -> None:
    assert fit_of(history_of([])) is None
    nothing = fit_of(history_of(first_round({})))
    assert nothing is not None
    assert str(nothing).endswith(": as it is, for no change was better for both of two networks.")
    lost = [record(run.run, None) for run in second_round(FLIP, (0.2, 0.2, 0.2, 0.2))]
    found = fit_of(history_of([*first_round({FLIP: (0.2, 0.2)}), *lost]))
    assert found is not None
    assert found.change == UNCHANGED
    assert str(found).endswith("too few of the trainings on fresh seeds came to their end.")


def test_some_of_many_images_are_shared_among_classes_and_parts() -> None:
    labels = torch.arange(1_200) % 4
    images = Images(images=torch.arange(1_200).view(-1, 1, 1, 1), labels=labels)
    pool = drawn_pool(images, tuple("abcd"))
    assert at_most(pool, 0) is pool
    assert at_most(pool, 1_200) is pool
    few = at_most(pool, 400)
    assert torch.bincount(few.images.labels).tolist() == [101, 101, 100, 99]
    assert torch.bincount(few.images.labels[torch.from_numpy(few.held_out)]).tolist() == [17, 17, 17, 16]
    held_out = {*images.images[torch.from_numpy(pool.held_out)].flatten().tolist()}
    assert {*few.images.images[torch.from_numpy(few.held_out)].flatten().tolist()} < held_out


def test_rare_classes_and_few_validation_images_are_used_whole() -> None:
    labels = torch.from_numpy(np.repeat([0, 1, 0, 1], [6_000, 25, 20, 20]))
    pixels = torch.zeros((len(labels), 1, 1, 1), dtype=torch.uint8)
    own = np.arange(len(labels)) >= 6_025
    groups = np.arange(len(labels)) // 600  # large ones, which need not stay whole within a part
    pool = Pool(
        images=Images(images=pixels, labels=labels), held_out=own, classes=("a", "b"), drawn=False, groups=groups
    )
    few = at_most(pool, 2_000)
    assert few.groups is not None
    assert len(few.groups) == len(few.images)
    train, judged = (
        torch.bincount(few.images.labels[torch.from_numpy(part)]).tolist() for part in (~few.held_out, few.held_out)
    )
    assert (train, judged) == ([1_500, 25], [20, 20])


def columns(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes: a bright column, and one two pixels to the right of it. Shifted images are of either."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    pixels = rng.integers(0, 60, (count, 1, 16, 16), dtype=np.uint8)
    pixels[np.arange(count), 0, :, 6 + 2 * labels] = 255
    return torch.from_numpy(pixels), torch.from_numpy(labels)


def test_a_search_finds_that_nothing_may_be_shifted(tmp_path: Path, one_thread: None) -> None:
    said, titles = list[str](), list[str]()

    def show(events: Iterator[object], title: str) -> None:
        titles.append(title)
        said.extend(type(event).__name__ for event in events)

    def searched(trials: int, *, fit_recipe: bool | None = None) -> Result:
        return nas.search(
            trials=trials,
            data=columns(240),
            input_shape=(1, 16, 16),
            cross_validation=0,
            fit_recipe=fit_recipe,
            epochs=4,
            finalists=0,
            study="columns",
            output_dir=tmp_path,
            progress=show,
        )

    result = searched(1)
    fit = fit_of(result.history)
    assert fit is not None
    assert fit.change.strength < 1, fit
    assert len(titles) == 3
    assert "which recipe fits the pictures: 20 trainings" in titles[0]
    trained = result.history.trials[0].candidate.recipe
    assert trained == fit.change(trained.__class__(epochs=4, batch_size=16, learning_rate=0.05))
    page = (tmp_path / "columns" / "report.html").read_text()
    assert "flip ±" not in page
    assert ("horizontal flip" in page) == fit.change.horizontal_flip
    summary = " ".join((tmp_path / "columns" / "best" / "summary.txt").read_text().split())
    assert str(fit) in summary
    titles.clear()
    again = searched(2)
    assert len(titles) == 1, "what was trained is not trained again"
    assert [trial.candidate.recipe for trial in again.history.trials] == [trained, trained]
    assert len(again.history.runs_of("recipe")) == fit.trainings
    with pytest.raises(UserError, match="fit_recipe was true and is false; use the old ones"):
        searched(2, fit_recipe=False)


def test_a_space_is_fitted_where_it_is_moved_to_other_pictures() -> None:
    space = nas.load_space("mnist")
    moved = space.on("elsewhere", (1, 28, 28), 3)
    assert (space.fit_recipe, moved.fit_recipe) == (False, True)
    preview = nas.preview(data=columns(240), input_shape=(1, 16, 16), epochs=2, trials=1)
    plain = nas.preview(data=columns(240), input_shape=(1, 16, 16), epochs=2, trials=1, fit_recipe=False)
    assert preview.recipe_seconds > 0
    assert plain.recipe_seconds == 0
    assert "finding the recipe takes " in repr(preview)
    assert "recipe" not in repr(plain)
    with pytest.raises(UserError, match="SearchSpace: fit_recipe 1 must be"):
        replace(space, fit_recipe=1)  # type: ignore[arg-type]
