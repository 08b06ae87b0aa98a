"""The study, read once: what a history tells, and that the end of a search reads no trial a second time."""

from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers import Desk, Workshop, made_up, small_architecture, small_space, write_mnist_folder
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from nas.analysis.finalists import fresh_seeds, runs_of, winner_of
from nas.api.finishing import finish
from nas.datasets.dataset import Dataset
from nas.network.module import build
from nas.optuna_internals.studies import new_study, storage_of
from nas.samplers.feasible import FeasibleSampler, make_sampler
from nas.space.candidate import digest
from nas.space.search_space import SearchSpace
from nas.study.commands import remember, this_command
from nas.study.history import History, read_history
from nas.study.location import StudyLocation
from nas.study.records import TrialRecord, records
from nas.study.runs import final_study, run_records
from nas.study.settings import remember_task, settings
from nas.training.job import DivergedError, EpochReport, TrainingJob
from nas.training.training import weights_of
from nas.tuner.progress import Progress
from nas.tuner.pruning import make_pruner
from nas.tuner.reruns import train_runs
from nas.tuner.selection import FinalSettings
from nas.tuner.trials import Plan, Search, train_all
from nas.workers.local import LocalFleet

TRIALS, EPOCHS = 10, 3
HEAVY = 2.0  # seconds that an epoch of a stand-in takes


class CountingStorage(InMemoryStorage):
    """Counts how often the trials of each study are listed."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: Counter[str] = Counter()

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        self.listed[self.get_study_name_from_id(study_id)] += 1
        return super().get_all_trials(study_id, deepcopy, states)


def answer(job: TrainingJob, epoch: int) -> EpochReport:
    """As training answers, with weights of the candidate's network; some diverge, a trial and a run among them."""
    if epoch == 2 and job.hold_out and not all(job.seed % divisor for divisor in (5, 7)):
        raise DivergedError("the training loss is nan in epoch 2")
    report = replace(made_up(job, epoch), weights=weights_of(build(job.candidate.architecture)), seconds=HEAVY)
    return report if job.hold_out else replace(report, val_loss=None, val_accuracy=None)


def through(events: Iterator[Progress], title: str) -> None:
    list(events)


