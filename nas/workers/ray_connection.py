"""Joining a Ray cluster."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.exceptions import RayError

from nas.errors import UserError
from nas.system.files import reason_of

SECONDS_TO_ANSWER = 10.0
WAYS_IN = "give auto, local, host:port on a machine of the cluster, or ray://host:port"


def _require_listening(address: str) -> None:
    """Raise UserError if nobody answers: Ray itself would try for a minute and print much.

    If the cluster asks for a token, give it this machine's, as Ray itself does for `auto` and `local`.
    """
    parts = re.fullmatch(r"(?:ray://)?(?P<host>[^\s:/]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})", address)
    if parts is None or not 1 <= int(parts["port"]) <= 65_535:
        raise UserError(f"--ray {address!r} is no address of a Ray cluster; {WAYS_IN}")
    try:
        socket.create_connection((parts["host"].strip("[]"), int(parts["port"])), timeout=SECONDS_TO_ANSWER).close()
    except (OSError, UnicodeError) as error:
        raise UserError(f"--ray {address}: nobody answers there ({reason_of(error)}); {WAYS_IN}") from error
    if address.startswith("ray://"):  # Ray's client for it gives up by itself
        return
    ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:  # only for the token: `connect` meets any other trouble, too
        told = subprocess.run(ask, capture_output=True, timeout=SECONDS_TO_ANSWER, check=False)
        if b"AuthenticationError" in told.stderr:
            maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"--ray {address}: what answers there is no Ray cluster; {WAYS_IN}") from error


def connect(address: str) -> None:
    """Join a Ray cluster, or with `local` start one on this machine.

    Raises:
        UserError: there is none, or it runs other versions of Ray or Python.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    if address not in ("auto", "local"):
        _require_listening(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray reports it over the internet
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's future default; unset, it warns
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address == "local":
        quiet["include_dashboard"] = False
    try:
        ray.init(address, ignore_reinit_error=True, **quiet)
    except (OSError, RuntimeError, ValueError, AssertionError, RayError) as error:
        if address == "auto":
            raise UserError(
                "--ray auto: no Ray cluster runs on this machine; start one with: ray start --head, or give local, "
                "host:port or ray://host:port"
            ) from error
        raise UserError(
            f"--ray {address}: no Ray cluster can be joined there ({' '.join(str(error).split())}); {WAYS_IN}; if it "
            "asks for a token, copy that cluster's ~/.ray/auth_token to this machine"
        ) from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def reaching() -> Iterator[None]:
    """Turn whatever a lost cluster raises into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # Ray raises many kinds, plain Exception among them
        raise UserError(
            f"the Ray cluster is lost ({reason_of(error)}); nothing finished is: give the same command again when "
            "there is one"
        ) from error
