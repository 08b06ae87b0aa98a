"""Where studies live: names, URLs, refusals, and the one run that may write."""

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from filelock import FileLock
from helpers import begin_at_once, ended, make_task, started
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.engine import make_url

from nas.errors import UserError, printable
from nas.optuna_internals.batches import Batches
from nas.optuna_internals.studies import storage_of
from nas.space.loading import load_space
from nas.space.search_space import SearchSpace
from nas.study.commands import commands
from nas.study.location import StudyLocation, locate
from nas.study.locks import is_being_worked_on
from nas.study.opening import open_study, writing
from nas.study.records import records
from nas.study.settings import settings
from nas.system.files import write_whole

SPACE = load_space(str(Path(__file__).parent / "data" / "digits.py"))
URL = "give a URL such as sqlite:///study.db to --storage"
FIRST = "run a search first, or say where it is with --output-dir or --storage"


def says(message: str) -> str:
    return f"^{re.escape(message)}$"


def tree(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def wanted(space: SearchSpace = SPACE, seed: int = 0) -> dict[str, Any]:
    return settings(space, seed=seed, sampler="tpe", pruner="hyperband")


# where it lives


def test_locate_puts_a_study_into_a_folder_of_its_name(tmp_path: Path) -> None:
    location = locate("a b", tmp_path, None)
    assert location.folder == tmp_path / "a b"
    assert make_url(location.storage).database == str(tmp_path / "a b" / "study.db")
    assert location.weights_path(7) == tmp_path / "a b" / "weights" / "00007.safetensors"
    assert locate("a", tmp_path, "sqlite:///x.db").storage == "sqlite:///x.db"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/etc", "a\\b", "c:", "a*", "a?", 'a"', "<a>", "a|b", "a\nb", "a\x00", "x" * 101]
)
def test_locate_refuses_what_is_no_plain_name(name: str, tmp_path: Path) -> None:
    message = f"--study-name {name!r} must be a plain name of at most 100 characters, without path separators"
    with pytest.raises(UserError, match=says(message)):
        locate(name, tmp_path, None)


@pytest.mark.parametrize("odd", ["what?x=1#1", "50%20{b} ü☃@c:d"])
def test_study_is_made_and_found_in_a_folder_of_any_name(odd: str, tmp_path: Path) -> None:
    location = locate("study", tmp_path / odd, None)
    with writing(location, {"a": 1}):
        pass
    assert (location.folder / "study.db").is_file()
    assert open_study(location).user_attrs == {"settings": {"a": 1}}
    assert [path.name for path in tmp_path.iterdir()] == [odd]


