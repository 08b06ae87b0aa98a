"""Where a Ray cluster answers, and whether it asks for a token: found out before Ray is imported here.

Ray reads its environment when it is imported. Whether it gives the token of this machine stands there.
"""

import os
import re
import socket
import subprocess
import sys

from nas.errors import UserError
from nas.system.files import reason_of

SECONDS_TO_ANSWER = 10.0
WAYS_IN = "give auto, local, host:port on a machine of the cluster, or ray://host:port"


def reach(address: str) -> None:
    """Raise UserError if nobody answers: Ray itself would try for a minute and print much.

    If the cluster asks for a token, give it this machine's, as Ray itself does for `auto` and `local`.
    """
    if address in ("auto", "local"):
        return
    parts = re.fullmatch(r"(?:ray://)?(?P<host>[^\s:/]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})", address)
    if parts is None or not 1 <= int(parts["port"]) <= 65_535:
        raise UserError(f"--ray {address!r} is no address of a Ray cluster; {WAYS_IN}")
    try:
        socket.create_connection((parts["host"].strip("[]"), int(parts["port"])), timeout=SECONDS_TO_ANSWER).close()
    except (OSError, UnicodeError) as error:
        raise UserError(f"--ray {address}: nobody answers there ({reason_of(error)}); {WAYS_IN}") from error
    if not address.startswith("ray://") and _wants_token(address):  # Ray's client for it gives up by itself
        give_token(address)


def _wants_token(address: str) -> bool:
    ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:  # only for the token: `connect` meets any other trouble, too
        told = subprocess.run(ask, capture_output=True, timeout=SECONDS_TO_ANSWER, check=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"--ray {address}: what answers there is no Ray cluster; {WAYS_IN}") from error
    return b"AuthenticationError" in told.stderr


def give_token(address: str) -> None:
    """Have Ray give the token of this machine. Raises UserError where it has read its environment already."""
    if "RAY_AUTH_MODE" not in os.environ and "ray" in sys.modules:
        raise UserError(
            f"--ray {address}: the cluster asks for a token, and Ray is imported already; set RAY_AUTH_MODE=token in "
            "the environment before"
        )
    os.environ.setdefault("RAY_AUTH_MODE", "token")
