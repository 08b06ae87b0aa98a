"""nas.noise, nas.retrain, nas.status and what a study remembers of commands, on a real small study."""

import csv
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
import torch
from helpers import small_space, write_mnist_folder

from nas import ablate, noise, retrain, status
from nas.cli.terminal import command_line, run
from nas.errors import UserError
from nas.samplers.feasible import FeasibleSampler, make_sampler
from nas.study.commands import Command, commands, this_command
from nas.study.location import StudyLocation, locate
from nas.study.opening import open_study, writing
from nas.study.records import ranked, records
from nas.study.runs import run_records
from nas.study.settings import settings
from nas.training.job import EpochReport
from nas.tuner.trials import Plan, Search, train_all
from nas.workers.local import LocalFleet

SEED = 3
LINE = "python -m nas.search --space x.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> StudyLocation:
    """Two trials of one epoch and another in flight, trained on real images."""
    dataset = write_mnist_folder(tmp_path_factory.mktemp("images"))
    space = small_space(dataset, epochs=2)
    plan = Plan(trials=3, fleet=LocalFleet(("cpu",)), dataset=dataset, constraints=space.constraints, seed=SEED)
    location = locate("study", tmp_path_factory.mktemp("results"), None)
    command = this_command(LINE, plan.fleet.devices, {"trials": 3})
    with writing(location, settings(space, seed=SEED, sampler="random", pruner="none"), command) as study:
        sampler = FeasibleSampler(make_sampler("random", space, SEED), space, SEED, seen=set())
        events = train_all(Search(study, location, (), plan, sampler), plan)
        for event in events:
            if event.done == 2 and event.running and event.running[0].epoch == 1:
                break
        events.close()  # type: ignore[attr-defined]  # a generator
    return location


