"""The search loop: exact counts, pruning, workers that die, interruptions; the studies are real."""

import ctypes
import math
import os
import random
import re
import resource
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import BrokenExecutor, Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
import torch
from helpers import NOWHERE, Desk, InstantWorker, Workshop, a_desk, made_up, small_space, write_mnist_folder
from optuna.pruners import BasePruner, NopPruner
from optuna.trial import TrialState

from nas.datasets.dataset import Dataset
from nas.datasets.images import load_training
from nas.errors import UserError
from nas.network.architecture import Architecture
from nas.network.cost import cost
from nas.network.layers import Conv, Head
from nas.network.limits import Constraints
from nas.network.measure import LimitBrokenError
from nas.optuna_internals.attributes import own_attributes
from nas.samplers.feasible import FeasibleSampler, make_sampler
from nas.space.candidate import Candidate, digest
from nas.space.recipe import Recipe
from nas.space.rejections import MAX_PROPOSALS, Ledger
from nas.space.search_space import Feasible, SearchSpace
from nas.space.seeds import derive_seed
from nas.space.suggestions import Trial
from nas.study.location import locate
from nas.study.opening import writing
from nas.study.records import TrialRecord, digests, records, total_ledger
from nas.study.settings import settings
from nas.training.job import DivergedError, EpochReport, OutOfMemoryError, TrainingJob
from nas.training.training import train
from nas.tuner.names import PrunerName
from nas.tuner.progress import Progress, SearchProgress
from nas.tuner.pruning import make_pruner
from nas.tuner.recovery import Recovery
from nas.tuner.scheduler import Scheduler
from nas.tuner.trials import Plan, Search
from nas.workers.local import LocalFleet, LocalWorker
from nas.workers.protocol import Fleet, Worker

SPACE = small_space(NOWHERE)
EPOCHS = SPACE.recipe.epochs
SEED = 5


