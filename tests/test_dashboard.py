"""The dashboard command: a real server on loopback, asked as a browser would ask it."""

import json
import re
import socket
import sqlite3
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import get_all_artifact_meta, upload_artifact
from optuna_dashboard import get_note, save_note

from nas import dashboard
from nas.errors import UserError
from nas.reporting.notes import artifact_store
from nas.study.location import locate

PLOTS = ("contour", "slice", "parallel_coordinate", "rank", "edf", "timeline")
READ_ONLY = "the dashboard is read-only; to write notes, start it with --allow-edits"
NOTES_ONLY = "--allow-edits lets notes be written, and nothing else"
IDLE = "00000000-0000-0000-0000-000000000000"  # an artifact that nobody has


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """One that runs, what it printed when it started, and its log."""

    address: str
    printed: str
    final: int  # the study of the final runs
    log: Path

    def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> Answer:
        headers = {} if body is None else {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, method=method, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(status=answer.status, text=answer.read().decode())
        except urllib.error.HTTPError as refused:
            return Answer(status=refused.code, text=refused.read().decode())

    def faults(self) -> list[str]:
        """The lines of the log that are not requests."""
        return [line for line in self.log.read_text().splitlines() if not line.startswith("127.0.0.1 - - [")]


@contextmanager
def served(results: Path, *options: str) -> Iterator[Dashboard]:
    """The dashboard of the study `seen`, until the end of the block."""
    command = [sys.executable, "-m", "nas.dashboard", "--study-name", "seen", "--output-dir", str(results)]
    log = results / "log.txt"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*command, "--no-browser", *options], stdout=subprocess.PIPE, stderr=errors, text=True
        ) as server,
    ):
        try:
            assert server.stdout is not None
            printed = server.stdout.readline() + server.stdout.readline()
            address = printed.split("/dashboard/")[0]
            final = re.search(r"(\d+)  its final runs\n$", printed)
            assert final is not None, printed
            dashboard = Dashboard(address=address, printed=printed, final=int(final[1]), log=log)
            deadline = time.monotonic() + 60
            while True:
                try:
                    dashboard.ask("/api/meta")
                    break
                except urllib.error.URLError:
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.1)
            yield dashboard
        finally:
            server.kill()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A study of two trials, an artifact and a note, and its final runs, which have no parameters."""
    location = locate("seen", tmp_path, None)
    location.folder.mkdir()
    study = optuna.create_study(study_name="seen", storage=location.storage, direction="maximize")
    for accuracy in (0.98, 0.99):
        trial = study.ask()
        trial.suggest_int("kernels", 1, 8)
        trial.set_user_attr("notation", "c8 p2 | gap 1×1")
        path = location.folder / "model.py"
        path.write_text("import torch\n")
        upload_artifact(artifact_store=artifact_store(location), file_path=str(path), study_or_trial=trial)
        save_note(trial, "its first note")
        study.tell(trial, accuracy)
    study.ask()  # it runs, so that it could be told its end
    runs = optuna.create_study(study_name="seen (final runs)", storage=location.storage, direction="maximize")
    for accuracy in (0.98, 0.97, 0.96):
        run = runs.ask()
        run.set_user_attr("stage", "finalist")
        run.report(0.5, 1)
        runs.tell(run, accuracy)
    return tmp_path


def kept(results: Path) -> tuple[list[str], dict[str, bytes]]:
    """All that a study is: every row of its database, and its other files."""
    folder = results / "seen"
    with closing(sqlite3.connect(folder / "study.db")) as database:
        rows = list(database.iterdump())
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("study.db")]
    return rows, {str(path): path.read_bytes() for path in files}


def an_artifact(results: Path) -> str:
    """The name of the first trial's."""
    study = optuna.load_study(study_name="seen", storage=locate("seen", results, None).storage)
    return get_all_artifact_meta(study.trials[0], storage=study._storage)[0].artifact_id


