"""python -m nas.dashboard: open the trial history of a study in optuna-dashboard, on this machine only, to be read."""

import argparse
import socket
import threading
import time
import warnings
import webbrowser
from contextlib import suppress

from nas.cli.options import Parser, add_location, add_study, positive, program, study_location
from nas.cli.terminal import DONE, run
from nas.errors import UserError
from nas.study.location import ARTIFACTS, FINAL_RUNS

HOST = "127.0.0.1"
FIRST_PORT, LAST_PORT = 8080, 8179
SECONDS_TO_START = 60


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog=program("dashboard"),
        description="Open a study in optuna-dashboard, in the browser, on this machine only. A search may be running. "
        "It is read-only: what its page offers to change or delete is refused.",
    )
    add_study(options)
    add_location(options)
    options.add_argument(
        "--port", metavar="N", type=positive, help=f"port to listen on (default: the first free one from {FIRST_PORT})"
    )
    options.add_argument("--no-browser", action="store_true", help="print the address, and open nothing")
    options.add_argument(
        "--allow-edits",
        action="store_true",
        help="let notes be written; studies, trials and files stay as they are (default: nothing is written)",
    )
    return options


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True


def choose_port(wanted: int | None) -> int:
    """The wanted port, or the first free one.

    Raises:
        UserError: the wanted port cannot be used, or none is free.
    """
    candidates = range(FIRST_PORT, LAST_PORT + 1) if wanted is None else (wanted,)
    port = next(filter(_free, candidates), None)
    if port is None:
        asked = f"--port {wanted}" if wanted is not None else f"every port from {FIRST_PORT} to {LAST_PORT}"
        raise UserError(f"{asked} is taken, or may not be used; give --port another number, from 1024 to 65535")
    return port


def _open_when_up(address: str, port: int) -> None:
    """Open the browser as soon as the server answers."""
    for _ in range(SECONDS_TO_START * 10):
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            webbrowser.open(address)
            return
        time.sleep(0.1)


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    import optuna

    from nas.cli.serving import guarded, serve
    from nas.optuna_internals.batched_storage import to_share
    from nas.optuna_internals.studies import id_of, storage_of
    from nas.study.opening import open_study

    location = study_location(args)
    study = open_study(location)
    port = choose_port(args.port)
    with warnings.catch_warnings():  # the dashboard's own use of experimental parts of Optuna
        warnings.simplefilter("ignore")
        from optuna_dashboard import wsgi

        from nas.optuna_internals.dashboard_attributes import WholeArtifactStore

        address = f"http://{HOST}:{port}/dashboard/studies"
        print(f"{address}/{id_of(study)}  (Ctrl+C ends it)", flush=True)
        final_runs, storage = study.study_name + FINAL_RUNS, storage_of(study)
        if final_runs in optuna.get_all_study_names(storage):
            print(f"{address}/{storage.get_study_id_from_name(final_runs)}  its final runs", flush=True)
        if not args.no_browser:
            address = f"{address}/{id_of(study)}"
            threading.Thread(target=_open_when_up, args=(address, port), daemon=True).start()
        artifacts = location.folder / ARTIFACTS
        store = WholeArtifactStore(artifacts) if artifacts.is_dir() else None
        shared = to_share(study)
        app = wsgi(shared, artifact_store=store)
        app.catchall = False  # so that `guarded` hears of exceptions
        serve(guarded(app, shared, allow_edits=args.allow_edits), HOST, port)
    return DONE


if __name__ == "__main__":
    run(main)
