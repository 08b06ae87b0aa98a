"""The same promises on PostgreSQL: a real server of the system's packages, where they are installed."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from helpers import begin_at_once, ended, make_task, started
from postgresql import PASSWORD, a_server, installed

from nas.errors import UserError
from nas.optuna_internals.batched_storage import close
from nas.study.location import locate
from nas.study.locks import is_being_worked_on
from nas.study.opening import open_study, writing
from nas.study.records import records

pytestmark = pytest.mark.skipif(not installed(), reason="no PostgreSQL server is installed, so these did not run")


@pytest.fixture(scope="module")
def database() -> Iterator[Callable[[str], str]]:
    with a_server() as made:
        yield made


def test_a_study_on_a_server_is_written_by_one_run_whatever_its_folder(
    database: Callable[[str], str], tmp_path: Path
) -> None:
    url = database("shared")
    one, other = (locate("study", tmp_path / name, url) for name in ("one", "other"))
    message = "^study 'study' is being worked on by another run; wait for it or stop it$"
    with writing(one, {"a": 1}):
        with pytest.raises(UserError, match=message), writing(other, {"a": 1}):
            pass
        assert is_being_worked_on(one)
        assert is_being_worked_on(other), "its folder has no lock, but the server has"
    assert not is_being_worked_on(other)
    assert not (tmp_path / "other").exists()
    with writing(other, {"a": 1}), writing(locate("another", tmp_path / "one", url), {"a": 1}):
        pass


def test_studies_that_begin_at_once_in_one_new_database_all_begin(
    database: Callable[[str], str], tmp_path: Path
) -> None:
    begin_at_once(database("new"), tmp_path)


def test_a_server_that_goes_away_is_one_sentence(database: Callable[[str], str], tmp_path: Path) -> None:
    url = database("away")
    said = r"^storage postgresql\+psycopg://nas:\*\*\*@\S+ cannot be written \(.*\); what is finished is safe; .*$"
    with pytest.raises(UserError, match=said), writing(locate("study", tmp_path, url), {"a": 1}) as study:  # noqa: PT012
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as other:
            others = "pg_stat_activity WHERE datname = 'away' AND pid <> pg_backend_pid()"
            other.execute(f"SELECT pg_terminate_backend(pid) FROM {others}")
        study.set_user_attr("b", 2)


def test_a_search_that_was_killed_goes_on_and_shows_the_password_nowhere(
    database: Callable[[str], str], tmp_path: Path
) -> None:
    url = database("secret")
    task = make_task(tmp_path, images=200)
    first = started(task, "--trials", "2", "--finalists", "0", "-v", "--storage", url)
    assert first.stdout is not None
    while "trial 0: epoch 2" not in first.stdout.readline():
        assert first.poll() is None
    first.kill()
    first.communicate()
    told = ended(started(task, "--trials", "2", "--finalists", "0", "-v", "--storage", url))
    assert told.status == 0, told.err
    assert "trial 0 begins again" in told.out
    assert PASSWORD not in told.out + told.err
    study = open_study(locate("digits", task / "results", url))
    assert sum(record.trained for record in records(study)) == 2
    kept = [study.user_attrs, *((trial.user_attrs, trial.system_attrs) for trial in study.trials)]
    close(study)
    assert PASSWORD not in str(kept)
    for path in (task / "results").rglob("*"):
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes(), path
    wrong = url.replace(PASSWORD, "another-word")
    refused = ended(started(task, "--trials", "2", "--storage", wrong))
    assert refused.status == 2
    assert "another-word" not in refused.err
    said = r"error: storage postgresql\+psycopg://nas:\*\*\*@.* cannot be used \(.*password.*\); .*\n"
    assert re.fullmatch(said, refused.err), refused.err
