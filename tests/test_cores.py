"""How many cores a process may use: the quotas of containers, as files say them."""

from pathlib import Path

import pytest

from nas.system import cores
from nas.system.cores import cpu_quota, quota_that_decides, usable_cores
from nas.workers.local import devices


def a_container(folder: Path, membership: str, files: dict[str, str]) -> float | None:
    """The quota of a container that has these files."""
    folder.mkdir()
    own = folder / "cgroup"
    own.write_text(membership)
    for name, text in files.items():
        (folder / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "fs" / name).write_text(text)
    return cpu_quota(folder / "fs", own)


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "300000 100000\n", "a/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/outside\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("", {}, None),
        ("3:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "25000\n", "cpu/x/cpu.cfs_period_us": "50000\n"}, 0.5),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "1000\n"}, None),
    ],
)
def test_quotas_of_containers(membership: str, files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    assert a_container(tmp_path / "machine", membership, files) == quota


@pytest.mark.parametrize(("quota", "workers"), [(0.5, 1), (1.0, 1), (2.5, 3), (99.0, 4), (None, 4)])
def test_workers_are_as_many_as_the_quota_rounded_up(
    quota: float | None, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    monkeypatch.setattr(cores, "_allowed", lambda: 4)
    assert usable_cores() == workers
    assert devices("cpu", None) == ("cpu",) * workers
    assert devices("cpu", 7) == ("cpu",) * 7
    expected = None if workers == 4 else f"the quota of this container is {quota:g} of 4 cores"
    assert quota_that_decides() == expected
