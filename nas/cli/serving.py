"""What the dashboard answers over HTTP: it reads, writes notes where that is allowed, and refuses all else.

optuna-dashboard has no read-only mode: asked to delete a study, it does. Its page shows the `reason` of a refusal.
Where it fails, it logs stack frames; here each fault is one line of the log, and an answer that says where to look.
"""

import json
import logging
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from wsgiref.simple_server import WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from optuna.storages import BaseStorage
from optuna.trial import TrialState

from nas.errors import printable

LOG = logging.getLogger("optuna_dashboard")
READS = ("GET", "HEAD", "OPTIONS")
NOTE = re.compile(r"/api/studies/\d+(/\d+)?/note")  # of a study or a trial
IMPORTANCES = re.compile(r"/api/studies/(\d+)/param_importances")
CHUNK = 1 << 16  # bytes


def refusal(method: str, path: str, *, allow_edits: bool) -> str | None:
    """Why a request is refused; None for one that reads, or writes a note where that is allowed."""
    if method in READS or (allow_edits and method == "PUT" and NOTE.fullmatch(path)):
        return None
    if allow_edits:
        return f"{method} {path} is refused: --allow-edits lets notes be written, and nothing else"
    return f"{method} {path} is refused: the dashboard is read-only; to write notes, start it with --allow-edits"


def _read_to_the_end(environ: WSGIEnvironment) -> None:
    """Read the body of a refused request: closing a connection over unread bytes may reset it, and lose the answer."""
    left = int(environ.get("CONTENT_LENGTH") or 0)
    while left > 0 and (chunk := environ["wsgi.input"].read(min(left, CHUNK))):
        left -= len(chunk)


def _without_parameters(storage: BaseStorage, path: str) -> bool:
    """Whether the importances of parameters are asked for, and no trial that came to its end has any.

    The final runs have none. The dashboard divides by their number then.
    """
    asked = IMPORTANCES.fullmatch(path)
    if asked is None:
        return False
    ended = storage.get_all_trials(int(asked[1]), deepcopy=False, states=(TrialState.COMPLETE,))
    return bool(ended) and not any(trial.params for trial in ended)


def _say(start_response: StartResponse, status: str, content: dict[str, object]) -> list[bytes]:
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(content).encode()]


def guarded(app: WSGIApplication, storage: BaseStorage, *, allow_edits: bool) -> WSGIApplication:
    """The dashboard's application without its writes, and without tracebacks."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].rstrip("/")
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")  # the dashboard takes for granted that it is there
        begun: list[tuple[Any, ...]] = []  # status and headers, as the dashboard gives them; the last ones count
        try:
            reason = refusal(method, path, allow_edits=allow_edits)
            if reason is not None:
                _read_to_the_end(environ)
                return _say(start_response, "403 Forbidden", {"reason": reason})
            if _without_parameters(storage, path):  # the answer is the dashboard's own where no trial has ended
                return _say(start_response, "200 OK", {"param_importances": [[]]})
            body = app(environ, lambda *start: begun.append(start))  # type: ignore[arg-type]  # no write()
            if not begun[-1][0].startswith("500"):
                start_response(*begun[-1])
                return body
        except Exception as error:
            LOG.error("Exception: %s", error)
        reason = f"{method} {path} failed; the log of python -m nas.dashboard says why"
        return _say(start_response, "500 Internal Server Error", {"reason": reason})

    return answer


class OneLine(logging.Formatter):
    """A message without the stack frames that the dashboard appends to it."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(record.getMessage().partition('\n  File "')[0])


class Server(WSGIServer):
    """A server for which a browser that goes away is one line of the log."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        LOG.error("Exception: %s", sys.exc_info()[1])


def serve(app: WSGIApplication, host: str, port: int) -> None:
    """Answer requests until Ctrl+C."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    LOG.addHandler(handler)
    LOG.propagate = False
    with suppress(KeyboardInterrupt), make_server(host, port, app, Server) as server:
        server.serve_forever()
