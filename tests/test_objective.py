"""What a search is after: the order of trainings, ties and targets, of accuracy and of an objective made up here."""

import math
from dataclasses import dataclass

import pytest
from helpers import small_architecture
from optuna.trial import TrialState

from nas.analysis.finalists import Finalist, best_of, finalists
from nas.analysis.statistics import Spread
from nas.space.candidate import Candidate
from nas.space.objective import ACCURACY_FIRST, Objective
from nas.space.recipe import Recipe
from nas.space.rejections import Ledger
from nas.study.curves import Epoch
from nas.study.records import TrialRecord, ranked

LOSS_FIRST = Objective(
    name="validation loss",
    direction="minimize",
    value=lambda training: training.val_loss,
    of_equal_values=lambda training: (-training.params,),
    of_a_tie=lambda training: -training.params,
    is_target=lambda target: target > 0,
    target_rule="must be above 0",
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
        candidate=Candidate(architecture=small_architecture(), recipe=Recipe(epochs=1)),
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
    a_trial(0, accuracy=0.97, loss=0.10, params=900),
    a_trial(1, accuracy=0.98, loss=0.30, params=200),
    a_trial(2, accuracy=0.98, loss=0.30, params=100),
    a_trial(3, accuracy=0.98, loss=0.20, params=900),
    a_trial(4, accuracy=0.99, loss=0.90, params=900),
]


def test_accuracy_first_places_by_accuracy_then_lower_loss_then_fewer_parameters() -> None:
    ended = [Ended(val_accuracy=t.val_accuracy, val_loss=t.val_loss, params=t.params) for t in TRIALS]
    assert sorted(ended, key=ACCURACY_FIRST.place) == [ended[i] for i in (4, 3, 2, 1, 0)]
    assert [trial.number for trial in ranked(TRIALS)] == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("objective", [ACCURACY_FIRST, LOSS_FIRST])
def test_objective_places_a_training_without_a_value_last(objective: Objective) -> None:
    nothing = Ended(val_accuracy=None, val_loss=None, params=1)
    worst = Ended(val_accuracy=0.0, val_loss=1e6, params=10**6)
    assert sorted([nothing, worst], key=objective.place) == [worst, nothing]
    assert objective.merit(None) == -math.inf


@pytest.mark.parametrize(
    ("objective", "value", "target", "reached"),
    [
        (ACCURACY_FIRST, 0.994, 0.994, True),
        (ACCURACY_FIRST, math.nextafter(0.994, 0), 0.994, False),
        (ACCURACY_FIRST, 0.999, 0.994, True),
        (ACCURACY_FIRST, 0.999, None, None),
        (LOSS_FIRST, 0.02, 0.02, True),
        (LOSS_FIRST, math.nextafter(0.02, 1), 0.02, False),
        (LOSS_FIRST, 0.01, 0.02, True),
    ],
)
def test_objective_is_reached_at_the_target_itself(
    objective: Objective, value: float, target: float | None, reached: bool | None
) -> None:
    assert objective.reached(value, target) is reached


@pytest.mark.parametrize(
    ("target", "allowed"),
    [(0.994, True), (1.0, True), (0.0, False), (math.nextafter(1, 2), False), (-0.1, False), (math.nan, False)],
)
def test_accuracy_asked_for_is_above_0_and_at_most_1(target: float, allowed: bool) -> None:
    assert ACCURACY_FIRST.is_target(target) is allowed


def test_another_objective_ranks_trials_and_chooses_finalists() -> None:
    assert [trial.number for trial in ranked(TRIALS, LOSS_FIRST)] == [0, 3, 1, 2, 4]
    assert [trial.number for trial in finalists(TRIALS, 5, 0.15, LOSS_FIRST)] == [0, 3]
    assert [trial.number for trial in finalists(TRIALS, 5, 0.25, LOSS_FIRST)] == [0, 3, 1, 2]


def test_another_objective_decides_between_finalists_and_what_a_tie_goes_to() -> None:
    """The standard error is 0.02 / 2: a mean of 0.109 ties with 0.100, and one of 0.111 does not."""
    means = {0: 0.100, 1: 0.109, 2: 0.111}
    sizes = {0: 100, 1: 200, 2: 300}
    contenders = [
        Finalist(
            record=a_trial(number, accuracy=0.9, loss=mean, params=sizes[number]),
            rerun=Spread(mean=mean, sd=0.02, n=4),
        )
        for number, mean in means.items()
    ]
    assert best_of(contenders, 0.5, LOSS_FIRST).record.number == 1, "more parameters, as that objective has it"
    assert best_of(contenders[::2], 0.5, LOSS_FIRST).record.number == 0
