"""A real PostgreSQL server of its own, from the system's packages: python tests/postgresql.py COMMAND...

runs a command with $OPTUNA_STORAGE set to the URL of an empty database of such a server.
"""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "hush-hush"
PROGRAMS = ("initdb", "pg_ctl")


def installed() -> bool:
    """Whether there is one, and a user to run it, which may not be root."""
    return all(map(shutil.which, PROGRAMS)) and (os.geteuid() != 0 or _has_user("postgres"))


def _has_user(name: str) -> bool:
    return any(entry.pw_name == name for entry in pwd.getpwall())


@contextmanager
def a_server() -> Iterator[Callable[[str], str]]:
    """A function that makes a database of a name, and gives its URL, which holds a password."""
    import psycopg

    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="nas-postgresql-"))

    def call(*command: str | Path) -> None:
        subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    try:
        (folder / "password").write_text(PASSWORD)
        if user is not None:
            shutil.chown(folder, user)
            shutil.chown(folder / "password", user)
        data = folder / "data"
        call("initdb", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--username=nas", "--pgdata", data)
        options = f"-p {port} -k {folder} -h 127.0.0.1"
        call("pg_ctl", "start", "--wait", "--pgdata", data, "--options", options, "--log", folder / "log")

        def database(name: str) -> str:
            address = f"postgresql://nas:{PASSWORD}@127.0.0.1:{port}"
            with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{name}"'.encode())
            return f"{address.replace('postgresql', 'postgresql+psycopg')}/{name}"

        try:
            yield database
        finally:
            call("pg_ctl", "stop", "--mode=immediate", "--pgdata", data)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    with a_server() as made:
        sys.exit(subprocess.run(sys.argv[1:], env={**os.environ, "OPTUNA_STORAGE": made("one")}).returncode)
