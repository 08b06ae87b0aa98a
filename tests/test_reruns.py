"""Full trainings outside the search: what is trained, kept and read back; the studies are real, the workers made up."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import optuna
import pytest
from helpers import NOWHERE, Desk, Workshop, a_desk, made_up, small_architecture
from optuna.trial import TrialState

from nas.analysis.statistics import spread
from nas.network.limits import Constraints
from nas.optuna_internals.attributes import set_own_attribute
from nas.optuna_internals.studies import storage_of
from nas.optuna_internals.trials import trial_numbered
from nas.space.candidate import Candidate
from nas.space.recipe import Recipe
from nas.study.records import records
from nas.study.runs import Run, RunRecord, Stage, final_study, run_records
from nas.training.job import DivergedError, EpochReport, TrainingJob
from nas.training.score import Score
from nas.tuner.progress import RunProgress, Standing
from nas.tuner.recovery import Recovery
from nas.tuner.reruns import Runs, paces
from nas.tuner.scheduler import Scheduler
from nas.tuner.trials import Plan
from nas.workers.local import LocalFleet
from nas.workers.protocol import Worker

EPOCHS = 3
LIMITS = Constraints(max_params=400)


def candidate(kernels: int) -> Candidate:
    return Candidate(architecture=small_architecture(kernels, kernels), recipe=Recipe(epochs=EPOCHS))


def a_run(trial: int | None, seed: int, stage: Stage = "finalist", kernels: int = 2) -> Run:
    return Run(stage=stage, trial=trial, candidate=candidate(kernels), seed=seed)


def no_judge(weights: bytes, candidate: Candidate) -> Score:
    raise AssertionError("the test images are not for this stage")


def answer(job: TrainingJob, epoch: int) -> EpochReport:
    """As training answers: without validation scores when nothing is held out."""
    report = made_up(job, epoch)
    return report if job.hold_out else replace(report, val_loss=None, val_accuracy=None)


def loop(
    desk: Desk,
    wanted: list[Run],
    make_worker: Callable[[], Worker],
    judge: Callable[[bytes, Candidate], Score] = no_judge,
    workers: int = 2,
) -> Scheduler[RunRecord]:
    plan = Plan(
        trials=0,
        fleet=LocalFleet(("cpu",) * workers, lambda _: make_worker()),
        dataset=NOWHERE,
        constraints=LIMITS,
        seed=0,
    )
    runs = Runs(desk.study, desk.location, of(desk), wanted, plan, judge=judge, paces={candidate(2): 0.5})
    return Scheduler(runs, plan.fleet, Recovery())


def run(desk: Desk, wanted: list[Run], workshop: Workshop, **options: object) -> list[RunProgress]:
    return [cast(RunProgress, event) for event in loop(desk, wanted, workshop, **options).events()]  # type: ignore[arg-type]


def of(desk: Desk) -> list[RunRecord]:
    return run_records(desk.study)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return a_desk(tmp_path)


def test_runs_are_trained_to_the_end_and_are_no_trials_of_the_search(desk: Desk) -> None:
    wanted = [a_run(trial, seed, kernels=trial) for seed in (400, 500) for trial in (2, 3)]
    events = run(desk, wanted, Workshop(answer))
    assert [record.run for record in of(desk)] == wanted
    assert all(record.state is TrialState.COMPLETE and record.epochs == EPOCHS for record in of(desk))
    assert desk.study.trials == [] == records(desk.study)
    assert optuna.get_all_study_names(storage_of(desk.study)) == ["study", "study (final runs)"]
    assert (events[-1].done, events[-1].total, events[-1].failed) == (4, 4, 0)
    assert [event.done for event in events] == sorted(event.done for event in events)


def test_a_run_keeps_its_attributes_and_weights(desk: Desk) -> None:
    run(desk, [a_run(7, 400)], Workshop(answer))
    (record,), (trial,) = of(desk), final_study(desk.study).trials
    assert record.accuracy == record.val_accuracy == pytest.approx(0.2 + 0.3)
    assert trial.value == record.val_loss == pytest.approx(1.5)
    assert trial.intermediate_values == {1: pytest.approx(1.7), 2: pytest.approx(1.6), 3: pytest.approx(1.5)}
    shown = trial.user_attrs
    assert (shown["stage"], shown["trial"], shown["seed"], shown["params"]) == ("finalist", 7, 400, record.params)
    assert record.environment == {"precision": "float32"}
    assert desk.location.run_weights_path(0).read_bytes() == b"400 3"
    assert (record.title, record.label, record.test) == ("trial 7, seed 400", "7", None)


def test_a_final_run_holds_nothing_out_and_is_judged_on_the_test_images(desk: Desk) -> None:
    jobs: list[TrainingJob] = []
    judged: list[bytes] = []

    def watched(job: TrainingJob, epoch: int) -> EpochReport:
        jobs.append(job)
        return answer(job, epoch)

    def judge(weights: bytes, judged_candidate: Candidate) -> Score:
        assert judged_candidate == candidate(2)
        judged.append(weights)
        return Score(loss=0.25, accuracy=0.75, n=120)

    run(desk, [a_run(7, 400, "final"), a_run(None, 400, "noise", kernels=5)], Workshop(watched), judge=judge)
    final, noise = of(desk)
    assert judged == [b"400 3"]
    assert final.test is not None
    assert (final.accuracy, final.test.n, final.val_accuracy) == (0.75, 120, None)
    assert final_study(desk.study).trials[0].value == 0.25
    assert noise.accuracy == noise.val_accuracy
    held_out = {job.candidate == candidate(2): job.hold_out for job in jobs}
    assert held_out == {True: False, False: True}
    limits = {job.candidate == candidate(2): job.constraints for job in jobs}
    assert limits == {True: LIMITS, False: Constraints()}, "the network to beat keeps no limits"
    assert noise.title == "the network to beat, seed 400"


def test_runs_that_are_known_are_not_trained_again(desk: Desk) -> None:
    run(desk, [a_run(7, 400)], Workshop(answer))
    workshop = Workshop(answer)
    (event,) = run(desk, [a_run(7, 400)], workshop)
    assert (event.news, workshop.made) == ("nothing is left to train", [])
    run(desk, [a_run(7, 400), a_run(7, 401), a_run(7, 400, "noise")], workshop)
    assert [(record.stage, record.seed) for record in of(desk)] == [
        ("finalist", 400),
        ("finalist", 401),
        ("noise", 400),
    ]


@pytest.mark.parametrize("seen", range(1, 12))
def test_interrupted_runs_go_on_to_the_same_end(tmp_path: Path, seen: int) -> None:
    wanted = [a_run(2, 400, kernels=2), a_run(3, 400, kernels=3)]
    calm, desk = a_desk(tmp_path, "calm"), a_desk(tmp_path)
    run(calm, wanted, Workshop(answer))
    events = loop(desk, wanted, Workshop(answer)).events()
    for _ in range(seen):
        next(events, None)
    events.close()  # type: ignore[attr-defined]  # a generator
    run(desk, wanted, Workshop(answer))
    assert of(desk) == of(calm)


def test_a_run_that_diverges_has_failed_and_the_others_go_on(desk: Desk) -> None:
    def diverge(job: TrainingJob, epoch: int) -> EpochReport:
        if job.seed == 401:
            raise DivergedError("the training loss is nan in epoch 1")
        return answer(job, epoch)

    events = run(desk, [a_run(7, seed) for seed in (400, 401, 402)], Workshop(diverge))
    assert [(record.state, record.accuracy is None) for record in of(desk)] == [
        (TrialState.COMPLETE, False),
        (TrialState.FAIL, True),
        (TrialState.COMPLETE, False),
    ]
    assert of(desk)[1].reason == "diverged: the training loss is nan in epoch 1"
    assert events[-1].failed == 1


def killed(weights: bytes, judged: Candidate) -> Score:
    raise KeyboardInterrupt


def test_a_final_run_killed_before_it_was_judged_is_judged_and_not_trained_again(desk: Desk) -> None:
    wanted = [a_run(7, 400, "final")]
    with pytest.raises(KeyboardInterrupt):
        run(desk, wanted, Workshop(answer), judge=killed)
    assert [record.state for record in of(desk)] == [TrialState.RUNNING]
    workshop, judged = Workshop(answer), list[bytes]()

    def judge(weights: bytes, _: Candidate) -> Score:
        judged.append(weights)
        return Score(loss=0.25, accuracy=0.75, n=120)

    events = run(desk, wanted, workshop, judge=judge)
    assert (workshop.made, judged) == ([], [b"400 3"])
    assert [event.news for event in events] == ["trial 7, seed 400: 75.00%", "nothing is left to train"]
    (record,) = of(desk)
    assert (record.state, record.accuracy, record.test) == (
        *(TrialState.COMPLETE, 0.75, Score(loss=0.25, accuracy=0.75, n=120)),
    )


def test_a_run_that_was_judged_before_the_kill_is_not_judged_again(desk: Desk) -> None:
    wanted = [a_run(7, 400, "final")]
    with pytest.raises(KeyboardInterrupt):
        run(desk, wanted, Workshop(answer), judge=killed)
    set_own_attribute(trial_numbered(final_study(desk.study), 0), "test", asdict(Score(loss=0.5, accuracy=0.5, n=120)))
    run(desk, wanted, Workshop(answer), judge=no_judge)
    assert [(record.state, record.accuracy) for record in of(desk)] == [(TrialState.COMPLETE, 0.5)]


def test_a_run_that_crashed_runs_anew_in_the_next_command(desk: Desk) -> None:
    def crash(job: TrainingJob, epoch: int) -> EpochReport:
        raise RuntimeError("no kernel image")

    wanted = [a_run(7, 400), a_run(7, 401)]
    run(desk, wanted, Workshop(crash), workers=1)
    run(desk, wanted, Workshop(answer), workers=1)
    assert [(record.seed, record.state, record.reason) for record in of(desk)] == [
        (400, TrialState.FAIL, "RuntimeError: no kernel image"),
        (401, TrialState.FAIL, "RuntimeError: no kernel image"),
        (400, TrialState.COMPLETE, ""),
        (401, TrialState.COMPLETE, ""),
    ]


def test_progress_tells_what_the_seeds_have_come_to(desk: Desk) -> None:
    wanted = [a_run(2, 400), a_run(2, 500), a_run(None, 400, kernels=8)]
    events = run(desk, wanted, Workshop(answer), workers=1)
    first, last = events[0], events[-1]
    assert [standing.accuracy for standing in first.standings] == [None, None]
    ours, theirs = last.standings
    assert ours == Standing(
        label="2",
        notation="p2 c2d10 p2 c2 p2 | gap 1×1",
        params=of(desk)[0].params,
        accuracy=spread([0.5, 0.55]),
    )
    assert theirs.label == "–"
    assert theirs.accuracy == spread([0.5])
    assert any("trial 2, seed 400: 50.00%" in event.news for event in events)


def test_time_left_knows_the_pace_of_a_network_and_guesses_that_of_others_by_their_macs(desk: Desk) -> None:
    known, unknown = a_run(2, 400), a_run(None, 400, "final", kernels=8)
    assert run(desk, [known], Workshop(answer), workers=1)[0].seconds_left == pytest.approx(0.5 * EPOCHS)
    left = run(desk, [unknown], Workshop(answer), judge=lambda *_: Score(loss=1, accuracy=0.5, n=1), workers=1)
    macs = [next(r for r in of(desk) if r.run == wanted).macs for wanted in (known, unknown)]
    # six fifths, because nothing is held out
    assert left[0].seconds_left == pytest.approx(0.5 * EPOCHS * 1.2 * macs[1] / macs[0])
    assert left[-1].seconds_left == 0


def test_paces_are_seconds_an_epoch(desk: Desk) -> None:
    run(desk, [a_run(2, 400)], Workshop(answer))
    assert paces(of(desk), 0) == {candidate(2): 0.5}
    judge = Workshop(answer), lambda *_: Score(loss=1, accuracy=0.5, n=1)
    run(desk, [a_run(3, 400, "final", kernels=3)], judge[0], judge=judge[1])
    assert paces(of(desk), 0) == {candidate(2): 0.5, candidate(3): pytest.approx(0.5 / 1.2)}
