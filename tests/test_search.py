"""python -m nas.search: what it refuses and how it says so, and whole searches in real processes, also cut off."""

import csv
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from helpers import DIGITS, Ended, ended, make_task, started
from optuna.artifacts import ArtifactMeta, get_all_artifact_meta
from optuna.trial import FrozenTrial, TrialState

from nas.cli.terminal import run
from nas.optuna_internals.attributes import own_attributes
from nas.optuna_internals.studies import storage_of
from nas.search import main, parser
from nas.study.commands import commands
from nas.study.location import locate
from nas.study.opening import open_study
from nas.study.records import ranked, records
from nas.study.runs import final_study, run_records
from nas.system.files import PARTIAL


def tree(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


# bad input, within this process


Command = Callable[..., Ended]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs the command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()

    def call(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["nas.search", *arguments])
        with pytest.raises(SystemExit) as exit_info:
            run(main)
        assert isinstance(exit_info.value.code, int)
        printed = capsys.readouterr()
        return Ended(status=exit_info.value.code, out=printed.out, err=printed.err)

    yield call
    signal.signal(signal.SIGTERM, handler)
    torch.set_num_threads(threads)


def whole(text: str, least: int) -> str:
    return f"{text!r} must be a whole number of at least {least}; see --help"


NAME = "must be a plain name of at most 100 characters, without path separators"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--space=nowhere", r"unknown search space 'nowhere'; known are .*\bmnist\b.*, or give the path of a .py file"),
        (
            "--epochs=25",
            "--epochs 25 is more than the search space allows (19); loosen its constraints instead",
        ),
        (
            "--max-params=30000",
            "--max-params 30000 is more than the search space allows (20000); loosen its constraints instead",
        ),
        ("--trials=0", f"argument --trials: {whole('0', 1)}"),
        ("--trials=-3", f"argument --trials: {whole('-3', 1)}"),
        ("--trials=x", f"argument --trials: {whole('x', 1)}"),
        ("--seed=-1", f"argument --seed: {whole('-1', 0)}"),
        ("--timeout=0", "argument --timeout: '0' must be a number of seconds above 0; see --help"),
        (
            "--target=99.4",
            "argument --target: '99.4' must be a fraction above 0 and at most 1, such as 0.994; see --help",
        ),
        ("--study-name=../x", f"--study-name '../x' {NAME}"),
        ("--study-name=", f"--study-name '' {NAME}"),
        ("--trails=3", "unrecognized arguments: --trails=3; did you mean --trials?; see --help"),
        (
            "--space=mnits",
            r"unknown search space 'mnits'; known are .*, or give the path of a .py file; did you mean mnist\?",
        ),
        ("--trials", "argument --trials: expected one argument; see --help"),
        ("-q -v", "argument -v/--verbose: not allowed with argument -q/--quiet; see --help"),
        ("--finalists=-1", f"argument --finalists: {whole('-1', 0)}"),
        ("--final-seeds=0", f"argument --final-seeds: {whole('0', 1)}"),
        (
            "--baseline --finalists=0",
            "--baseline: the network to beat is trained beside final models; give --finalists 1 or more",
        ),
        ("--device=tpu", "--device 'tpu' is unknown; give auto, cpu, cuda or cuda:N"),
        (
            "--ray=nowhere",
            "--ray 'nowhere' is no address of a Ray cluster; give auto, local, host:port on a machine of the cluster, "
            "or ray://host:port",
        ),
        (
            "--ray=127.0.0.1:1",
            "--ray 127.0.0.1:1: nobody answers there (Connection refused); give auto, local, host:port on a machine of "
            "the cluster, or ray://host:port",
        ),
        (
            "--ray=auto --device=cuda:0",
            "--device 'cuda:0': Ray says which GPU a worker has; give auto, cpu or cuda",
        ),
        (
            "--jobs-per-gpu=2",
            "--jobs-per-gpu is for --ray; give --jobs, which are shared out among the GPUs of this machine",
        ),
        (
            "--storage=study.db",
            "--storage (or $OPTUNA_STORAGE) is no database URL; give one such as sqlite:///study.db",
        ),
        (
            "--storage=sqlite:////nowhere/x.db",
            "storage sqlite:////nowhere/x.db cannot be used (unable to open database file); "
            "give a URL such as sqlite:///study.db to --storage",
        ),
        ("--shape=1x28x28", "the shape (1, 28, 28) is that of other data; give both, or let the space say the shape"),
        (
            "--data=mnist --shape=28",
            "argument --shape: '28' must be channels, height and width, such as 1x28x28; see --help",
        ),
        (
            "--data=nowhere",
            "unknown data set 'nowhere': known are mnist, .*, or the path of a folder of class folders, or of a table "
            "of files; there is no folder or file .*/nowhere",
        ),
        (
            "--output-dir=/dev/null/x",
            "--output-dir /dev/null/x: /dev/null/x/mnist cannot be written (Not a directory); give a folder that can",
        ),
    ],
)
def test_search_refuses_bad_input_in_one_line(arguments: str, message: str, command: Command, tmp_path: Path) -> None:
    ended = command(*arguments.split())
    pattern = message if ".*" in message else re.escape(message)
    assert re.fullmatch(f"error: {pattern}\n", ended.err), ended.err
    assert (ended.status, ended.out) == (2, "")
    assert tree(tmp_path) == []


