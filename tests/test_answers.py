"""What a choice is worth in the trials: the regression against other oracles, and the words it comes down to."""

import math
import random

import numpy as np
import pytest
from optuna.trial import TrialState

from nas.ablation import Effect
from nas.answers import MIN_TRIALS, QUESTIONS, Answer, Question, Seen, answers, regressed, rows_of
from nas.architecture import Architecture, Candidate, Conv, Head, MaxPool, Transition
from nas.cost import cost
from nas.recipe import Recipe
from nas.sampling import Ledger
from nas.spread import Difference, spread
from nas.study import TrialRecord
from nas.variants import variants

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
        curve=[{"epoch": i, "val_loss": loss, "val_accuracy": 0.9} for i, loss in enumerate(losses, 1)],
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


def test_a_regression_without_clusters_is_least_squares_with_robust_errors() -> None:
    """Each row its own cluster: the sandwich of White (Econometrica, 1980), written out here row by row."""
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=40), rng.normal(size=40)
    y = 2 * x - z + rng.normal(size=40) * (1 + np.abs(x))
    others = np.column_stack([np.ones(40), z])
    fitted = regressed(y, x, others, np.arange(40.0))
    assert fitted is not None
    slope, error, residuals = fitted
    design = np.column_stack([x, others])
    expected = np.linalg.lstsq(design, y, rcond=None)[0]
    assert slope == pytest.approx(expected[0])
    assert residuals == pytest.approx(y - design @ expected)
    bread = np.linalg.inv(design.T @ design)
    meat = sum(residuals[i] ** 2 * np.outer(design[i], design[i]) for i in range(40))
    factor = 40 / 39 * 39 / 37
    assert error == pytest.approx(math.sqrt((factor * bread @ meat @ bread)[0, 0]))


def test_rows_written_twice_add_no_certainty() -> None:
    rng = np.random.default_rng(1)
    x, y, names = rng.normal(size=30), rng.normal(size=30), np.arange(30.0)
    once = regressed(y, x, np.ones((30, 1)), names)
    twice = regressed(np.tile(y, 2), np.tile(x, 2), np.ones((60, 1)), np.tile(names, 2))
    assert once is not None
    assert twice is not None
    assert twice[0] == pytest.approx(once[0])
    assert twice[1] == pytest.approx(once[1], rel=0.02), "but for the small-sample factor"


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """500 made-up searches of 50 trials, of which a third have a second, correlated row."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(500):
        x, own = rng.normal(size=50), rng.normal(size=50)
        rows = np.concatenate([np.arange(50), np.arange(17)])
        level = np.concatenate([np.zeros(50), np.ones(17)])
        y = 0.3 * x[rows] + own[rows] + 0.5 * rng.normal(size=67) + level
        fitted = regressed(y, x[rows], np.column_stack([1 - level, level]), rows.astype(np.float64))
        assert fitted is not None
        held += abs(fitted[0] - 0.3) <= 2.0096 * fitted[1]
    assert 0.91 <= held / 500 <= 0.97


def test_what_does_not_vary_has_no_slope() -> None:
    assert regressed(np.ones(5), np.ones(5), np.ones((5, 1)), np.arange(5.0)) is None


def test_a_stopped_trial_is_compared_at_the_epochs_that_it_reached() -> None:
    trials = [
        a_trial(0, a_network(4, 0), [0.5, 0.4, 0.3]),
        a_trial(1, a_network(5, 0), [0.6], stopped=True),
        a_trial(2, a_network(6, 0), []),
    ]
    rows = [(trial.number, epoch, round(math.exp(loss), 9)) for trial, epoch, loss in rows_of(trials)]
    assert rows == [(0, 1, 0.5), (0, 3, 0.3), (1, 1, 0.6)]


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
    assert len(told.seen.points) == 40 + 10
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
    assert told.words == "the trials do not say: it does not vary enough among them (always 64)"
    few = answer(searched(1.2, MIN_TRIALS - 1), "How much dropout?")
    assert few.seen is None
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
ONE = "1 of 1 changes have a visible effect; "
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
            "none of 1 changes has a visible effect: the experiment does not confirm it",
        ),
        (None, [(MORE, -0.01, False), (LESS, 0.0, False)], "none of 2 changes has a visible effect"),
    ],
)
def test_the_experiment_has_the_last_word(
    trials: Seen | None, tried: list[tuple[tuple[str, float], float, bool]], said: str
) -> None:
    known = tuple((effect(change, points, visible=visible), steps) for (change, steps), points, visible in tried)
    told = Answer(question=DROPOUT, values=(0.0, 1.0), seen=trials, tried=known)
    assert told.experiment == said


def test_an_answer_knows_the_variants_that_try_it() -> None:
    (transition,) = (v for v in variants(CANDIDATE) if v.change == "transition after cell 1 removed")
    question = next(q for q in QUESTIONS if q.text == "How many transition (1×1) layers?")
    assert isinstance(question, Question)
    assert question.number(transition.candidate) - question.number(CANDIDATE) == -1
