"""The dashboard command: a real server on loopback, asked as a browser would ask it."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import optuna
import pytest

from nas import dashboard
from nas.errors import UserError
from nas.storage import locate


@pytest.fixture
def results(tmp_path: Path) -> Path:
    location = locate("seen", tmp_path, None)
    location.folder.mkdir()
    study = optuna.create_study(study_name="seen", storage=location.storage, direction="maximize")
    trial = study.ask()
    trial.set_user_attr("notation", "c8 p2 | gap 1×1")
    study.tell(trial, 0.99)
    runs = optuna.create_study(study_name="seen (final runs)", storage=location.storage, direction="maximize")
    run = runs.ask()
    run.set_user_attr("stage", "finalist")
    runs.tell(run, 0.98)
    return tmp_path


def ask(url: str) -> object:
    """The JSON at a URL of a server that may still be starting."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_dashboard_serves_the_study_on_loopback_and_prints_its_address(results: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "nas.dashboard",
        "--study-name",
        "seen",
        "--output-dir",
        str(results),
        "--no-browser",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            address = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/dashboard/studies/(\d+)  \(Ctrl\+C ends it\)\n", line)
            assert address is not None, line
            detail = ask(f"{address[1]}/api/studies/{address[2]}")
            assert "c8 p2 | gap 1×1" in json.dumps(detail, ensure_ascii=False)
            line = server.stdout.readline()
            final = re.fullmatch(r"http://127\.0\.0\.1:\d+/dashboard/studies/(\d+)  its final runs\n", line)
            assert final is not None, line
            assert "finalist" in json.dumps(ask(f"{address[1]}/api/studies/{final[1]}"))
        finally:
            server.kill()


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