def test_search_refuses_an_unknown_choice(command: Command, tmp_path: Path) -> None:
    ended = command("--sampler", "grid")
    # Python 3.12 stopped quoting the choices
    assert re.fullmatch(
        r"error: argument --sampler: invalid choice: 'grid' \(choose from '?blueprint.*random'?\); see --help\n",
        ended.err,
    )
    assert ended.status == 2
    assert tree(tmp_path) == []


def test_search_refuses_a_device_that_is_not_there(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    ended = command("--device", "cuda")
    assert ended.err == "error: --device cuda: torch can use 0 CUDA devices here; give --device cpu\n"
    assert ended.status == 2
    assert tree(tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "RECIPE = ",
            "raise OSError('two\\nlines')\nRECIPE = ",
            "space.py: OSError: two lines; the file must run without errors",
        ),
        (
            "    head = Head(",
            "    if cells == 1:\n        trial.suggest_int('odd', 1, 2)\n    head = Head(",
            "space.py: parameter 'odd' is suggested only for some candidates; "
            "suggest it always and ignore it when unused",
        ),
        (
            'dataset="digits"',
            'dataset="nowhere"',
            "unknown data set 'nowhere': known are mnist, fashion_mnist, kmnist, emnist, cifar10, "
            "or the path of a folder of class folders, or of a table of files; "
            "there is no folder or file FOLDER/nowhere",
        ),
        (
            "num_classes=10",
            "num_classes=9",
            "data set 'digits' has 10 classes, the networks of the space 9; give their Architecture num_classes=10",
        ),
        ("SPACE = ", "NOTHING = ", "space.py: defines no SPACE; it must end with SPACE = SearchSpace(...)"),
    ],
)
def test_search_refuses_a_bad_space_file(old: str, new: str, message: str, command: Command, tmp_path: Path) -> None:
    make_task(tmp_path, images=200)
    assert old in DIGITS
    (tmp_path / "space.py").write_text(DIGITS.replace(old, new), encoding="utf-8")
    before = tree(tmp_path)
    ended = command("--space", "space.py", "--jobs", "1")
    assert ended.err.replace(str(tmp_path), "FOLDER") == f"error: {message}\n"
    assert (ended.status, ended.out) == (2, "")
    assert tree(tmp_path) == before


def test_search_refuses_to_compare_with_a_network_to_beat_that_the_space_does_not_name(
    command: Command, tmp_path: Path
) -> None:
    make_task(tmp_path, images=200)
    before = tree(tmp_path)
    ended = command("--space", "digits.py", "--baseline")
    message = (
        "--baseline: the search space 'digits' names no network to beat; set its baseline, or leave the option out"
    )
    assert (ended.status, ended.out, ended.err) == (2, "", f"error: {message}\n")
    assert tree(tmp_path) == before


