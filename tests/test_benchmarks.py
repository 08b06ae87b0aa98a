"""The benchmarks: what their figures rest on. The figures themselves are measured, not tested."""

import ctypes
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import log
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from benchmarks import budget, capacity, micro_searches, real_searches, slopes
from benchmarks.emulator import Emulator
from benchmarks.networks import NETWORKS, TRAINED, job
from benchmarks.overhead import SEED, fill
from benchmarks.roofline import least_time
from benchmarks.search_cost import candidates, orders, replay
from benchmarks.search_quality import ARMS
from benchmarks.seconds import seconds_to
from benchmarks.table import RANDOM, SEEDS, Row, drawn, load, of_best, of_random, of_sampler, require_precision
from benchmarks.tasks import TASKS
from benchmarks.throughput import flops_per_image, images_per_second, time_of_step
from benchmarks.usual import UsualTraining, augmenting
from nas.datasets.augmentation import augment
from nas.datasets.images import load_training
from nas.errors import UserError
from nas.network.architecture import Architecture, notation
from nas.network.cost import cost
from nas.network.layers import Conv, Head
from nas.samplers.blueprint import STARTUP
from nas.samplers.names import DEFAULT_SAMPLER, SamplerName
from nas.space.loading import load_space
from nas.space.recipe import Augmentation
from nas.space.search_space import Feasible
from nas.study.location import locate
from nas.study.opening import writing
from nas.study.settings import settings
from nas.training.training import Training
from nas.tuner.names import DEFAULT_PRUNER, PrunerName
from nas.tuner.pruning import make_pruner

TABLE = candidates()
EPOCHS = len(TABLE[0].loss)


def test_default_pruner_finds_better_than_whole_trainings_of_as_many_epochs() -> None:
    """In a search of 50 it spends less than an eighth of the epochs, in which six are trained to the end."""
    drawn = [orders(TABLE, seed, 50) for seed in range(200)]
    done = [replay(of, make_pruner(DEFAULT_PRUNER, EPOCHS), seed) for seed, of in enumerate(drawn)]
    six = [log(min(row.loss[-1] for row in of[:6]) / min(row.loss[-1] for row in of)) for of in drawn]
    assert fmean(one.epochs for one in done) < 1 / 8
    assert fmean(one.regret for one in done) < 0.7 * fmean(six)


def test_finalists_that_are_worse_on_fresh_seeds_lose() -> None:
    """By one fresh seed the lucky one is as good as the good one, by two it is not."""
    lucky = budget.Found(score=-4.0, expected=-3.5, fresh=((-3.9, -3.5),) * budget.RACES)
    good = budget.Found(score=-3.9, expected=-3.9, fresh=((-3.9, -3.9),) * budget.RACES)
    poor = budget.Found(score=-3.0, expected=-3.0, fresh=((-9.0, -9.0),) * budget.RACES)
    search = budget.Search(epochs=57, found=(lucky, good, poor), best=-4.0)
    ends: tuple[list[int], ...] = ([], [2], [2, 2], [3])
    assert [budget.regret(search, end) for end in ends] == pytest.approx([0.5, 0.5, 0.1, 1.0])


@pytest.mark.parametrize(("pruner", "epochs"), [("none", 1.0), ("median", 0.8)])
def test_replay_counts_the_epochs_trained(pruner: PrunerName, epochs: float) -> None:
    done = replay(TABLE, make_pruner(pruner, EPOCHS), seed=0)
    assert done.epochs <= epochs
    if pruner == "none":
        assert (done.epochs, done.macs, done.regret) == (1.0, 1.0, 0.0)


def test_whole_searches_are_told_as_means_over_their_seeds() -> None:
    row = real_searches.Row(
        sampler="random",
        seed=0,
        trials=65,
        epochs=100,
        later_epochs=60.0,
        notation="c8 p2 | gap 1×1",
        params=1_000,
        macs=1_000,
        val_loss=0.02,
        accuracies=(0.99, 0.992),
        losses=(0.01, 0.03),
        minutes=10.0,
        versions="",
        source="a",
    )
    other = replace(row, seed=1, epochs=110, accuracies=(0.993, 0.993), losses=(), minutes=None, source="b")
    table = real_searches.table_of([row, other])
    assert table.title == "Searches of MNIST, by 2 version(s) of this program"
    cells = [[*column.cells] for column in table.columns]
    assert [cell for (cell,) in cells[1:5]] == ["2", "65", "105 ± 7", "165 ± 7"]
    losses = ["-3.912 ± 0.000", "-3.912", "99.200 ± 0.141 %", "1,000 ± 0"]
    assert [cell for (cell,) in cells[5:]] == losses, "of the second, the losses of the models are not known"


def test_flops_are_six_a_mac_but_four_in_the_first_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = (Conv(out_channels=2), Conv(out_channels=3))
    tiny = Architecture(input_shape=(1, 4, 4), num_classes=2, layers=layers, head=Head(kind="pool_conv"))
    monkeypatch.setitem(NETWORKS, "tiny", tiny)
    first, second, classifier = 9 * 2 * 16, 9 * 2 * 3 * 16, 3 * 2
    assert flops_per_image("tiny") == 4 * first + 6 * (second + classifier)


