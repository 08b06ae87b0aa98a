"""Finalists on fresh seeds: who is one, who wins, and a whole search with real trainings, on one worker and on two."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers import small_architecture, small_space, write_mnist_folder
from optuna.trial import TrialState

from nas.analysis.finalists import (
    Finalist,
    Noise,
    Winner,
    better_half,
    compared,
    final_runs,
    finalists,
    fresh_seeds,
    measured_noise,
    rounds_of_race,
    runs_of,
    winner_of,
)
from nas.analysis.statistics import spread
from nas.api.finishing import finish
from nas.api.measuring import MeasuredNoise
from nas.datasets.dataset import Dataset
from nas.datasets.files import read_files
from nas.datasets.images import fingerprint, load_test, load_training
from nas.datasets.metrics import ACCURACY, EvaluationSet
from nas.datasets.split import Pool
from nas.network.architecture import Architecture
from nas.network.layers import Head
from nas.network.limits import Constraints
from nas.network.module import build
from nas.reporting.conclusions import curse, margin, noise_floor, verdict
from nas.reporting.page import write_report
from nas.samplers.feasible import FeasibleSampler, make_sampler
from nas.space.candidate import Candidate, digest
from nas.space.recipe import Recipe
from nas.space.rejections import Ledger
from nas.space.search_space import SearchSpace
from nas.space.seeds import derive_seed
from nas.study import baselines
from nas.study.curves import Epoch
from nas.study.history import History, read_history
from nas.study.location import RUNS, TRIALS, StudyLocation, locate
from nas.study.opening import open_study, writing
from nas.study.records import TrialRecord, digests, records
from nas.study.runs import Run, RunRecord, run_records
from nas.study.settings import Task, remember_task, settings
from nas.training.score import Score
from nas.training.training import evaluate
from nas.tuner.progress import Progress
from nas.tuner.selection import FinalSettings, TestSet, choose
from nas.tuner.trials import Plan, Search, train_all
from nas.workers.local import LocalFleet

SEED = 3
ON_10_000 = EvaluationSet(ACCURACY, (10_000,))
SCORE = Score(loss=0.02, accuracy=0.995, n=10_000)


def a_trial(number: int, accuracy: float, params: int = 100, state: TrialState = TrialState.COMPLETE) -> TrialRecord:
    candidate = Candidate(architecture=small_architecture(number + 1), recipe=Recipe(epochs=1))
    return TrialRecord(
        number=number,
        state=state,
        candidate=candidate,
        params=params,
        macs=1,
        seed=number,
        curve=(Epoch(epoch=1, val_accuracy=accuracy, val_loss=1 - accuracy),),
        seconds=1.0,
        environment={},
        reason="",
        receptive_field=1,
        ledger=Ledger(),
        suggestions={},
    )


def a_noise_run(seed: int, accuracy: float, trial: int = 0) -> RunRecord:
    run = Run(stage="noise", trial=trial, candidate=a_trial(trial, 0).candidate, seed=seed)
    return RunRecord(
        number=seed,
        state=TrialState.COMPLETE,
        candidate=run.candidate,
        params=1,
        macs=1,
        seed=seed,
        curve=(Epoch(epoch=1, val_accuracy=accuracy, val_loss=1 - accuracy),),
        seconds=1.0,
        environment={},
        reason="",
        run=run,
        test=None,
    )


# who is a finalist


def test_finalists_are_the_best_that_cannot_be_told_apart_from_the_best() -> None:
    trials = [a_trial(i, accuracy) for i, accuracy in enumerate((0.990, 0.995, 0.994, 0.9931, 0.996))]
    trials.append(a_trial(5, 0.999, state=TrialState.PRUNED))
    assert [t.number for t in finalists(trials, 4, 0.0030)] == [4, 1, 2, 3]
    assert [t.number for t in finalists(trials, 4, 0.0025)] == [4, 1, 2]
    assert [t.number for t in finalists(trials, 2, 0.0030)] == [4, 1]
    assert [t.number for t in finalists(trials, 4, 0.0)] == [4]


def test_noise_is_measured_by_two_runs_of_a_network_or_more() -> None:
    assert measured_noise([], ON_10_000) is None
    assert measured_noise([a_noise_run(0, 0.99)], ON_10_000) is None
    runs = [a_noise_run(i, accuracy) for i, accuracy in enumerate((0.990, 0.991, 0.992))]
    measured = measured_noise(runs, ON_10_000)
    assert measured is not None
    assert measured.sd == pytest.approx(0.001)
    assert measured.n == 3
    assert measured.least_difference == pytest.approx(4.303 * 2**0.5 * 0.001, rel=1e-3)
    assert not measured.of_images
    both = measured_noise([*runs, a_noise_run(7, 0.98, trial=1), a_noise_run(8, 0.98, trial=1)], ON_10_000)
    assert both is not None
    assert both.sd == pytest.approx((2e-6 / 3) ** 0.5)
    assert both.n == 4
    assert both.accuracy == pytest.approx((3 * 0.991 + 2 * 0.98) / 5)


def test_final_models_count_for_the_noise_apart_from_other_runs() -> None:
    runs = [a_noise_run(i, accuracy) for i, accuracy in enumerate((0.990, 0.991))]
    models = [replace(run, run=replace(run.run, stage="final"), test=replace(SCORE, accuracy=0.995)) for run in runs]
    both = measured_noise([*runs, *models], ON_10_000)
    assert both is not None
    assert both.n == 3
    assert both.sd == pytest.approx((5e-7 / 2) ** 0.5)
    assert both.accuracy == pytest.approx(0.9905), "of the validation images, of which a single score is one"


@pytest.mark.parametrize("accuracies", [(0.99, 0.99), (0.9900, 0.9901)])
def test_the_noise_floor_is_never_below_what_the_images_judged_allow(accuracies: tuple[float, float]) -> None:
    noise = measured_noise([a_noise_run(i, accuracy) for i, accuracy in enumerate(accuracies)], ON_10_000)
    assert noise is not None
    binomial = (0.99 * 0.01 / 10_000) ** 0.5
    assert noise.least_difference == pytest.approx(1.96 * 2**0.5 * binomial, rel=1e-2)
    assert noise.of_images
    text = str(MeasuredNoise(trial=a_trial(0, 0.99), scores=accuracies, noise=noise))
    assert text.splitlines()[-1] == (
        "Two single validation scores must differ by 0.28 points to mean something "
        "(95 %, from the choice of 10,000 images; the seeds, n = 2, differ less)."
    )


def test_fresh_seeds_are_those_of_no_trial_and_begin_with_the_same() -> None:
    seeds = fresh_seeds("finalist", 3, SEED)
    assert fresh_seeds("finalist", 5, SEED)[:3] == seeds
    others = [*fresh_seeds("final", 3, SEED), *fresh_seeds("noise", 3, SEED), *fresh_seeds("finalist", 3, SEED + 1)]
    trials = [derive_seed(SEED, "training", number) for number in range(1000)]
    assert len({*seeds, *others, *trials}) == 3 + 9 + 1000


def test_every_finalist_runs_on_the_same_seeds() -> None:
    first, second = fresh_seeds("finalist", 2, SEED)
    runs = runs_of([a_trial(4, 0.9), a_trial(6, 0.9)], "finalist", [first, second])
    assert [(run.trial, run.seed) for run in runs] == [(4, first), (6, first), (4, second), (6, second)]


def test_the_network_to_beat_has_the_same_seeds_in_every_study() -> None:
    winner = a_trial(4, 0.9)
    rival = replace(winner.candidate, architecture=small_architecture(9, 9))
    runs = final_runs(winner, rival, 2, SEED)
    assert [(run.trial, run.seed) for run in runs] == [
        (trial, seed) for trial, of in ((None, 0), (4, SEED)) for seed in fresh_seeds("final", 2, of)
    ]
    assert {run.candidate for run in runs[:2]} == {rival}
    assert final_runs(winner, None, 2, SEED) == runs[2:]


# who wins


def race(*told: tuple[int, float, list[float]]) -> list[int]:
    """(trial, loss in the search, losses on fresh seeds): the trials in order, best first."""
    trials = [a_trial(number, 1 - loss, params=100 + number) for number, loss, _ in told]
    runs = [a_noise_run(seed, 1 - loss, number) for number, _, fresh in told for seed, loss in enumerate(fresh)]
    return [finalist.record.number for finalist in compared(trials, runs)]


def test_the_lowest_mean_of_fresh_seeds_and_a_little_less_of_the_search_wins() -> None:
    assert race((0, 0.02, [0.020]), (1, 0.02, [0.019])) == [1, 0]
    assert race((0, 0.018, [0.020]), (1, 0.020, [0.0183])) == [1, 0]
    assert race((0, 0.018, [0.020]), (1, 0.020, [0.0185])) == [0, 1]
    assert race((0, 0.02, [0.02]), (1, 0.02, [0.02])) == [0, 1], "equal: the smaller one"


def test_those_that_came_further_in_a_race_are_ahead_and_those_that_failed_are_out() -> None:
    assert race((0, 0.02, [0.010]), (1, 0.02, [0.020, 0.021]), (2, 0.01, [])) == [1, 0]


@pytest.mark.parametrize(
    ("finalists", "seeds", "rounds"),
    [
        (1, 3, []),
        (2, 3, [2]),
        (3, 3, [3]),
        (4, 3, [4, 2]),
        (4, 1, [4]),
        (8, 3, [8, 4, 2]),
        (9, 2, [9, 4]),
    ],
)
def test_after_each_seed_the_worse_half_is_out(finalists: int, seeds: int, rounds: list[int]) -> None:
    assert rounds_of_race(finalists, seeds) == rounds
    left = [Finalist(record=a_trial(n, 0.99), rerun=spread([0.9]), value=spread([0.1])) for n in range(finalists)]
    for count in rounds:
        assert len(left) == count
        left = better_half(left)


def test_a_finalist_all_of_whose_runs_failed_is_left_out() -> None:
    trials = [a_trial(0, 0.99), a_trial(1, 0.98)]
    assert [f.record.number for f in compared(trials, [a_noise_run(9, 0.97, trial=1)])] == [1]


@pytest.mark.parametrize(
    ("accuracies", "target", "text"),
    [
        (
            [0.994, 0.995, 0.996],
            0.994,
            "Target 99.40 %: reached by 0.10 points (mean of n = 3 seeds, 1.7 standard errors, "
            "which other test images may undo: their choice alone moves it by ± 0.07). "
            "A fresh seed reaches it with a chance of 76 %.",
        ),
        (
            [0.9920, 0.9922],
            0.9940,
            "Target 99.40 %: missed by 0.19 points (mean of n = 2 seeds, 19.0 standard errors). "
            "A fresh seed reaches it with a chance of 3 %.",
        ),
        (
            [0.997, 0.997],
            0.994,
            "Target 99.40 %: reached by 0.30 points "
            "(mean of n = 2 equal seeds, 5.4 standard errors of the choice of images).",
        ),
    ],
)
def test_verdict_on_several_seeds(accuracies: list[float], target: float, text: str) -> None:
    winner = Winner(record=a_trial(0, 0.99), test=spread(accuracies), judged=SCORE)
    assert verdict(winner, None, target) == text
    assert "chance" not in verdict(replace(winner, diverged=1), None, target)


def test_verdict_on_one_run_uses_the_measured_noise() -> None:
    winner = Winner(record=a_trial(0, 0.99), test=spread([0.995]), judged=SCORE)
    text = "Target 99.40 %: reached by 0.10 points (one run, n = 1, {} standard errors)."
    assert verdict(winner, None, 0.994) == text.format("1.4"), "binomial: 0.07 points"
    noise = Noise(sd=0.001, n=5, accuracy=0.995, validation=ON_10_000)
    assert verdict(winner, noise, 0.994) == text.format("1.0")
    assert verdict(winner, replace(noise, sd=0.0005), 0.994) == text.format("1.4"), "never below the binomial"


@pytest.fixture
def history() -> History:
    """A search of two trials, whose every seed gave the same accuracy."""
    seed = Architecture(input_shape=(1, 28, 28), num_classes=10, layers=(), head=Head())
    return History(
        name="a",
        settings={"dataset": "mnist", "metric": "accuracy", "cross_validation": 0, "seed": SEED},
        constraints=Constraints(),
        task=Task(target=0.994, baseline=seed),
        commands=(),
        trials=(a_trial(0, 0.99), a_trial(1, 0.98)),
        runs=(a_noise_run(0, 0.99), a_noise_run(1, 0.99)),
        choice=None,
        test_scores={},
    )


def test_the_noise_floor_of_equal_seeds_says_that_it_comes_from_the_images(history: History) -> None:
    said = "Two single validation scores must differ by {} points to mean something (95 %, {})."
    images = "from the choice of 10,000 images; the seeds measured, n = 2, differ less"
    assert noise_floor(history, history.trials[0], ON_10_000) == said.format("0.28", images)
    apart = replace(history, runs=(a_noise_run(0, 0.99), a_noise_run(1, 0.991)))
    assert noise_floor(apart, history.trials[0], ON_10_000) == said.format("1.27", "measured from seed to seed, n = 2")
    far_apart = replace(history, runs=(a_noise_run(0, 0.9), a_noise_run(1, 0.8)))
    told = (
        "No difference between two single validation scores means anything (95 %, measured from seed to seed, n = 2)."
    )
    assert noise_floor(far_apart, history.trials[0], ON_10_000) == told


@pytest.mark.parametrize(
    ("reruns", "said"),
    [
        ([0.9885, 0.9885], "keeps its score in the search, as far as 10,000 images can tell (-0.15 points)."),
        ([0.9880, 0.9890], "keeps its score in the search, as far as one seed differs from another (-0.15 points)."),
        ([0.9885], "keeps its score in the search, as far as 10,000 images can tell (-0.15 points)."),
        (
            [0.9850, 0.9850],
            "has 0.50 points less than its score in the search: the winner's curse, "
            "since a score that is among the best of 2 is partly luck.",
        ),
    ],
)
def test_the_winners_curse_is_told_from_noise_though_seeds_are_equal(
    reruns: list[float], said: str, history: History
) -> None:
    trial = history.trials[0]
    contender = Finalist(record=trial, rerun=spread(reruns), value=spread([0.1]))
    winner = Winner(record=trial, finalists=(contender,), test=spread([0.99]), judged=SCORE)
    noise = measured_noise([a_noise_run(i, accuracy) for i, accuracy in enumerate(reruns)], ON_10_000)
    fresh = "a fresh seed" if len(reruns) == 1 else "fresh seeds"
    assert curse(history, winner, noise, ON_10_000) == f"On {fresh} the winner {said}"


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        ([0.995, 0.995], "standard error of the difference 0.10, from the choice of images where seeds are equal"),
        ([0.9948, 0.9952], "standard error of the difference 0.07, from the choice of images where seeds are equal"),
    ],
)
def test_a_margin_between_equal_seeds_is_not_certain(baseline: list[float], said: str, history: History) -> None:
    winner = Winner(record=history.trials[0], test=spread([0.996, 0.996]), judged=SCORE, baseline=spread(baseline))
    (text,) = margin(history, winner)
    assert f" +0.10 points ({said}), " in text


def test_a_network_to_beat_that_wins_is_not_trained_twice() -> None:
    winner = a_trial(4, 0.9)
    assert final_runs(winner, winner.candidate, 2, SEED) == final_runs(winner, None, 2, SEED)


# a whole search

FINAL = FinalSettings(finalists=4, seeds=2, baseline=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """A search and its end, twice, and what was seen meanwhile."""

    location: StudyLocation
    space: SearchSpace
    plan: Plan
    trials: list[TrialRecord]
    runs: list[RunRecord]
    winner: Winner
    seen: list[str]  # stages, and when the test images were opened
    said: str
    again: list[str]
    files: dict[str, bytes]


_given: list[int] = []  # how many test images were given away, each time


def _counting(dataset: Dataset, *, train: bool) -> Pool:
    pool = read_files(dataset, train=train)
    _given.extend([] if train else [len(pool.images)])
    return pool


def opened_test_images() -> int:
    """The test images that were read from what is kept of the files since it was asked last."""
    count = sum(_given)
    _given.clear()
    return count


def searched(folder: Path, dataset: Dataset, workers: int) -> Searched:
    space = replace(small_space(dataset, epochs=1), baseline=small_architecture(12, 12), target=0.1)
    plan = Plan(
        trials=4, fleet=LocalFleet(("cpu",) * workers), dataset=dataset, constraints=space.constraints, seed=SEED
    )
    location, seen, again = locate("study", folder, None), list[str](), list[str]()
    with writing(location, settings(space, seed=SEED, sampler="random", pruner="none")) as study:
        remember_task(study, space)
        sampler = FeasibleSampler(make_sampler("random", space, SEED), space, SEED, seen=digests(records(study)))
        list(train_all(Search(study, location, records(study), plan, sampler), plan))

        def show(events: Iterator[Progress], title: str) -> None:
            seen.append(f"{title} ({opened_test_images()} test images opened before)")
            (*_, last) = events
            seen.append(f"{last.done} of {last.total} ({opened_test_images()} test images opened meanwhile)")

        opened_test_images()
        done = finish(study, location, plan, FINAL, show)
        first = [*seen, f"{opened_test_images()} after"]
        known = read_history(study)
        history, winner = choose(
            *(study, location, known, plan, FINAL, TestSet(dataset)),
            lambda events, _: again.extend(event.news for event in events),
        )
        assert history == known
        again.append(f"{opened_test_images()} test images opened")
        assert winner is not None
        return Searched(
            location=location,
            space=space,
            plan=plan,
            trials=records(study),
            runs=run_records(study),
            winner=winner,
            seen=first,
            said=done.summary,
            again=again,
            files={path.name: path.read_bytes() for path in (location.folder / "weights").iterdir()},
        )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_mnist_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Searched:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nas.datasets.reading.read_files", _counting)
        return searched(tmp_path_factory.mktemp("one"), dataset, 1)


def test_the_test_images_are_opened_once_and_after_the_choice(search: Searched) -> None:
    winner = search.winner.record.number
    chosen = winner_of(read_history(open_study(search.location)))
    assert chosen == search.winner, "read back by another process"
    assert search.seen == [
        "4 finalists, trained to the end on a fresh seed, round 1 (0 test images opened before)",
        "4 of 4 (0 test images opened meanwhile)",
        "2 finalists, trained to the end on a fresh seed, round 2 (0 test images opened before)",
        "2 of 2 (0 test images opened meanwhile)",
        f"trial {winner} is the winner: now trained on all training images, then judged on the test images"
        " (120 test images opened before)",
        "4 of 4 (0 test images opened meanwhile)",
        "0 after",
    ]


def test_a_finished_search_trains_and_reads_nothing_again(search: Searched) -> None:
    assert search.again == [*["nothing is left to train"] * 3, "0 test images opened"]


def test_the_winner_has_the_best_mean_of_those_that_came_furthest(search: Searched) -> None:
    searched = {digest(trial.candidate): trial.val_loss or 0 for trial in search.trials}
    fresh: dict[str, list[float]] = {network: [] for network in searched}
    for run in search.runs:
        if run.stage == "finalist":
            fresh[digest(run.candidate)].append(run.val_loss or 0)

    def mean(network: str, seeds: int) -> float:
        return (0.8 * searched[network] + sum(fresh[network][:seeds])) / (0.8 + seeds)

    first = sorted(searched, key=lambda network: mean(network, 1))
    assert {network for network in fresh if len(fresh[network]) == 2} == set(first[:2])
    assert digest(search.winner.record.candidate) == min(first[:2], key=lambda network: mean(network, 2))
    assert [finalist.value.n for finalist in search.winner.finalists] == [2, 2, 1, 1]


def test_a_proven_trial_wins_without_rivals(search: Searched, dataset: Dataset) -> None:
    """The last of the four, for which nothing was said on the second seed."""
    with writing(search.location, settings(search.space, seed=SEED, sampler="random", pruner="none")) as study:
        known = read_history(study)
        last = search.winner.finalists[-1].record
        final = replace(FINAL, baseline=False)
        _, winner = choose(study, search.location, known, search.plan, final, TestSet(dataset), to_the_end, last)
        assert winner is not None
        assert winner.record.number == last.number
        assert [finalist.record.number for finalist in winner.finalists] == [last.number]
        _, again = choose(study, search.location, known, search.plan, FINAL, TestSet(dataset), to_the_end)
        assert again == search.winner


def test_a_crash_on_a_seed_of_an_earlier_race_decides_nothing(search: Searched, dataset: Dataset) -> None:
    """Four finalists left the best two with a second seed, which a race of two does not ask for."""
    two = finalists(search.trials, 2, 1.0)
    seed = fresh_seeds("finalist", 1, SEED)[0]
    best = compared(two, [run for run in search.runs if run.stage == "finalist" and run.seed == seed])[0].record
    with writing(search.location, settings(search.space, seed=SEED, sampler="random", pruner="none")) as study:
        known = read_history(study)
        crashed = tuple(
            replace(run, state=TrialState.FAIL, curve=())
            if run.stage == "finalist" and run.seed != seed and run.trial == best.number
            else run
            for run in known.runs
        )
        final = FinalSettings(finalists=2, seeds=2, baseline=False)
        of_two = replace(known, runs=crashed)
        _, winner = choose(study, search.location, of_two, search.plan, final, TestSet(dataset), to_the_end)
        assert winner is not None
        assert winner.record.number == best.number
        _, again = choose(study, search.location, known, search.plan, FINAL, TestSet(dataset), to_the_end)
        assert again == search.winner


def test_final_models_are_judged_by_their_weights_on_the_test_images(search: Searched, dataset: Dataset) -> None:
    final = [run for run in search.runs if run.stage == "final"]
    assert [run.trial for run in final] == [None, None, *[search.winner.record.number] * 2]
    data, test = load_training(dataset, hold_out=False), load_test(dataset)
    assert (len(data.train), len(data.validation)) == (360, 0)
    for run in final:
        network = build(run.candidate.architecture)
        network.load_state_dict(safetensors.torch.load(search.files[f"final-{run.number:05d}.safetensors"]))
        score = evaluate(network, test, data, torch.device("cpu"))
        assert (run.test, score.n) == (score, 120)
        assert run.val_accuracy is None
    ours, theirs = ([r.test.accuracy for r in final if r.test and (r.trial is None) == rival] for rival in (0, 1))
    assert search.winner.test == spread(ours)
    assert search.winner.baseline == spread(theirs)


def test_the_exported_weights_are_those_of_the_first_seed(search: Searched) -> None:
    first = search.winner.models[0]
    assert first.seed == fresh_seeds("final", 2, SEED)[0]
    exported = search.location.folder / "best" / "weights.safetensors"
    assert exported.read_bytes() == search.files[f"final-{first.number:05d}.safetensors"]
    text = " ".join((search.location.folder / "best" / "model.py").read_text(encoding="utf-8").split())
    assert f"seed {first.seed} (the others {search.winner.models[1].seed})" in text
    assert f"test {search.winner.test} (mean ± sd, n = 2 seeds), 120 images" in text
    assert f"these weights {100 * (first.accuracy or 0):.2f} %" in text
    assert "trained on 360 images" in text


def test_the_summary_tells_the_story_in_one_table(search: Searched) -> None:
    winner, text = search.winner, search.said
    rows = {line.strip().split("  ")[0]: " ".join(line.split()) for line in text.splitlines()}
    best = winner.record
    assert best.val_accuracy is not None
    assert winner.baseline is not None
    row = f"trial {best.number}, the winner {best.params} {best.val_accuracy:.2%} {winner.rerun} 2 {winner.test} 2"
    assert rows[f"trial {best.number}, the winner"] == row
    rival = sum(p.numel() for p in build(small_architecture(12, 12)).parameters())
    assert rows["network to beat"] == f"network to beat {rival:,} – – – {winner.baseline} 2"
    assert sum(name.startswith("trial ") for name in rows) >= 3, "the other finalists have rows, too"
    assert verdict(winner, None, 0.1) in " ".join(text.split())
    assert text.count("On fresh seeds the winner ") == 1
    assert "Against the network to beat, trained by the same recipe: " in " ".join(text.split())


def test_tables_list_trials_and_final_runs_apart(search: Searched) -> None:
    trials, runs = (
        list(csv.DictReader((search.location.folder / name).read_text(encoding="utf-8").splitlines()))
        for name in (TRIALS, RUNS)
    )
    assert len(trials) == 4
    assert [row["stage"] for row in runs] == ["finalist"] * 6 + ["final"] * 4
    assert [row["trial"] for row in runs[6:]] == ["", "", *[str(search.winner.record.number)] * 2]
    for row, run in zip(runs, search.runs, strict=True):
        judged = row["test_accuracy"] if run.stage == "final" else row["val_accuracy"]
        assert float(judged) == run.accuracy


def test_the_network_to_beat_is_trained_once_on_a_machine(search: Searched, dataset: Dataset, tmp_path: Path) -> None:
    again = searched(tmp_path, dataset, 1)
    assert again.winner.baseline == search.winner.baseline
    assert "of the network to beat, 2 trainings are known from an earlier search" in " ".join(again.seen)
    rivals = [run for run in again.runs if run.trial is None]
    assert [(run.epochs, run.seconds, run.reason) for run in rivals] == [(0, None, baselines.KNOWN)] * 2
    assert [without_times(run) for run in again.runs if run.trial is not None] == [
        without_times(run) for run in search.runs if run.trial is not None
    ]


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"value": 0.1, "told": {}, "own": {}}'])
def test_what_is_remembered_and_cannot_be_read_is_trained_anew(
    damage: str, search: Searched, dataset: Dataset, tmp_path: Path
) -> None:
    files = [*Path(baselines.FOLDER).iterdir()]
    assert len(files) == 2
    for file in files:
        file.write_text(damage, encoding="utf-8")
    again = searched(tmp_path, dataset, 1)
    assert again.winner.baseline == search.winner.baseline
    assert all(run.epochs == 1 for run in again.runs)
    assert all(len(file.read_text(encoding="utf-8")) > 100 for file in files)


def test_what_was_trained_on_other_images_or_elsewhere_is_not_taken(
    search: Searched, dataset: Dataset, tmp_path: Path
) -> None:
    rival = next(run for run in search.runs if run.trial is None)
    images = fingerprint(load_training(dataset, hold_out=False).train, load_test(dataset))
    with writing(
        locate("other", tmp_path, None), settings(search.space, seed=1, sampler="qmc", pruner="none")
    ) as study:
        assert baselines.recall(study, rival.run, images[::-1], rival.environment) is None
        assert baselines.recall(study, rival.run, images, {**rival.environment, "torch": "another"}) is None
        assert baselines.recall(study, replace(rival.run, seed=1), images, rival.environment) is None
        known = baselines.recall(study, rival.run, images, rival.environment)
        assert known is not None
        assert known.test == rival.test


def without_times(record: TrialRecord | RunRecord) -> dict[str, Any]:
    curve = [replace(epoch, seconds=None) for epoch in record.curve]
    return {"state": record.state, "seed": record.seed, "candidate": record.candidate, "curve": curve}


def test_two_workers_give_the_results_of_one(
    search: Searched, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "FOLDER", str(tmp_path_factory.mktemp("baselines")))
    two = searched(tmp_path_factory.mktemp("two"), dataset, 2)
    assert [without_times(trial) for trial in two.trials] == [without_times(trial) for trial in search.trials]

    def in_order(runs: list[RunRecord]) -> list[tuple[Any, ...]]:
        """With two workers, runs may be begun in the same order and end in another."""
        return [(without_times(run), run.run, run.test and run.test.accuracy) for run in runs]

    assert in_order(two.runs) == in_order(search.runs)
    assert two.files == search.files
    assert two.winner.record.number == search.winner.record.number
    assert (two.winner.test, two.winner.baseline) == (search.winner.test, search.winner.baseline)


def to_the_end(events: Iterator[Progress], title: str) -> None:
    list(events)


class CutOffError(Exception):
    """What ends a command in the middle."""


def test_no_winner_is_named_before_its_last_final_model_is_judged(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "FOLDER", str(tmp_path / "baselines"))
    space = replace(small_space(dataset, epochs=1), baseline=small_architecture(12, 12), target=0.1)
    plan = Plan(trials=2, fleet=LocalFleet(("cpu",)), dataset=dataset, constraints=space.constraints, seed=SEED)
    location = locate("study", tmp_path, None)

    def until_the_first_model(events: Iterator[Progress], title: str) -> None:
        for event in events:
            if "is the winner" in title and event.done == 1:
                events.close()  # type: ignore[attr-defined]  # a generator
                raise CutOffError

    with writing(location, settings(space, seed=SEED, sampler="random", pruner="none")) as study:
        remember_task(study, space)
        sampler = FeasibleSampler(make_sampler("random", space, SEED), space, SEED, seen=digests(records(study)))
        list(train_all(Search(study, location, records(study), plan, sampler), plan))
        final = FinalSettings(finalists=1, seeds=2, baseline=True)
        with pytest.raises(CutOffError):
            finish(study, location, plan, final, until_the_first_model)
        history = read_history(study)
        assert history.choice is not None
        assert winner_of(history) is None
        path = write_report(history, location, dataset, TestSet(dataset), running=False)
        said = f"study: trial {history.choice.winner} was chosen; its final models are not all judged yet"
        assert said in path.read_text(encoding="utf-8")
        finish(study, location, plan, final, to_the_end)
        winner = winner_of(read_history(study))
        assert winner is not None
        assert (len(winner.models), winner.diverged, winner.test.n) == (2, 0, 2)
    assert len([*(tmp_path / "baselines").iterdir()]) == 2, "one of them was trained before the interruption"
