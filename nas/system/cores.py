"""How many processor cores this process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """The cores that this process may run on, or as many as the quota of its container comes to, rounded up."""
    quota = cpu_quota()
    return _allowed() if quota is None else max(1, min(_allowed(), math.ceil(quota)))


def quota_that_decides() -> str | None:
    """What a quota leaves of the cores, in words; None where there is no quota, or more than there are cores."""
    quota = cpu_quota()
    if quota is None or math.ceil(quota) >= _allowed():
        return None
    return f"the quota of this container is {quota:g} of {_allowed()} cores"


def _allowed() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(cgroups: Path = CGROUPS, own: Path = OWN) -> float | None:
    """How many cores' time the container may use, such as 0.5; None where nothing bounds it.

    Linux, Control Group v2 (`cpu.max`) and v1 (`cpu.cfs_quota_us`): the smallest quota of a group and those above it.
    """
    return min(_quotas(cgroups, own), default=None)


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    for place in _groups(cgroups, own):
        quota, period = "max", "100000"
        words = _words(place / "cpu.max")
        if len(words) == 2:
            quota, period = words
        elif words := [*_words(place / "cpu.cfs_quota_us"), *_words(place / "cpu.cfs_period_us")]:
            quota, period = words if len(words) == 2 else (quota, period)
        if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)


def _groups(cgroups: Path, own: Path) -> Iterator[Path]:
    """The folders of this process's groups and of those above them; in a container they may lie at the top."""
    for line in own.read_text().splitlines() if own.exists() else ():
        number, controllers, path = line.split(":", 2)
        if number == "0" or "cpu" in controllers.split(","):
            top = cgroups if number == "0" else cgroups / "cpu"
            inner = top / path.lstrip("/")
            yield from (place for place in (inner, *inner.parents) if place.is_relative_to(top))


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