NOT_A_URL = "--storage (or $OPTUNA_STORAGE) is no database URL; give one such as sqlite:///study.db"


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("nonsense", NOT_A_URL),
        ("./study.db", NOT_A_URL),
        ("postgresql://user:secret@host:port/x", NOT_A_URL),
        (
            "sqlite:////nowhere/at/all/x.db",
            f"storage sqlite:////nowhere/at/all/x.db cannot be used (unable to open database file); {URL}",
        ),
        (
            "sqlite:///garbage.db",
            "storage sqlite:///garbage.db is damaged (file is not a database) and left as it is; "
            "put a copy in its place, or begin anew with another --study-name",
        ),
        (
            "nodialect://user:secret@host/x",
            "storage nodialect://user:***@host/x: no driver for it is installed "
            f"(Can't load plugin: sqlalchemy.dialects:nodialect); install one, or {URL}",
        ),
        (
            "postgresql+psycopg://user:secret@host/x?password=secret",
            "storage postgresql+psycopg://user:***@host/x: no driver for it is installed "
            f"(import of psycopg halted; None in sys.modules); install one, or {URL}",
        ),
    ],
)
def test_storage_that_cannot_be_used_is_a_sentence_without_the_password(
    storage: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as if it were not installed
    (tmp_path / "garbage.db").write_bytes(bytes(range(256)) * 20)
    before = tree(tmp_path)
    location = locate("study", tmp_path / "new" / "results", storage)
    with pytest.raises(UserError, match=says(message)) as error, writing(location, wanted()):
        pass
    assert tree(tmp_path) == before, "nothing is left behind"
    if "nowhere" not in storage:  # reading, a file that is not there holds no study
        with pytest.raises(UserError, match=says(message)):
            open_study(location)
    assert "secret" not in str(error.value)


def test_open_study_lists_what_there_is_and_makes_no_file(tmp_path: Path) -> None:
    location = locate("one", tmp_path, None)
    shown = location.public_storage
    with pytest.raises(UserError, match=says(f"there is no study 'one' in {shown}; {FIRST}")):
        open_study(location)
    assert tree(tmp_path) == []
    for name in ("one", "two"):
        with writing(replace(location, name=name), wanted()):
            pass
    with pytest.raises(UserError, match=says(f"there is no study 'three' in {shown}; known are one, two; {FIRST}")):
        open_study(replace(location, name="three"))


# what happens to it


def overwritten(whole: bytes) -> bytes:
    """With one page of 4 KiB zeroed."""
    return whole[:8192] + bytes(4096) + whole[12288:]


@pytest.mark.parametrize(
    "damage", [overwritten, lambda whole: whole[: len(whole) // 2], lambda _: b"", lambda _: b"not a database" * 99]
)
def test_damaged_database_is_named_and_left_as_it_is(damage: Callable[[bytes], bytes], location: StudyLocation) -> None:
    with writing(location, wanted()) as study:
        study.set_user_attr("note", "n" * 50_000)
        write_whole(location.weights_path(0), b"weights")
    database = location.folder / "study.db"
    database.write_bytes(damage(database.read_bytes()))
    before = database.read_bytes()
    shown = re.escape(location.public_storage)
    message = rf"^storage {shown} is damaged \(.+\) and left as it is; put a copy "
    with pytest.raises(UserError, match=message), writing(location, wanted()):
        pass
    with pytest.raises(UserError, match=message):
        open_study(location)
    assert database.read_bytes() == before


def test_database_that_is_empty_because_the_program_was_killed_at_its_first_step_is_made(
    location: StudyLocation,
) -> None:
    location.folder.mkdir(parents=True)
    (location.folder / "study.db").touch()
    with writing(location, wanted()):
        pass
    assert open_study(location).study_name == location.name


def test_a_database_that_is_missing_beside_weights_is_no_new_study(location: StudyLocation) -> None:
    with writing(location, wanted()):
        write_whole(location.weights_path(0), b"weights")
    (location.folder / "study.db").unlink()
    message = (
        f"storage {location.public_storage} is damaged (it is missing, but in its place lie the weights of a study, "
        "whose --storage may be another) and left as it is; "
        "put a copy in its place, or begin anew with another --study-name"
    )
    with pytest.raises(UserError, match=says(message)), writing(location, wanted()):
        pass
    with pytest.raises(UserError, match=says(message)):
        open_study(location)
    assert sorted(path.name for path in location.folder.iterdir()) == ["lock", "weights"]
    elsewhere = replace(location, storage=f"sqlite:///{location.folder.parent}/elsewhere.db")
    with writing(elsewhere, wanted()):  # it may have been there that the weights are from
        pass
    location.weights_path(0).unlink()
    with writing(location, wanted()):
        pass


def fill(location: StudyLocation) -> None:
    """Write more than there is room for."""
    with writing(location, wanted()) as study:
        storage = storage_of(study)
        assert isinstance(storage, Batches)
        engine = storage.engine
        engine.dispose()
        # SQLite takes the present size, if that is larger
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count = 1"))
        study.set_user_attr("note", "after" * 20_000)


def test_full_database_is_a_sentence_and_keeps_what_it_had(location: StudyLocation) -> None:
    with writing(location, wanted()) as study:
        study.set_user_attr("note", "before")
    message = (
        f"storage {location.public_storage} cannot be written (database or disk is full); "
        "what is finished is safe; mend that and give the same command again"
    )
    with pytest.raises(UserError, match=says(message)):
        fill(location)
    with writing(location, wanted()) as study:
        assert study.user_attrs["note"] == "before"


def test_folder_that_takes_no_file_any_more_is_a_sentence(location: StudyLocation) -> None:
    message = (
        f"{location.folder} cannot be written (Is a directory); "
        "what is finished is safe; mend that and give the same command again"
    )
    (location.folder / "trials.csv").mkdir(parents=True)
    with pytest.raises(UserError, match=says(message)), writing(location, wanted()):
        write_whole(location.folder / "trials.csv", "text")


@contextmanager
def read_only_at_will(folder: Path) -> Iterator[Callable[[], None]]:
    """What makes a folder read-only until the end, by a mount where one may be made: root ignores permissions."""
    view = folder.with_name("view")
    view.mkdir()
    with ExitStack() as undo:

        def mounted(*arguments: str, at: Path) -> bool:
            command = ["mount", *arguments, str(at)]
            if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
                return False
            undo.callback(lambda: subprocess.run(["umount", "--lazy", at], check=True))
            return True

        def by_mount() -> None:
            assert mounted("--bind", str(view), at=folder)

        def by_permissions() -> None:
            for path in (folder, *filter(Path.is_dir, folder.rglob("*"))):
                path.chmod(0o555)
                undo.callback(path.chmod, 0o755)

        if mounted("--bind", str(folder), at=view):
            subprocess.run(["mount", "-o", "remount,bind,ro", view], check=True)
            yield by_mount
        elif os.geteuid() != 0:
            yield by_permissions
        else:
            pytest.skip("nothing can be mounted here, and permissions do not keep root out")


def test_search_whose_folder_turns_read_only_ends_with_a_sentence_and_goes_on_later(tmp_path: Path) -> None:
    folder = make_task(tmp_path, images=200) / "results"
    folder.mkdir()
    command = ("--trials", "6", "--pruner", "none", "--finalists", "0", "-v")
    location = locate("digits", folder, None)
    with read_only_at_will(folder) as turn_read_only:
        process = started(tmp_path, *command)
        assert process.stdout is not None
        assert any("trained to the end" in line for line in process.stdout)
        process.send_signal(signal.SIGSTOP)  # so that it is in the middle
        turn_read_only()
        process.send_signal(signal.SIGCONT)
        stopped = ended(process)
    before = records(open_study(location))
    reasons = ("Read-only file system", "Permission denied", "unable to open database file", "disk I/O error")
    reason = rf"\(({'|'.join(reasons)}|attempt to write a readonly .*)\)"
    place = rf"(results/digits|storage {re.escape(location.public_storage)})"
    way_out = "what is finished is safe; mend that and give the same command again"
    assert re.fullmatch(rf"error: {place} cannot be written {reason}; {way_out}\n", stopped.err), stopped
    assert stopped.status == 2
    finished = [trial for trial in before if trial.trained]
    assert 1 <= len(finished) < 6
    assert all(location.weights_path(trial.number).stat().st_size for trial in finished)
    again = ended(started(tmp_path, *command))
    assert (again.status, again.err) == (0, "")
    assert f"study digits goes on: {len(finished)} of 6 trained, {6 - len(finished)} to go\n" in again.out
    after = records(open_study(location))
    assert [trial.state for trial in after] == [TrialState.COMPLETE] * 6
    assert [after[trial.number] for trial in finished] == finished


def test_files_that_a_killed_program_began_are_removed(location: StudyLocation) -> None:
    with writing(location, wanted()):
        (location.folder / ".trials.csv.abc123.partial").touch()
        os.utime(location.folder / ".trials.csv.abc123.partial", (0, 0))
    with writing(location, wanted()):
        assert sorted(path.name for path in location.folder.iterdir()) == ["lock", "study.db"]


def test_reading_makes_no_tables_while_a_run_is_making_them(location: StudyLocation) -> None:
    with writing(location, wanted()):
        pass
    database = location.folder / "study.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM alembic_version")  # Optuna's last step
        connection.commit()
    before = database.read_bytes()
    with pytest.raises(UserError, match=r"^there is no study 'study' in "):
        open_study(location)
    assert database.read_bytes() == before


# who may write it


@pytest.fixture
def location(tmp_path: Path) -> StudyLocation:
    return locate("study", tmp_path / "results", None)


def test_writing_keeps_out_a_second_run_until_the_first_ends(location: StudyLocation) -> None:
    code = (
        "import sys; from pathlib import Path; from nas.study.commands import this_command\n"
        "from nas.study.location import locate; from nas.study.opening import writing\n"
        "command = this_command('python -m nas.search --trials 5', ['cpu'], {})\n"
        "with writing(locate('study', Path(sys.argv[1]), None), {}, command): print('in', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(location.folder.parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "in\n"
        (known,) = commands(open_study(location))
        message = (
            f"study 'study' is being worked on by process {first.pid} on {socket.gethostname()}, "
            f"since {known.started}: python -m nas.search --trials 5; wait for it or stop it"
        )
        with pytest.raises(UserError, match=says(message)), writing(location, {}):
            pass
        assert (location.folder / "study.db").exists(), "what the first run has made stays"
        assert is_being_worked_on(location)
        first.kill()
    assert not is_being_worked_on(location)
    with writing(location, {}) as study:
        assert study.study_name == "study"


def test_studies_that_begin_at_once_in_one_new_database_all_begin(tmp_path: Path) -> None:
    begin_at_once(f"sqlite:///{tmp_path / 'shared.db'}", tmp_path)


@pytest.mark.parametrize("error", [ZeroDivisionError, UserError, KeyboardInterrupt])
def test_writing_lets_go_and_keeps_its_files_when_the_run_fails(
    location: StudyLocation, error: type[BaseException]
) -> None:
    with pytest.raises(error), writing(location, {}):  # noqa: PT012
        with pytest.raises(UserError), writing(location, {}):
            pass
        raise error
    assert (location.folder / "study.db").exists()
    with FileLock(location.folder / "lock").acquire(timeout=0):
        pass


def test_writing_refuses_other_settings_and_names_them(location: StudyLocation) -> None:
    with writing(location, wanted()):
        pass
    tighter = replace(SPACE, constraints=replace(SPACE.constraints, max_params=1000))
    message = (
        "study 'study' cannot go on with other settings: constraints.max_params was 1500 and is 1000; "
        "seed was 0 and is 4; use the old ones, or begin anew with another --study-name"
    )
    with pytest.raises(UserError, match=says(message)), writing(location, wanted(tighter, seed=4)):
        pass
    with writing(location, wanted()) as study:
        assert study.user_attrs["settings"] == wanted()


def test_writing_a_study_of_another_space_is_refused_in_a_sentence_short_enough_to_read(
    location: StudyLocation,
) -> None:
    settings = wanted()
    known = settings["parameters"]
    other = {**settings, "parameters": {f"other {name}": value for name, value in known.items()}}
    with writing(location, settings):
        pass
    with pytest.raises(UserError) as refused, writing(location, other):
        pass
    names = sorted(f"parameters.{name} is gone" for name in known) + [f"parameters.other {n} is new" for n in known]
    assert str(refused.value).startswith(f"study 'study' cannot go on with other settings: {names[0]}; ")
    assert len(str(refused.value)) < 400
    assert ("; and " in str(refused.value)) == (len(names) > 4)


def test_a_study_of_images_from_memory_asks_for_the_same_images(location: StudyLocation) -> None:
    with writing(location, {**wanted(), "dataset": "in memory 0123456789ab"}):
        pass
    way_out = 'was "in memory 0123456789ab" and is .*; give the same images to data=, or begin anew'
    with pytest.raises(UserError, match=way_out), writing(location, wanted()):
        pass


@pytest.mark.parametrize("directions", [["maximize"], ["maximize", "minimize"], ["minimize"]])
def test_writing_refuses_a_study_of_another_program(
    location: StudyLocation, directions: list[Any], tmp_path: Path
) -> None:
    storage = f"sqlite:///{tmp_path}/shared.db"
    foreign = optuna.create_study(study_name="study", storage=storage, directions=directions)
    if directions == ["minimize"]:
        foreign.tell(foreign.ask(), 1.0)
    message = f"study 'study' in {storage} was made by another program; give another --study-name"
    with pytest.raises(UserError, match=says(message)), writing(replace(location, storage=storage), wanted()):
        pass
    assert not location.folder.parent.exists()
    assert optuna.load_study(study_name="study", storage=storage).user_attrs == {}


@pytest.mark.parametrize("below", ["", "deeper"])
def test_writing_refuses_a_folder_that_cannot_be_one(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    output_dir = tmp_path / "file" / below
    message = (
        f"--output-dir {output_dir}: {output_dir / 'study'} cannot be written (Not a directory); give a folder that can"
    )
    with pytest.raises(UserError, match=says(message)), writing(locate("study", output_dir, None), {}):
        pass
    assert tree(tmp_path) == [tmp_path / "file"]


def test_writing_leaves_no_folder_when_a_name_is_too_long_for_the_disk(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"), writing(locate("☃" * 100, tmp_path / "a", None), {}):
        pass
    assert tree(tmp_path) == []


# what it tells


def test_writing_refuses_a_name_too_long_for_a_disk_whose_output_folder_exists(tmp_path: Path) -> None:
    location = locate("☃" * 100, tmp_path, None)
    reason = "cannot be written (File name too long); give a folder that can"
    message = f"--output-dir {tmp_path}: {location.folder} {reason}"
    with pytest.raises(UserError, match=says(message)), writing(location, {}):
        pass
    assert tree(tmp_path) == []


def test_two_output_folders_cannot_work_on_one_study_of_a_sqlite_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    first, second = locate("study", tmp_path / "one", url), locate("study", tmp_path / "two", url)
    other = locate("other", tmp_path / "two", url)
    with writing(first, wanted()):
        message = "study 'study' is being worked on by another run; wait for it or stop it"
        with pytest.raises(UserError, match=says(message)), writing(second, wanted()):
            pass
        assert is_being_worked_on(second)
        assert not is_being_worked_on(other)
        with writing(other, wanted()):  # another study of the same file is free
            pass
    with writing(second, wanted()):
        pass


def test_the_lock_of_a_run_that_was_faster_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the lock of a shared database between the question whether there is one and the answer to it."""
    location = locate("study", tmp_path / "two", f"sqlite:///{tmp_path / 'shared.db'}")
    lock, exists = tmp_path / "shared.db-study.lock", Path.exists
    winner = FileLock(lock)

    def just_before(path: Path) -> bool:
        found = exists(path)
        if path == lock:
            winner.acquire()
        return found

    monkeypatch.setattr(Path, "exists", just_before)
    message = "study 'study' is being worked on by another run; wait for it or stop it"
    with pytest.raises(UserError, match=says(message)), writing(location, wanted()):
        pass
    monkeypatch.undo()
    assert lock.exists()
    winner.release()
    with writing(location, wanted()):
        pass


def test_a_database_in_memory_is_refused(tmp_path: Path) -> None:
    message = "storage sqlite:// is kept in memory and would be lost; give one with a file's path"
    with pytest.raises(UserError, match=says(message)), writing(locate("study", tmp_path / "a", "sqlite://"), wanted()):
        pass
    assert tree(tmp_path) == []


def test_another_output_folder_cannot_work_on_a_studys_own_database(tmp_path: Path) -> None:
    own = locate("study", tmp_path / "results", None)
    (tmp_path / "link").symlink_to(tmp_path / "results")
    for path in (own.folder / "study.db", tmp_path / "link" / "study" / "study.db"):
        other = locate("study", tmp_path / "elsewhere", f"sqlite:///{path}")
        for first, second in ((own, other), (other, own)):
            refused = pytest.raises(UserError, match="is being worked on by")
            with writing(first, wanted()), refused, writing(second, wanted()):
                pass
    assert sorted(path.name for path in own.folder.iterdir()) == ["lock", "study.db"]


def test_a_password_with_an_at_sign_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has a user or a password with an @; write %40 in its place$") as error:
        locate("study", tmp_path, "postgresql://me:sec@ret@host/db").public_storage  # noqa: B018  # it is refused there
    assert "ret" not in str(error.value)
    assert printable("at postgresql://me:sec@ret@host/db") == "at postgresql://me:***@host/db"


def test_a_server_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    location = locate("study", tmp_path, "postgresql+psycopg://me:secret@127.0.0.1:1/db")
    said = r"^storage postgresql\+psycopg://me:\*\*\*@127\.0\.0\.1:1/db cannot be used \(.*refused.*\); give the same "
    with pytest.raises(UserError, match=said), writing(location, wanted()):
        pass
    assert tree(tmp_path) == []


def test_the_name_of_a_studys_final_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^--study-name 'x \(final runs\)' must not end with ' \(final runs\)', which "
    ):
        locate("x (final runs)", tmp_path, None)


def test_who_may_not_write_where_the_locks_lie_can_still_ask(location: StudyLocation) -> None:
    with writing(location, wanted()):
        pass
    (location.folder / "lock").unlink()
    (location.folder / "lock").mkdir()
    assert not is_being_worked_on(location)
