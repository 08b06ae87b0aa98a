"""A real Ray cluster of several nodes on this machine: what a search does there, also when nodes come and go."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chaos import ACTOR_SECONDS, COMMAND, Found, finished_in, trainers
from helpers import ENVIRONMENT, MNIST, ended, make_task
from ray.cluster_utils import Cluster

from nas.cluster import Greeting, jobs_per_gpu, require_same_versions, restored, shared, versions
from nas.data import load_training
from nas.errors import UserError

TRIALS, IMAGES = 12, 2_000
SEARCH = ("--jobs", "3", "--sampler", "random", "--pruner", "none")  # what is found does not depend on who is first


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head and two more nodes, each of one core, with processes of its own."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(2):
            made.add_node(num_cpus=1)
        yield made
    finally:
        made.shutdown()  # type: ignore[no-untyped-call]


def searching(folder: Path, *options: str) -> "subprocess.Popen[str]":
    """The search of the fault tests, with more to do."""
    command = [sys.executable, "-m", "nas.search", *COMMAND, *SEARCH, "--trials", str(TRIALS), "-v", *options]
    return subprocess.Popen(
        [*command, "--output-dir", "disk/results"],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(process: "subprocess.Popen[str]", pattern: str) -> None:
    """Read what it prints until a line holds the pattern."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return
    raise AssertionError(f"{pattern!r} is not in:\n{''.join(lines)}\n{process.communicate()[1]}")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What the search finds on this machine, without any cluster."""
    folder = make_task(tmp_path_factory.mktemp("here"), images=IMAGES)
    told = ended(searching(folder, "--jobs", "2"))
    assert (told.status, told.err) == (0, "")
    return finished_in(folder / "disk" / "results", None)


def test_a_search_on_a_cluster_finds_the_same_while_nodes_come_and_go_and_it_is_killed(
    tmp_path: Path, cluster: Cluster, expected: Found
) -> None:
    folder = make_task(tmp_path, images=IMAGES)
    with searching(folder, "--ray", cluster.address) as search:
        until(search, "trial 2: epoch 1 ")
        assert len(trainers()) == 3
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        until(search, "its worker died; it is trained again")
        cluster.add_node(num_cpus=1)
        until(search, "a worker on .* joins")
        search.kill()
    deadline = time.monotonic() + ACTOR_SECONDS
    while trainers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert trainers() == []
    told = ended(searching(folder, "--ray", cluster.address))
    assert (told.status, told.err) == (0, "")
    assert finished_in(folder / "disk" / "results", None) == expected
    assert "workers on 3 × cpu of a Ray cluster" in told.out.replace("\n", " ")


def test_without_ray_one_sentence_says_how_to_get_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['ray'] = None; sys.argv[1:] = ['--ray', 'auto']; import nas.search as s; s.run(s.main)"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (2, "")
    assert re.fullmatch(r"error: --ray needs Ray, .*; install it with: pip install -e '\.\[ray\]'\n", told.stderr)
    assert list(tmp_path.iterdir()) == []


def test_other_versions_on_a_node_are_named() -> None:
    here = Greeting(node="there", pid=1, versions=versions())
    require_same_versions(here)
    for name, version in versions().items():
        with pytest.raises(UserError) as told:
            require_same_versions(replace(here, versions={**versions(), name: "1.2.3"}))
        assert str(told.value) == (
            f"{name} is 1.2.3 on node there of the Ray cluster and {version} here; install the same version on both"
        )


@pytest.mark.parametrize(
    ("used", "total", "cores", "jobs"),
    [(1, 10, 16, 8), (3, 10, 16, 3), (3, 10, 2, 2), (10, 10, 16, 1), (3, 10, 0.5, 1), (0, 10, 4, 4)],
)
def test_as_many_workers_share_a_gpu_as_its_memory_and_the_cores_hold(
    used: int, total: int, cores: float, jobs: int
) -> None:
    assert jobs_per_gpu(used << 30, total << 30, cores) == jobs


def test_images_are_shared_without_a_copy() -> None:
    data = load_training(MNIST)
    there = restored(shared(data))
    for part, then in ((there.train, data.train), (there.validation, data.validation)):
        assert part.images.data_ptr() == then.images.data_ptr()
        assert part.labels.data_ptr() == then.labels.data_ptr()
        assert part.images.shape == then.images.shape
    assert (there.mean, there.std, there.classes) == (data.mean, data.std, data.classes)
