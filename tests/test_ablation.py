"""What a change is worth: differences on fresh seeds, with a pooled deviation, and what chance alone would show."""

import csv
import io
import math
from dataclasses import replace
from statistics import fmean, stdev

import pytest
from helpers import small_architecture
from optuna.trial import TrialState
from scipy import stats

from nas.analysis.ablation import Ablation, ablation, ablation_csv, ablation_runs
from nas.analysis.finalists import fresh_seeds
from nas.datasets.metrics import ACCURACY, EvaluationSet
from nas.network.limits import Constraints
from nas.reporting.ablations import ablation_text
from nas.space.candidate import Candidate
from nas.space.recipe import Recipe
from nas.space.rejections import Ledger
from nas.space.variants import CHOICES, variants
from nas.study.curves import Epoch
from nas.study.records import TrialRecord
from nas.study.runs import Run, RunRecord

ON_10_000 = EvaluationSet(ACCURACY, (10_000,))
LIMITS, TIGHT = Constraints(max_params=2_500), Constraints(max_params=1_000)
CANDIDATE = Candidate(architecture=small_architecture(8, 8), recipe=Recipe(epochs=2))
SCORES = {"": (0.990, 0.991, 0.992), "no dropout": (0.989, 0.990, 0.9905), "no augmentation": (0.970, 0.969, 0.971)}


def a_trial() -> TrialRecord:
    return TrialRecord(
        number=4,
        state=TrialState.COMPLETE,
        candidate=CANDIDATE,
        params=1,
        macs=1,
        seed=0,
        curve=(),
        seconds=None,
        environment={},
        reason="",
        receptive_field=1,
        ledger=Ledger(),
        suggestions={},
    )


def a_run(change: str, seed: int, accuracy: float | None) -> RunRecord:
    """One that diverged, without an accuracy."""
    known = {"": CANDIDATE, **{variant.change: variant.candidate for variant in variants(CANDIDATE)}}
    run = Run(stage="ablation", trial=4, candidate=known[change], seed=seed, change=change)
    return RunRecord(
        number=seed,
        state=TrialState.FAIL if accuracy is None else TrialState.COMPLETE,
        candidate=run.candidate,
        params=7,
        macs=8,
        seed=seed,
        curve=() if accuracy is None else (Epoch(epoch=1, val_accuracy=accuracy, val_loss=2 * (1 - accuracy)),),
        seconds=1.0,
        environment={},
        reason="diverged: the loss is nan" if accuracy is None else "",
        run=run,
        test=None,
    )


def found() -> Ablation:
    runs = [a_run(change, seed, score) for change, scores in SCORES.items() for seed, score in enumerate(scores)]
    runs += [a_run("batches of 256", seed, None) for seed in range(3)]
    told = ablation(a_trial(), runs, LIMITS, ON_10_000)
    assert told is not None
    return told


def test_every_allowed_variant_of_the_choices_is_trained_on_the_same_seeds() -> None:
    runs = ablation_runs(a_trial(), ["dropout", "augmentation"], LIMITS, 2, 5)
    seeds = fresh_seeds("ablation", 2, 5)
    changes = ["", "no dropout", "dropout 5 % in every cell", "dropout 10 % in every cell"]
    changes += ["dropout 20 % in every cell", "no augmentation"]
    assert [(run.change, run.seed) for run in runs] == [(change, seed) for seed in seeds for change in changes]
    assert {run.trial for run in runs} == {4}
    everything = {run.change for run in ablation_runs(a_trial(), CHOICES, LIMITS, 1, 5)}
    assert "pool after cell 1 removed" in everything
    large = "cell 2: 5×5 kernels instead of 3×3"
    assert large in everything
    assert large not in {run.change for run in ablation_runs(a_trial(), CHOICES, TIGHT, 1, 5)}


def test_an_effect_is_a_difference_of_means_with_a_pooled_deviation() -> None:
    told = found()
    assert (told.trial, told.accuracy.n) == (4, 3)
    assert told.accuracy.mean == pytest.approx(0.991)
    assert [effect.variant.change for effect in told.effects] == ["batches of 256", "no augmentation", "no dropout"]
    diverged, augmentation, dropout = told.effects
    assert (diverged.accuracy, diverged.points, diverged.failed) == (None, None, 3)
    pooled = math.sqrt(fmean(stdev(scores) ** 2 for scores in SCORES.values()))
    for effect, name in ((augmentation, "no augmentation"), (dropout, "no dropout")):
        assert effect.points is not None
        assert effect.points.mean == pytest.approx(fmean(SCORES[name]) - 0.991)
        assert effect.points.standard_error == pytest.approx(pooled * math.sqrt(2 / 3))
        t = effect.points.mean / effect.points.standard_error
        assert effect.points.p == pytest.approx(2 * stats.t.sf(abs(t), 6))
    assert augmentation.visible
    assert not dropout.visible
    assert augmentation.log_loss is not None
    losses = [fmean(math.log(2 * (1 - score)) for score in SCORES[name]) for name in ("no augmentation", "")]
    assert augmentation.log_loss.mean == pytest.approx(losses[0] - losses[1])