@pytest.fixture
def location(made: StudyLocation, tmp_path: Path) -> StudyLocation:
    """A copy to write into."""
    shutil.copytree(made.folder, tmp_path / "study")
    return locate("study", tmp_path, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    status: int
    out: str
    err: str


Call = Callable[..., Ended]


@pytest.fixture
def call(location: StudyLocation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the main function of a command on the copied study."""
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()

    def called(module: ModuleType, *arguments: str) -> Ended:
        where = ["--output-dir", str(location.folder.parent)]
        monkeypatch.setattr(sys, "argv", [module.__name__, *where, *arguments])
        with pytest.raises(SystemExit) as exit_info:
            run(module.main)
        signal.signal(signal.SIGTERM, handler)
        torch.set_num_threads(threads)
        printed = capsys.readouterr()
        assert isinstance(exit_info.value.code, int)
        return Ended(status=exit_info.value.code, out=printed.out, err=printed.err)

    return called


# retrain


def test_retrain_gives_the_same_numbers_to_the_last_digit(call: Call) -> None:
    ended = call(retrain, "--study-name", "study", "--trial", "1")
    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert re.fullmatch(r"trial 1, seed \d+, again to epoch 2: .*", lines[0])
    assert [
        re.fullmatch(r"epoch \d: training loss \d\.\d{6}, validation accuracy .*%: equal", x) is None for x in lines
    ] == [*(True, False, False, True)]
    assert lines[-1] == "2 of 2 epochs are equal to the last digit."


def edit_trial(location: StudyLocation, number: int, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change what a finished trial keeps, behind Optuna's back."""
    import sqlite3

    with sqlite3.connect(location.folder / "study.db") as database:
        (trial_id,) = database.execute("SELECT trial_id FROM trials WHERE number = ?", (number,)).fetchone()
        rows = database.execute("SELECT key, value_json FROM trial_system_attributes WHERE trial_id = ?", (trial_id,))
        kept = {key.removeprefix("nas:"): json.loads(value) for key, value in rows}
        edit(kept)
        for key, value in kept.items():
            database.execute(
                "UPDATE trial_system_attributes SET value_json = ? WHERE trial_id = ? AND key = ?",
                (json.dumps(value), trial_id, f"nas:{key}"),
            )
    database.close()


def test_retrain_says_that_its_worker_was_lost(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> Iterator[EpochReport]:
        raise BrokenExecutor("the process was terminated abruptly")
        yield

    monkeypatch.setattr("nas.api.retraining._trained_again", lost)
    ended = call(retrain, "--study-name", "study", "--trial", "1")
    message = "error: the worker was lost after 0 equal epochs (the process was terminated abruptly); try again\n"
    assert (ended.status, ended.err) == (2, message)


def test_retrain_names_the_epoch_and_the_version_that_differ(call: Call, location: StudyLocation) -> None:
    before = records(open_study(location))[1].curve[1].val_loss
    assert before is not None

    def edit(attributes: dict[str, Any]) -> None:
        attributes["curve"][1]["val_loss"] = before + 1e-15 * 4
        attributes["environment"]["torch"] = "1.13.0"

    edit_trial(location, 1, edit)
    ended = call(retrain, "--study-name", "study", "--trial", "1")
    assert ended.status == 1
    assert f": val_loss was {before + 4e-15!r} and is {before!r}\n" in ended.out
    assert ended.out.count(": equal\n") == 1
    assert ended.err == (f"1 of 2 epochs differ.\nNot the same as then: torch was 1.13.0 and is {torch.__version__}.\n")


def test_retrain_asks_about_the_images_when_nothing_else_differs(call: Call, location: StudyLocation) -> None:
    edit_trial(location, 0, lambda attributes: attributes["curve"][0].update(train_loss=9.5))
    ended = call(retrain, "--study-name", "study", "--trial", "0")
    assert ended.status == 1
    assert "epoch 1: " in ended.out
    assert ": train_loss was 9.5 and is " in ended.out
    assert ended.err == (
        "1 of 2 epochs differ.\nVersions, processor and device are the same as then; have the images changed?\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--trial 9", "--trial 9: study 'study' has no such training; it has 0 to 2"),
        ("--final-run 0", "--final-run 0: study 'study' has no such training; it has none"),
        ("", "one of the arguments --trial --final-run is required; see --help"),
        (
            "--trial 1 --final-run 1",
            "argument --final-run: not allowed with argument --trial; see --help",
        ),
    ],
)
def test_retrain_of_no_such_trial_is_one_sentence(arguments: str, message: str, call: Call) -> None:
    ended = call(retrain, "--study-name", "study", *arguments.split())
    assert (ended.status, ended.out, ended.err) == (2, "", f"error: {message}\n")


# noise


def test_noise_trains_on_fresh_seeds_once_and_says_what_a_difference_must_exceed(
    call: Call, location: StudyLocation
) -> None:
    best = ranked(records(open_study(location)))[0].number
    first = call(noise, "--study-name", "study", "--seeds", "2", "--jobs", "1", "--device", "cpu")
    assert (first.status, first.err) == (0, "")
    study = open_study(location)
    scores = [run.val_accuracy for run in run_records(study)]
    assert [(run.run.stage, run.run.trial) for run in run_records(study)] == [("noise", best)] * 2
    assert len({run.seed for run in run_records(study)}) == 2
    assert f"n = 2 seeds: {', '.join(f'{score:.2%}' for score in scores if score is not None)}\n" in first.out
    a, b = (score or 0 for score in scores)
    share = (60 * (a + b) / 2 + 1) / 62  # by Laplace's rule of succession
    least = max(
        12.7062 * abs(a - b),  # t with one degree of freedom, times the root of two, times |a - b| over it
        1.95996 * (2 * share * (1 - share) / 60) ** 0.5,
    )
    told = f"must differ by {100 * least:.2f} points to mean something" if least < 1 else "No difference between two"
    assert told in first.out
    assert [trial.number for trial in records(study)] == [0, 1, 2], "they are no trials"
    again = call(noise, "--study-name", "study", "--trial", str(best), "--seeds", "2", "-q")
    assert again.out.splitlines() == first.out.splitlines()[-4:]
    assert commands(open_study(location))[-1].line.startswith("python -m nas.noise --output-dir")


def test_ablate_trains_each_variant_once_and_adds_what_is_asked_for_later(call: Call, location: StudyLocation) -> None:
    first = call(ablate, "--study-name", "study", "--seeds", "2", "--choices", "head", "--jobs", "1")
    assert first.err == ""
    assert first.status == 0
    assert "0:00:0" in first.out
    (row,) = [line for line in first.out.splitlines() if line.startswith("  1×1 convolution before global pooling")]
    assert re.search(r"± \d+\.\d\d %   2   [+-]\d", row), row
    study = open_study(location)
    before = {run.number: run.curve for run in run_records(study)}
    assert sorted(run.run.change for run in run_records(study)) == [
        "",
        "",
        *2 * ["1×1 convolution before global pooling"],
    ]
    second = call(ablate, "--study-name", "study", "--seeds", "2", "--choices", "head, dropout", "--jobs", "1", "-q")
    assert second.status == 0
    after = {run.number: run.curve for run in run_records(study)}
    assert {number: after[number] for number in before} == before, "what was trained is not trained again"
    assert len(after) == 4 + 2 * 4
    with (location.folder / "ablation.csv").open(encoding="utf-8") as file:
        assert sum(row["n"] == "2" for row in csv.DictReader(file)) == 1 + 1 + 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--choices pools,colour", "argument --choices: 'colour' is unknown; known are pools, transitions, dropout, "),
        ("--trial 9", "--trial 9: study 'study' has no such trial; it has 0 to 2"),
        ("--seeds 0", "argument --seeds: '0' must be a whole number of at least 1; see --help"),
    ],
)
def test_ablate_refuses_bad_input_in_one_sentence(arguments: str, message: str, call: Call) -> None:
    ended = call(ablate, "--study-name", "study", *arguments.split())
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {message}")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--trial 9", "--trial 9: study 'study' has no such trial; it has 0 to 2"),
        ("--seeds 1", "argument --seeds: '1' must be a whole number of at least 2; see --help"),
    ],
)
def test_noise_refuses_bad_input_in_one_sentence(
    arguments: str, message: str, call: Call, location: StudyLocation
) -> None:
    ended = call(noise, "--study-name", "study", *arguments.split())
    assert (ended.status, ended.out, ended.err) == (2, "", f"error: {message}\n")
    assert run_records(open_study(location)) == []


