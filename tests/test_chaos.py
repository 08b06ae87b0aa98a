"""The short form of `make chaos`: some kinds of fault, each once, and what must hold after them does."""

import pytest
from chaos import FAULTS, SEARCHES, Ended, Found, Tally, ViolationError, still_there, storm
from optuna.trial import TrialState

KINDS = ("worker hung", "program killed")


def test_searches_survive_faults_and_end_as_if_nothing_had_happened() -> None:
    told: list[str] = []
    tally = storm(len(KINDS), 0, told.append, searches=SEARCHES[1:], kinds={kind: FAULTS[kind] for kind in KINDS})
    assert tally.violations == []
    assert tally.faults == dict.fromkeys(KINDS, 1)
    assert (tally.lost, tally.twice, tally.refusals) == (0, 0, 0)
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