def test_search_of_a_table_of_files_needs_no_space_file(command: Command, tmp_path: Path) -> None:
    make_task(tmp_path, images=200)
    files = sorted((tmp_path / "digits").rglob("*.png"))
    lines = [f"digits/{file.parent.name}/{file.name},{file.parent.name}" for file in files]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]), encoding="utf-8")
    before = tree(tmp_path)
    ended = command("--data=labels.csv", "--shape=1x20x16", "--metric=balanced_accuracy", "--dry-run")
    assert (ended.status, ended.err) == (0, "")
    assert "labels.csv" in ended.out
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "max_params=1_500",
            "max_params=60",
            "max_params rejects most: 20,000 of them.\n"
            "The nearest miss is p4 c4d5 | gap 1×1: 94 params, 56.7 % over the limit of 60.\n"
            "Loosen that limit, or let the space propose smaller networks (fewer cells, fewer kernels).\n",
        ),
        (
            "max_params=1_500",
            "min_receptive_field=60",
            "min_receptive_field rejects most: 20,000 of them.\n",
        ),
        (
            '("pool_conv", "conv_pool", "linear")',
            '("linear",)',
            "forbid linear rejects most: 20,000 of them.\n",
        ),
    ],
)
def test_search_says_why_nothing_is_feasible(
    old: str, new: str, message: str, command: Command, tmp_path: Path
) -> None:
    assert old in DIGITS
    (tmp_path / "space.py").write_text(DIGITS.replace(old, new), encoding="utf-8")
    before = tree(tmp_path)
    ended = command("--space", "space.py")
    assert (ended.status, ended.out) == (1, "")
    first, *lines = ended.err.splitlines(keepends=True)
    assert first == "Nothing feasible among 20,000 candidates drawn from the space.\n"
    if message.count("\n") > 1:
        assert "".join(lines) == message
    else:
        assert lines[0] == message
        assert lines[1].startswith("The nearest miss is p")
        assert "smaller networks" not in ended.err
    assert tree(tmp_path) == before


# the command as a person starts it


