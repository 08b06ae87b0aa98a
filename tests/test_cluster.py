"""A real Ray cluster of several nodes on this machine: what a search does there, also when nodes come and go."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from chaos import ACTOR_SECONDS, COMMAND, Found, finished_in, trainers
from helpers import ENVIRONMENT, MNIST, ended, make_task
from ray.cluster_utils import Cluster

from nas.cluster import (
    Greeting,
    RayFleet,
    connect,
    jobs_per_gpu,
    require_same_versions,
    restored,
    shared,
    versions,
)
from nas.data import load_training
from nas.errors import UserError
from nas.workers import TRIES, Worker

TRIALS, IMAGES = 8, 2_000
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


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


class Actor:
    """A RayWorker that runs nowhere; what it answers is up to the test."""

    node = "somewhere"

    def __init__(self, *_: object) -> None:
        self.greeting: Future[Greeting] = Future()
        self.memory: Future[tuple[int, int]] = Future()
        self.stopped = False

    def gpu_memory(self, job: object) -> Future[tuple[int, int]]:
        return self.memory

    def stop(self) -> None:
        self.stopped = True


HERE = Greeting(node="here", pid=1, versions=versions())
OTHER = replace(HERE, node="other", versions={**versions(), "torch": "1.0"})
DIED = BrokenExecutor("its node has died")


class Town:
    """A cluster of made-up actors, and the fleet on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.resources, self.clock, self.actors = {"CPU": 2.0}, Clock(), list[Actor]()
        monkeypatch.setattr("nas.cluster.connect", lambda address: None)
        monkeypatch.setattr("nas.cluster._resources", lambda: dict(self.resources))
        monkeypatch.setattr("nas.cluster.monotonic", self.clock)
        monkeypatch.setattr("nas.cluster.RayWorker", self.made)

    def made(self, *_: object) -> Actor:
        self.actors.append(Actor())
        return self.actors[-1]

    def fleet(self, device: str = "cpu") -> RayFleet:
        return RayFleet("auto", device, None, None, lambda: None)  # type: ignore[arg-type, return-value]

    def hire(self, fleet: RayFleet, most: int = 99, *, later: float = 100.0) -> int:
        """How many are hired after so many seconds."""
        self.clock.now += later
        return len(fleet.hire(most))

    def greet(self, *answers: Greeting | Exception) -> None:
        """The latest actors answer, in their order."""
        for actor, answer in zip(self.actors[-len(answers) :], answers, strict=True):
            if isinstance(answer, Exception):
                actor.greeting.set_exception(answer)
            else:
                actor.greeting.set_result(answer)


@pytest.fixture
def town(monkeypatch: pytest.MonkeyPatch) -> Town:
    return Town(monkeypatch)


def test_a_fleet_follows_its_cluster_and_its_work(town: Town) -> None:
    fleet = town.fleet()
    assert town.hire(fleet) == 0
    assert len(town.actors) == len(fleet.devices) == 2
    town.greet(HERE, HERE)
    assert town.hire(fleet) == 2
    town.resources["CPU"] = 4.0  # a node joins
    assert town.hire(fleet) == 0
    assert len(town.actors) == 4
    town.greet(HERE, HERE)
    assert town.hire(fleet, 3) == 1, "there is no work for more"
    assert [actor.stopped for actor in town.actors] == [False, False, False, True]
    fleet.dismiss(cast(Worker, town.actors[0]))
    assert town.actors[0].stopped
    assert town.hire(fleet) == 0
    assert len(town.actors) == 6, "two places are free again"


def test_actors_lost_while_they_start_do_not_end_a_search_that_has_others(town: Town) -> None:
    fleet = town.fleet()
    town.hire(fleet)
    town.greet(HERE, HERE)
    town.hire(fleet)
    town.resources["CPU"] = 8.0
    for _ in range(4):
        town.hire(fleet)
        town.greet(*[DIED] * 6)
        assert town.hire(fleet, later=0.0) == 0
    assert [news for news in fleet.news if "its node has died" in news] == [fleet.news[0]], "it is said once"


def test_a_node_with_other_versions_is_done_without_and_said_once(town: Town) -> None:
    fleet = town.fleet()
    town.hire(fleet)
    town.greet(HERE, OTHER)
    assert town.hire(fleet) == 1
    assert town.actors[1].stopped
    town.hire(fleet)
    town.greet(OTHER)
    assert town.hire(fleet) == 0
    assert list(fleet.news) == [
        f"a worker is done without: torch is 1.0 on node other of the Ray cluster and {versions()['torch']} here; "
        "install the same version on both"
    ]
    made = len(town.actors)
    town.hire(fleet, later=1.0)
    assert len(town.actors) == made, "and is not asked again at once"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (DIED, r"^no worker can be started on the Ray cluster \(its node has died\); install nas in the same "),
        (OTHER, r"^torch is 1\.0 on node other of the Ray cluster and .* here; install the same version on both$"),
    ],
)
def test_where_no_worker_can_start_the_search_ends_after_some_tries(
    town: Town, answer: Greeting | Exception, sentence: str
) -> None:
    fleet = town.fleet()
    for _ in range(TRIES - 1):
        town.hire(fleet)
        town.greet(answer, answer)
        assert town.hire(fleet, later=0.0) == 0
    town.hire(fleet)
    town.greet(answer, answer)
    with pytest.raises(UserError, match=sentence):
        town.hire(fleet)


def test_how_many_share_a_gpu_is_asked_of_one_worker_again_if_that_dies(town: Town) -> None:
    town.resources = {"CPU": 8.0, "GPU": 1.0}
    fleet = town.fleet("cuda")
    assert town.hire(fleet) == 0
    assert len(town.actors) == 1
    town.actors[0].memory.set_exception(DIED)
    assert town.hire(fleet) == 0
    assert town.actors[0].stopped
    assert town.hire(fleet) == 0
    town.actors[1].greeting.set_result(HERE)
    town.actors[1].memory.set_result((2 << 30, 10 << 30))
    assert town.hire(fleet) == 0
    assert town.actors[1].stopped
    assert len(town.actors) == 2 + 4, "of 2 of 9 GiB each"


def test_a_cluster_that_is_lost_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> dict[str, float]:
        raise ConnectionError("Ray client has already been disconnected")

    monkeypatch.setattr("nas.cluster.connect", lambda address: None)
    monkeypatch.setattr("nas.cluster.ray.cluster_resources", lost)
    sentence = r"^the Ray cluster is lost \(Ray client has already been disconnected\); nothing finished is: give "
    with pytest.raises(UserError, match=sentence):
        RayFleet("auto", "cpu", None, None, lambda: None)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nowhere", r"^--ray 'nowhere' is no address of a Ray cluster; give auto, local, host:port on a machine of "),
        ("127.0.0.1:1", r"^--ray 127\.0\.0\.1:1: nobody answers there \(Connection refused\); give auto, "),
        ("ray://a..b:1", r"^--ray ray://a\.\.b:1: nobody answers there \(.*\); give auto, "),
    ],
)
def test_an_address_where_nobody_is_is_one_sentence(address: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        connect(address)


def test_what_answers_but_is_no_ray_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.cluster.SECONDS_TO_ANSWER", 2.0)
    sentence = r"^--ray 127.*: what answers there is no Ray cluster; give auto, local, "
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UserError, match=sentence):
        connect(f"127.0.0.1:{silent.getsockname()[1]}")
