"""Private names of Optuna, its dashboard and Ray: where they occur, and what works without them."""

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from helpers import ENVIRONMENT, ended, make_task
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import TrialState
from optuna_dashboard import get_note

import nas
from nas.optuna_internals.batched_storage import OrderedStorage, batch
from nas.optuna_internals.studies import new_study, storage_of
from nas.optuna_internals.trials import tell, trial_numbered
from nas.reporting.notes import artifact_store
from nas.study.location import locate
from nas.study.opening import open_study
from nas.study.records import records

PACKAGE = Path(nas.__file__).parent
WITHOUT = Path(__file__).parent / "without_private_names.py"
LIBRARIES = ("optuna", "optuna_dashboard", "ray")
HOMES = {"optuna_internals.tables", "optuna_internals.dashboard_attributes"}
OTHERS = {  # Python's own, and an attribute of a class of ours
    *("os._exit", "atexit._run_exitfuncs", "argparse._ArgumentGroup", "self._executor._processes", "super()._done"),
    *("forkserver._forkserver", "server._forkserver_alive_fd", "_forkserver_alive_fd"),
}
TRIALS = 12  # of which the sampler draws the first six at random


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def private_names(source: str) -> Iterator[str]:
    """What code imports of the libraries' private names, and the private attributes of anything but itself."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                imported = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), names=names):
                imported = [f"{module}.{alias.name}" for alias in names]
            case ast.Attribute(value=value, attr=name) if is_private(name):
                if ast.unparse(value) not in ("self", "cls") and ast.unparse(node) not in OTHERS:
                    yield ast.unparse(node)
                continue
            case ast.Call(func=ast.Name(id="getattr" | "setattr"), args=[_, ast.Constant(value=str(name)), *_]):
                if is_private(name) and name not in OTHERS:
                    yield name
                continue
            case _:
                continue
        for name in imported:
            first, *rest = name.split(".")
            if first in LIBRARIES and any(map(is_private, rest)):
                yield name


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from optuna.storages._rdb import models", ["optuna.storages._rdb.models"]),
        ("import ray._private.worker", ["ray._private.worker"]),
        ("from optuna.storages import _CachedStorage, RDBStorage", ["optuna.storages._CachedStorage"]),
        ("study._storage.get_trial(trial._trial_id)", ["study._storage", "trial._trial_id"]),
        ("super()._sample(study)", ["super()._sample"]),
        ("getattr(study, '_storage')", ["_storage"]),
        ("self._study = cls._made; study.__class__; os._exit(1); from nas.x import _y", []),
    ],
)
def test_private_names_are_found(source: str, found: list[str]) -> None:
    assert sorted(private_names(source)) == found


def test_private_names_of_libraries_are_in_their_homes() -> None:
    strays = {
        f"{module}: {name}"
        for file in PACKAGE.rglob("*.py")
        if (module := ".".join(file.relative_to(PACKAGE).with_suffix("").parts)) not in HOMES
        for name in private_names(file.read_text(encoding="utf-8"))
    }
    assert strays == set()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_task(tmp_path_factory.mktemp("task"), images=200)


def command(module: str, *options: str) -> list[str]:
    return [sys.executable, str(WITHOUT), module, "--study-name", "digits", *options]


def begun(task: Path, *options: str) -> "subprocess.Popen[str]":
    """A search, the leader of its own process group."""
    return subprocess.Popen(
        [
            *command(
                "nas.search",
                "--space",
                "digits.py",
                "--epochs",
                "1",
                "--trials",
                str(TRIALS),
                *options,
            )
        ],
        cwd=task,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def trained_in(folder: Path) -> int:
    """How many trials a search has trained so far; 0 before it has made its study."""
    if not (folder / "digits" / "study.db").exists():
        return 0
    return sum(record.trained for record in records(open_study(locate("digits", folder, None))))


@pytest.fixture(scope="module")
def searched(task: Path) -> str:
    """What a search says that was killed, and then given again."""
    first = begun(task, "--jobs", "2", "--finalists", "2", "--final-seeds", "1")
    while first.poll() is None and len(list((task / "results/digits/weights").glob("*"))) < 3:
        time.sleep(0.05)
    assert first.poll() is None, first.communicate()
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert 1 <= trained_in(task / "results") < TRIALS
    told = ended(begun(task, "--jobs", "2", "--finalists", "2", "--final-seeds", "1"))
    assert (told.status, told.err) == (0, "")
    return told.out


def test_a_search_without_private_names_keeps_its_promises(task: Path, searched: str) -> None:
    location = locate("digits", task / "results", None)
    study = open_study(location)
    found = records(study)
    assert [record.number for record in found] == list(range(len(found)))
    assert sum(record.trained for record in found) == TRIALS, "the budget is exact, whatever was killed"
    assert {record.state for record in found} <= {TrialState.COMPLETE, TrialState.PRUNED}
    store = artifact_store(location)
    for record in found:
        assert location.weights_path(record.number).exists()
        trial = trial_numbered(study, record.number)
        assert f"`{record.notation}`" in get_note(trial)
        held = {meta.filename for meta in get_all_artifact_meta(trial) if store.holds(meta.artifact_id)}
        assert held == {"architecture.json", "curve.csv", "model.py"}, "others were told of just before the kill"
    for name in ("best/model.py", "best/summary.txt", "report.html", "trials.csv", "final_runs.csv"):
        assert (location.folder / name).exists()
    assert "Winner: trial" in searched


@pytest.mark.usefixtures("searched")
def test_a_command_without_private_names_reads_and_writes_the_study(task: Path) -> None:
    told = subprocess.run(command("nas.report"), cwd=task, env=ENVIRONMENT, capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.parametrize(("newer", "storage"), [(0, "SingleWriterStorage"), (1, "OrderedStorage")])
def test_tables_that_are_not_as_they_were_are_left_to_optuna(tmp_path: Path, newer: int, storage: str) -> None:
    code = (
        "import optuna\n"
        "from optuna.storages._rdb import models\n"
        f"models.SCHEMA_VERSION += {newer}\n"
        "from nas.optuna_internals.batched_storage import for_writer\n"
        "print(type(for_writer(optuna.storages.RDBStorage('sqlite://'))).__name__)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert told.stdout == f"{storage}\n"


def test_optunas_own_storage_hears_of_an_end_once_the_files_are_there(tmp_path: Path) -> None:
    study = new_study("study", OrderedStorage(optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")))
    trial = study.ask()

    def unwritten() -> None:
        raise OSError("No space left on device")

    def end(ready: Callable[[], None]) -> None:
        with batch(study, ready):
            tell(trial, TrialState.COMPLETE, 0.5)

    with pytest.raises(OSError, match="No space left"):
        end(unwritten)
    assert [known.state for known in study.get_trials()] == [TrialState.RUNNING]
    end(lambda: None)
    assert [known.value for known in study.get_trials()] == [0.5]


def test_a_study_that_does_not_say_where_it_is_stored_is_refused() -> None:
    study = optuna.create_study(study_name="foreign")
    with pytest.raises(TypeError, match=r"^study 'foreign' does not say where it is stored; open it as a StoredStudy$"):
        storage_of(study)