def test_search_help_names_every_option_quickly_and_without_torch(capsys: pytest.CaptureFixture[str]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = subprocess.run([sys.executable, "-m", "nas.search", "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    with capsys.disabled():
        print(f"\n--help takes {seconds:.2f} s of a core")
    assert seconds < 1
    options = [option for action in parser()._actions for option in action.option_strings]
    assert {"--trials", "--space", "--storage", "--dry-run", "-q", "-v"} <= set(options)
    assert all(option in shown.stdout for option in options)
    code = "import sys; from nas.search import parser; parser(); print({'torch', 'sqlalchemy'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"


FIRST_LINES = (
    "data: 56 validation images: one of them moves an accuracy by 1.8 points\n",
    "study digits on digits · ≤ 1,500 params · no fully connected layer · 4 epochs · batches of 32\n",
)


@pytest.mark.parametrize(("read", "more"), [(0, ("--dry-run",)), (2, ("--trials", "3", "-v"))])
def test_a_search_whose_reader_has_gone_ends_quietly_and_not_as_if_nothing_were_feasible(
    read: int, more: tuple[str, ...], tmp_path: Path
) -> None:
    """As with `| head -1`; a dry run writes all of its lines at once, and may be quicker than its reader goes."""
    make_task(tmp_path)
    with started(tmp_path, *more) as process:
        assert process.stdout is not None
        assert all(process.stdout.readline() in FIRST_LINES for _ in range(read))
        process.stdout.close()
        assert process.wait(timeout=60) == 128 + signal.SIGPIPE
        assert process.stderr is not None
        assert process.stderr.read() == "", "and no worker is left that holds it open"


def test_search_process_exits_with_status_2_on_bad_input(tmp_path: Path) -> None:
    told = ended(started(tmp_path, "--trials", "0"))
    assert told == Ended(
        status=2,
        out="",
        err="error: argument --trials: '0' must be a whole number of at least 1; see --help\n",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A search that a signal ended, and how long that took."""

    ended: Ended
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Searches:
    """The same search twice: in three whole commands, and cut off four times."""

    straight_folder: Path
    first: Ended  # --trials 3, and none trained again
    best_of_three: str  # its model.py
    again: Ended  # the same command
    continued: Ended  # --trials 5, with finalists
    cut_folder: Path
    cuts: list[Cut]
    completed: Ended


AS_IT_IS = ("--finalists", "0")
WITH_FINALISTS = ("--trials", "5", "--finalists", "2", "--final-seeds", "2")
WINNER = r"is the winner: "
CUTS = (  # what it prints before it is cut off: patterns that follow one another
    (signal.SIGINT, ("trial 0: epoch 1 ",)),
    (signal.SIGKILL, (r"trial 2 begins",)),
    (signal.SIGTERM, (r"seed \d+: \d+\.\d\d%", r"seed \d+: epoch 1 ")),
    (signal.SIGKILL, (WINNER, r"seed \d+: epoch 3 ")),
)


def cut_off(folder: Path, number: signal.Signals, patterns: tuple[str, ...]) -> Cut:
    """Start a search and end it when it prints the last pattern: Ctrl+C reaches the group, the others one process."""
    process = started(folder, *WITH_FINALISTS, "-v", storage=f"sqlite:///{folder}/elsewhere.db")
    assert process.stdout is not None
    awaited = list(patterns)
    for line in process.stdout:
        if re.search(awaited[0], line):
            del awaited[0]
        if not awaited:
            break
    begun = time.perf_counter()
    if number is signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    status = process.wait(timeout=60)
    seconds = time.perf_counter() - begun
    out, err = process.communicate()
    return Cut(ended=Ended(status=status, out=out, err=err), seconds=seconds)


def straight(folder: Path) -> dict[str, Any]:
    first = ended(started(folder, "--trials", "3", *AS_IT_IS))
    model = folder / "results" / "digits" / "best" / "model.py"
    text = model.read_text(encoding="utf-8") if model.exists() else first.err
    again = ended(started(folder, "--trials", "3", *AS_IT_IS))
    return {
        "straight_folder": folder,
        "first": first,
        "best_of_three": text,
        "again": again,
        "continued": ended(started(folder, *WITH_FINALISTS, "-q")),
    }


def interrupted(folder: Path) -> dict[str, Any]:
    cuts = [cut_off(folder, number, patterns) for number, patterns in CUTS]
    storage = f"sqlite:///{folder}/elsewhere.db"
    return {
        "cut_folder": folder,
        "cuts": cuts,
        "completed": ended(started(folder, *WITH_FINALISTS, "--storage", storage)),
    }


@pytest.fixture(scope="module")
def searches(tmp_path_factory: pytest.TempPathFactory) -> Searches:
    with ThreadPoolExecutor() as pool:
        runs = (
            pool.submit(straight, make_task(tmp_path_factory.mktemp("straight"))),
            pool.submit(interrupted, make_task(tmp_path_factory.mktemp("interrupted"))),
        )
        whole_search, cut_search = (future.result() for future in runs)
    return Searches(**whole_search, **cut_search)


def finished_study(folder: Path, storage: str | None = None) -> optuna.Study:
    return open_study(locate("digits", folder / "results", storage))


def artifacts_of(study: optuna.Study, trial: FrozenTrial) -> list[ArtifactMeta]:
    return get_all_artifact_meta(trial, storage=storage_of(study))


def test_search_leaves_its_results(searches: Searches) -> None:
    assert (searches.first.status, searches.first.err) == (0, "")
    folder = searches.straight_folder / "results" / "digits"
    study = finished_study(searches.straight_folder)
    runs = len(run_records(study))
    assert {str(path.relative_to(folder)) for path in tree(folder) if path.is_file()} == {
        *("best/model.py", "best/weights.safetensors", "best/summary.txt", "trials.csv", "study.db", "lock"),
        *("final_runs.csv", "report.html"),
        *(f"artifacts/{artifact.artifact_id}" for trial in study.trials for artifact in artifacts_of(study, trial)),
        *(f"weights/{number:05d}.safetensors" for number in range(5)),
        *(f"weights/final-{number:05d}.safetensors" for number in range(runs)),
    }
    assert not any(path.name.startswith(".") for path in tree(folder))


def test_search_prints_plain_lines_when_the_output_is_no_terminal(searches: Searches) -> None:
    assert searches.first.out.startswith("".join(FIRST_LINES))
    lines = searches.first.out.splitlines()
    assert re.fullmatch(r"0:00:0\d  0 of 3 trained  workers are starting", lines[2])
    ends = [line for line in lines if "trained to the end" in line or "stopped after" in line]
    assert len(ends) == 3
    assert re.fullmatch(r"\d:\d\d:\d\d  3 of 3 trained  trial 2: \d+\.\d\d%, .* \(\d[\d,]* params\)", ends[-1])
    assert "\x1b" not in searches.first.out
    assert ": epoch " not in searches.first.out
    written = "written: results/digits/best/model.py, "
    assert lines[-1].startswith(written), "the last line says where to look"


def test_search_table_equals_the_study(searches: Searches) -> None:
    folder = searches.straight_folder
    with (folder / "results" / "digits" / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    known = records(finished_study(folder))
    assert len(rows) == len(known) == 5
    for row, trial in zip(rows, known, strict=True):
        assert (row["number"], row["state"], row["notation"]) == (str(trial.number), trial.state.name, trial.notation)
        assert float(row["val_accuracy"]) == trial.val_accuracy
        assert int(row["params"]) == trial.params <= 1500
        assert {name: row[name] for name in trial.suggestions} == {
            name: str(value) for name, value in trial.suggestions.items()
        }
        assert trial.candidate.architecture.head.kind != "linear"


def test_search_exports_the_first_final_model_of_the_winner(searches: Searches) -> None:
    results = searches.straight_folder / "results" / "digits"
    study = finished_study(searches.straight_folder)
    first = next(record for record in run_records(study) if record.stage == "final")
    assert first.trial in {trial.number for trial in ranked(records(study))[:2]}
    summary = (results / "best" / "summary.txt").read_text(encoding="utf-8")
    assert f"Winner: trial {first.trial}, {first.notation}\n" in summary
    weights = results / "weights" / f"final-{first.number:05d}.safetensors"
    assert (results / "best" / "weights.safetensors").read_bytes() == weights.read_bytes()


def test_search_without_finalists_exports_the_best_trial_as_it_is(searches: Searches) -> None:
    best = ranked(records(finished_study(searches.straight_folder))[:3])[0]
    text = " ".join(searches.best_of_three.split())
    assert f"trial {best.number}; trained on 277 images, seed {best.seed};" in text
    assert f"Winner: trial {best.number}, " in searches.first.out


def test_search_exports_a_file_that_runs_anywhere(searches: Searches, tmp_path: Path) -> None:
    model = searches.straight_folder / "results" / "digits" / "best" / "model.py"
    done = subprocess.run([sys.executable, model], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_search_run_again_trains_nothing_and_says_so(searches: Searches) -> None:
    assert (searches.again.status, searches.again.err) == (0, "")
    lines = searches.again.out.splitlines()
    assert lines[1] == "study digits goes on: 3 of 3 trained, 0 to go"
    assert lines[3] == "0:00:00  3 of 3 trained  nothing is left to train"
    assert "workers are starting" not in searches.again.out


def test_study_remembers_its_commands(searches: Searches) -> None:
    known = commands(finished_study(searches.straight_folder))
    options = [
        command.line.removeprefix("python -m nas.search --space digits.py --jobs 1 --device cpu ") for command in known
    ]
    assert options == [*["--trials 3 --finalists 0"] * 2, "--trials 5 --finalists 2 --final-seeds 2 -q"]
    assert known[-1].plan == {"trials": 5, "finalists": 2, "final_seeds": 2, "baseline": False}
    assert known[-1].devices == ["cpu"]
    assert set(known[-1].versions) == {"nas", "optuna", "python"}
    assert len({command.process for command in known}) == 3


def test_search_continues_to_a_larger_total_quietly(searches: Searches) -> None:
    assert (searches.continued.status, searches.continued.err) == (0, "")
    assert "of 5 trained" not in searches.continued.out
    assert not re.search("trial 4( begins|:)", searches.continued.out)
    assert [trial.trained for trial in records(finished_study(searches.straight_folder))] == [True] * 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_search_interrupted_says_how_to_go_on(searches: Searches, number: signal.Signals) -> None:
    (cut,) = (cut for cut, (sent, _) in zip(searches.cuts, CUTS, strict=True) if sent is number)
    again = "python -m nas.search --space digits.py --jobs 1 --device cpu --trials 5 --finalists 2 --final-seeds 2 -v"
    assert cut.ended.err == f"Interrupted; nothing finished is lost. Go on with: {again}\n"
    assert cut.ended.status == 130
    assert cut.seconds < 5


def test_search_killed_is_killed(searches: Searches) -> None:
    killed = [cut.ended.status for cut, (sent, _) in zip(searches.cuts, CUTS, strict=True) if sent is signal.SIGKILL]
    assert len(killed) == 2
    assert set(killed) == {-signal.SIGKILL}


def without_times(attributes: dict[str, Any]) -> dict[str, Any]:
    curve = [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in attributes["curve"]]
    return {**attributes, "curve": curve}


def test_search_cut_off_many_times_ends_as_an_uninterrupted_one(searches: Searches) -> None:
    assert (searches.completed.status, searches.completed.err) == (0, "")
    assert "study digits goes on: 5 of 5 trained, 0 to go\n" in searches.completed.out
    assert not (searches.cut_folder / "results" / "digits" / "study.db").exists(), "the storage is elsewhere"
    cut = finished_study(searches.cut_folder, f"sqlite:///{searches.cut_folder}/elsewhere.db")
    whole_search = finished_study(searches.straight_folder)
    assert len(cut.trials) == 5
    for ours, theirs in ((cut, whole_search), (final_study(cut), final_study(whole_search))):
        assert TrialState.RUNNING not in {trial.state for trial in ours.trials}
        for our, their in zip(ours.trials, theirs.trials, strict=True):
            assert (our.state, our.params, our.values, our.intermediate_values) == (
                *(their.state, their.params, their.values, their.intermediate_values),
            )
            assert {**our.user_attrs, "seconds": 0} == {**their.user_attrs, "seconds": 0}
            assert without_times(own_attributes(our)) == without_times(own_attributes(their))


def test_search_cut_off_many_times_leaves_the_same_files(searches: Searches) -> None:
    """But for a file that a kill left half written, which a command removes when it is an hour old."""
    ours, theirs = (
        {
            path.relative_to(folder): path.read_bytes()
            for path in tree(folder)
            if path.is_file() and path.suffix != PARTIAL
        }
        for folder in (folder / "results" / "digits" for folder in (searches.cut_folder, searches.straight_folder))
    )
    for path in (Path("best/model.py"), *(path for path in theirs if path.suffix == ".safetensors")):
        assert ours[path] == theirs[path], path
    named = {path for path in theirs if path.parts[0] != "artifacts"}
    assert {path for path in ours if path.parts[0] != "artifacts"} == named - {Path("study.db")}


def test_search_cut_off_many_times_leaves_the_same_artifacts(searches: Searches) -> None:
    def contents(folder: Path, storage: str | None) -> dict[tuple[int, str], str]:
        study = finished_study(folder, storage)
        store = folder / "results" / "digits" / "artifacts"
        return {
            (trial.number, artifact.filename): (store / artifact.artifact_id).read_text(encoding="utf-8")
            for trial in study.trials
            for artifact in artifacts_of(study, trial)
        }

    ours = contents(searches.cut_folder, f"sqlite:///{searches.cut_folder}/elsewhere.db")
    theirs = contents(searches.straight_folder, None)
    assert sorted(ours) == [(n, name) for n in range(5) for name in ("architecture.json", "curve.csv", "model.py")]
    assert ours.keys() == theirs.keys()
    for key, text in ours.items():
        if key[1] == "curve.csv":
            without_seconds = [[line.rsplit(",", 1)[0] for line in t.splitlines()] for t in (text, theirs[key])]
            assert without_seconds[0] == without_seconds[1]
        else:
            assert text == theirs[key]


def test_search_of_a_space_with_two_networks_trains_both_and_says_why_it_ends(command: Command, tmp_path: Path) -> None:
    make_task(tmp_path, images=200)
    space = (tmp_path / "digits.py").read_text(encoding="utf-8")
    space = space.replace('suggest_int("cells", 1, 2)', 'suggest_int("cells", 1, 1)')
    space = space.replace("4, 16, step=4", "4, 8, step=4").replace("(2, 3, 4)", "(4,)").replace("(0.0, 0.05)", "(0.0,)")
    space = space.replace('("pool_conv", "conv_pool", "linear")', '("pool_conv",)').replace("epochs=4", "epochs=1")
    (tmp_path / "few.py").write_text(space, encoding="utf-8")
    ended = command("--space", "few.py", "--trials", "5", "--jobs", "1", "--device", "cpu", "-q", *AS_IT_IS)
    assert ended.status == 0
    first, second, *advice = ended.err.splitlines()
    assert first == "Nothing new among 20,000 candidates drawn from the space."
    assert second == "duplicate rejects most: 20,000 of them."
    assert advice == ["Let the space propose more."]
    study = open_study(locate("few", Path("results"), None))
    assert sorted(record.suggestions["kernels1"] for record in records(study)) == [4, 8]
    assert TrialState.RUNNING not in {trial.state for trial in study.trials}
