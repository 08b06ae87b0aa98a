"""python -m nas.dashboard: open the trial history of a study in optuna-dashboard, on this machine only."""

import argparse
import socket
import warnings

from nas.errors import UserError
from nas.options import DONE, Parser, add_location, existing_location, positive, run
from nas.storage import FINAL_RUNS, open_study

HOST = "127.0.0.1"
FIRST_PORT, LAST_PORT = 8080, 8179


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog="python -m nas.dashboard", description="Open a study in optuna-dashboard, on this machine only."
    )
    options.add_argument("--study-name", metavar="NAME", default="mnist", help="the study (default: mnist)")
    add_location(options)
    options.add_argument(
        "--port", metavar="N", type=positive, help=f"port to listen on (default: the first free one from {FIRST_PORT})"
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
        raise UserError(f"{asked} cannot be listened on; give --port another number, from 1024 to 65535")
    return port


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    study = open_study(existing_location(args))
    port = choose_port(args.port)
    with warnings.catch_warnings():  # the dashboard's own use of experimental parts of Optuna
        warnings.simplefilter("ignore")
        from optuna_dashboard import run_server

        address = f"http://{HOST}:{port}/dashboard/studies"
        print(f"{address}/{study._study_id}  (Ctrl+C ends it)", flush=True)
        for other in study._storage.get_all_studies():
            if other.study_name == study.study_name + FINAL_RUNS:
                print(f"{address}/{other._study_id}  its final runs", flush=True)
        run_server(study._storage, host=HOST, port=port)
    return DONE


if __name__ == "__main__":
    run(main)
