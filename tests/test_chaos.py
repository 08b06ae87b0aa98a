"""The short form of `make chaos`: some kinds of fault, each once, and what must hold after them does."""

import random
from pathlib import Path

import pytest
from chaos import (
    FAULTS,
    SEARCHES,
    Ended,
    Fault,
    Found,
    Life,
    Tally,
    ViolationError,
    require_good_end,
    still_there,
    storm,
    troubles,
)
from helpers import make_task
from optuna.trial import TrialState

KINDS = ("worker hung", "program killed")


def in_vain_at_first(fault: Fault) -> Fault:
    """A fault that hits nothing when it is tried for the first time."""
    tries: list[Life] = []

    def late(life: Life, rng: random.Random) -> bool:
        tries.append(life)
        return len(tries) > 1 and fault(life, rng)

    return late


def test_searches_survive_faults_and_end_as_if_nothing_had_happened() -> None:
    told: list[str] = []
    kinds = {kind: in_vain_at_first(FAULTS[kind]) for kind in KINDS}
    tally = storm(len(KINDS), 0, told.append, searches=SEARCHES[1:], kinds=kinds)
    assert troubles(tally) == []
    assert tally.faults == dict.fromkeys(KINDS, 1), "each is counted when it has hit"
    assert tally.lives > tally.searches >= 1
    assert tally.answers > 0
    assert told[-1] == f"2 of 2 faults survived, {tally.searches} searches"


def found(*trials: Ended) -> Found:
    return Found(trials=trials, runs=(), running=0, winner=None)


def test_a_lost_or_changed_trial_is_a_violation() -> None:
    whole, tally = Ended(("trial", 0), TrialState.COMPLETE, (0.9,)), Tally()
    known = still_there({}, found(whole), tally)
    assert still_there(known, found(whole), tally) == known
    for changed in (found(), found(Ended(("trial", 0), TrialState.COMPLETE, (0.8,)))):
        with pytest.raises(ViolationError):
            still_there(known, changed, tally)
    assert tally.lost == 1
    still_there({}, found(whole, whole), tally)
    assert tally.twice == 1
    assert troubles(tally) == ["1 trainings were lost", "1 trainings were there twice"]


def test_a_dashboard_that_does_not_answer_is_trouble() -> None:
    assert troubles(Tally(refusals=3)) == ["3 times the dashboard ended, or did not answer"]


def test_a_program_that_says_nothing_is_a_violation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.PATIENCE", 0.1)
    (make_task(tmp_path, images=0) / "disk").mkdir()
    with Life(tmp_path, SEARCHES[1], None) as life:
        assert not life.listen(1)
        with pytest.raises(ViolationError, match=r"^a program said nothing for 0\.1 s; its last lines: \[\]$"):
            life.end()


@pytest.mark.parametrize(
    ("status", "errors", "hit_by"),
    [
        (2, "error: the database is locked\n", ["worker killed"]),
        (-11, "", ["worker crashed", "second program"]),
        (2, "error: there is no disk\n", []),
        (1, "Traceback (most recent call last):\n", ["program killed"]),
    ],
)
def test_only_a_fault_of_the_program_or_its_disk_may_end_it(status: int, errors: str, hit_by: list[str]) -> None:
    require_good_end(0, "", hit_by)
    require_good_end(-9, "", [*hit_by, "program killed"])
    with pytest.raises(ViolationError):
        require_good_end(status, errors, hit_by)
