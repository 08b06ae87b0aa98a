"""Joining a Ray cluster."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from nas.errors import UserError
from nas.system.files import reason_of
from nas.workers.ray_address import WAYS_IN


def connect(address: str) -> None:
    """Join a Ray cluster that `reach` has found, or with `local` start one on this machine.

    Raises:
        UserError: there is none, or it runs other versions of Ray or Python.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
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
