"""The storage of the one who writes: it knows what the database holds, and a batch is there whole or not at all."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers import interrupt
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import OperationalError

from nas.optuna_internals.single_writer import SingleWriterStorage

TEMPLATE = create_trial(
    state=TrialState.RUNNING,
    params={"a": 3, "b": 0.1, "c": "x"},
    distributions={
        "a": IntDistribution(1, 5),
        "b": FloatDistribution(1e-3, 1.0, log=True),
        "c": CategoricalDistribution(("x", None, 2)),
    },
    user_attrs={"notation": "c3 | gap", "tuple": (1, 2)},
    system_attrs={"nas:ledger": {"proposals": 1, "nearest": None}},
)

VALUES = st.one_of(st.none(), st.integers(-5, 5), st.text(max_size=3), st.lists(st.floats(allow_nan=False), max_size=3))
FLOATS = st.floats(allow_nan=True, allow_infinity=True)
STEPS = st.lists(
    st.one_of(
        st.just(("create",)),
        st.tuples(st.just("user"), st.integers(0, 3), st.sampled_from("xyz"), VALUES),
        st.tuples(st.just("system"), st.integers(0, 3), st.sampled_from("xyz"), VALUES),
        st.tuples(st.just("report"), st.integers(0, 3), st.integers(1, 3), FLOATS),
        st.tuples(st.just("note"), st.sampled_from("xyz"), VALUES),
        st.tuples(st.just("complete"), st.integers(0, 3), st.floats(-1, 1)),
        st.tuples(st.just("prune"), st.integers(0, 3)),
        st.tuples(st.just("fail"), st.integers(0, 3)),
        st.just(("flush",)),
    ),
    max_size=25,
)


def made(path: Path) -> optuna.Study:
    return optuna.create_study(
        study_name="study", storage=SingleWriterStorage(RDBStorage(f"sqlite:///{path}")), direction="maximize"
    )


def reopened(path: Path) -> optuna.Study:
    return optuna.load_study(study_name="study", storage=f"sqlite:///{path}")


def shown(trial: FrozenTrial) -> list[Any]:
    """All of it, comparable: NaN equals NaN."""
    intermediate = {step: str(value) for step, value in trial.intermediate_values.items()}
    kept = [trial.number, trial._trial_id, trial.state, trial.values, trial.params, trial.distributions]
    return [*kept, intermediate, trial.user_attrs, trial.system_attrs, trial.datetime_start, trial.datetime_complete]


def take(study: optuna.Study, step: tuple[Any, ...]) -> None:
    storage = study._storage
    assert isinstance(storage, SingleWriterStorage)
    kind, *rest = step
    trials = study.get_trials(deepcopy=False)
    if kind == "create":
        storage.create_new_trial(study._study_id, TEMPLATE)
    elif kind == "note":
        storage.set_study_system_attr(study._study_id, *rest)
    elif kind == "flush":
        storage.flush()
    elif rest[0] < len(trials):
        trial = trials[rest[0]]
        tell: Callable[[], object] = {
            "user": lambda: storage.set_trial_user_attr(trial._trial_id, *rest[1:]),
            "system": lambda: storage.set_trial_system_attr(trial._trial_id, *rest[1:]),
            "report": lambda: storage.set_trial_intermediate_value(trial._trial_id, *rest[1:]),
            "complete": lambda: storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, rest[1:]),
            "prune": lambda: storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED, [0.25]),
            "fail": lambda: storage.set_trial_state_values(trial._trial_id, TrialState.FAIL),
        }[kind]
        if trial.state.is_finished():
            with pytest.raises(UpdateFinishedTrialError):
                tell()
        else:
            tell()


@settings(max_examples=15, deadline=None)
@given(steps=STEPS, together=st.booleans())
def test_what_is_known_is_what_the_database_holds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]], together: bool
) -> None:
    path = tmp_path_factory.mktemp("study") / "study.db"
    study = made(path)
    storage = study._storage
    assert isinstance(storage, SingleWriterStorage)
    if together:
        with storage.batch():
            for step in steps:
                take(study, step)
    else:
        for step in steps:
            take(study, step)
    there = reopened(path)
    assert [shown(trial) for trial in study.trials] == [shown(trial) for trial in there.trials]
    assert storage.get_study_system_attrs(study._study_id) == there._storage.get_study_system_attrs(there._study_id)


def test_a_batch_is_seen_by_others_at_its_end_and_by_the_writer_at_once(tmp_path: Path) -> None:
    study = made(tmp_path / "study.db")
    storage = study._storage
    assert isinstance(storage, SingleWriterStorage)
    trial = optuna.Trial(study, storage.create_new_trial(study._study_id, TEMPLATE))
    with storage.batch():
        trial.report(0.5, 1)
        trial.set_user_attr("x", 1)
        assert study.trials[0].intermediate_values == {1: 0.5}
        assert reopened(tmp_path / "study.db").trials[0].intermediate_values == {}
        storage.flush()
        assert reopened(tmp_path / "study.db").trials[0].intermediate_values == {1: 0.5}
        study.tell(trial, 0.5)
        assert reopened(tmp_path / "study.db").trials[0].state is TrialState.RUNNING
    assert reopened(tmp_path / "study.db").trials[0].value == 0.5


def test_a_batch_that_cannot_be_written_leaves_the_database_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = made(tmp_path / "study.db")
    storage = study._storage
    assert isinstance(storage, SingleWriterStorage)
    trial = optuna.Trial(study, storage.create_new_trial(study._study_id, TEMPLATE))
    before = reopened(tmp_path / "study.db").trials

    def full(*_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    def fill() -> None:
        with storage.batch():
            trial.report(0.5, 1)
            study.tell(trial, 0.5)

    monkeypatch.setattr("nas.optuna_internals.tables._utc", full)  # called for states, which are written last
    with pytest.raises(OperationalError):
        fill()
    assert reopened(tmp_path / "study.db").trials == before


def test_a_trial_whose_making_is_interrupted_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = made(tmp_path / "study.db")
    storage = study._storage
    assert isinstance(storage, SingleWriterStorage)
    storage.create_new_trial(study._study_id, TEMPLATE)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    def begin_two() -> None:
        with storage.batch():
            storage.create_new_trial(study._study_id, TEMPLATE)
            monkeypatch.setattr(
                "nas.optuna_internals.tables.params_rows", interrupted
            )  # between the trial and its parameters
            storage.create_new_trial(study._study_id, TEMPLATE)

    with pytest.raises(KeyboardInterrupt):
        begin_two()
    (trial,) = reopened(tmp_path / "study.db").trials
    assert trial.params == TEMPLATE.params


def test_a_batch_for_which_nothing_is_ready_is_not_there(tmp_path: Path) -> None:
    """Such as the files of trials that are to be told of as finished; not when it is written earlier, either."""
    study = made(tmp_path / "study.db")
    trial = optuna.Trial(study, study._storage.create_new_trial(study._study_id, TEMPLATE))
    before = reopened(tmp_path / "study.db").trials

    def unwritten() -> None:
        raise OSError("No space left on device")

    def end(*, early: bool) -> None:
        storage = SingleWriterStorage(RDBStorage(f"sqlite:///{tmp_path / 'study.db'}"))
        storage.get_all_trials(study._study_id)
        with storage.batch(unwritten):
            storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5])
            if early:
                storage.flush()

    for early in (True, False):
        with pytest.raises(OSError, match="No space left"):
            end(early=early)
        assert reopened(tmp_path / "study.db").trials == before


def test_an_interruption_waits_until_a_batch_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = made(tmp_path / "study.db")
    storage = study._storage
    assert isinstance(storage, SingleWriterStorage)
    trial = optuna.Trial(study, storage.create_new_trial(study._study_id, TEMPLATE))

    def end() -> None:
        with storage.batch(lambda: os.kill(os.getpid(), signal.SIGINT)):
            storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5])

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            end()
    finally:
        signal.signal(signal.SIGINT, before)
    assert [trial.state for trial in reopened(tmp_path / "study.db").trials] == [TrialState.COMPLETE]


def test_a_batch_whose_commit_is_interrupted_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle, too: else its later half would be, of trials that nobody knows."""
    study = made(tmp_path / "study.db")
    storage = study._storage
    assert isinstance(storage, SingleWriterStorage)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    def begin_two() -> None:
        with storage.batch():
            storage.create_new_trial(study._study_id, TEMPLATE)
            storage.create_new_trial(study._study_id, TEMPLATE)
            monkeypatch.setattr("nas.optuna_internals.tables._replace", interrupted)
            try:
                storage.flush()
            finally:
                monkeypatch.undo()

    with pytest.raises(KeyboardInterrupt):
        begin_two()
    there = reopened(tmp_path / "study.db")
    assert there.trials == []
    there.ask({"x": IntDistribution(1, 3)})
    assert [sorted(trial.params) for trial in there.trials] == [["x"]]
