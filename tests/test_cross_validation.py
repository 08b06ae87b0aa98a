"""Cross-validation: every image is held out in turn, and a candidate is as many networks, from the data to the page."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SHAPE, small_architecture, write_mnist_folder
from hypothesis import given
from hypothesis import strategies as st

import nas
from nas.api.result import Result
from nas.datasets.dataset import Dataset
from nas.datasets.images import TrainingData, forget, load_training, training_data, training_pool
from nas.datasets.metrics import ACCURACY, BALANCED_ACCURACY
from nas.datasets.split import Images, Pool, drawn_pool, stratified_folds, stratified_sixth
from nas.errors import UserError
from nas.network.architecture import Architecture
from nas.network.layers import Head
from nas.network.limits import Constraints
from nas.network.module import build
from nas.space.candidate import Candidate
from nas.space.recipe import Recipe
from nas.training.job import EpochReport, TrainingJob
from nas.training.score import Mistake, Score, pooled
from nas.training.training import Training, evaluate, train

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGES = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    yield write_mnist_folder(tmp_path_factory.mktemp("mnist"), train=IMAGES, test=120)
    forget()


def job_on(dataset: Dataset, *, dropout: float = 0.1) -> TrainingJob:
    candidate = Candidate(architecture=small_architecture(dropout=dropout), recipe=Recipe(epochs=2, batch_size=16))
    return TrainingJob(candidate=candidate, constraints=Constraints(), dataset=dataset, seed=1)


def without_seconds(reports: Iterator[EpochReport]) -> list[EpochReport]:
    return [replace(report, seconds=0.0) for report in reports]


@given(st.lists(st.integers(0, 3), min_size=12, max_size=80), st.booleans(), st.integers(0, 3))
def test_every_image_is_in_one_fold_with_its_group_and_classes_are_shared_out(
    drawn: list[int], grouped: bool, seed: int
) -> None:
    labels = np.array(drawn, dtype=np.int64)
    groups = np.array([i // 2 if i % 5 == 0 else i // 3 + 100 for i in range(len(labels))]) if grouped else None
    folds = stratified_folds(labels, groups, seed)
    assert (np.sum(folds, axis=0) == 1).all()
    if groups is None:
        sizes = [int(fold.sum()) for fold in folds]
        assert len(folds) == 6
        assert max(sizes) - min(sizes) <= 1
        for label in set(drawn):
            counts = [int((labels[fold] == label).sum()) for fold in folds]
            assert max(counts) - min(counts) <= 2
    else:
        assert all(set(groups[fold]).isdisjoint(groups[~fold]) for fold in folds)


def test_the_first_fold_is_what_is_held_out_without_cross_validation(folder: Dataset) -> None:
    pool = training_pool(folder)
    once, twice = (training_data(pool, hold_out=True, rounds=rounds) for rounds in (0, 2))
    assert torch.equal(once.validation.images, twice.validation.images)
    assert (len(once.folds), len(twice.folds)) == (1, 12)
    held_out = stratified_sixth(pool.images.labels.numpy(), pool.groups)
    assert np.array_equal(stratified_folds(pool.images.labels.numpy(), pool.groups, 0)[0], held_out)
    first, second = ({fold.validation.images.numpy().tobytes() for fold in part} for part in halves(twice))
    assert first.isdisjoint(second), "each round cuts the images elsewhere"


def halves(data: TrainingData) -> tuple[tuple[TrainingData, ...], tuple[TrainingData, ...]]:
    return data.folds[:6], data.folds[6:]


def test_every_image_judges_once_a_round_and_counts_once() -> None:
    labels = torch.arange(60) % 4
    pool = drawn_pool(
        Images(images=torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1), labels=labels), tuple("abcd")
    )
    data = training_data(pool, BALANCED_ACCURACY, hold_out=True, rounds=2)
    judged = sorted(int(pixel) for fold in data.folds for pixel in fold.validation.images.flatten())
    assert judged == sorted([*range(60), *range(60)])
    assert (data.evaluation.counts, data.evaluation.metric) == ((15, 15, 15, 15), BALANCED_ACCURACY)
    assert all(len(fold.train) + len(fold.validation) == 60 for fold in data.folds)
    assert len(training_data(pool, hold_out=False, rounds=2).folds) == 1, "final models see all images"


def test_copies_and_groups_of_files_are_in_one_fold(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    write_mnist_folder(tmp_path / "photos", train=240, test=120)
    paths = sorted((tmp_path / "photos" / "train").rglob("*.png"))
    lines = [f"{path},{path.parent.name},g{i // 2}" for i, path in enumerate(paths)]
    table.write_text("path,label,group\n" + "\n".join(lines))
    dataset = Dataset(name=str(table), input_shape=SHAPE, data_dir=str(tmp_path / "kept"), cross_validation=3)
    pool = training_pool(dataset)
    assert pool.groups is not None
    assert len(np.unique(pool.groups)) <= len(pool.images) / 2 + 1
    for fold in load_training(dataset).folds:
        held_out = {image.numpy().tobytes() for image in fold.validation.images}
        mask = np.array([image.numpy().tobytes() in held_out for image in pool.images.images])
        assert set(pool.groups[mask]).isdisjoint(pool.groups[~mask])


def test_scores_of_folds_are_pooled() -> None:
    """As if one network had answered all images: the rare class of the second fold counts for its images."""
    # balanced losses are parts of a sum: each is weighted by the images of all folds
    one = Score(loss=0.2, accuracy=0.75, n=4, counts=(3, 1), mistakes=(Mistake(0, 0, 1),))
    other = Score(loss=0.5, accuracy=0.5, n=2, counts=(1, 1), mistakes=(Mistake(1, 1, 0),))
    both = pooled([one, other], ACCURACY, 1)
    assert both is not None
    assert replace(both, loss=0.3) == Score(loss=0.3, accuracy=4 / 6, n=6, counts=(4, 2))
    assert both.loss == pytest.approx(0.3)
    balanced = pooled([one, other], BALANCED_ACCURACY, 1)
    assert balanced is not None
    assert balanced.accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert balanced.loss == pytest.approx(0.7)
    assert pooled([one], ACCURACY, 0) is one
    assert pooled([], ACCURACY, 0) is None


def test_a_candidate_is_trained_on_every_fold_and_its_first_network_is_the_usual_one(folder: Dataset) -> None:
    job = job_on(folder, dropout=0.0)
    crossed = replace(job, dataset=replace(folder, cross_validation=1))
    reports, usual = without_seconds(train(crossed)), without_seconds(train(job))
    assert reports == without_seconds(train(crossed))
    assert [report.weights for report in reports] == [report.weights for report in usual]
    assert reports[-1].val_loss != usual[-1].val_loss
    data = load_training(crossed.dataset)
    alone = [Training(replace(job, seed=seed), fold) for seed, fold in zip(range(6), data.folds, strict=True)]
    scores = [[training.epoch(1), training.epoch(2)][-1][1] for training in alone]
    losses = [score.loss for score in scores if score]
    assert min(losses) < (reports[-1].val_loss or 0) < max(losses), "it is a mean of such"
    final = replace(crossed, hold_out=False)
    assert [*train(final)][-1].val_loss is None


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_balanced_loss_of_folds_is_that_of_all_their_answers(rounds: int) -> None:
    """Also where a fold has no image of a class: the mean over the classes of the losses of their images."""
    counts, rng = (20, 4), np.random.default_rng(0)
    labels = np.repeat([0, 1], counts)
    images = Images(
        images=torch.from_numpy(rng.integers(0, 255, (24, 1, 8, 8), dtype=np.uint8)), labels=torch.from_numpy(labels)
    )
    groups = np.where(labels == 1, 0, np.arange(24))  # all of the rare class are in one fold
    pool = Pool(images=images, held_out=np.arange(24) < 4, classes=("a", "b"), groups=groups)
    data = training_data(pool, BALANCED_ACCURACY, hold_out=True, rounds=rounds)
    network = build(Architecture(input_shape=(1, 8, 8), num_classes=2, layers=(), head=Head()))
    same = [replace(fold, mean=(0.5,), std=(0.5,)) for fold in data.folds]  # so that one network answers all alike
    parts = [evaluate(network, fold.validation, fold, torch.device("cpu"), fold.of_all) for fold in same]
    whole = evaluate(network, images, same[0], torch.device("cpu"))
    both = pooled(parts, BALANCED_ACCURACY, rounds)
    assert both is not None
    assert both.loss == pytest.approx(whole.loss)
    assert both.accuracy == pytest.approx(whole.accuracy)


def test_groups_of_different_sizes_are_cut_anew_in_each_round() -> None:
    sizes = [*range(5, 65, 3)]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.arange(len(groups)) % 2
    cuts = [{fold.tobytes() for fold in stratified_folds(labels, groups, seed)} for seed in range(3)]
    assert cuts[0] != cuts[1] != cuts[2] != cuts[0]
    for seed in range(3):
        counts = [int(fold.sum()) for fold in stratified_folds(labels, groups, seed)]
        assert max(counts) < 2 * min(counts)


def test_own_validation_images_are_not_drawn_again() -> None:
    images = Images(images=torch.zeros((12, 1, 1, 1), dtype=torch.uint8), labels=torch.arange(12) % 2)
    pool = Pool(images=images, held_out=np.arange(12) > 9, classes=("a", "b"), drawn=False)
    message = "^cross-validation 2: the data says which images are for validation, so that none are to be drawn in turn"
    with pytest.raises(UserError, match=message):
        training_data(pool, hold_out=True, rounds=2)


def test_a_search_of_few_images_says_how_they_judge_and_resumes(tmp_path: Path) -> None:
    pixels = torch.tensor(np.random.default_rng(0).integers(0, 255, (90, 1, 16, 16)), dtype=torch.uint8)
    labels = torch.arange(90) % 3
    pixels[labels == 1, :, :8] //= 4
    pixels[labels == 2, :, :, :8] //= 4
    said = list[str]()

    def show(events: Iterator[object], title: str) -> None:
        said.append(title)
        for _ in events:
            pass

    def searched(study: str, trials: int, rounds: int | None = None) -> Result:
        return nas.search(
            trials=trials,
            data=(pixels, labels),
            input_shape=(1, 16, 16),
            cross_validation=rounds,
            fit_recipe=False,
            epochs=2,
            final_seeds=2,
            jobs=1,  # two that are trained together stop each other in the order of their reports
            study=study,
            output_dir=tmp_path,
            progress=show,
        )

    searched("few", 1)
    went_on, at_once = searched("few", 2), searched("at-once", 2)
    assert [[epoch.val_loss for epoch in trial.curve] for trial in went_on.history.trials] == [
        [epoch.val_loss for epoch in trial.curve] for trial in at_once.history.trials
    ]
    assert "cross-validation, 2 times" in said[0]
    summary = " ".join((tmp_path / "few" / "best" / "summary.txt").read_text().split())
    assert "epochs of all networks of cross-validation" in summary
    assert (
        "12 networks, each trained on 62 images or about as many and judged on the other 13, so that each of 75 images "
        "judges 2. Test: trained on all 75" in summary
    )
    source = " ".join((tmp_path / "few" / "best" / "model.py").read_text().split())
    assert "n = 1, 75 images by cross-validation with 12 networks" in source.replace("\xa0", " ")
    page = (tmp_path / "few" / "report.html").read_text()
    assert "75 training images; a candidate is 12 networks" in page
    with pytest.raises(UserError, match="cross_validation was 2 and is 0"):
        searched("few", 2, rounds=0)
    preview = nas.preview(data=(pixels, labels), input_shape=(1, 16, 16), epochs=2)
    assert (preview.n_train, preview.n_val, preview.networks) == (62, 75, 12)


@pytest.mark.parametrize(("rounds", "rule"), [(11, "at most 10"), (-1, "a whole number, at least 0")])
def test_rounds_out_of_range_are_refused(rounds: int, rule: str) -> None:
    with pytest.raises(UserError, match=f"^SearchSpace: cross_validation {rounds} must be {rule}"):
        replace(nas.load_space("mnist"), cross_validation=rounds)
