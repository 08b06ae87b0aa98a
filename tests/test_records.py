"""The study: what it tells of its trials, its settings, samplers and pruners."""

import json
import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import event

from nas.errors import UserError
from nas.network.architecture import notation
from nas.network.cost import cost
from nas.network.layers import Conv
from nas.network.limits import Constraints
from nas.optuna_internals.attributes import set_own_attribute
from nas.optuna_internals.studies import new_study
from nas.optuna_internals.trials import report_epoch
from nas.samplers.feasible import FeasibleSampler, Proposal, ask, make_sampler
from nas.space.candidate import Candidate, digest
from nas.space.loading import load_space
from nas.space.rejections import Ledger, NearestMiss
from nas.space.search_space import Feasible, SearchSpace
from nas.space.seeds import derive_seed
from nas.space.suggestions import Trial
from nas.study.curves import Epoch
from nas.study.location import StudyLocation, locate
from nas.study.opening import writing
from nas.study.records import TrialRecord, digests, ranked, read_trial, records, total_ledger
from nas.study.settings import LATER, constraints_of, difference, settings, settings_of

SPACE = load_space(str(Path(__file__).parent / "data" / "digits.py"))
URL = "give a URL such as sqlite:///study.db to --storage"


def wanted(space: SearchSpace = SPACE, seed: int = 0) -> dict[str, Any]:
    return settings(space, seed=seed, sampler="tpe", pruner="hyperband")


# where it lives


@pytest.fixture
def location(tmp_path: Path) -> StudyLocation:
    return locate("study", tmp_path / "results", None)


def described(study: optuna.Study, params: dict[str, Any], ledger: Ledger) -> optuna.Trial:
    feasible = SPACE.check(SPACE.decode(params))
    assert isinstance(feasible, Feasible)
    proposal = Proposal(number=len(study.trials), params=params, feasible=feasible, ledger=ledger)

    class Fixed(FeasibleSampler):
        def propose(self, study: optuna.Study) -> Proposal:
            return proposal

    return ask(study, Fixed(make_sampler("random", SPACE, 0), SPACE, 0, set()), seed=3)


PARAMS: dict[str, Any] = {
    "cells": 1,
    "head": "pool_conv",
    "kernels1": 4,
    "pool1": 4,
    "dropout1": 0.05,
    "kernels2": 4,
    "pool2": 2,
    "dropout2": 0.0,
}


@pytest.fixture
def study() -> optuna.Study:
    return new_study("study", optuna.storages.RDBStorage("sqlite://"))


def test_described_trial_is_read_back(study: optuna.Study) -> None:
    candidate = SPACE.decode(PARAMS)
    ledger = Ledger(proposals=5, rejected=4, reasons={"max_params": 4})
    trial = described(study, PARAMS, ledger)
    curve: list[dict[str, Any]] = [
        {"epoch": 1, "train_loss": 1.5, "val_loss": 1.2, "val_accuracy": 0.5, "seconds": 1.0},
        {"epoch": 2, "val_accuracy": 0.75, "val_loss": 0.9},
    ]
    report_epoch(trial, curve[:1])
    report_epoch(trial, curve)
    trial.set_user_attr("seconds", 2.5)
    set_own_attribute(trial, "environment", {"precision": "bfloat16"})
    study.tell(trial, 0.9)
    (record,) = records(study)
    assert record == TrialRecord(
        number=0,
        state=TrialState.COMPLETE,
        candidate=candidate,
        params=36 + 8 + 50,  # 4 kernels of 9 weights, batch normalization, classifier
        macs=36 * 49 + 40,  # on a map of 7×7, then ten classes from 4 pooled features
        receptive_field=4 + 2 * 4,  # a pooling of 4, then two kernel steps of 4 pixels each
        seed=derive_seed(3, "training", 0),
        ledger=ledger,
        curve=tuple(Epoch(**epoch) for epoch in curve),
        seconds=2.5,
        environment={"precision": "bfloat16"},
        reason="",
        suggestions=PARAMS,
    )
    assert (record.epochs, record.val_accuracy, record.val_loss, record.precision) == (2, 0.75, 0.9, "bfloat16")
    assert study.trials[0].intermediate_values == {1: 1.2, 2: 0.9}
    assert record.notation == notation(candidate.architecture) == "p4 c4d5 | gap 1×1"
    assert digests(records(study)) == {digest(candidate)}
    shown = study.trials[0].user_attrs
    assert (shown["params"], shown["macs"], shown["notation"]) == (94, 1804, "p4 c4d5 | gap 1×1")
    assert shown["peak_activation_bytes"] == cost(candidate.architecture).peak_activation_bytes


def test_ask_writes_a_trial_whole_or_not_at_all(tmp_path: Path) -> None:
    """Between two commits the program may be killed; another connection sees what would be left."""
    path = tmp_path / "study.db"
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    study = new_study("study", storage)
    left: list[tuple[int, ...]] = []

    def look(*_: object) -> None:
        with closing(sqlite3.connect(path)) as reader:
            tables = ("trials", "trial_params", "trial_user_attributes", "trial_system_attributes")
            left.append(tuple(reader.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables))

    event.listen(storage.engine, "commit", look)
    described(study, PARAMS, Ledger(proposals=1))
    look()
    made = study.trials[0]
    assert set(left) == {(0, 0, 0, 0), (1, len(PARAMS), len(made.user_attrs), len(made.system_attrs))}