def writes(results: Path) -> list[tuple[str, str, object]]:
    """One of each request by which optuna-dashboard writes, except for those of notes."""
    upload = {"file": "data:text/plain;base64,AAAA", "filename": "a.txt"}
    return [
        ("DELETE", "/api/studies/2", None),
        ("DELETE", "/api/studies/1", {"remove_associated_artifacts": True}),
        ("DELETE", "/api/studies/1/", None),
        ("delete", "/api/studies/1", None),
        ("POST", "/api/studies", {"study_name": "new", "directions": ["maximize"]}),
        ("POST", "/api/studies/1/rename", {"study_name": "new"}),
        ("POST", "/api/studies/1/preference", {"mode": "ChooseWorst", "candidates": [1, 2], "clicked": 1}),
        ("PUT", "/api/studies/1/preference_feedback_component", {"output_type": "artifact"}),
        ("POST", "/api/trials/3/tell", {"state": "Fail"}),
        ("POST", "/api/trials/3/user-attrs", {"user_attrs": {"seed": 7}}),
        ("POST", "/api/artifacts/1", upload),
        ("POST", "/api/artifacts/1/3", upload),
        ("DELETE", f"/api/artifacts/1/1/{an_artifact(results)}", None),
        ("POST", "/incompatible-rdb-schema", None),
        ("PATCH", "/api/studies/1/note", {"body": "mine", "version": 1}),
        ("POST", "/api/studies/1/note", {"body": "mine", "version": 1}),
    ]


def test_dashboard_serves_the_study_on_loopback_and_prints_its_address(results: Path) -> None:
    with served(results) as dashboard:
        lines = (
            r"http://127\.0\.0\.1:\d+/dashboard/studies/1  \(Ctrl\+C ends it\)\n"
            r"http://127\.0\.0\.1:\d+/dashboard/studies/2  its final runs\n"
        )
        assert re.fullmatch(lines, dashboard.printed), dashboard.printed
        assert "c8 p2 | gap 1×1" in json.dumps(dashboard.ask("/api/studies/1").json, ensure_ascii=False)
        assert "finalist" in dashboard.ask("/api/studies/2").text


def test_every_write_is_refused_and_the_study_stays_as_it_is(results: Path) -> None:
    notes = [("PUT", f"/api/studies/1{trial}/note", {"body": "mine", "version": 1}) for trial in ("", "/3")]
    before = kept(results)
    with served(results) as dashboard:
        for method, path, body in [*writes(results), *notes]:
            answer = dashboard.ask(path, method, None if body is None else json.dumps(body).encode())
            reason = f"{method} {path.rstrip('/')} is refused: {READ_ONLY}"
            assert (answer.status, answer.json) == (403, {"reason": reason})
        assert dashboard.faults() == []
    assert kept(results) == before


def test_a_large_upload_is_refused_with_an_answer(results: Path) -> None:
    """A connection that is closed over unread bytes is reset, and the page would show no reason."""
    with served(results) as dashboard:
        answer = dashboard.ask("/api/artifacts/1", "POST", bytes(30_000_000))
        reason = f"POST /api/artifacts/1 is refused: {READ_ONLY}"
        assert (answer.status, answer.json) == (403, {"reason": reason})


def test_allow_edits_lets_notes_be_written_and_nothing_else(results: Path) -> None:
    before = kept(results)
    storage = locate("seen", results, None).storage
    with served(results, "--allow-edits") as dashboard:
        for method, path, body in writes(results):
            answer = dashboard.ask(path, method, None if body is None else json.dumps(body).encode())
            reason = f"{method} {path.rstrip('/')} is refused: {NOTES_ONLY}"
            assert (answer.status, answer.json) == (403, {"reason": reason})
        assert kept(results) == before
        for path, version in (("/api/studies/1/note", 1), ("/api/studies/1/1/note", 2)):
            body = json.dumps({"body": f"mine, at {path}", "version": version}).encode()
            assert dashboard.ask(path, "PUT", body).status == 204
        assert dashboard.faults() == []
    study = optuna.load_study(study_name="seen", storage=storage)
    assert get_note(study) == "mine, at /api/studies/1/note"
    assert get_note(optuna.Trial(study, study.trials[0]._trial_id)) == "mine, at /api/studies/1/1/note"
    rows = {row for row in before[0] if "note" not in row}
    assert rows <= set(kept(results)[0]), "all but notes is as it was"


