"""The commands that have worked on a study, as it remembers them: by which process, with which versions."""

import os
import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import optuna

import nas
from nas.errors import escaped
from nas.optuna_internals.attributes import expected, reading

KEY = "commands"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command at work on a study; `plan` holds the numbers that it works towards."""

    line: str
    process: int
    host: str
    started: str  # ISO 8601, UTC
    devices: Sequence[str]
    plan: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str]

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.started}: {self.line}"


def this_command(line: str, devices: Sequence[str], plan: Mapping[str, Any]) -> Command:
    """The command that this process is."""
    return Command(
        line=escaped(line),
        process=os.getpid(),
        host=socket.gethostname(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        devices=devices,
        plan=plan,
        versions={"nas": nas.__version__, "optuna": metadata.version("optuna"), "python": platform.python_version()},
    )


def remember(study: optuna.Study, command: Command) -> None:
    """Add a command to those that have worked on a study. Raises UserError where `commands` does."""
    study.set_user_attr(KEY, [asdict(known) for known in (*commands(study), command)])


def commands(study: optuna.Study) -> list[Command]:
    """The commands that have worked on a study, the latest last."""
    with reading("the list of commands"):
        return [_read(stored) for stored in study.user_attrs.get(KEY, [])]


def _read(stored: Mapping[str, Any]) -> Command:
    expected(stored["plan"].get("trials", 0), int)
    return Command(
        line=expected(stored["line"], str),
        process=expected(stored["process"], int),
        host=expected(stored["host"], str),
        started=expected(stored["started"], str),
        devices=[expected(device, str) for device in stored["devices"]],
        plan=expected(stored["plan"], dict),
        versions=expected(stored["versions"], dict),
    )
