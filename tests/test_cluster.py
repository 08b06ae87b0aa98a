"""A real Ray cluster of several nodes on this machine: what a search does there, also when nodes come and go."""

import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any, cast

import numpy as np
import pytest
import torch
from chaos import ACTOR_SECONDS, COMMAND, finished_in, trainers
from helpers import ENVIRONMENT, MNIST, ended, make_task, small_architecture, write_mnist_folder
from ray.cluster_utils import Cluster
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from nas.datasets.images import hand_over, load_training, take_back, training_pool
from nas.datasets.metrics import BALANCED_ACCURACY
from nas.errors import UserError
from nas.network.limits import Constraints
from nas.space.candidate import Candidate
from nas.space.recipe import Recipe
from nas.training.job import DivergedError, OutOfMemoryError, TrainingJob
from nas.training.training import train
from nas.workers.protocol import TRIES, Worker
from nas.workers.ray_actor import Greeting, Trainer, _answer, require_same_versions, restored, shared, versions
from nas.workers.ray_address import give_token, reach
from nas.workers.ray_fleet import RayFleet, Room, jobs_per_gpu, part_of_gpu

TRIALS, IMAGES, NODES = 8, 2_000, 2
SEARCH = ("--jobs", str(NODES), "--sampler", "random", "--pruner", "none")  # who is first does not change what is found
SECONDS = 600.0  # that anything waited for may take on a busy machine


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head, which trains nothing, and two more nodes, each of one core, with processes of its own."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(NODES):
            made.add_node(num_cpus=1)
        yield made
    finally:
        made.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def searching(folder: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """The search of the fault tests, with more to do; in the end it is killed."""
    command = [sys.executable, "-m", "nas.search", *COMMAND, *SEARCH, "--trials", str(TRIALS), "-v", *options]
    with subprocess.Popen(
        [*command, "--output-dir", "disk/results"],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(process: "subprocess.Popen[str]", pattern: str) -> re.Match[str]:
    """Read what it prints until a line holds the pattern; kill it when that takes too long."""
    assert process.stdout is not None
    lines: list[str] = []
    patience = Timer(SECONDS, process.kill)
    patience.start()
    try:
        for line in process.stdout:
            lines.append(line)
            if found := re.search(pattern, line):
                return found
    finally:
        patience.cancel()
    raise AssertionError(f"{pattern!r} is not in:\n{''.join(lines)}\n{process.communicate()[1]}")


def wait_for_trainers(count: int, seconds: float) -> list[int]:
    """The actors that train, as soon as there are so many."""
    deadline = time.monotonic() + seconds
    while len(found := trainers()) != count:
        assert time.monotonic() < deadline, f"{len(found)} trainers instead of {count}"
        time.sleep(0.1)
    return found


@contextmanager
def standing_still(*processes: int) -> Iterator[None]:
    """Processes that do nothing meanwhile, and have not ended when it begins."""
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def come_and_go(search: "subprocess.Popen[str]", cluster: Cluster) -> None:
    """Kill the node of the first worker and add another, which the search joins.

    A training takes a fifth of a second; a worker takes seconds to start, and a cluster many to know that a node is
    dead. So the search stands still meanwhile, and the workers that are there do until the new one has joined: else
    nothing would be left to train.
    """
    node = until(search, r"a worker on \S+ (\w+) joins")[1]
    with ExitStack() as still:
        with standing_still(search.pid):
            still.enter_context(standing_still(*wait_for_trainers(NODES, SECONDS)))
            (lost,) = (worker for worker in cluster.worker_nodes if worker.node_id.startswith(node))
            cluster.remove_node(lost, allow_graceful=False)
            added = cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes(SECONDS)
        until(search, "its worker died; it is trained again")
        until(search, f"a worker on .* {added.node_id[:4]} joins")


def test_a_search_on_a_cluster_finds_the_same_while_nodes_come_and_go_and_it_is_killed(
    tmp_path: Path, cluster: Cluster
) -> None:
    here, folder = tmp_path / "here", tmp_path / "cluster"
    for task in (here, folder):
        task.mkdir()
        make_task(task, images=IMAGES)
    with searching(here) as calm:  # on this machine alone, meanwhile
        with searching(folder, "--ray", cluster.address, "--epoch-timeout", "600") as search:
            come_and_go(search, cluster)
        wait_for_trainers(0, ACTOR_SECONDS)
        with searching(folder, "--ray", cluster.address) as search:
            told = ended(search, SECONDS)
        there = ended(calm, SECONDS)
    assert (told.status, told.err) == (0, "")
    assert (there.status, there.err) == (0, "")
    found, expected = (finished_in(task / "disk" / "results", None) for task in (folder, here))
    assert found == expected
    assert f"workers on {NODES} × cpu of a Ray cluster" in told.out.replace("\n", " ")


def test_without_ray_one_sentence_says_how_to_get_it(tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.modules['ray'] = None; sys.argv[1:] = ['--ray', 'auto']; "
        "runpy.run_module('nas.search', run_name='__main__')"
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


@pytest.mark.parametrize(("used", "total", "jobs"), [(1, 10, 8), (3, 10, 3), (10, 10, 1), (0, 10, 8)])
def test_as_many_workers_share_a_gpu_as_its_memory_holds(used: int, total: int, jobs: int) -> None:
    assert jobs_per_gpu(used << 30, total << 30) == jobs


@pytest.mark.parametrize(
    ("rooms", "per_gpu", "wanted", "part"),
    [
        ([Room(16, 4)], 8, 4, 1.0),  # one each, not four on the first
        ([Room(16, 4)], 8, 5, 0.5),
        ([Room(16, 4)], 3, 99, 0.3333),
        ([Room(16, 4)], 7, 99, 0.1428),  # seven of them are not more than one
        ([Room(64, 0), Room(8, 4)], 8, 8, 0.5),  # the head's cores are of no use to GPUs elsewhere
        ([Room(2, 1), Room(2, 1)], 8, 4, 0.5),
        ([], 4, 1, 0.25),
    ],
)
def test_workers_are_spread_over_all_gpus(rooms: list[Room], per_gpu: int, wanted: int, part: float) -> None:
    assert part_of_gpu(rooms, per_gpu, wanted) == part


def test_images_are_shared_without_a_copy() -> None:
    pool = training_pool(MNIST)
    there = restored(pickle.loads(pickle.dumps(shared(pool))))
    assert np.array_equal(there.held_out, pool.held_out)
    assert (there.classes, there.drawn, there.groups) == (pool.classes, pool.drawn, pool.groups)
    assert torch.equal(there.images.labels, pool.images.labels)
    assert restored(shared(pool)).images.images.data_ptr() == pool.images.images.data_ptr()


def test_a_worker_judges_shared_images_as_the_data_set_says() -> None:
    """Its metric and its cross-validation, which say how the images are used, are not lost on the way."""
    dataset = replace(MNIST, name="shared", metric="balanced_accuracy", cross_validation=1)
    hand_over(dataset, restored(shared(training_pool(MNIST))))
    data = load_training(dataset)
    take_back(dataset)
    assert (data.metric, len(data.folds), data.evaluation.images) == (BALANCED_ACCURACY, 6, 60_000)


def test_a_folder_that_only_the_head_has_is_trained_on_elsewhere(tmp_path: Path, one_thread: None) -> None:
    """The images travel, and nothing asks for the files; so do the images of which only some are used."""
    here = write_mnist_folder(tmp_path / "photos")
    pool = training_pool(here)
    elsewhere = replace(here, name="/on/the/head/only", at_most=150, cross_validation=1)
    candidate = Candidate(architecture=small_architecture(), recipe=Recipe(epochs=1, batch_size=16))
    job = TrainingJob(candidate=candidate, constraints=Constraints(), dataset=elsewhere, seed=1)
    report = Trainer(train).start(job, shared(pool))
    assert report == replace(
        next(train(replace(job, dataset=replace(elsewhere, name=here.name)))), seconds=report.seconds
    )
    take_back(elsewhere)


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


CANDIDATE = Candidate(architecture=small_architecture(), recipe=Recipe(epochs=1))
JOB = TrainingJob(candidate=CANDIDATE, constraints=Constraints(), dataset=MNIST, seed=0)
HERE = Greeting(node="here", pid=1, versions=versions())
OTHER = replace(HERE, node="other", versions={**versions(), "torch": "1.0"})
DIED = BrokenExecutor("its node has died")


class Town:
    """A cluster of made-up actors, and the fleet on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rooms, self.clock, self.actors = [Room(2, 0)], Clock(), list[Actor]()
        monkeypatch.setattr("nas.workers.ray_fleet.connect", lambda address: None)
        monkeypatch.setattr("nas.workers.ray_fleet._rooms", lambda: self.rooms)
        monkeypatch.setattr("nas.workers.ray_fleet.monotonic", self.clock)
        monkeypatch.setattr("nas.workers.ray_fleet.RayWorker", self.made)

    def made(self, *_: object) -> Actor:
        self.actors.append(Actor())
        return self.actors[-1]

    def fleet(self, device: str = "cpu") -> RayFleet:
        return RayFleet("auto", device, None, None, lambda: JOB)

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
    town.rooms = [Room(2, 0), Room(2, 0)]  # a node joins
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
    town.rooms = [Room(8, 0)]
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
        f"going on without a worker: torch is 1.0 on node other of the Ray cluster and {versions()['torch']} here; "
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
    town.rooms = [Room(8, 1)]
    fleet = town.fleet("cuda")
    assert town.hire(fleet) == 0
    assert len(town.actors) == 1
    town.actors[0].greeting.set_exception(DIED)
    town.actors[0].memory.set_exception(DIED)
    assert town.hire(fleet) == 0
    assert town.actors[0].stopped
    assert town.hire(fleet) == 0
    town.actors[1].greeting.set_result(HERE)
    town.actors[1].memory.set_result((2 << 30, 10 << 30))
    assert town.hire(fleet) == 0
    assert town.actors[1].stopped
    assert len(town.actors) == 2 + 4, "of 2 of 9 GiB each"


def test_a_gpu_that_one_worker_fills_is_not_shared(town: Town) -> None:
    town.rooms = [Room(8, 2)]
    fleet = town.fleet("cuda")
    town.hire(fleet)
    town.actors[0].greeting.set_result(HERE)
    town.actors[0].memory.set_exception(OutOfMemoryError("CUDA out of memory"))
    town.hire(fleet)
    assert len(town.actors) == 1 + 2


def test_a_gpu_node_of_other_versions_is_named_before_what_it_cannot_do(town: Town) -> None:
    town.rooms = [Room(8, 1)]
    fleet = town.fleet("cuda")
    for _ in range(TRIES):
        town.hire(fleet)
        town.actors[-1].greeting.set_result(OTHER)
        town.actors[-1].memory.set_exception(AttributeError("'Trainer' object has no attribute 'gpu_memory'"))
        if len(town.actors) < TRIES:
            town.hire(fleet)
    with pytest.raises(UserError, match=r"^torch is 1\.0 on node other of the Ray cluster and "):
        town.hire(fleet)


def test_where_no_two_need_to_share_a_gpu_none_is_measured(town: Town) -> None:
    town.rooms = [Room(8, 4)]
    fleet = town.fleet("cuda")
    town.hire(fleet, 3)
    assert len(town.actors) == 3
    assert not any(actor.memory.done() for actor in town.actors)


def test_a_gpu_is_not_measured_while_workers_hold_all_of_them(town: Town) -> None:
    """Such as after a node was lost."""
    town.rooms = [Room(8, 2), Room(8, 2)]
    fleet = town.fleet("cuda")
    town.hire(fleet, 4)
    town.greet(*[HERE] * 4)
    assert town.hire(fleet, 4) == 4
    town.rooms = [Room(8, 2)]
    for actor in town.actors[2:]:
        fleet.dismiss(cast(Worker, actor))
    town.hire(fleet, 4)
    assert len(town.actors) == 4, "two hold what there is"


def test_a_measurement_is_given_up_where_it_is_not_needed_any_more(town: Town) -> None:
    town.rooms = [Room(8, 1)]
    fleet = town.fleet("cuda")
    town.hire(fleet, 4)
    town.rooms = [Room(8, 1)] * 4
    town.hire(fleet, 4)
    assert [actor.stopped for actor in town.actors] == [True] + [False] * 4


def test_too_many_workers_a_gpu_are_one_sentence(town: Town) -> None:
    with pytest.raises(UserError, match=r"^--jobs-per-gpu 20,000 must be at most 1,000$"):
        RayFleet("auto", "cuda", None, 20_000, lambda: JOB)


class Reference:
    """What Ray gives for a call: a future that has failed."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def future(self) -> Future[Any]:
        failed: Future[Any] = Future()
        failed.set_exception(self._error)
        return failed


def a_task_failed(cause: Exception) -> Exception:
    return RayTaskError("next", "its traceback", cause)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        (ConnectionError("the connection of ray:// is lost"), BrokenExecutor),
        (RayActorError(), BrokenExecutor),
        (a_task_failed(ObjectLostError("00", None, "")), BrokenExecutor),
        (a_task_failed(DivergedError("the loss is nan")), DivergedError),
        (a_task_failed(OSError("of the training itself")), OSError),
    ],
)
def test_what_ray_tells_is_of_the_worker_or_of_the_training(told: Exception, meant: type[Exception]) -> None:
    assert type(_answer(Reference(told)).exception()) is meant


def test_no_other_ray_is_started_when_a_cluster_is_lost() -> None:
    code = (
        "import nas.workers.ray_fleet as c, ray\n"
        "try: c.ray.put(1)\n"
        "except Exception as error: print(type(error).__name__)\n"
        "print(ray.is_initialized())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert told.stdout == "RaySystemError\nFalse\n"


def test_a_cluster_that_is_lost_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> list[object]:
        raise Exception("Ray client has already been disconnected")  # as plain as Ray raises it

    monkeypatch.setattr("nas.workers.ray_fleet.connect", lambda address: None)
    monkeypatch.setattr("nas.workers.ray_fleet.ray.nodes", lost)
    sentence = r"^the Ray cluster is lost \(Ray client has already been disconnected\); nothing finished is: give "
    with pytest.raises(UserError, match=sentence):
        RayFleet("auto", "cpu", None, None, lambda: JOB)


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
        reach(address)


def test_what_answers_but_is_no_ray_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.workers.ray_address.SECONDS_TO_ANSWER", 2.0)
    sentence = r"^--ray 127.*: what answers there is no Ray cluster; give auto, local, "
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UserError, match=sentence):
        reach(f"127.0.0.1:{silent.getsockname()[1]}")


def test_a_token_is_given_to_a_cluster_that_asks_for_it_unless_ray_has_read_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "")  # so that it is as it was at the end
    monkeypatch.delenv("RAY_AUTH_MODE")
    sentence = r"^--ray host:1: the cluster asks for a token, and Ray is imported already; set RAY_AUTH_MODE=token in "
    with pytest.raises(UserError, match=sentence):
        give_token("host:1")
    monkeypatch.delitem(sys.modules, "ray")
    give_token("host:1")
    assert os.environ["RAY_AUTH_MODE"] == "token"