class StopAfterFirstEpoch(BasePruner):
    """Stops every second trial."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.number % 2 == 1


@contextmanager
def a_desk_in_a_file(folder: Path, space: SearchSpace) -> Iterator[Desk]:
    """With a study in SQLite, opened as the program opens it."""
    location = locate("study", folder, None)
    with writing(location, settings(space, seed=SEED, sampler="random", pruner="none")) as study:
        yield Desk(study=study, location=location)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return a_desk(tmp_path)


def search_and_loop(
    desk: Desk,
    make_worker: Callable[[], Worker],
    *,
    trials: int = 6,
    workers: int = 2,
    space: SearchSpace = SPACE,
    dataset: Dataset = NOWHERE,
    pruner: BasePruner | None = None,
    timeout: float | None = None,
    epoch_timeout: float | None = None,
    later_epochs: float = 0,
    fleet: Fleet | None = None,
) -> tuple[Search, Scheduler[TrialRecord]]:
    """As a new run of the program makes them."""
    known = records(desk.study)
    sampler = FeasibleSampler(make_sampler("random", space, SEED), space, SEED, seen=digests(known))
    desk.study.pruner = pruner or NopPruner()
    plan = Plan(
        trials=trials,
        fleet=fleet or LocalFleet(("cpu",) * workers, lambda _: make_worker()),
        dataset=dataset,
        constraints=space.constraints,
        seed=SEED,
        timeout=timeout,
        later_epochs=later_epochs,
    )
    search = Search(desk.study, desk.location, known, plan, sampler)
    return search, Scheduler(search, plan.fleet, Recovery(epoch_timeout))


def scheduler(desk: Desk, make_worker: Callable[[], Worker], **options: Any) -> Scheduler[TrialRecord]:
    """The loop alone."""
    return search_and_loop(desk, make_worker, **options)[1]


def told(loop: Scheduler[TrialRecord]) -> list[SearchProgress]:
    """Every event of a loop."""
    return [cast(SearchProgress, event) for event in loop.events()]


def run(
    desk: Desk, make_worker: Callable[[], Worker], **options: Any
) -> tuple[list[SearchProgress], list[TrialRecord]]:
    """Every event of a run, and what the study says afterwards."""
    return told(scheduler(desk, make_worker, **options)), records(desk.study)


def seed_of(trial: int) -> int:
    return derive_seed(SEED, "training", trial)


def outcome(trials: list[TrialRecord]) -> list[tuple[object, ...]]:
    """What must not depend on how a search was interrupted."""
    return [(t.number, t.state, digest(t.candidate), t.seed, t.epochs, t.val_accuracy, t.val_loss) for t in trials]


def test_trial_whose_files_cannot_be_written_has_not_ended(tmp_path: Path) -> None:
    _, expected = run(a_desk(tmp_path, "calm"), Workshop(), trials=3)
    with a_desk_in_a_file(tmp_path, SPACE) as desk:
        weights = desk.location.weights_path(0).parent
        weights.write_text("in the way")
        with pytest.raises(OSError, match="exists"):
            run(desk, Workshop(), trials=3)
    with a_desk_in_a_file(tmp_path, SPACE) as desk:
        assert [trial.state for trial in records(desk.study) if trial.state.is_finished()] == []
        weights.unlink()
        _, trained = run(desk, Workshop(), trials=3)
        assert outcome(trained) == outcome(expected)
        assert all(desk.location.weights_path(trial.number).exists() for trial in trained)


# counting


@pytest.mark.parametrize(("trials", "workers"), [(1, 1), (1, 3), (5, 2), (7, 4)])
def test_scheduler_trains_exactly_as_many_as_asked(desk: Desk, trials: int, workers: int) -> None:
    workshop = Workshop()
    events, trained = run(desk, workshop, trials=trials, workers=workers)
    assert [(t.number, t.state, t.epochs) for t in trained] == [(i, TrialState.COMPLETE, EPOCHS) for i in range(trials)]
    assert len({digest(t.candidate) for t in trained}) == trials
    assert len(workshop.made) == min(workers, trials), "no more than there is work for"
    assert all(worker.stopped for worker in workshop.made)
    last = events[-1]
    assert (last.done, last.total, last.stopped_early, last.failed) == (trials, trials, 0, 0)
    assert (last.epochs, last.running) == (EPOCHS * trials, ())


def test_stopped_and_diverged_trials_count_as_trained(desk: Desk) -> None:
    def diverge_in_trial_2(job: TrainingJob, epoch: int) -> EpochReport:
        if job.seed == seed_of(2) and epoch == 2:
            raise DivergedError("the training loss is nan in epoch 2")
        return made_up(job, epoch)

    events, trained = run(desk, Workshop(diverge_in_trial_2), trials=5, pruner=StopAfterFirstEpoch())
    stopped = f"stopped after epoch 1 of {EPOCHS}"
    assert [(t.state, t.reason, t.epochs) for t in trained] == [
        (TrialState.COMPLETE, "", EPOCHS),
        (TrialState.PRUNED, stopped, 1),
        (TrialState.FAIL, "diverged: the training loss is nan in epoch 2", 1),
        (TrialState.PRUNED, stopped, 1),
        (TrialState.COMPLETE, "", EPOCHS),
    ]
    assert (events[-1].done, events[-1].stopped_early, events[-1].failed) == (5, 2, 1)
    assert all(t.trained for t in trained)


def test_every_trial_has_its_weights_and_attributes(desk: Desk) -> None:
    _, read = run(desk, Workshop(), trials=4, pruner=StopAfterFirstEpoch())
    for trial, record in zip(desk.study.get_trials(), read, strict=True):
        last = 1 if trial.number % 2 else EPOCHS
        reports = [made_up(job_of(record), epoch) for epoch in range(1, last + 1)]
        assert desk.location.weights_path(trial.number).read_bytes() == reports[-1].weights
        assert trial.intermediate_values == {report.epoch: report.val_loss for report in reports}
        assert trial.value == reports[-1].val_loss
        attributes = trial.user_attrs
        assert attributes["params"] == cost(record.candidate.architecture).params <= 400
        assert attributes["seed"] == seed_of(trial.number)
        assert attributes["val_accuracy"] == reports[-1].val_accuracy
        assert attributes["seconds"] == 0.5 * last
        assert own_attributes(trial)["environment"] == {"precision": "float32"}
        keys = ("epoch", "train_loss", "val_loss", "val_accuracy", "seconds")
        assert own_attributes(trial)["curve"] == [{key: getattr(report, key) for key in keys} for report in reports]
        assert {"notation", "macs", "receptive_field", "peak_activation_bytes", "digest"} <= attributes.keys()


def job_of(record: TrialRecord) -> TrainingJob:
    return TrainingJob(
        candidate=record.candidate, constraints=SPACE.constraints, dataset=NOWHERE, seed=record.seed, device="cpu"
    )


def test_ledger_is_the_sum_of_what_the_trials_tell(desk: Desk) -> None:
    (*_, last), _ = run(desk, Workshop(), trials=12)
    stored = [own_attributes(trial)["ledger"] for trial in desk.study.get_trials()]
    again = total_ledger(records(desk.study))
    assert last.ledger.proposals == sum(ledger["proposals"] for ledger in stored)
    assert last.ledger.rejected == sum(ledger["rejected"] for ledger in stored) == last.ledger.proposals - 12
    assert last.ledger.reasons["max_params"] > 0
    assert (again.proposals, again.rejected, again.reasons) == (
        last.ledger.proposals,
        last.ledger.rejected,
        last.ledger.reasons,
    )


def test_seconds_left_shrink_to_zero(desk: Desk) -> None:
    events, _ = run(desk, Workshop(), trials=4, workers=2)
    assert events[0].seconds_left is None
    left = [event.seconds_left for event in events if event.seconds_left is not None]
    assert left == sorted(left, reverse=True)
    # one of four trials of 1.5 s has finished, the other worker's may be as far: at most 3 are left, shared by two
    assert 0.75 <= left[0] <= 3 * 1.5 / 2
    assert left[-1] == 0


def test_seconds_left_are_those_of_the_last_trial_however_many_workers_wait(desk: Desk) -> None:
    events, _ = run(desk, Workshop(), trials=5, workers=4)
    alone = [event for event in events if event.done == 4 and event.running]
    # three epochs of half a second each
    assert [event.seconds_left for event in alone] == [1.5, 1.0, 0.5]


def test_time_left_for_the_final_runs_is_shared_by_workers_that_the_search_has_let_go(desk: Desk) -> None:
    loop = scheduler(desk, Workshop(), trials=9, workers=8, later_epochs=285)
    last = [event.seconds_left for event in loop.events() if event.done == 8]
    assert last[0] is not None
    assert last[0] == pytest.approx(EPOCHS * 0.5 + 285 * 0.5 / 8, rel=0.2)


def test_milestones_are_all_but_the_epochs_of_trials_that_go_on(desk: Desk) -> None:
    events, _ = run(desk, Workshop(DiesIn({0}, times=1)), trials=1, workers=1)
    begins = events[1].news.split(":")[-1]
    assert [(event.milestone, event.news.split(":")[-1].split(",")[0]) for event in events[2:]] == [
        (False, " epoch 1 of 3"),
        (True, " its worker died; it is trained again"),
        (True, begins),
        (False, " epoch 1 of 3"),
        (False, " epoch 2 of 3"),
        (True, f" {made_up(job_of(records(desk.study)[0]), EPOCHS).val_accuracy:.2%}"),
    ]
    assert all(event.milestone for event in events[:2])


# workers that die, and bugs


class DiesIn:
    """An answer that breaks the worker in these trials, `times` each, in their second epoch."""

    def __init__(self, trials: set[int], times: int) -> None:
        self.left = dict.fromkeys(map(seed_of, trials), times)

    def __call__(self, job: TrainingJob, epoch: int) -> EpochReport:
        if epoch == 2 and self.left.get(job.seed, 0) > 0:
            self.left[job.seed] -= 1
            raise BrokenExecutor("a child process terminated abruptly")
        return made_up(job, epoch)


@pytest.mark.parametrize("deaths", [1, 2])
def test_trial_of_a_dead_worker_is_trained_again_as_if_nothing_had_happened(tmp_path: Path, deaths: int) -> None:
    _, expected = run(a_desk(tmp_path, "calm"), Workshop())
    workshop = Workshop(DiesIn({1}, times=deaths))
    events, trained = run(a_desk(tmp_path, "stormy"), workshop)
    assert outcome(trained) == outcome(expected)
    assert len(workshop.made) == 2 + deaths
    assert all(worker.stopped for worker in workshop.made)
    assert [event.news for event in events].count("trial 1: its worker died; it is trained again") == deaths


def test_trial_whose_workers_always_die_is_given_up_and_replaced(desk: Desk) -> None:
    events, trained = run(desk, Workshop(DiesIn({1}, times=100)), trials=3)
    assert [(t.number, t.state, t.reason) for t in trained] == [
        (0, TrialState.COMPLETE, ""),
        (1, TrialState.FAIL, "its worker died 3 times"),
        (2, TrialState.COMPLETE, ""),
        (3, TrialState.COMPLETE, ""),
    ]
    assert not trained[1].trained
    assert (events[-1].done, events[-1].failed) == (3, 1)


def test_workers_that_are_lost_while_they_have_nothing_to_do_cost_no_training_a_try(desk: Desk) -> None:
    """Those of a node, near the end of a search, when there are more workers than trainings."""
    lost: list[InstantWorker] = []

    class OnNode(InstantWorker):
        def next(self) -> Future[EpochReport]:
            future = super().next()
            if self in lost:
                future = Future()
                future.set_exception(BrokenExecutor("its node has died"))
            return future

    made: list[InstantWorker] = []

    def make() -> Worker:
        made.append(OnNode())
        return made[-1]

    for event in scheduler(desk, make, trials=20, workers=16).events():
        if event.done == 16 and not lost:
            lost += made
    assert len(lost) == 16
    assert [trial.state for trial in records(desk.study)] == [TrialState.COMPLETE] * 20
    assert len(made) == 16 + 4


def test_three_such_trials_in_a_row_end_the_search(desk: Desk) -> None:
    def dies(job: TrainingJob, epoch: int) -> EpochReport:
        if epoch == 2:
            raise BrokenExecutor("a child process terminated abruptly")
        return made_up(job, epoch)

    workshop = Workshop(dies)
    said = (
        "the workers of 3 trainings were lost 3 times each, none that ended well between; the last one's died "
        "3 times: give fewer --jobs or lower limits, if memory ran out"
    )
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        run(desk, workshop, workers=1)
    assert [t.reason for t in records(desk.study)] == ["its worker died 3 times"] * 3
    assert all(worker.stopped for worker in workshop.made)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LimitBrokenError("params is 2 as built, 1 described"), "LimitBrokenError: params is 2 as built, 1 described"),
        (KeyError("weight"), "KeyError: 'weight'"),
    ],
)
def test_unexpected_exception_ends_its_trial_and_not_the_search(desk: Desk, error: Exception, reason: str) -> None:
    def breaks(job: TrainingJob, epoch: int) -> EpochReport:
        if job.seed in {seed_of(1), seed_of(2)} and epoch == 2:
            raise error
        return made_up(job, epoch)

    events, trained = run(desk, Workshop(breaks), trials=3)
    assert [(t.number, t.state, t.reason) for t in trained if not t.trained] == [
        (1, TrialState.FAIL, reason),
        (2, TrialState.FAIL, reason),
    ]
    assert [t.number for t in trained if t.trained] == [0, 3, 4]
    assert (events[-1].done, events[-1].failed) == (3, 2)


def test_third_exception_of_a_kind_with_no_good_end_between_goes_up(desk: Desk) -> None:
    def breaks(job: TrainingJob, epoch: int) -> EpochReport:
        if epoch == 2:
            raise KeyError("weight") if job.seed in {seed_of(1), seed_of(3)} else LimitBrokenError(f"seed {job.seed}")
        return made_up(job, epoch)

    workshop = Workshop(breaks)
    with pytest.raises(LimitBrokenError, match=f"^seed {seed_of(4)}$"):
        run(desk, workshop, workers=1)
    assert [t.state for t in records(desk.study)] == [TrialState.FAIL] * 5
    assert all(worker.stopped for worker in workshop.made)


def out_of_memory_above(least: int, trials: set[int]) -> Callable[[TrainingJob, int], EpochReport]:
    """An answer for which these trials take too much memory, unless a batch is cut into more than `least` parts."""
    seeds = set(map(seed_of, trials))

    def answer(job: TrainingJob, epoch: int) -> EpochReport:
        if job.seed in seeds and job.micro_batches <= least:
            raise OutOfMemoryError("DefaultCPUAllocator: can't allocate memory")
        return made_up(job, epoch)

    return answer


def test_trial_that_is_out_of_memory_is_trained_again_by_halves_of_batches(desk: Desk) -> None:
    workshop = Workshop(out_of_memory_above(1, {1}))
    events, trained = run(desk, workshop, trials=3)
    assert [(t.state, t.micro_batches) for t in trained] == [(TrialState.COMPLETE, n) for n in (1, 2, 1)]
    assert "micro_batches" not in desk.study.trials[0].user_attrs
    again = "trial 1: out of memory; it is trained again with half a batch at a time"
    assert [event.news for event in events].count(again) == 1
    assert len(workshop.made) == 3, "in a new process, since memory of the old one is in pieces"


def test_trial_that_is_out_of_memory_even_then_fails(desk: Desk) -> None:
    _, trained = run(desk, Workshop(out_of_memory_above(2, {1})), trials=3)
    assert [(t.number, t.reason) for t in trained if not t.trained] == [
        (1, "OutOfMemoryError: DefaultCPUAllocator: can't allocate memory")
    ]
    assert [t.number for t in trained if t.trained] == [0, 2, 3]


def test_three_trials_out_of_memory_end_the_search_with_a_way_out(desk: Desk) -> None:
    with pytest.raises(UserError, match=r"^3 trainings were out of memory, .*; give fewer --jobs, lower limits, or "):
        run(desk, Workshop(out_of_memory_above(2, {0, 1, 2, 3})), workers=1)


def test_curve_is_of_half_batches_from_the_first_epoch_on(desk: Desk) -> None:
    """Although epochs of whole ones had been told of."""

    def later_out_of_memory(job: TrainingJob, epoch: int) -> EpochReport:
        if job.micro_batches == 1 and epoch == 3:
            raise OutOfMemoryError("CUDA out of memory")
        return replace(made_up(job, epoch), train_loss=float(job.micro_batches))

    _, (trial,) = run(desk, Workshop(later_out_of_memory), trials=1, workers=1)
    assert [epoch.train_loss for epoch in trial.curve] == [2.0] * EPOCHS


def test_study_says_half_batches_when_it_has_an_epoch_of_them(tmp_path: Path) -> None:
    """Until then its curve is of whole ones."""

    def later_out_of_memory(job: TrainingJob, epoch: int) -> EpochReport:
        if job.micro_batches == 1 and epoch == 3:
            raise OutOfMemoryError("CUDA out of memory")
        return made_up(job, epoch)

    known: set[tuple[int, int]] = set()
    with a_desk_in_a_file(tmp_path, SPACE) as desk:
        for event in scheduler(desk, Workshop(later_out_of_memory), trials=1, workers=1).events():
            known |= {(trial.micro_batches, trial.epochs) for trial in records(desk.study)}
            assert event.failed == 0
    assert known == {(1, 0), (1, 1), (1, 2)} | {(2, epoch) for epoch in range(2, EPOCHS + 1)}


@pytest.mark.parametrize("pruner", ["rungs", "hyperband", "median"])
def test_trial_that_is_out_of_memory_after_a_rung_goes_on(tmp_path: Path, pruner: PrunerName) -> None:
    """Also after the program was killed meanwhile; the study then tells what its last training has told."""
    space, epochs = small_space(NOWHERE, epochs=19), 19

    def later_out_of_memory(job: TrainingJob, epoch: int) -> EpochReport:
        if job.micro_batches == 1 and epoch == 8:
            raise OutOfMemoryError("CUDA out of memory")
        accuracy = 0.3 * job.micro_batches + 0.01 * epoch
        return replace(made_up(job, epoch), train_loss=0.1, val_loss=1 - accuracy, val_accuracy=accuracy)

    with a_desk_in_a_file(tmp_path, space) as desk:
        loop = scheduler(desk, Workshop(later_out_of_memory), trials=1, space=space, pruner=make_pruner(pruner, epochs))
        interrupt(loop, 14)
    with a_desk_in_a_file(tmp_path, space) as desk:
        loop = scheduler(desk, Workshop(later_out_of_memory), trials=1, space=space, pruner=make_pruner(pruner, epochs))
        news = [event.news for event in loop.events()]
        (trial,), (stored,) = records(desk.study), desk.study.trials
    assert "begins again" in news[1]
    assert (trial.state, trial.micro_batches) == (TrialState.COMPLETE, 2)
    assert [epoch.val_loss for epoch in trial.curve] == list(stored.intermediate_values.values())
    assert max(stored.intermediate_values.values()) < 0.4


FAILURES: dict[str, tuple[Exception, Exception]] = {  # in epoch 9 of the first try, and in epoch 3 of the second
    "diverges": (OutOfMemoryError("CUDA out of memory"), DivergedError("the training loss is nan")),
    "out of memory again": (OutOfMemoryError("CUDA out of memory"), OutOfMemoryError("CUDA out of memory")),
    "fails": (BrokenExecutor("a child process terminated abruptly"), RuntimeError("odd")),
    "is lost again": (BrokenExecutor("a child process terminated abruptly"),) * 2,
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_is_kept_of_a_training_that_fails_again_is_of_its_last_try(desk: Desk, name: str) -> None:
    """Which ended earlier than what the study had been told of."""
    tries = [0]

    def answer(job: TrainingJob, epoch: int) -> EpochReport:
        tries[0] += epoch == 1
        if epoch == (9 if tries[0] == 1 else 3):
            raise FAILURES[name][tries[0] > 1]
        return replace(made_up(job, 1), epoch=epoch, val_accuracy=epoch / 20, val_loss=float(tries[0]))

    space = small_space(NOWHERE, epochs=19)
    events = scheduler(desk, Workshop(answer), trials=1, workers=1, space=space).events()
    assert any(event.failed for event in events)
    trial, stored = records(desk.study)[0], desk.study.trials[0]
    assert (trial.state, trial.epochs) == (TrialState.FAIL, 2)
    assert [epoch.val_loss for epoch in trial.curve] == [tries[0]] * 2
    assert stored.user_attrs["val_accuracy"] == 2 / 20
    assert stored.user_attrs["seconds"] == 1.0
    assert desk.location.weights_path(0).read_bytes() == f"{trial.seed} 1".encode()
    shown = [value for value in stored.intermediate_values.values() if not math.isnan(value)]
    assert shown == [tries[0]] * 2


def test_only_the_latest_weights_of_a_training_are_held(desk: Desk) -> None:
    loop = scheduler(desk, Workshop(), trials=2, workers=1)
    for _ in loop.events():
        for training in loop.trainings:
            assert [bool(report.weights) for report in training.reports[:-1]] == [False] * (len(training.reports) - 1)
    assert records(desk.study)[0].epochs == EPOCHS > 2


class FallsSilent(InstantWorker):
    """Gives no answer in the second epoch of one trial, `times` times."""

    def __init__(self, left: list[int]) -> None:
        super().__init__()
        self.left = left

    def next(self) -> Future[EpochReport]:
        if self.epoch == 1 and self.job.seed == seed_of(1) and self.left[0]:
            self.left[0] -= 1
            return Future()
        return super().next()


@pytest.mark.parametrize("times", [1, 2, 3])
def test_worker_that_hangs_is_replaced(tmp_path: Path, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.tuner.scheduler.TICK", 0.01)
    _, expected = run(a_desk(tmp_path, "calm"), Workshop(), trials=3)
    desk, left = a_desk(tmp_path, "stormy"), [times]
    events, trained = run(desk, lambda: FallsSilent(left), trials=3, epoch_timeout=0.05)
    again = "trial 1: its worker hung; it is trained again"
    assert [event.news for event in events].count(again) == min(times, 2)
    if times < 3:
        assert outcome(trained) == outcome(expected)
    else:
        assert [t.reason for t in trained] == ["", "its worker hung 3 times", "", ""]
        assert sum(t.trained for t in trained) == 3


def test_worker_is_given_twenty_times_what_the_slowest_known_network_would_take(desk: Desk) -> None:
    recovery = Recovery()
    search, _ = search_and_loop(desk, Workshop(), trials=2, workers=1)
    loop = Scheduler(search, LocalFleet(("cpu",), lambda _: Workshop()()), recovery)
    patience: list[tuple[str, float]] = []
    for event in loop.events():
        if event.running:
            (training,) = loop.trainings
            patience.append((event.running[0].label, recovery.patience(training.record.macs)))
    assert patience[0] == ("0", 3600)
    assert {seconds for _, seconds in patience[1:]} == {300}, "epochs of half a second; no less than five minutes"
    (record, _) = records(desk.study)
    recovery.note_epoch(seconds=float(record.macs), macs=record.macs)
    assert recovery.patience(record.macs) == 20 * record.macs


def test_time_in_which_the_machine_slept_does_not_count(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [1]
    clock = iter(range(0, 1_000_000, 1_000))
    monkeypatch.setattr("nas.tuner.scheduler.TICK", 0.01)
    monkeypatch.setattr("nas.tuner.scheduler.monotonic", lambda: float(next(clock)))  # 1,000 seconds pass at every look
    started = time.monotonic()
    _, trained = run(desk, lambda: FallsSilent(left), trials=2, epoch_timeout=0.1)
    assert time.monotonic() - started >= 0.04  # what a clock does to five turns, in each of which two hundredths count
    assert len(trained) == 2


class Empty:
    """A fleet that nobody can be hired from."""

    devices = ("cpu",)

    def __init__(self, *news: str) -> None:
        self.news = deque(news)

    def hire(self, most: int) -> list[Worker]:
        return []

    def dismiss(self, worker: Worker) -> None:
        raise AssertionError


def test_without_any_worker_a_search_says_so_and_ends_when_its_time_is_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.tuner.scheduler.TICK", 0.01)
    monkeypatch.setattr("nas.tuner.scheduler.TELLING", 0.05)
    loop = scheduler(desk, Workshop(), timeout=0.2, fleet=Empty("a node is done without"))
    news = [event.news for event in told(loop)]
    assert news[:2] == ["workers are starting", "a node is done without"]
    assert 2 <= news.count("there is no worker to be had; the search waits for one") <= 4
    assert records(desk.study) == []


def test_what_the_person_can_mend_leaves_the_trial_to_be_trained(desk: Desk) -> None:
    def vanished(job: TrainingJob, epoch: int) -> EpochReport:
        raise UserError("unknown data set 'nowhere'")

    with pytest.raises(UserError, match=r"^unknown data set 'nowhere'$"):
        run(desk, Workshop(vanished), trials=2, workers=1)
    assert [t.state for t in records(desk.study)] == [TrialState.RUNNING]
    _, trained = run(desk, Workshop(), trials=2)
    assert [(t.number, t.state) for t in trained] == [(0, TrialState.COMPLETE), (1, TrialState.COMPLETE)]


def test_workers_made_before_one_that_cannot_be_made_are_stopped(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop = Workshop()

    def second_fails() -> Worker:
        if workshop.made:
            raise OSError("no process left")
        return workshop()

    monkeypatch.setattr("nas.workers.local.BETWEEN_TRIES", 0.0)
    with pytest.raises(
        UserError, match=r"^no worker can be started \(no process left\); close other programs, or give fewer --jobs$"
    ):
        run(desk, second_fails)
    assert [worker.stopped for worker in workshop.made] == [True]


@pytest.mark.parametrize("error", [BlockingIOError(11, "Resource temporarily unavailable"), EOFError("unexpected EOF")])
def test_worker_that_cannot_be_made_at_first_is_made_later(
    error: Exception, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.workers.local.BETWEEN_TRIES", 0.0)
    workshop, refusals = Workshop(), [2]

    def refuses_twice() -> Worker:
        if refusals[0]:
            refusals[0] -= 1
            raise error
        return workshop()

    _, trained = run(desk, refuses_twice, trials=2, workers=1)
    assert [t.state for t in trained] == [TrialState.COMPLETE] * 2


# interruptions


@pytest.mark.parametrize(("seen", "running"), [(1, 0), (2, 2), (3, 2), (4, 2), (5, 2), (7, 2)])
def test_interrupted_search_continues_to_the_same_end(tmp_path: Path, seen: int, running: int) -> None:
    _, expected = run(a_desk(tmp_path, "calm"), Workshop())
    desk, workshop = a_desk(tmp_path, "stormy"), Workshop()
    interrupt(scheduler(desk, workshop), seen)
    assert all(worker.stopped for worker in workshop.made)
    begun = [trial.number for trial in desk.study.get_trials(states=(TrialState.RUNNING,))]
    assert len(begun) == running
    events, trained = run(desk, Workshop())
    assert outcome(trained) == outcome(expected)
    for number in begun:
        assert any(event.news.startswith(f"trial {number} ") for event in events), number
    assert events[-1].epochs == 6 * EPOCHS


def interrupt(loop: Scheduler[TrialRecord], seen: int) -> None:
    """See so many events and close the iterator, which is what Ctrl+C comes to."""
    events = loop.events()
    for _ in range(seen):
        next(events)
    cast("Generator[Progress]", events).close()


def test_trial_of_another_program_never_counts(desk: Desk) -> None:
    desk.study.ask()
    _, trained = run(desk, Workshop(), trials=2)
    assert [t.number for t in trained] == [1, 2]
    assert all(t.trained for t in trained)


def test_nothing_left_to_train_makes_no_worker(desk: Desk) -> None:
    run(desk, Workshop(), trials=2)
    workshop = Workshop()
    events, trained = run(desk, workshop, trials=2)
    assert [event.news for event in events] == ["nothing is left to train"]
    assert workshop.made == []
    assert len(trained) == 2


def test_more_trials_of_the_same_study_are_added(tmp_path: Path) -> None:
    _, expected = run(a_desk(tmp_path, "at once"), Workshop(), trials=5)
    desk = a_desk(tmp_path, "in two")
    run(desk, Workshop(), trials=2)
    _, trained = run(desk, Workshop(), trials=5)
    assert outcome(trained) == outcome(expected)


@pytest.mark.parametrize("total", [2, 3, 4])
def test_interrupted_trials_beyond_a_smaller_total_are_given_up(desk: Desk, total: int) -> None:
    run(desk, Workshop(), trials=2)
    interrupt(scheduler(desk, Workshop(), trials=9, workers=4), 5)
    assert [t.number for t in records(desk.study) if t.state is TrialState.RUNNING] == [2, 3, 4, 5]
    events, trained = run(desk, Workshop(), trials=total, workers=4)
    assert [(t.state, t.reason) for t in trained] == [(TrialState.COMPLETE, "")] * total + [
        (TrialState.FAIL, "given up: the search was continued with fewer trials")
    ] * (6 - total)
    assert sum(t.trained for t in trained) == events[-1].done == total
    assert events[-1].failed == 6 - total


def test_interrupted_trials_beyond_the_total_replace_one_that_fails(desk: Desk) -> None:
    interrupt(scheduler(desk, Workshop(), workers=3), 4)
    _, trained = run(desk, Workshop(DiesIn({0}, times=100)), trials=1, workers=3)
    assert [t.reason.split(":")[0] for t in trained] == ["its worker died 3 times", "", "given up"]


def test_interrupted_trials_wait_where_the_time_ran_out(desk: Desk) -> None:
    interrupt(scheduler(desk, Workshop(), workers=3), 4)
    _, trained = run(desk, Workshop(), trials=2, workers=3, timeout=0.0)
    assert [t.state for t in trained] == [TrialState.RUNNING] * 3


def test_timeout_begins_no_further_trial(desk: Desk) -> None:
    events, trained = run(desk, Workshop(), timeout=0.0)
    assert [event.news for event in events] == ["workers are starting"]
    assert trained == []


def test_timeout_finishes_the_trials_begun(desk: Desk) -> None:
    def slow(job: TrainingJob, epoch: int) -> EpochReport:
        time.sleep(0.1)
        return made_up(job, epoch)

    _, trained = run(desk, Workshop(slow), timeout=0.15)
    assert [(t.state, t.epochs) for t in trained] == [(TrialState.COMPLETE, EPOCHS)] * 2


def test_space_with_fewer_candidates_than_trials_ends_cleanly(desk: Desk) -> None:
    space = small_space(NOWHERE, most=3)  # (2, 2), (2, 3), (3, 2) and (3, 3)
    search, loop = search_and_loop(desk, Workshop(), trials=9, space=space)
    (*_, last), trained = told(loop), records(desk.study)
    assert last.done == 4
    assert [t.state for t in trained] == [TrialState.COMPLETE] * 4
    assert desk.study.get_trials(states=(TrialState.RUNNING,)) == []
    assert last.ledger.reasons["duplicate"] == last.ledger.rejected > 1_000
    assert search.exhausted == Ledger(
        proposals=MAX_PROPOSALS, rejected=MAX_PROPOSALS, reasons={"duplicate": MAX_PROPOSALS}
    )
    assert last.news == "no new feasible candidate was found, so the search ends here"
    assert last.seconds_left == 0


def test_space_without_a_feasible_candidate_tells_of_the_nearest_miss(desk: Desk) -> None:
    search, loop = search_and_loop(desk, Workshop(), space=small_space(NOWHERE, most=3, max_params=50))
    events = list(loop.events())
    assert (events[-1].done, records(desk.study)) == (0, [])
    assert search.exhausted is not None
    # 3×3 kernels 2·9 + 2·2·9, two batch normalizations of 2·2, classifier 2·10 + 10: 92
    assert str(search.exhausted.nearest).endswith(": 92 params, 84.0 % over the limit of 50")


def test_search_that_is_not_exhausted_says_so(desk: Desk) -> None:
    search, loop = search_and_loop(desk, Workshop(), trials=1)
    list(loop.events())
    assert search.exhausted is None


# real workers, real images


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_search_on_real_images_survives_a_lost_worker(tmp_path: Path, fault: signal.Signals) -> None:
    dataset = write_mnist_folder(tmp_path / "images")
    space = small_space(dataset, epochs=2)
    made: list[LocalWorker] = []

    def make_worker() -> Worker:
        made.append(LocalWorker())
        return made[-1]

    with a_desk_in_a_file(tmp_path, space) as desk:
        loop = scheduler(desk, make_worker, trials=2, workers=1, space=space, dataset=dataset, epoch_timeout=3.0)
        for event in loop.events():
            if len(made) == 1 and event.running and event.running[0].epoch == 1:
                os.kill(made[0].pid, fault)
        trained = records(desk.study)
    assert len(made) == 2
    assert [(t.number, t.state, t.epochs) for t in trained] == [(i, TrialState.COMPLETE, 2) for i in range(2)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for trial in trained:
            job = replace(job_of(trial), dataset=dataset, constraints=space.constraints)
            *_, last = train(job)
            assert (trial.val_accuracy, trial.val_loss) == (last.val_accuracy, last.val_loss)
            assert desk.location.weights_path(trial.number).read_bytes() == last.weights
    finally:
        torch.set_num_threads(threads)


LITTLE = 560 << 20  # bytes: a whole batch of the network below takes more than 700 MiB, half of one less than 400
GLIBC_M_ARENA_MAX = -8  # malloc.h; each arena, of which a busy machine makes more, reserves 64 MiB


def in_little_memory(job: TrainingJob) -> Iterator[EpochReport]:
    """A training in a process that gets no more than a little."""
    ctypes.CDLL(None).mallopt(GLIBC_M_ARENA_MAX, 1)
    load_training(job.dataset)  # which imports torchvision
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + LITTLE, resource.RLIM_INFINITY))
    return train(job)


def test_search_whose_batches_take_too_much_memory_trains_by_halves(tmp_path: Path) -> None:
    dataset = write_mnist_folder(tmp_path / "images", train=1_300)
    layers = tuple(Conv(out_channels=24, batch_norm=False) for _ in range(6))
    recipe = Recipe(epochs=1, batch_size=1_000, mixed_precision=False)

    def sample(trial: Trial) -> Candidate:
        layer = replace(layers[0], dropout=trial.suggest_float("dropout", 0.0, 0.5))
        network = Architecture(input_shape=(1, 28, 28), num_classes=10, layers=(layer, *layers[1:]), head=Head())
        return Candidate(architecture=network, recipe=recipe)

    space = SearchSpace(sample=sample, constraints=Constraints(), dataset=dataset.name, recipe=recipe)
    with a_desk_in_a_file(tmp_path, space) as desk:
        loop = scheduler(
            desk, lambda: LocalWorker(train=in_little_memory), trials=1, workers=1, space=space, dataset=dataset
        )
        news = [event.news for event in loop.events()]
        trial, *others = records(desk.study)
    assert others == [], "\n".join(news)
    assert "trial 0: out of memory; it is trained again with half a batch at a time" in news
    assert (trial.state, trial.micro_batches, trial.reason) == (TrialState.COMPLETE, 2, "")


def test_search_in_a_file_continues_in_a_new_run(tmp_path: Path) -> None:
    _, expected = run(a_desk(tmp_path, "calm"), Workshop(), trials=4)
    with a_desk_in_a_file(tmp_path, SPACE) as desk:
        interrupt(scheduler(desk, Workshop(), trials=4), 5)
    with a_desk_in_a_file(tmp_path, SPACE) as desk:
        _, trained = run(desk, Workshop(), trials=4)
    assert outcome(trained) == outcome(expected)


# known configurations first


def draws_within_and_outside_the_limits() -> tuple[dict[str, Any], dict[str, Any]]:
    rng = random.Random(5)
    drawn = [SPACE.draw(rng) for _ in range(1000)]
    feasible = [isinstance(SPACE.check(SPACE.decode(params)), Feasible) for params in drawn]
    return drawn[feasible.index(True)], drawn[feasible.index(False)]


def test_the_candidates_of_start_come_first_and_what_they_leave_open_is_drawn(desk: Desk) -> None:
    whole, _ = draws_within_and_outside_the_limits()
    name = next(iter(whole))
    space = replace(SPACE, start=[whole, {name: whole[name]}, whole])
    _, read = run(desk, Workshop(), trials=4, workers=1, space=space)
    assert read[0].suggestions == whole
    assert read[1].suggestions[name] == whole[name]
    assert len({trial.candidate for trial in read}) == 4, "the third of them is the first"
    again = a_desk(desk.location.folder.parent / "again")
    assert [trial.suggestions for trial in run(again, Workshop(), trials=4, workers=1, space=space)[1]] == [
        trial.suggestions for trial in read
    ]


def test_trials_that_were_enqueued_are_trained_under_their_own_numbers(tmp_path: Path) -> None:
    """Also when the program is killed meanwhile; those that the space cannot make fail with a reason."""
    wanted, too_large = draws_within_and_outside_the_limits()
    with a_desk_in_a_file(tmp_path, SPACE) as desk:
        run(desk, Workshop(), trials=1, workers=1)
    study = optuna.load_study(study_name="study", storage=desk.location.storage)
    for params in (wanted, too_large, {"no such": 1}):
        study.enqueue_trial(params)
    with a_desk_in_a_file(tmp_path, SPACE) as desk:
        events = told(scheduler(desk, Workshop(), trials=3, workers=1))
        read, stored = records(desk.study), desk.study.trials
    assert [trial.number for trial in read] == [0, 1, 4]
    assert (read[1].suggestions, read[1].seed, read[1].state) == (wanted, seed_of(1), TrialState.COMPLETE)
    assert stored[1].datetime_start is not None
    assert [trial.state for trial in stored[2:4]] == [TrialState.FAIL] * 2
    assert "outside the limits: " in stored[2].user_attrs["reason"]
    assert stored[3].user_attrs["reason"] == "the space suggests no parameter 'no such'"
    assert sum("which was enqueued, is not trained" in event.news for event in events) == 2
    assert optuna.load_study(study_name="study", storage=desk.location.storage).trials == stored