@pytest.mark.parametrize(("name", "params"), [("seed", 18_738), ("10k", 9_690), ("3k", 2_906), ("winner", 15_222)])
def test_networks_have_the_sizes_that_they_are_named_after(name: str, params: int) -> None:
    assert cost(TRAINED[name]).params == params


def test_a_step_takes_longer_than_its_parts_can(library: ctypes.CDLL, one_thread: None) -> None:
    least = least_time(job("3k"))
    assert 0 < least.traffic < least.arithmetic
    assert least.total < 1e-3 * sum(time_of_step(job("3k"), steps=32).values())


def test_the_usual_augmentation_is_ours() -> None:
    """The mean of many changes of one digit is the same picture."""
    digit = load_training(job("3k").dataset).train.images[:1]
    torch.manual_seed(0)
    ours = augment(digit.float().expand(3_000, -1, -1, -1), Augmentation(), torch.Generator().manual_seed(0))
    image, change = Image.fromarray(digit[0, 0].numpy()), augmenting(Augmentation(), digit.shape[-1])
    theirs = torch.stack([pil_to_tensor(change(image)) for _ in range(3_000)])
    difference = (ours.mean(0) - theirs.float().mean(0)).abs()
    assert difference.max() < 0.05 * 255
    assert difference.mean() < 0.01 * 255


@pytest.mark.parametrize("kind", [Training, UsualTraining])
def test_images_per_second_of_both_ways(kind: type[Training | UsualTraining]) -> None:
    assert images_per_second(kind, job("3k"), 0.0) > 0


def test_time_of_step_is_the_sum_of_its_parts() -> None:
    times = time_of_step(job("3k"), 4)
    assert {"augmentation", "loss", "Convolution forward", "Convolution backward", "SGD and average"} <= times.keys()
    assert all(milliseconds > 0 for milliseconds in times.values())


def test_capacity_counts_what_is_decided_while_every_worker_is_busy(tmp_path: Path) -> None:
    space, location = load_space("mnist"), locate("study", tmp_path, None)
    with writing(location, settings(space, seed=SEED, sampler=DEFAULT_SAMPLER, pruner=DEFAULT_PRUNER)) as study:
        study.pruner = make_pruner(DEFAULT_PRUNER, space.recipe.epochs)
        fill(study, space, 12)
    row = capacity.measure(location, space, workers=4, seconds=0.1, watched=1.0)
    assert row.workers == 4
    assert row.trials >= 12 + 4, "one may have ended, and the next begun, before it is watched"
    assert 0 < row.begun <= row.decisions < 1.2 * 4 / 0.1


def test_seconds_end_with_the_epoch_that_reaches_the_target(one_thread: None) -> None:
    seconds, epochs, accuracy = seconds_to(0.5, "3k", seed=0, epochs=2)
    assert seconds is not None
    assert (epochs, accuracy > 0.5) == (1, True)
    assert seconds_to(1.0, "3k", seed=0, epochs=1)[0] is None


def test_every_row_of_the_table_is_a_whole_training_within_the_limits() -> None:
    rows, space = load(), load_space("mnist")
    assert len(rows) >= 30
    assert len({row.entry for row in rows}) == len(rows)
    for row in rows:
        found = space.check(space.decode(row.suggestions))
        assert isinstance(found, Feasible)
        assert notation(found.candidate.architecture) == row.notation
        assert (found.cost.params, found.cost.macs) == (row.params, row.macs)
        assert len(row.loss) == len(row.accuracy) == space.recipe.epochs
        if row.arm == RANDOM:
            assert row.suggestions == drawn(space, row.number), "what the row's own seed gives"


def test_the_table_wants_what_is_missing() -> None:
    rows = [replace(made_up_row(number), number=number) for number in (0, 1, 3)]
    assert [entry.number for entry, _ in of_random(rows, 5)] == [2, 4]
    best = min(rows, key=lambda row: row.loss[-1])
    assert [(entry.number, entry.repeat) for entry, _ in of_best(rows, 1)] == [(best.number, 1), (best.number, 2)]
    assert of_best([*rows, *(replace(best, repeat=repeat) for repeat in range(SEEDS))], 1) == []


def test_a_sampler_of_the_table_goes_on_where_it_was() -> None:
    rows: list[Row] = []
    while wanted := of_sampler(rows, "blueprint", STARTUP + 4):
        rows += [replace(made_up_row(entry.number), **entry._asdict(), suggestions=dict(s)) for entry, s in wanted]
    assert [row.number for row in rows] == [*range(STARTUP + 4)]
    assert len({str(row.suggestions) for row in rows}) == len(rows)
    lost = rows.pop(STARTUP + 2)
    ((entry, suggestions),) = of_sampler(rows, "blueprint", STARTUP + 4)
    assert (entry, suggestions) == (lost.entry, lost.suggestions)


def made_up_rows(count: int) -> list[Row]:
    """One of each candidate, and two repeats of a few."""
    rows = [made_up_row(number) for number in range(count)]
    return [*rows, *(again(row, repeat) for row in rows[:5] for repeat in (1, 2))]