def plan_of(space: SearchSpace, dataset: Dataset) -> Plan:
    fleet = LocalFleet(("cpu",), lambda _: Workshop(answer)())
    return Plan(trials=TRIALS, fleet=fleet, dataset=dataset, constraints=space.constraints, seed=0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_mnist_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture
def space(dataset: Dataset) -> SearchSpace:
    return replace(small_space(dataset, epochs=EPOCHS), baseline=small_architecture(12, 12), target=0.1)


@pytest.fixture
def desk(tmp_path: Path, space: SearchSpace, dataset: Dataset) -> Desk:
    """A search whose last trial has just ended."""
    study = new_study("study", CountingStorage())
    location = StudyLocation(name="study", storage="sqlite:///nowhere.db", folder=tmp_path / "study")
    location.folder.mkdir()
    study.set_user_attr("settings", settings(space, seed=0, sampler="random", pruner="rungs"))
    remember_task(study, space)
    remember(study, this_command("python -m nas.search --trials 10", ["cpu"], {"trials": TRIALS}))
    study.pruner = make_pruner("rungs", EPOCHS)
    sampler = FeasibleSampler(make_sampler("random", space, 0), space, 0, seen=set())
    plan = plan_of(space, dataset)
    list(train_all(Search(study, location, (), plan, sampler), plan))
    return Desk(study=study, location=location)


@pytest.mark.parametrize("finalists", [0, 3])
def test_one_end_of_a_search_lists_the_trials_once(
    desk: Desk, space: SearchSpace, dataset: Dataset, finalists: int
) -> None:
    """From the last trial to the written files, finalists, final models and notes included."""
    storage: Any = storage_of(desk.study)
    storage.listed.clear()
    final = FinalSettings(finalists=finalists, seeds=2, baseline=finalists > 0)
    done = finish(desk.study, desk.location, plan_of(space, dataset), final, through)
    assert done.winner is not None
    assert len(done.winner.models) == (2 if finalists else 0)
    assert (desk.location.folder / "best" / "model.py").exists()
    assert (desk.location.folder / "report.html").exists()
    assert storage.listed["study"] == 1
    assert storage.listed["study (final runs)"] <= 1


def test_a_history_tells_what_the_study_tells(desk: Desk) -> None:
    history, stored = read_history(desk.study), desk.study.get_trials()
    assert (history.name, history.seed, history.goal) == ("study", 0, TRIALS)
    assert len(history.trials) == len(stored)
    states = Counter(trial.state for trial in stored)
    counted = (len(history.completed), len(history.stopped_early), len(history.failed), len(history.in_flight))
    assert counted == tuple(states[TrialState[name]] for name in ("COMPLETE", "PRUNED", "FAIL", "RUNNING"))
    assert len(history.trained) == TRIALS
    assert history.diverged == history.failed != []
    assert history.epochs == sum(len(trial.system_attrs.get("nas:curve", [])) for trial in stored)
    assert history.seconds == HEAVY * history.epochs
    assert history.digests == {trial.user_attrs["digest"] for trial in stored}
    assert history.ledger.rejected == sum(trial.user_attrs["rejected_before_it"] for trial in stored)
    assert history.best == history.leader == history.trial(desk.study.best_trial.number)
    assert history.trial(len(stored)) is None
    assert winner_of(history) is None


def test_runs_that_were_trained_are_added_as_they_would_be_read(
    desk: Desk, space: SearchSpace, dataset: Dataset
) -> None:
    history = read_history(desk.study)
    wanted = runs_of(history.ranked[:2], "noise", fresh_seeds("noise", 6, 0))
    trained = train_runs(
        desk.study, desk.location, history, wanted, plan_of(space, dataset), through, "noise of the best"
    )
    assert trained == read_history(desk.study)
    assert [run.run for run in trained.runs] == wanted
    assert {run.diverged for run in trained.runs} == {False, True}
    assert replace(trained, runs=()) == history


def test_a_run_in_place_of_another_has_its_number(desk: Desk, space: SearchSpace, dataset: Dataset) -> None:
    history = read_history(desk.study)
    wanted = runs_of(history.ranked[:1], "noise", fresh_seeds("noise", 2, 0))
    runs = train_runs(desk.study, desk.location, history, wanted, plan_of(space, dataset), through, "noise").runs
    first = replace(runs[0], state=TrialState.RUNNING)
    interrupted = replace(history, runs=(first, runs[1]))
    assert interrupted.with_runs([runs[0]]).runs == runs
    assert history.with_runs(reversed(runs)).runs == runs


def test_every_record_of_a_search_is_what_is_read_back(desk: Desk, tmp_path: Path, space: SearchSpace) -> None:
    """The record of a trial that has ended is made of what was written."""
    told: list[TrialRecord] = []
    study = new_study("again")
    study.pruner = make_pruner("rungs", EPOCHS)
    sampler = FeasibleSampler(make_sampler("random", space, 0), space, 0, seen=set())
    location = replace(desk.location, folder=tmp_path / "again")

    def annotate(trial: optuna.Trial, record: TrialRecord) -> dict[Path, str]:
        told.append(record)
        return {}

    plan = plan_of(space, Dataset(name=space.dataset, input_shape=space.input_shape))
    list(train_all(Search(study, location, records(study), plan, sampler, annotate=annotate), plan))
    assert sorted(told, key=lambda record: record.number) == records(study)
    assert {digest(record.candidate) for record in told} == read_history(desk.study).digests


def test_a_study_without_runs_has_none(desk: Desk) -> None:
    assert read_history(desk.study).runs == ()
    final_study(desk.study)
    assert isinstance(read_history(desk.study), History)
    assert run_records(desk.study) == []