# status


def test_status_says_where_a_study_stands(call: Call, location: StudyLocation) -> None:
    text = call(status, "--study-name", "study").out.splitlines()
    assert text[0].startswith("study study on ")
    assert re.fullmatch(rf"not running; the last command was: process {os.getpid()} on .*: {re.escape(LINE)}", text[1])
    assert text[2] == "2 of 3 trained, 1 to go: 0 stopped early, 0 failed, 1 interrupted"
    assert text[3].startswith("5 epochs; 0:00:0")
    assert text[4].startswith("lowest loss: trial ")
    told = json.loads(call(status, "--study-name", "study", "--format", "json").out)
    assert (told["running"], told["trained"], told["trials"], told["in_flight"], told["epochs"]) == (False, 2, 3, 1, 5)
    best = max((t for t in records(open_study(location)) if t.epochs == 2), key=lambda t: t.val_accuracy or 0)
    assert told["best"]["val_accuracy"] == best.val_accuracy


def test_status_knows_a_run_that_is_alive_and_leaves_it_in_peace(call: Call, location: StudyLocation) -> None:
    command = this_command("python -m nas.noise", ("cpu",), {})
    with writing(location, None, command) as study:
        told = json.loads(call(status, "--study-name", "study", "--format", "json").out)
        assert (told["running"], told["command"]["process"]) == (True, os.getpid())
        assert told["trials"] == 3, "of the last search"
        study.set_user_attr("still", "writable")
        text = call(status, "--study-name", "study").out
        assert f"running: process {os.getpid()} on " in text
        assert "1 in training" in text
    assert not json.loads(call(status, "--study-name", "study", "--format", "json").out)["running"]


def test_status_lists_the_runs_of_each_stage(call: Call) -> None:
    call(noise, "--study-name", "study", "--trial", "0", "--seeds", "2", "--jobs", "1", "-q")
    text = call(status, "--study-name", "study").out
    assert "\nnoise runs, judged on the validation images: 2 trained to the end, 0 failed, 0 interrupted\n" in text
    assert re.search(r"\n  trial 0: \d+\.\d\d ± \d+\.\d\d %, n = 2\n", text)


@pytest.mark.parametrize("module", [status, noise, ablate, retrain])
def test_commands_refuse_a_study_that_is_not_there(module: ModuleType, call: Call, location: StudyLocation) -> None:
    arguments = ["--trial", "0"] if module is retrain else []
    ended = call(module, "--study-name", "other", *arguments)
    storage = f"sqlite:///{location.folder.parent}/other/study.db"
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == (
        f"error: there is no study 'other' in {storage}; run a search first, "
        "or say where it is with --output-dir or --storage\n"
    )
    assert not (location.folder.parent / "other").exists()


@pytest.mark.parametrize("module", [status, noise, ablate, retrain])
def test_commands_refuse_a_study_of_another_program(module: ModuleType, call: Call, location: StudyLocation) -> None:
    optuna.create_study(study_name="foreign", storage=location.storage)
    arguments = ["--trial", "0"] if module is retrain else []
    ended = call(module, "--study-name", "foreign", "--storage", location.storage, *arguments)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1


