"""`nas` and `python -m nas`: every command is listed, and each runs under its short name."""

import contextlib
import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ENVIRONMENT, Ended, ended, make_task

import nas
from nas.__main__ import COMMANDS

PACKAGE = Path(nas.__file__).parent


def call(folder: Path, *arguments: str) -> Ended:
    """python -m nas with arguments, in a folder."""
    command = [sys.executable, "-m", "nas", *arguments]
    pipe = subprocess.PIPE
    return ended(subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a study of two trials, and a folder that only looks like one."""
    task = make_task(tmp_path_factory.mktemp("task"))
    with contextlib.chdir(task):
        nas.search("digits.py", trials=2, finalists=0, jobs=1, device="cpu", progress=False)
    (task / "results" / "broken").mkdir()
    (task / "results" / "broken" / "study.db").write_text("not a database", encoding="utf-8")
    return task


def test_every_module_that_is_a_command_is_listed() -> None:
    programs = {file.stem for file in PACKAGE.glob("*.py") if "\nif __name__ ==" in file.read_text(encoding="utf-8")}
    assert programs - {"__main__"} == set(COMMANDS)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_alone_it_lists_every_command(arguments: tuple[str, ...], tmp_path: Path) -> None:
    told = call(tmp_path, *arguments)
    assert (told.status, told.err) == (0, "")
    assert [line.split()[1] for line in told.out.splitlines()[:-1]] == list(COMMANDS)


def test_it_tells_its_version(tmp_path: Path) -> None:
    assert call(tmp_path, "--version") == Ended(status=0, out=f"nas {nas.__version__}\n", err="")


def test_the_program_is_installed_as_an_entry_point() -> None:
    from importlib.metadata import entry_points

    (program,) = entry_points(group="console_scripts", name="nas")
    assert program.value == "nas.__main__:command"


@pytest.mark.parametrize(("word", "meant"), [("serach", "; did you mean search?"), ("xyzzy", ""), ("--verison", "")])
def test_an_unknown_command_is_one_sentence(word: str, meant: str, tmp_path: Path) -> None:
    told = call(tmp_path, word)
    assert (told.status, told.out) == (2, "")
    assert told.err == f"error: unknown command {word!r}; known are {', '.join(COMMANDS)}{meant}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_answers_help_under_its_short_name(name: str, tmp_path: Path) -> None:
    told = call(tmp_path, name, "--help")
    assert (told.status, told.err) == (0, "")
    assert told.out.startswith(f"usage: nas {name} ")


def test_a_command_with_its_short_name_names_the_study_by_position(folder: Path) -> None:
    told = call(folder, "status", "digits")
    assert told.out.startswith("study digits on digits, in sqlite:///")
    same = call(folder, "status", "digits", "--study-name", "digits")
    assert same.out == told.out
    other = call(folder, "status", "digits", "--study-name", "mnist")
    assert other == Ended(
        status=2, out="", err="error: the study is called 'digits' and --study-name 'mnist'; give one of them\n"
    )


def test_studies_lists_what_there_is(folder: Path, tmp_path: Path) -> None:
    told = call(folder, "studies")
    assert (told.status, told.err) == (0, "")
    lines = told.out.splitlines()
    row = next(line.split() for line in lines if " digits " in line)
    assert row[:5] == ["digits", "digits", "2", "of", "2"]
    assert row[-2:] == ["not", "running"]
    row = next(line.split() for line in lines if line.strip().startswith("broken "))
    assert row[-3:] == ["cannot", "be", "read"]
    assert lines[-1].startswith("broken: storage sqlite:///")
    assert " is damaged (file is not a database) and left as it is; " in lines[-1]
    listed = json.loads(call(folder, "studies", "--format", "json").out)
    assert [one["name"] for one in listed] == ["broken", "digits"]
    assert listed[1]["status"]["trained"] == 2
    none = call(tmp_path, "studies")
    assert none == Ended(status=0, out="There is no study in results; nas search makes one.\n", err="")
    assert list(tmp_path.iterdir()) == []


def test_trials_are_a_table_or_json_or_csv(folder: Path) -> None:
    whole = (folder / "results" / "digits" / "trials.csv").read_text(encoding="utf-8")
    assert call(folder, "trials", "digits", "--format", "csv").out == whole
    rows = json.loads(call(folder, "trials", "digits", "--format", "json").out)
    assert [row["number"] for row in rows] == [0, 1]
    assert set(rows[0]) == set(next(csv.reader(io.StringIO(whole))))
    table = call(folder, "trials", "digits").out
    assert all(row["notation"].split()[0] in table for row in rows)
