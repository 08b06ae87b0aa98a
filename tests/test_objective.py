"""What a search is after: the order of trainings, and targets, of accuracy and of an objective made up here."""

import math
from dataclasses import dataclass, fields

import pytest
from helpers import small_architecture
from optuna.trial import TrialState

from nas.analysis.finalists import compared, finalists
from nas.space.candidate import Candidate
from nas.space.objective import LOSS_FIRST, Objective, is_target, reached
from nas.space.recipe import Recipe
from nas.space.rejections import Ledger
from nas.study.curves import Epoch
from nas.study.records import Record, TrialRecord, ranked
from nas.study.runs import Run, RunRecord

LARGEST_FIRST = Objective(
    name="parameters",
    direction="maximize",
    value=lambda training: training.params,
    of_equal_values=lambda training: (-(training.val_accuracy or 0),),
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


def test_another_objective_decides_between_finalists() -> None:
    """By the parameters, of which the trials have these and the runs others: (900 × 0.8 + x) / 1.8 and so on."""

    def order(*params: int) -> list[int]:
        runs = [a_run(trial, number) for trial, number in zip(TRIALS, params, strict=False)]
        return [finalist.record.number for finalist in compared(TRIALS[: len(params)], runs, LARGEST_FIRST)]

    assert order(500, 590) == [1, 0]
    assert order(500, 570) == [0, 1]


def a_run(trial: TrialRecord, params: int) -> RunRecord:
    run = Run(stage="finalist", trial=trial.number, candidate=trial.candidate, seed=0)
    known = {field.name: getattr(trial, field.name) for field in fields(Record)}
    return RunRecord(**{**known, "params": params}, run=run, test=None)