# what a study remembers


def test_a_command_line_never_holds_the_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = "postgresql://me:secret@host/db?password=secret"
    location = locate("a", tmp_path, url)
    for arguments in (["--storage", url], [f"--storage={url}"], [f"--stor={url}"]):
        monkeypatch.setattr(sys, "argv", ["nas.search", *arguments, "--trials", "5 6"])
        line = command_line("nas.search", location)
        assert "secret" not in line
        assert line.startswith("python -m nas.search ")
        assert line.endswith(" --trials '5 6'")


def test_a_command_line_never_holds_the_password_of_a_storage_that_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, last = "postgresql://me:se@cret@host/db", "postgresql://me:secret@host/db"
    shown = "'postgresql://me:***@host/db'"
    monkeypatch.setattr(sys, "argv", ["nas.search", "--storage", first, f"--storage={first}", "--storage", last])
    line = command_line("nas.search", locate("a", tmp_path, last))
    assert line == f"python -m nas.search --storage {shown} '--storage={shown[1:]} --storage {shown}"
    assert this_command(line, (), {}).line == line


def test_a_command_remembers_its_line_without_control_characters() -> None:
    line = this_command("python -m nas.search --output-dir '\x1b[31m\n\udc80 é  x'", (), {}).line
    assert line == "python -m nas.search --output-dir '\\x1b[31m\\n\\udc80 é  x'"


@pytest.mark.parametrize("stored", [5, "x", [5], {"line": LINE}, None])
def test_a_list_of_commands_of_another_form_is_one_sentence_and_stays(stored: Any, location: StudyLocation) -> None:
    study = open_study(location)
    study.set_user_attr("commands", stored)
    said = r"^the list of commands is not as this program writes it \(.+\); put a copy of its storage in its place, or "
    with pytest.raises(UserError, match=said), writing(location, None, this_command(LINE, (), {})):
        pass
    assert study.user_attrs["commands"] == stored
    with writing(location, None):
        pass


HOSTILE = "\x1b[31mred\x07"


def edit_study(location: StudyLocation, key: str, edit: Callable[[Any], None]) -> None:
    """Change what a study keeps of itself."""
    study = open_study(location)
    value = study.user_attrs[key]
    edit(value)
    study.set_user_attr(key, value)


@pytest.mark.parametrize(
    ("key", "edit", "what"),
    [
        ("settings", lambda kept: kept.update(dataset=HOSTILE), "the settings of the study"),
        ("commands", lambda kept: kept[0].update(line=HOSTILE), "the list of commands"),
        ("commands", lambda kept: kept[0].update(host=HOSTILE), "the list of commands"),
    ],
)
def test_status_refuses_stored_texts_that_could_steer_a_terminal(
    key: str, edit: Callable[[Any], None], what: str, call: Call, location: StudyLocation
) -> None:
    edit_study(location, key, edit)
    for form in ("text", "json"):
        ended = call(status, "--study-name", "study", "--format", form)
        assert (ended.status, ended.out) == (2, "")
        assert ended.err == (
            f"error: {what} is not as this program writes it (ValueError: '\\x1b[31mred\\x07' is not printable); "
            "put a copy of its storage in its place, or begin anew with another --study-name\n"
        )


def test_retrain_refuses_stored_texts_that_could_steer_a_terminal(call: Call, location: StudyLocation) -> None:
    edit_trial(location, 1, lambda kept: kept["environment"].update(torch=HOSTILE))
    ended = call(retrain, "--study-name", "study", "--trial", "1")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == (
        "error: trial 1 is not as this program writes it (ValueError: '\\x1b[31mred\\x07' is not printable); "
        "put a copy of its storage in its place, or begin anew with another --study-name\n"
    )


def test_retrain_compares_with_an_epoch_whose_loss_was_lost(call: Call, location: StudyLocation) -> None:
    edit_trial(location, 1, lambda kept: kept["curve"][0].pop("train_loss"))
    ended = call(retrain, "--study-name", "study", "--trial", "1")
    assert ended.status == 1
    assert ": train_loss was None and is " in ended.out


def test_commands_are_read_back(location: StudyLocation) -> None:
    study = open_study(location)
    (command,) = commands(study)
    assert command == Command(**study.user_attrs["commands"][0])
    assert (command.line, command.plan, command.devices) == (LINE, {"trials": 3}, ["cpu"])
    assert str(command) == f"process {command.process} on {command.host}, since {command.started}: {LINE}"
