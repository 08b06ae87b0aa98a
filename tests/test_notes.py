"""Notes and artifacts for the dashboard: what they say, and that they are written once."""

import shlex
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from helpers import MNIST, Desk, a_desk, small_architecture, small_space
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import TrialState
from optuna_dashboard import get_note

from nas.optuna_internals.attributes import set_own_attribute
from nas.optuna_internals.studies import id_of
from nas.optuna_internals.trials import report_epoch
from nas.reporting.notes import annotate_runs, annotate_trial, artifact_store, layer_table
from nas.samplers.feasible import FeasibleSampler, ask, make_sampler
from nas.study.history import read_history
from nas.study.location import FINAL_RUNS, locate
from nas.study.records import TrialRecord, records
from nas.study.runs import Run, begin_run, final_study, run_records
from nas.study.settings import settings

ROWS = [{"epoch": n, "train_loss": 0.5, "val_loss": 0.25, "val_accuracy": 0.9 + n / 100, "seconds": 1} for n in (1, 2)]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    found = replace(a_desk(tmp_path), location=locate("study", tmp_path, None))
    found.location.folder.mkdir()
    return found


def a_trial(desk: Desk, reason: str) -> tuple[optuna.Trial, TrialRecord]:
    """One that has ended after two epochs, and of which the study is not told yet."""
    space = small_space(MNIST)
    desk.study.set_user_attr("settings", settings(space, seed=0, sampler="random", pruner="none"))
    trial = ask(desk.study, FeasibleSampler(make_sampler("random", space, 0), space, 0, seen=set()), 0)
    report_epoch(trial, ROWS)
    set_own_attribute(trial, "environment", {"precision": "float32"})
    trial.set_user_attr("reason", reason)
    return trial, records(desk.study)[-1]


def test_layer_table_tells_the_cost_of_every_layer() -> None:
    lines = layer_table(small_architecture(8, 8)).splitlines()
    assert lines[0] == "| layer | output | parameters | MACs | receptive field |"
    assert lines[2:] == [
        "| pool 2×2 | 1×14×14 | 0 | 0 | 2 |",
        "| conv 3×3 | 8×14×14 | 88 | 14,112 | 6 |",
        "| pool 2×2 | 8×7×7 | 0 | 0 | 8 |",
        "| conv 3×3 | 8×7×7 | 592 | 28,224 | 16 |",
        "| pool 2×2 | 8×3×3 | 0 | 0 | 20 |",
        "| global pool | 8×1×1 | 0 | 0 | 20 |",
        "| classifier | 10×1×1 | 90 | 80 | 20 |",
    ]


def test_a_stopped_trials_note_says_how_it_ended_and_what_to_do(desk: Desk) -> None:
    trial, record = a_trial(desk, "stopped after epoch 2 of 3")
    annotate_trial(desk.study, desk.location, MNIST, trial, record)
    note = get_note(trial)
    said = "**92.00 %** of the validation images (loss 0.2500) after epoch 2 of 3"
    assert note.startswith(f"`{record.notation}`\n\n{said}")
    assert ": stopped after epoch 2 of 3." in note
    assert layer_table(record.candidate.architecture) in note
    folder = shlex.quote(str(desk.location.folder.parent))
    assert f"    python -m nas.export --study-name study --trial 0 --output-dir {folder}\n" in note


def test_artifacts_are_written_once(desk: Desk) -> None:
    trial, record = a_trial(desk, "")
    for _ in range(2):
        for path, text in annotate_trial(desk.study, desk.location, MNIST, trial, record).items():
            path.write_text(text)
    found = {artifact.filename: artifact.artifact_id for artifact in get_all_artifact_meta(trial)}
    store = artifact_store(desk.location)
    assert len(get_all_artifact_meta(trial)) == len(found) == 3
    with store.open_reader(found["curve.csv"]) as file:
        rows = ["epoch,train_loss,val_loss,val_accuracy,seconds", "1,0.5,0.25,0.91,1", "2,0.5,0.25,0.92,1"]
        assert file.read().decode().splitlines() == rows
    with store.open_reader(found["model.py"]) as file:
        assert "Stopped after epoch 2 of 3" in " ".join(file.read().decode().split())


def test_a_final_runs_note_leads_to_its_trial(desk: Desk) -> None:
    _, record = a_trial(desk, "")
    runs = final_study(desk.study)
    assert runs.study_name == "study" + FINAL_RUNS
    run = Run(stage="finalist", trial=record.number, candidate=record.candidate, seed=7)
    trial = begin_run(runs, run)
    annotate_runs(desk.study, read_history(desk.study))
    assert get_note(trial) == "", "it has not ended"
    report_epoch(trial, ROWS)
    runs.tell(trial, 0.92, state=TrialState.COMPLETE)
    annotate_runs(desk.study, read_history(desk.study))
    note = get_note(trial)
    assert note.startswith(f"`{record.notation}`\n\nTrial 0, seed 7: **92.00 %** of the validation images")
    assert f"[Trial 0 in the search](/dashboard/studies/{id_of(desk.study)}/trials?numbers=0)" in note
    assert [run.seed for run in run_records(desk.study)] == [7]