def test_reading_all_that_the_page_reads_leaves_no_fault_and_no_change(results: Path) -> None:
    before = kept(results)
    with served(results) as dashboard:
        for path in ("", "/dashboard", "/dashboard/studies/2", "/api/meta", "/api/studies", "/static/bundle.js"):
            with urllib.request.urlopen(dashboard.address + path, timeout=60) as answer:
                assert answer.status == 200
        for study in (1, 2):
            paths = ["", "?after=0", "/param_importances", *(f"/plot/{plot}" for plot in PLOTS)]
            for path in (*(f"/api/studies/{study}{path}" for path in paths), f"/csv/{study}"):
                assert dashboard.ask(path).status == 200, path
        assert dashboard.ask("/api/studies/1/param_importances").json["param_importances"][0][0]["name"] == "kernels"
        assert dashboard.ask(f"/api/studies/{dashboard.final}/param_importances").json == {"param_importances": [[]]}
        assert [line for line in dashboard.faults() if not line.startswith("[W ")] == []
    assert kept(results) == before


def test_a_fault_is_one_line_of_the_log_and_an_answer_that_leads_there(results: Path) -> None:
    for file in (results / "seen" / "artifacts").iterdir():
        file.unlink()
    paths = {
        "/api/studies/1/plot/pareto_front": "Exception: `plot_pareto_front` function only supports",
        "/api/studies/99/plot/slice": "Exception: 'Record does not exist.'",
        f"/api/studies/{10**30}/param_importances": "Exception: ",
        f"/artifacts/1/1/{an_artifact(results)}": "Exception: not found",
    }
    with served(results) as dashboard:
        for path in paths:
            answer = dashboard.ask(path)
            reason = f"GET {path} failed; the log of python -m nas.dashboard says why"
            assert (answer.status, answer.json) == (500, {"reason": reason})
        faults = dashboard.faults()
        assert dashboard.ask(f"/artifacts/1/1/{IDLE}").status == 404
        assert len(faults) == len(paths), faults
        assert all(fault.startswith(began) for fault, began in zip(faults, paths.values(), strict=True)), faults


def test_a_program_without_accept_encoding_and_one_that_goes_away_leave_no_traceback(results: Path) -> None:
    with served(results) as dashboard:
        port = int(dashboard.address.rpartition(":")[2])
        for path in ("/favicon.ico", "/static/bundle.js"):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
                plain.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                assert plain.recv(15) == b"HTTP/1.0 200 OK"
        with socket.create_connection(("127.0.0.1", port), timeout=60) as away:
            away.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing it resets it
            away.sendall(b"GET /api/meta")
        assert dashboard.ask("/api/meta").status == 200
        assert [fault.partition("]")[2] for fault in dashboard.faults()] == [" Connection reset by peer"]


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        message = f"--port {port} is taken, or may not be used; give --port another number, from 1024 to 65535"
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            dashboard.choose_port(port)


@pytest.mark.parametrize("port", [65_536, 10**9])
def test_a_port_out_of_range_is_one_sentence(port: int) -> None:
    message = f"--port {port} is taken, or may not be used; give --port another number, from 1024 to 65535"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        dashboard.choose_port(port)


def test_an_unknown_study_is_one_sentence_and_makes_no_file(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nas.dashboard", "--study-name", "none", "--output-dir", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    url = f"sqlite:///{tmp_path / 'none' / 'study.db'}"
    assert (ended.returncode, ended.stdout) == (2, "")
    hint = "run a search first, or say where it is with --output-dir or --storage"
    assert ended.stderr == f"error: there is no study 'none' in {url}; {hint}\n"
    assert list(tmp_path.iterdir()) == []