def test_trial_of_another_program_is_no_record(study: optuna.Study) -> None:
    trial = study.ask(SPACE.distributions)
    trial.set_user_attr("notation", "c4")
    assert read_trial(study.trials[0]) is None
    assert records(study) == []
    assert digests(records(study)) == set()


@pytest.mark.parametrize(
    ("state", "reason", "trained"),
    [
        (TrialState.COMPLETE, "", True),
        (TrialState.PRUNED, "stopped after epoch 1 of 4", True),
        (TrialState.FAIL, "diverged: the training loss is nan in epoch 1", True),
        (TrialState.FAIL, "its worker died 3 times", False),
        (TrialState.RUNNING, "", False),
    ],
)
def test_records_count_what_was_trained(study: optuna.Study, state: TrialState, reason: str, trained: bool) -> None:
    trial = described(study, PARAMS, Ledger(proposals=1))
    trial.set_user_attr("reason", reason)
    if state is TrialState.PRUNED:
        trial.report(0.5, 1)
    if state.is_finished():
        study.tell(trial, 0.5 if state is TrialState.COMPLETE else None, state=state)
    (record,) = records(study)
    assert (record.state, record.reason, record.trained) == (state, reason, trained)


def test_ranked_by_loss_then_accuracy_then_parameters(study: optuna.Study) -> None:
    trial = described(study, PARAMS, Ledger(proposals=1))
    study.tell(trial, 0.5)
    base = records(study)[0]

    def ended(number: int, accuracy: float, loss: float, params: int) -> TrialRecord:
        curve = Epoch(epoch=1, val_accuracy=accuracy, val_loss=loss)
        return replace(base, number=number, params=params, curve=(curve,))

    best, more_accurate = ended(1, 0.97, 0.1, 900), ended(2, 0.99, 0.2, 900)
    fewer, more = ended(3, 0.98, 0.2, 100), ended(4, 0.98, 0.2, 200)
    stopped = replace(ended(5, 1.0, 0.0, 1), state=TrialState.PRUNED)
    assert ranked([more, stopped, more_accurate, fewer, best]) == [best, more_accurate, fewer, more]


def test_total_ledger_adds_every_trial_up(study: optuna.Study) -> None:
    described(study, PARAMS, Ledger(proposals=3, rejected=2, reasons={"max_params": 2, "forbid linear": 1}))
    described(study, {**PARAMS, "kernels1": 8}, Ledger(proposals=2, rejected=1, reasons={"max_params": 1}))
    study.ask()
    assert total_ledger(records(study)) == Ledger(
        proposals=5, rejected=3, reasons={"max_params": 3, "forbid linear": 1}
    )


def test_a_study_of_an_earlier_version_goes_on() -> None:
    """It lacks the settings that came later, and was made as they were by default."""
    wanted = settings(load_space("mnist"), seed=0, sampler="random", pruner="none")
    earlier = {name: value for name, value in wanted.items() if name not in LATER}
    assert len(earlier) == len(wanted) - 4
    assert difference(earlier, wanted) == ""
    assert "fit_recipe was false and is true" in difference(earlier, {**wanted, "fit_recipe": True})


def test_settings_are_stable_json_that_constraints_are_read_from(location: StudyLocation) -> None:
    plain = wanted()
    assert plain == wanted(load_space(str(Path(__file__).parent / "data" / "digits.py")))
    assert json.loads(json.dumps(plain)) == plain
    assert set(plain) == {
        *(
            "dataset",
            "input_shape",
            "pictures",
            "metric",
            "cross_validation",
            "fit_recipe",
            "num_classes",
            "constraints",
            "recipe",
            "parameters",
            "candidates",
        ),
        *("seed", "sampler", "pruner", "format"),
    }
    assert plain["parameters"]["head"]["attributes"]["choices"] == ["pool_conv", "conv_pool", "linear"]
    with writing(location, plain) as study:
        assert constraints_of(study) == Constraints(max_params=1_500, max_epochs=4, forbid=("linear",))


def test_a_study_of_another_format_is_refused_in_one_sentence(study: optuna.Study) -> None:
    study.set_user_attr("settings", {**wanted(), "format": 1})
    message = f"study {study.study_name!r} was made by another version of nas; give another --study-name"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        settings_of(study)


def test_settings_tell_spaces_apart_that_have_the_same_parameters() -> None:
    def padded(trial: Trial) -> Candidate:
        candidate = SPACE.sample(trial)
        layers = tuple(replace(x, bias=True) if isinstance(x, Conv) else x for x in candidate.architecture.layers)
        return replace(candidate, architecture=replace(candidate.architecture, layers=layers))

    other = replace(SPACE, sample=padded)
    assert other.distributions == SPACE.distributions
    ours, theirs = (settings(space, seed=0, sampler="tpe", pruner="none") for space in (SPACE, other))
    assert [key for key in ours if ours[key] != theirs[key]] == ["candidates"]


def test_total_ledger_keeps_the_nearest_miss(study: optuna.Study) -> None:
    def missed(excess: float) -> Ledger:
        nearest = NearestMiss(excess=excess, notation="c8 | gap 1×1", violations=("21 params",))
        return Ledger(proposals=2, rejected=1, reasons={"max_params": 1}, nearest=nearest)

    for kernels, excess in ((4, 0.3), (8, 0.1), (12, 0.2)):
        described(study, {**PARAMS, "kernels1": kernels}, missed(excess))
    assert total_ledger(records(study)).nearest == missed(0.1).nearest
