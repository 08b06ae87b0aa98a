"""What is decided after a fault: values, without a study, a fleet or a training."""

from collections import Counter

import pytest

from nas.errors import UserError
from nas.training.job import OutOfMemoryError
from nas.tuner.recovery import EndFailed, GiveUp, Recovery, TrainAgain

FULL = OutOfMemoryError("CUDA out of memory")


def test_a_training_whose_worker_was_lost_is_trained_again_twice() -> None:
    recovery = Recovery()
    assert recovery.after_lost_worker("died", Counter(died=1)) == TrainAgain("its worker died; it is trained again")
    assert recovery.after_lost_worker("hung", Counter(died=1, hung=1)) == TrainAgain(
        "its worker hung; it is trained again"
    )
    assert recovery.after_lost_worker("died", Counter(died=2, hung=1)) == EndFailed(
        "its worker died 2 times, hung once"
    )


@pytest.mark.parametrize(
    ("lost", "way_out"),
    [
        (Counter(died=3), "died 3 times: give fewer --jobs or lower limits, if memory ran out"),
        (Counter(died=2, hung=1), "died 2 times, hung once: give a longer --epoch-timeout"),
    ],
)
def test_the_third_training_without_workers_gives_up_with_a_way_out(lost: Counter[str], way_out: str) -> None:
    recovery = Recovery()
    decisions = [recovery.after_lost_worker("died", lost) for _ in range(3)]
    assert [type(decision) for decision in decisions] == [EndFailed, EndFailed, GiveUp]
    last = decisions[-1]
    assert isinstance(last, GiveUp)
    assert str(last.error) == (
        f"the workers of 3 trainings were lost 3 times each, none that ended well between; the last one's {way_out}"
    )


def test_a_batch_is_halved_once_when_memory_runs_out() -> None:
    recovery = Recovery()
    again = "out of memory; it is trained again with half a batch at a time"
    assert recovery.after_error(FULL, micro_batches=1) == TrainAgain(again, micro_batches=2)
    assert recovery.after_error(FULL, micro_batches=2) == EndFailed("OutOfMemoryError: CUDA out of memory")


def test_the_third_training_out_of_memory_gives_up_with_a_way_out() -> None:
    recovery = Recovery()
    *_, last = [recovery.after_error(FULL, micro_batches=2) for _ in range(3)]
    assert isinstance(last, GiveUp)
    assert isinstance(last.error, UserError)
    assert last.error.__cause__ is FULL
    assert str(last.error) == (
        "3 trainings were out of memory, even with half a batch at a time (CUDA out of memory); give fewer --jobs, "
        "lower limits, or a recipe with smaller batches"
    )


def test_a_bug_is_given_up_as_it_is_unless_a_training_ends_well_before() -> None:
    recovery, bug = Recovery(), KeyError("weight")
    for _ in range(2):
        assert recovery.after_error(bug, micro_batches=1) == EndFailed("KeyError: 'weight'")
        assert recovery.after_error(ValueError("odd"), micro_batches=1) == EndFailed("ValueError: odd")
    recovery.note_good_end()
    decisions = [recovery.after_error(bug, micro_batches=1) for _ in range(3)]
    assert decisions == [EndFailed("KeyError: 'weight'")] * 2 + [GiveUp("KeyError: 'weight'", bug)]


def test_patience_grows_with_the_slowest_network_and_its_macs() -> None:
    recovery = Recovery()
    assert recovery.patience(1_000) == 3600
    recovery.note_epoch(seconds=2.0, macs=100)
    recovery.note_epoch(seconds=1.0, macs=100)
    assert recovery.patience(1_000) == 20 * 1_000 * 2 / 100
    assert recovery.patience(10) == 300
    assert Recovery(epoch_timeout=7.0).patience(1_000) == 7
