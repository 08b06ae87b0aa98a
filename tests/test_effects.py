"""What a choice is worth in the trials: the regression against other oracles, and the words it comes down to."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from optuna.trial import TrialState
from scipy import stats

from nas.analysis.ablation import Ablation, Effect
from nas.analysis.effects import MIN_TRIALS, Answer, Seen, answers, compared, regressed
from nas.analysis.questions import QUESTIONS
from nas.analysis.statistics import Difference, spread, two_sided
from nas.network.architecture import Architecture
from nas.network.cost import cost
from nas.network.layers import Conv, Head, MaxPool, Transition
from nas.network.limits import Constraints
from nas.space.candidate import Candidate
from nas.space.recipe import Recipe
from nas.space.rejections import Ledger
from nas.space.variants import CHOICES, Variant, forbidden_by, variants
from nas.study.curves import Epoch
from nas.study.records import TrialRecord

NUMBERS = {question.text: question.number for question in QUESTIONS}
NETWORK = Architecture(
    input_shape=(1, 28, 28),
    num_classes=10,
    layers=(
        *(Conv(out_channels=20, kernel_size=5, padding=2), Transition(out_channels=8), MaxPool()),
        *(Conv(out_channels=20), MaxPool(), Conv(out_channels=32, padding=0, dropout=0.1)),
        *(Conv(out_channels=24, padding=0, batch_norm=False, bias=True), MaxPool()),
    ),
    head=Head(),
)
CANDIDATE = Candidate(architecture=NETWORK, recipe=Recipe(batch_size=64, learning_rate=0.125))


def a_trial(number: int, candidate: Candidate, losses: list[float], *, stopped: bool = False) -> TrialRecord:
    return TrialRecord(
        number=number,
        state=TrialState.PRUNED if stopped else TrialState.COMPLETE,
        candidate=candidate,
        params=cost(candidate.architecture).params,
        macs=1,
        seed=0,
        curve=tuple(Epoch(epoch=i, val_loss=loss, val_accuracy=0.9) for i, loss in enumerate(losses, 1)),
        seconds=1.0,
        environment={},
        reason="",
        receptive_field=1,
        ledger=Ledger(),
        suggestions={},
    )


def a_network(kernels: int, dropout: float) -> Candidate:
    layers = (Conv(out_channels=kernels, dropout=dropout), MaxPool(), Conv(out_channels=8))
    architecture = Architecture(input_shape=(1, 28, 28), num_classes=10, layers=layers, head=Head())
    return Candidate(architecture=architecture, recipe=Recipe(epochs=3))


def test_the_numbers_of_a_network_are_those_that_the_questions_ask_for() -> None:
    told = {text: number(CANDIDATE) for text, number in NUMBERS.items()}
    price = cost(NETWORK)
    assert told == pytest.approx(
        {
            "How many convolution layers?": 4,
            "How many max-pools?": 3,
            "Where to pool first?": 1,
            "How far is the last max-pool from the prediction?": 0,
            "How many transition (1×1) layers?": 1,
            "How far is the last transition from the prediction?": 3,
            "3×3 or larger kernels?": 1,
            "How many kernels in the first cell?": math.log2(20),
            "How many kernels in the last cell?": math.log2(24),
            "Padding in the last cells?": 2,
            "How large a receptive field?": price.receptive_field / 10,
            "How much dropout?": 20 * 0.1 / 4,
            "Batch normalization?": 0.75,
            "How far is batch normalization from the prediction?": 1,
            "Global pooling before or after the 1×1 convolution of the head?": 0,
            "How large a batch?": 6,
            "What learning rate?": -3,
            "How many parameters?": math.log2(price.params),
            "How many multiply-accumulates (MACs)?": math.log2(price.macs),
        }
    )


def test_a_regression_has_the_robust_error_where_rows_scatter_unequally() -> None:
    """HC3 written out row by row, from the regressions that leave one out (MacKinnon and White, 1985)."""
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=40), rng.normal(size=40)
    y = 2 * x - z + rng.normal(size=40) * x**2
    design = np.column_stack([x, np.ones(40), z])
    fitted = regressed(y, x, design[:, 1:])
    assert fitted is not None
    slope, error, residuals = fitted
    expected = np.linalg.lstsq(design, y, rcond=None)[0]
    assert slope == pytest.approx(expected[0])
    assert residuals == pytest.approx(y - design @ expected)
    left_out = [np.linalg.lstsq(np.delete(design, i, 0), np.delete(y, i), rcond=None)[0] for i in range(40)]
    outside = [y[i] - design[i] @ left_out[i] for i in range(40)]
    bread = np.linalg.inv(design.T @ design)
    meat = sum(outside[i] ** 2 * np.outer(design[i], design[i]) for i in range(40))
    assert error == pytest.approx(math.sqrt((bread @ meat @ bread)[0, 0]))


def test_a_regression_has_the_usual_error_where_few_rows_differ() -> None:
    x = np.array([1.0] * 3 + [0.0] * 47)
    y = np.random.default_rng(4).normal(size=50)
    y[:3] = (0.1, 0.11, 0.12)  # alike by luck
    fitted = regressed(y, x, np.ones((50, 1)))
    assert fitted is not None
    told = stats.ttest_ind(y[:3], y[3:])
    assert fitted[0] / fitted[1] == pytest.approx(told.statistic)


@pytest.mark.parametrize("rare", [2, 3, 25])
def test_noise_is_seldom_taken_for_an_effect_however_rare_a_choice_is(rare: int) -> None:
    """1,000 made-up searches of 50 trials; a choice that two of them made must not look certain."""
    rng, x = np.random.default_rng(rare), np.array([1.0] * rare + [0.0] * (50 - rare))
    found = [regressed(rng.normal(size=50), x, np.ones((50, 1))) for _ in range(1_000)]
    p = [two_sided(fitted[0], fitted[1], 48) for fitted in found if fitted is not None]
    assert len(p) == 1_000
    assert np.mean(np.array(p) < 0.05) < 0.07


def test_what_does_not_vary_or_stands_alone_has_no_slope() -> None:
    ones = np.ones((5, 1))
    assert regressed(np.ones(5), np.ones(5), ones) is None
    alone = np.array([1.0, 0, 0, 0, 0])
    assert regressed(np.arange(5.0), alone, ones) is None, "one row decides it"
    size = np.array([1.0, 2, 3, 4, 5])
    assert regressed(np.arange(5.0), size + 1e-3 * alone, np.column_stack([ones, size])) is None


def test_trials_are_compared_after_the_first_epoch_at_which_any_has_ended() -> None:
    trials = [
        a_trial(0, a_network(4, 0), [0.5, 0.4, 0.3]),
        a_trial(1, a_network(5, 0), [0.6, 0.5], stopped=True),
        a_trial(2, a_network(6, 0), []),
        replace(a_trial(3, a_network(6, 0), [0.7]), state=TrialState.RUNNING),
    ]
    epoch, rows = compared(trials)
    assert epoch == 2
    assert [(trial.number, round(math.exp(loss), 9)) for trial, loss in rows] == [(0, 0.4), (1, 0.5)]
    assert compared([]) == (0, [])


def searched(effect: float, trials: int = 40) -> list[TrialRecord]:
    """Trials whose loss is multiplied by `effect` for each 5 points of mean dropout, with noise of 5 %."""
    rng = random.Random(3)
    found: list[TrialRecord] = []
    for number in range(trials):
        dropout = rng.choice((0.0, 0.05, 0.1, 0.15, 0.2))
        candidate = a_network(rng.randint(4, 16), dropout)
        size = cost(candidate.architecture).params
        loss = (
            0.1 * (1000 / size) ** 0.5 * effect ** NUMBERS["How much dropout?"](candidate) * rng.lognormvariate(0, 0.05)
        )
        found.append(
            a_trial(number, candidate, [loss, loss / 2] if number % 4 == 0 else [loss], stopped=number % 4 > 0)
        )
    return found


def answer(trials: list[TrialRecord], text: str) -> Answer:
    return next(found for found in answers(trials, None, None) if found.question.text == text)


def test_an_effect_is_found_with_its_size_whatever_the_parameters() -> None:
    told = answer(searched(1.2), "How much dropout?")
    assert told.seen is not None
    assert told.seen.low < 1.2 < told.seen.high
    assert told.seen.high / told.seen.low < 1.15
    assert told.seen.visible
    assert told.seen.trials == 40
    assert len(told.seen.points) == 40
    assert told.words == f"5 points more, mean of the cells: {100 * (told.seen.ratio - 1):.0f} % higher validation loss"
    params = answer(searched(1.2), "How many parameters?")
    assert params.seen is not None
    assert params.seen.ratio == pytest.approx(2**-0.5, rel=0.15)


def test_no_effect_is_called_no_effect() -> None:
    told = answer(searched(1.0), "How much dropout?")
    assert told.seen is not None
    assert not told.seen.visible
    assert told.words == "no visible effect above the noise"


def test_what_the_trials_cannot_say_is_said() -> None:
    told = answer(searched(1.2), "How large a batch?")
    assert told.seen is None
    assert told.words == "the trials do not say: it does not vary enough among them (batch size: always 64)"
    few = answer(searched(1.2, MIN_TRIALS - 1), "How much dropout?")
    assert few.seen is None
    assert few.words == "too few trials to say: 9 of 10"
    assert [found.seen for found in answers([], None, None)] == [None] * len(QUESTIONS)


def effect(change: str, points: float, *, visible: bool) -> Effect:
    variant = next(variant for variant in variants(CANDIDATE) if variant.change == change)
    difference = Difference(mean=points, standard_error=0.001, p=0.5)
    return Effect(
        variant=variant, params=1, macs=1, failed=0, accuracy=spread([0.9]), points=difference, visible=visible
    )


def seen(ratio: float, *, visible: bool = True) -> Seen:
    return Seen(ratio=ratio, low=ratio, high=ratio, p=0.5, trials=40, visible=visible, points=())


MORE, LESS = ("dropout 20 % in every cell", 3.5), ("no dropout", -0.5)
DROPOUT = next(question for question in QUESTIONS if question.text == "How much dropout?")
NONE = "none of 1 changes has a visible effect"
ONE = "1 of 1 changes has a visible effect; "
WHERE = "2 of 2 changes have a visible effect; whether more of it is better depends on where"
BEST = "2 of 2 changes have a visible effect; both more and less of it is worse: this network stands at the best place"


@pytest.mark.parametrize(
    ("trials", "tried", "said"),
    [
        (seen(1.2), [], ""),
        (seen(1.2), [(MORE, -0.01, True)], f"{ONE}more of it is worse: the experiment agrees"),
        (seen(1.2), [(LESS, 0.01, True)], f"{ONE}more of it is worse: the experiment agrees"),
        (seen(0.8), [(MORE, -0.01, True)], f"{ONE}more of it is worse: the experiment contradicts the trials"),
        (
            seen(1.2, visible=False),
            [(LESS, -0.01, True)],
            f"{ONE}less of it is worse, which the trials could not show",
        ),
        (seen(1.2), [(MORE, -0.01, True), (LESS, -0.01, True)], BEST),
        (
            seen(1.2),
            [(MORE, -0.01, False)],
            "the one change tried has no visible effect: the experiment does not confirm it",
        ),
        (None, [(MORE, -0.01, False), (LESS, 0.0, False)], "none of 2 changes has a visible effect"),
    ],
)
def test_the_experiment_has_the_last_word(
    trials: Seen | None, tried: list[tuple[tuple[str, float], float, bool]], said: str
) -> None:
    known = tuple((effect(change, points, visible=visible), steps) for (change, steps), points, visible in tried)
    told = Answer(question=DROPOUT, trials=40, values=(0.0, 1.0), seen=trials, tried=known, barred=False, epoch=1)
    assert told.experiment == said


def test_where_the_two_disagree_the_experiment_tells_of_the_epoch_that_the_trials_tell_of() -> None:
    curves = ((math.log(0.8), 0.0, math.log(1.1)), (math.log(0.9), 0.0, math.log(1.0)))
    tried = tuple(
        (replace(effect(change, 0.0, visible=False), log_losses=curve), steps)
        for (change, steps), curve in zip((LESS, LESS), curves, strict=True)
    )
    assert LESS[1] < 0
    told = Answer(question=DROPOUT, trials=40, values=(0.0, 1.0), seen=seen(1.2), tried=tried, barred=False, epoch=1)
    early, late = ((ratio ** (1 / LESS[1] / 2) - 1) * 100 for ratio in (0.8 * 0.9, 1.1 * 1.0))
    assert told.experiment == (
        "none of 2 changes has a visible effect: the experiment does not confirm it "
        f"(each step: {early:+.0f} % of loss after epoch 1, where the trials are compared; {late:+.0f} % at the end)"
    )
    assert early > 0 > late


def test_a_question_whose_every_change_breaks_a_limit_is_said_to_be_such() -> None:
    ruled_out = [(variant, "too large") for variant in variants(CANDIDATE) if variant.choice == "depth"]
    assert len(ruled_out) == 2

    def said(*forbidden: tuple[Variant, str]) -> dict[tuple[str, ...], str]:
        found = Ablation(trial=0, accuracy=spread([0.9]), effects=(), forbidden=forbidden)
        return {told.question.choices: told.experiment for told in answers([], found, CANDIDATE)}

    assert said(*ruled_out)["depth",] == "every such change breaks a limit"
    assert said(*ruled_out)["transitions",] == ""
    assert said(ruled_out[0])["depth",] == "", "the other one was not tried, that is all"


def test_an_answer_knows_the_variants_that_try_it() -> None:
    """Every choice of an ablation is an answer to some question, but for what no question is about."""
    allowed = [variant for variant in variants(CANDIDATE) if not forbidden_by(variant.candidate, Constraints())]
    effects = tuple(effect(variant.change, 0.0, visible=False) for variant in allowed)
    found = Ablation(trial=0, accuracy=spread([0.9]), effects=effects, forbidden=())
    tried = {
        told.question.text: {(one.variant.change, round(steps, 9)) for one, steps in told.tried}
        for told in answers([], found, CANDIDATE)
    }
    assert tried["How many transition (1×1) layers?"] == {("transition after cell 1 removed", -1)}
    assert tried["Padding in the last cells?"] == {("padding in every cell", -2)}
    assert tried["How many kernels in the last cell?"] == {
        ("half the kernels in the last cell, more in the others", -1)
    }
    assert {steps for _, steps in tried["How large a batch?"]} == {-1, 1, 2}
    asked = {choice for question in QUESTIONS for choice in question.choices}
    assert asked == set(CHOICES) - {"augmentation"}


def test_a_network_without_cells_has_numbers_too() -> None:
    bare = replace(NETWORK, layers=(Transition(out_channels=4), MaxPool()))
    candidate = replace(CANDIDATE, architecture=bare)
    assert NUMBERS["How many kernels in the first cell?"](candidate) == 0
    assert {variant.choice for variant in variants(candidate)} >= {"pools", "transitions", "head"}