def again(row: Row, repeat: int) -> Row:
    factor = 1 + 0.01 * (row.number - 3 * repeat)
    return replace(row, repeat=repeat, loss=[factor * loss for loss in row.loss])


def made_up_row(number: int) -> Row:
    """A training whose final loss falls with the parameters."""
    space = load_space("mnist")
    suggestions = drawn(space, -10_000 - number)
    found = space.check(space.decode(suggestions))
    assert isinstance(found, Feasible)
    loss = [1.5 * (10_000 / found.cost.params) / (20 + 10 * epoch) for epoch in range(19)]
    return Row(
        arm=RANDOM,
        number=number,
        repeat=0,
        suggestions=suggestions,
        notation=notation(found.candidate.architecture),
        params=found.cost.params,
        macs=found.cost.macs,
        seed=number,
        loss=loss,
        accuracy=[1 - value / 5 for value in loss],
        seconds=1.0,
        versions="",
    )


def test_an_emulator_tells_curves_of_candidates_that_it_has_not_seen() -> None:
    rows = [made_up_row(number) for number in range(60)]
    emulator, others = Emulator(made_up_rows(40)), rows[40:]
    told = [emulator.expected(row.suggestions) for row in others]
    assert np.corrcoef([curve.loss[-1] for curve in told], [row.loss[-1] for row in others])[0, 1] > 0.75
    assert all((np.diff(curve.loss) < 0).all() for curve in told)
    first, same, other = (emulator.train(rows[0].suggestions, seed) for seed in (1, 1, 2))
    assert (first.loss == same.loss).all()
    assert (first.loss != other.loss).any()
    assert ((first.accuracy > 0.8) & (first.accuracy < 1)).all()


def test_a_micro_search_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trials take a made-up time: what is proposed is told by what was."""

    def made_up(arm: SamplerName, seed: int, number: int, suggestions: dict[str, Any]) -> micro_searches.Row:
        loss = 0.1 + 0.01 * suggestions["cells"]
        return micro_searches.Row(
            arm=arm,
            seed=seed,
            number=number,
            suggestions=suggestions,
            notation="",
            params=1,
            loss=loss,
            accuracy=1 - loss,
            seconds=1.0,
            versions="",
        )

    file = tmp_path / "micro.jsonl"
    monkeypatch.setattr(micro_searches, "FILE", file)
    monkeypatch.setattr(micro_searches, "TRIALS", 9)
    monkeypatch.setattr("nas.samplers.blueprint.STARTUP", 4)
    monkeypatch.setattr(micro_searches, "trained", made_up)
    monkeypatch.setattr(micro_searches, "process_pool", lambda _: ThreadPoolExecutor(2))
    micro_searches.make(["blueprint"], 2)
    rows = micro_searches.load(file)
    assert [row.place for row in rows] == [("blueprint", seed, number) for seed in (0, 1) for number in range(9)]
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(line for line in lines if json.loads(line)["number"] < 7), encoding="utf-8")
    micro_searches.make(["blueprint"], 2)
    assert micro_searches.load(file) == rows
    assert micro_searches.table_of(rows).row_count == 1


@pytest.mark.parametrize("arm", ["random", "blueprint", "Optuna's TPE"])
def test_a_replayed_search_counts_its_epochs_and_repeats(arm: str) -> None:
    emulator = Emulator(made_up_rows(40))
    steps = list(itertools.takewhile(lambda step: step[0] <= 100, ARMS[arm](emulator, 0)))
    assert steps == list(itertools.takewhile(lambda step: step[0] <= 100, ARMS[arm](emulator, 0)))
    spent, chosen = zip(*steps, strict=True)
    assert list(spent) == sorted(spent)
    assert [params is None for params in chosen] == sorted([params is None for params in chosen], reverse=True)
    assert chosen[-1] is not None


@pytest.mark.parametrize("name", TASKS)
def test_tasks_have_images_of_all_classes_and_none_of_the_training_images_to_test(name: str) -> None:
    task = TASKS[name]()
    given = task.given
    assert given.train.images.shape[1:] == given.test.images.shape[1:] == task.input_shape
    for part in given.parts.values():
        assert {*part.labels.tolist()} == {*range(len(given.classes))}
    seen = {image.numpy().tobytes() for image in given.train.images}
    assert not [image for image in given.test.images if image.numpy().tobytes() in seen]
    assert task.space(given).num_classes == len(given.classes)


def test_slopes_tell_how_losses_go_with_what_is_expected() -> None:
    assert {row.task for row in slopes.load()} == TASKS.keys()
    (known,) = (row for row in slopes.load() if (row.task, row.number) == ("digits", 0))
    (again,) = slopes.trained("digits", TASKS["digits"](), [0])
    assert again.features == known.features
    assert again.val_loss == pytest.approx(known.val_loss, rel=0.5), "on another processor, nearly"


def test_the_table_is_made_where_its_precision_is() -> None:
    require_precision(torch.bfloat16)
    with pytest.raises(UserError, match=r"^this machine trains with activations in torch\.float32, where the table's"):
        require_precision(torch.float32)
