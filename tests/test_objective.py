"""What a search is after: the order of trainings, ties and targets, of accuracy and of an objective made up here."""

import math
from dataclasses import dataclass

import pytest
from helpers import small_architecture
from optuna.trial import TrialState

from nas.analysis.finalists import Finalist, best_of, finalists
from nas.analysis.statistics import Spread
from nas.space.candidate import Candidate
from nas.space.objective import LOSS_FIRST, Objective, is_target, reached
from nas.space.recipe import Recipe
from nas.space.rejections import Ledger
from nas.study.curves import Epoch
from nas.study.records import TrialRecord, ranked

LARGEST_FIRST = Objective(
    name="parameters",
    direction="maximize",
    value=lambda training: training.params,
    of_equal_values=lambda training: (-(training.val_accuracy or 0),),
    of_a_tie=lambda training: -training.params,
)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The least that an objective asks of a training."""

    val_accuracy: float | None
    val_loss: float | None
    params: int


def a_trial(number: int, *, accuracy: float, loss: float, params: int) -> TrialRecord:
    return TrialRecord(
        number=number,
        state=TrialState.COMPLETE,
        candidate=Candidate(architecture=small_architecture(number + 1), recipe=Recipe(epochs=1)),
        params=params,
        macs=1,
        seed=number,
        curve=(Epoch(epoch=1, val_accuracy=accuracy, val_loss=loss),),
        seconds=1.0,
        environment={},
        reason="",
        receptive_field=1,
        ledger=Ledger(),
        suggestions={},
    )


TRIALS = [
    a_trial(0, accuracy=0.99, loss=0.40, params=900),
    a_trial(1, accuracy=0.97, loss=0.30, params=800),
    a_trial(2, accuracy=0.98, loss=0.30, params=200),
    a_trial(3, accuracy=0.98, loss=0.30, params=100),
    a_trial(4, accuracy=0.96, loss=0.10, params=950),
]


def test_loss_first_places_by_loss_then_higher_accuracy_then_fewer_parameters() -> None:
    ended = [Ended(val_accuracy=t.val_accuracy, val_loss=t.val_loss, params=t.params) for t in TRIALS]
    assert sorted(ended, key=LOSS_FIRST.place) == [ended[i] for i in (4, 3, 2, 1, 0)]
    assert [trial.number for trial in ranked(TRIALS)] == [4, 3, 2, 1, 0]


def test_objective_places_a_training_without_a_value_last() -> None:
    nothing = Ended(val_accuracy=None, val_loss=None, params=1)
    worst = Ended(val_accuracy=0.0, val_loss=1e6, params=10**6)
    assert sorted([nothing, worst], key=LOSS_FIRST.place) == [worst, nothing]
    assert LOSS_FIRST.merit(None) == -math.inf


@pytest.mark.parametrize(
    ("accuracy", "target", "expected"),
    [(0.994, 0.994, True), (math.nextafter(0.994, 0), 0.994, False), (0.999, 0.994, True), (0.999, None, None)],
)
def test_a_target_is_reached_at_the_target_itself(accuracy: float, target: float | None, expected: bool | None) -> None:
    assert reached(accuracy, target) is expected


@pytest.mark.parametrize(
    ("target", "allowed"),
    [(0.994, True), (1.0, True), (0.0, False), (math.nextafter(1, 2), False), (-0.1, False), (math.nan, False)],
)
def test_accuracy_asked_for_is_above_0_and_at_most_1(target: float, allowed: bool) -> None:
    assert is_target(target) is allowed


def test_another_objective_ranks_trials_and_chooses_finalists() -> None:
    assert [trial.number for trial in ranked(TRIALS, LARGEST_FIRST)] == [4, 0, 1, 2, 3]
    assert [trial.number for trial in finalists(TRIALS, 3, 1.0, LARGEST_FIRST)] == [4, 0, 1]


def test_another_objective_decides_between_finalists_and_what_a_tie_goes_to() -> None:
    """The standard error is 20 / 2: a mean of 191 ties with 200, and one of 189 does not."""
    contenders = [
        Finalist(
            record=a_trial(number, accuracy=0.9, loss=0.1, params=params),
            rerun=Spread(mean=0.9, sd=0.1, n=4),
            value=Spread(mean=mean, sd=20.0, n=4),
        )
        for number, mean, params in ((0, 200, 100), (1, 191, 200), (2, 189, 300))
    ]
    assert best_of(contenders, LARGEST_FIRST).record.number == 1, "more parameters, as that objective has it"
    assert best_of(contenders[::2], LARGEST_FIRST).record.number == 0