def test_one_unsteady_variant_hides_no_other() -> None:
    scores = {**SCORES, "batches of 32": (0.98, 0.98, 0.11)}
    runs = [a_run(change, seed, score) for change, values in scores.items() for seed, score in enumerate(values)]
    told = ablation(a_trial(), runs, LIMITS, ON_10_000)
    assert told is not None
    effects = {effect.variant.change: effect for effect in told.effects}
    alone = {effect.variant.change: effect for effect in found().effects}
    assert effects["no augmentation"].points == alone["no augmentation"].points
    assert effects["no augmentation"].visible
    assert not effects["batches of 32"].visible


def test_equal_seeds_do_not_make_a_difference_of_one_image_visible() -> None:
    """Of 100 images; the deviation is then the binomial one."""
    runs = [a_run(change, seed, score) for change, score in (("", 0.95), ("no dropout", 0.96)) for seed in range(3)]
    told = ablation(a_trial(), runs, LIMITS, EvaluationSet(ACCURACY, (100,)))
    assert told is not None
    (effect,) = told.effects
    assert effect.points is not None
    binomial = math.sqrt(96 / 102 * 6 / 102 / 100)
    assert effect.points.standard_error == pytest.approx(binomial * math.sqrt(2 / 3))
    assert effect.verdict == "not visible"


def test_a_variant_of_two_trials_serves_both() -> None:
    other = next(variant for variant in variants(CANDIDATE) if variant.change == "no dropout")
    trial = replace(a_trial(), number=5, candidate=other.candidate)
    runs = [a_run(change, seed, score) for change, values in SCORES.items() for seed, score in enumerate(values)]
    told = ablation(trial, runs, LIMITS, ON_10_000)
    assert told is not None
    assert told.accuracy.mean == pytest.approx(fmean(SCORES["no dropout"]))
    assert told.effects == (), "the others have dropout as it was"


def test_a_run_that_has_not_ended_is_not_called_diverged() -> None:
    running = replace(a_run("no dropout", 0, 0.9), state=TrialState.RUNNING)
    told = ablation(a_trial(), [a_run("", 0, 0.9), running], LIMITS, ON_10_000)
    assert told is not None
    assert [effect.verdict for effect in told.effects] == ["not finished"]


def test_without_the_network_unchanged_there_is_no_effect() -> None:
    assert ablation(a_trial(), [a_run("no dropout", 0, 0.9)], LIMITS, ON_10_000) is None
    assert ablation(a_trial(), [a_run("", 0, None)], LIMITS, ON_10_000) is None
    one = ablation(a_trial(), [a_run("", 0, 0.9), a_run("no dropout", 0, 0.8)], LIMITS, ON_10_000)
    assert one is not None
    assert [(effect.points, effect.visible) for effect in one.effects] == [(None, False)]
    assert "one seed says nothing" in ablation_text(a_trial(), one, EvaluationSet(ACCURACY, (100,)), tuple(CHOICES))


def test_the_table_and_the_file_say_the_same() -> None:
    told = found()
    text = ablation_text(a_trial(), told, ON_10_000, tuple(CHOICES))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "trial 4, p2 c8d10 p2 c8 p2 | gap 1×1: 99.10 ± 0.10 % of 10,000 validation images, n = 3"
    assert "no augmentation 7 97.00 ± 0.10 % 3 -2.10 ± 0.08 +234.6 ± 21.8 % worse" in lines
    assert any(line.startswith("no dropout") and line.endswith("not visible") for line in lines)
    assert any(line.startswith("batches of 256") and line.endswith("failed") for line in lines)
    assert found().forbidden == ()
    rows = list(csv.DictReader(io.StringIO(ablation_csv([told]))))
    assert [row["change"] for row in rows[:4]] == ["unchanged", "batches of 256", "no augmentation", "no dropout"]
    points = told.effects[1].points
    assert points is not None
    assert float(rows[2]["difference"]) == points.mean
    assert [row["visible"] for row in rows[:4]] == ["", "", "True", "False"]


def test_a_variant_that_a_limit_rules_out_is_listed_with_the_reason() -> None:
    told = ablation(a_trial(), [a_run("", 0, 0.9)], TIGHT, ON_10_000)
    assert told is not None
    why = {variant.change: reason for variant, reason in told.forbidden}
    reason = why["cell 2: 5×5 kernels instead of 3×3"]
    assert reason == "1,794 params, 79.4 % over the limit of 1,000"
    assert f"not trained: cell 2: 5×5 kernels instead of 3×3: {reason}" in ablation_text(
        a_trial(), told, EvaluationSet(ACCURACY, (100,)), ["kernel sizes"]
    )
    assert reason not in ablation_text(a_trial(), told, EvaluationSet(ACCURACY, (100,)), ["dropout"])
    assert reason in ablation_csv([told])
