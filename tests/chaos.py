"""Real searches hit by faults, and what must hold after each: python tests/chaos.py --faults 200 --seed 0

A search of tiny trainings runs undisturbed first. The same search is then begun again and again in an empty folder on a
small disk of its own, hit by faults drawn from a seeded list, and continued by the same command until it is done.
A fault that hits nothing, such as a second program after the first has ended, is not counted and comes again. After
every fault the database must open and hold every trial that had finished, unchanged; no process of a killed program may
live on; an error must be one sentence, and only a fault of the program or its disk may end it. In the end the study
must equal the undisturbed one.

With --ray the searches train on a Ray cluster of three nodes on this machine, two of them in networks of their own;
nodes are killed and cut off, too. That needs root.
"""

import argparse
import itertools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from helpers import ENVIRONMENT, make_task
from optuna.trial import TrialState
from postgresql import a_server
from rich.console import Console
from rich.table import Table

from nas.errors import UserError
from nas.optuna_internals.batched_storage import close
from nas.study.location import ARTIFACTS, locate
from nas.study.opening import open_study
from nas.study.records import Record, records
from nas.study.runs import run_records
from nas.study.settings import choice_of

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

TRIALS = 9  # of which the default sampler draws the first six
NAME = "digits"
COMMAND = ("--space", "digits.py", "--device", "cpu", "--trials", str(TRIALS), "--finalists", "4", "--final-seeds", "2")
SEARCHES: tuple[tuple[str, ...], ...] = (  # in both, what is found does not depend on who finishes first
    ("--jobs", "2", "--sampler", "random", "--pruner", "none"),
    ("--jobs", "1"),
)
IDLE = ("--jobs", "3", *SEARCHES[0][2:])  # and here, some workers have nothing to do when few trainings are left
EPOCH_TIMEOUT = 2.0  # seconds; an epoch takes a hundredth of that
DISK = 48 << 20  # bytes
ORPHAN_SECONDS = 5.0  # that a process may outlive the program that started it ...
ACTOR_SECONDS = 30.0  # ... and an actor of a Ray cluster
INTERRUPT_SECONDS = 5.0  # that the program may take to end in order
TAG = "NAS_CHAOS"  # in the environment of a program, and so of all that it starts
SERVER = "multiprocessing.forkserver"
PATIENCE = 180.0  # seconds without a word, after which the program is taken for hung
AT_ONCE = 10  # faults of one search, at most
IN_VAIN = 5  # searches one after the other in which nothing was hit, after which nothing ever will be
WORKER_FAULTS = 2  # in one life of the program: more would fail a trial, as they should


class ViolationError(AssertionError):
    """Something that must hold does not."""


def require(condition: bool, what: str) -> None:
    """Raise ViolationError unless the condition holds."""
    if not condition:
        raise ViolationError(what)


@dataclass(frozen=True, slots=True)
class Ended:
    """A training that has ended, as the study tells it, without times."""

    key: tuple[object, ...]
    state: TrialState
    values: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What a study holds."""

    trials: tuple[Ended, ...]
    runs: tuple[Ended, ...]
    running: int
    winner: int | None
    files: frozenset[str] = frozenset()

    @property
    def ended(self) -> dict[tuple[object, ...], Ended]:
        """By what makes them the same training."""
        return {ended.key: ended for ended in (*self.trials, *self.runs)}


def found_in(folder: Path, storage: str | None) -> Found | None:
    """What the study of this folder holds; None before it was made."""
    location = locate(NAME, folder, storage)
    try:
        study = open_study(location)
    except ValueError as error:
        if "there is no study" in str(error):
            return None
        raise
    trials, runs = records(study), run_records(study)
    choice = choice_of(study)
    close(study)

    def curve(record: Record) -> tuple[object, ...]:
        return tuple(replace(epoch, seconds=None) for epoch in record.curve)

    return Found(
        trials=tuple(
            Ended(("trial", t.number), t.state, (t.notation, t.seed, t.val_accuracy, curve(t)))
            for t in trials
            if t.state.is_finished()
        ),
        runs=tuple(
            Ended(("run", r.run.stage, r.notation, r.seed), r.state, (r.accuracy, curve(r)))
            for r in runs
            if r.state.is_finished()
        ),
        running=sum(not record.state.is_finished() for record in (*trials, *runs)),
        winner=choice.winner if choice else None,
    )


def finished_in(folder: Path, storage: str | None) -> Found:
    """What a study and its folder hold in the end; artifacts have names by chance."""
    found = found_in(folder, storage)
    assert found is not None
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.parent.name != ARTIFACTS}
    return replace(found, files=frozenset(str(path) for path in files if not re.search(r"(^|/)\.", str(path))))


def children(pid: int) -> list[int]:
    """The workers of a program: what the servers have forked that it has started for them."""
    return [worker for server in servers(pid) for worker in _children(server) if command_of(worker)]


def trainers() -> list[int]:
    """The actors of Ray that train; in a storm, there is one program that has any."""
    found = subprocess.run(["pgrep", "-f", "^ray::Trainer"], capture_output=True, text=True, check=False)
    return [pid for pid in map(int, found.stdout.split()) if command_of(pid)]


def servers(pid: int) -> list[int]:
    """Of a program: those that fork its workers."""
    return [child for child in _children(pid) if SERVER in command_of(child)]


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def command_of(pid: int) -> str:
    """How a process was started; nothing when it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def environment(storage: str | None) -> dict[str, str]:
    """With the storage's URL where the program looks for it."""
    return ENVIRONMENT if storage is None else {**ENVIRONMENT, "OPTUNA_STORAGE": storage}


@dataclass
class Life:
    """One process of the program, from its start to its end."""

    folder: Path
    search: tuple[str, ...]
    storage: str | None
    process: "subprocess.Popen[str]" = field(init=False)
    lines: list[str] = field(default_factory=list)
    workers: dict[int, int] = field(default_factory=dict)  # each with the epochs that had been told of when it came
    epochs: int = 0
    outcome: tuple[int, str] | None = None
    hung: bool = False

    def __post_init__(self) -> None:
        self.tag = str(uuid4())
        command = [sys.executable, "-m", "nas.search", *COMMAND, *self.search, "-v", "--output-dir", "disk/results"]
        self.process = subprocess.Popen(
            [*command, "--epoch-timeout", str(EPOCH_TIMEOUT)],
            cwd=self.folder,
            env={**environment(self.storage), TAG: self.tag},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> "Life":
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:  # closes its pipes, and waits for it
            self.process.kill()
            for pid in self.left_behind:  # there are some only where something did not hold
                _kill(pid, signal.SIGKILL)

    def _give_up(self) -> None:
        self.hung = True
        self.process.kill()

    def listen(self, lines: int) -> bool:
        """Read so many lines of what it prints; whether it still runs."""
        assert self.process.stdout is not None
        for _ in range(0 if self.outcome else lines):
            timer = threading.Timer(PATIENCE, self._give_up)
            timer.start()
            line = self.process.stdout.readline()
            timer.cancel()
            if not line:
                return False
            self.lines.append(line)
            self.epochs += ": epoch " in line
            for pid in self._workers:
                self.workers.setdefault(pid, self.epochs)
        return self.outcome is None

    @property
    def alive(self) -> list[int]:
        """Its workers; none when it has ended, and they are about to."""
        return self._workers if self.process.poll() is None else []

    @property
    def _workers(self) -> list[int]:
        return trainers() if "--ray" in self.search else children(self.process.pid)

    @property
    def ready(self) -> bool:
        """Whether all of its workers have answered, or nearly so: then one is missed at once and not after a minute."""
        answers = 3 * int(self.search[self.search.index("--jobs") + 1]) - 2
        return self.epochs >= max(self.workers.values(), default=self.epochs) + answers

    @property
    def left_behind(self) -> dict[int, str]:
        """The processes of this machine that it has started and that are still there, with their commands."""
        found = {int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal() and self._is_of(path)}
        actors = set(trainers()) & self.workers.keys()
        return {pid: command for pid in found | actors if (command := command_of(pid))}

    def _is_of(self, process: Path) -> bool:
        with suppress(OSError):
            return f"{TAG}={self.tag}".encode() in (process / "environ").read_bytes().split(b"\0")
        return False

    def end(self) -> tuple[int, str]:
        """Wait for its end, and for that of its workers: its status, and what it said last."""
        if self.outcome is not None:
            return self.outcome
        require(not self.hung, f"a program said nothing for {PATIENCE:g} s; its last lines: {self.lines[-3:]}")
        begun = time.monotonic()
        try:
            _, errors = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise ViolationError(f"a program did not end in {PATIENCE:g} s: {self.left_behind}") from error
        self.seconds = time.monotonic() - begun
        patience = ACTOR_SECONDS if "--ray" in self.search else ORPHAN_SECONDS
        deadline = time.monotonic() + patience
        while (alive := self.left_behind) and time.monotonic() < deadline:
            time.sleep(0.05)
        require(not alive, f"{alive} outlived the program by {patience:g} s")
        self.outcome = self.process.returncode, errors
        return self.outcome


Fault = Callable[[Life, random.Random], bool]  # whether it hit anything


def _kill(pid: int, number: signal.Signals) -> bool:
    """Whether there was such a process."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def kill_worker(life: Life, rng: random.Random) -> bool:
    """As out of memory does."""
    return _signal_worker(life, rng, signal.SIGKILL)


def crash_worker(life: Life, rng: random.Random) -> bool:
    """A segmentation fault."""
    return _signal_worker(life, rng, signal.SIGSEGV)


def pause_worker(life: Life, rng: random.Random) -> bool:
    """It hangs for good."""
    return life.ready and _signal_worker(life, rng, signal.SIGSTOP)


def _signal_worker(life: Life, rng: random.Random, number: signal.Signals) -> bool:
    workers = sorted(life.alive)
    return bool(workers) and _kill(rng.choice(workers), number)


def kill_server(life: Life, rng: random.Random) -> bool:
    """The process that forks the workers; they end with it."""
    killed = [_kill(server, signal.SIGKILL) for server in servers(life.process.pid)]
    return any(killed)


def kill_scheduler(life: Life, rng: random.Random) -> bool:
    """At any moment."""
    time.sleep(rng.random() * 0.3)
    life.process.kill()
    status, _ = life.end()
    require(status in (-signal.SIGKILL, 0), f"a killed program ended with status {status}")
    return status != 0


def interrupt(life: Life, rng: random.Random) -> bool:
    """Ctrl+C, which reaches the whole group, or SIGTERM."""
    time.sleep(rng.random() * 0.3)
    with suppress(ProcessLookupError):
        if rng.random() < 0.5:
            os.killpg(life.process.pid, signal.SIGINT)
        else:
            life.process.terminate()
    status, errors = life.end()
    if errors or status not in (-signal.SIGINT, -signal.SIGTERM):  # Python, at its end, has put its handlers away
        require(status in (130, 0), f"an interrupted program ended with status {status}: {errors}")
    require(life.seconds < INTERRUPT_SECONDS, f"an interrupted program took {life.seconds:.1f} s to end")
    require("Traceback" not in errors, f"an interrupted program said {errors}")
    return status != 0


def fill_disk(life: Life, rng: random.Random) -> bool:
    """No byte is left on it; later there is room again."""
    filler = life.folder / "disk" / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while file.write(bytes(size)):
                        pass
        return _must_say(life, "No space left on device|database or disk is full|disk I/O error")
    finally:
        filler.unlink()


def replace_file(life: Life, rng: random.Random) -> bool:
    """A folder stands where a table is to be written."""
    table = life.folder / "disk" / "results" / NAME / "trials.csv"
    if not table.parent.exists():
        return False
    before = table.read_bytes() if table.exists() else None
    table.unlink(missing_ok=True)
    table.mkdir()
    failed = _must_say(life, "Is a directory")
    table.rmdir()
    if before is not None and not failed:
        table.write_bytes(before)
    return failed


def _must_say(life: Life, reason: str) -> bool:
    """Whether it failed, with one sentence; else it had nothing left to write, as the end of the search will tell."""
    while life.listen(1):
        pass
    status, errors = life.end()
    if (status, errors) == (0, ""):
        return False
    require(
        status == 2 and re.fullmatch(rf"error: .* cannot be written \(.*({reason}).*\); .*\n", errors) is not None,
        f"status {status}, not 2, or not one sentence: {errors}",
    )
    return True


def second_scheduler(life: Life, rng: random.Random) -> bool:
    """The same command while the first is at work; once that has ended, the second may be at work itself."""
    with Life(life.folder, life.search, life.storage) as other:
        while other.listen(1):
            pass
        status, errors = other.end()
    at_work = life.process.poll() is None
    refused = status == 2 and "is being worked on by" in errors
    require(refused or (status == 0 and not at_work), f"a second program: status {status}, {errors}")
    return refused and at_work


FAULTS: dict[str, Fault] = {
    "worker killed": kill_worker,
    "worker crashed": crash_worker,
    "worker hung": pause_worker,
    "worker's server killed": kill_server,
    "program killed": kill_scheduler,
    "program interrupted": interrupt,
    "disk full": fill_disk,
    "file replaced by a folder": replace_file,
    "second program": second_scheduler,
}
NOT_ON_RAY = "worker's server killed"  # which forks those of this machine
NODE_KILLED, NODE_CUT_OFF = "node killed, another added", "node cut off until it is lost, another added"
NODE_BLINKED = "node cut off for a moment"
OF_NODES = (NODE_KILLED, NODE_CUT_OFF, NODE_BLINKED)
OF_WORKERS = ("worker killed", "worker crashed", "worker hung", "worker's server killed", *OF_NODES)
MAY_END = ("program killed", "program interrupted", "disk full", "file replaced by a folder")


def require_good_end(status: int, errors: str, hit_by: Iterable[str]) -> None:
    """Raise ViolationError if one life of a program hit by such faults has ended as it must not.

    Those that may end it have looked at how they did; whatever else happens to it, it goes on to its good end. When it
    is killed while a worker is being forked, Python says for the worker that nobody tells it what to do.
    """
    unborn = status == -signal.SIGKILL and errors.count("Traceback") == errors.count("EOFError: Ran out of input")
    require("Traceback" not in errors or unborn, f"status {status}: {errors}")
    require(status == 0 or not set(MAY_END).isdisjoint(hit_by), f"status {status} after {list(hit_by)}: {errors}")


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of its own below the folder, where the user may mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Poller:
    """A dashboard on the database, and someone who keeps looking at it."""

    def __init__(self, folder: Path, storage: str | None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.answers = self.errors = 0
        self._folder, self._storage = folder, storage
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Poller":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        process = None
        while not self._stopped.wait(0.2):
            if process is not None and process.poll() is not None:
                self.errors += 1
                process = None
            if process is None:
                try:
                    found = found_in(self._folder / "disk" / "results", self._storage)
                except UserError:  # such as that its tables are being made just now
                    continue
                if found is None:
                    continue
                command = ["-m", "nas.dashboard", "--study-name", NAME, "--output-dir", "disk/results", "--no-browser"]
                process = subprocess.Popen(
                    [sys.executable, *command, "--port", str(self.port)],
                    cwd=self._folder,
                    env=environment(self._storage),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            for path in ("/api/studies", "/api/studies/1?after=0"):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                        self.answers += answer.status == 200
                except OSError:
                    self.errors += self.answers > 0  # it has started
        if process is not None:
            process.terminate()
            process.wait()


@dataclass
class Tally:
    """What has been survived."""

    faults: Counter[str] = field(default_factory=Counter)
    searches: int = 0
    lives: int = 0
    latest: str = "no fault"
    answers: int = 0
    refusals: int = 0
    ended: int = 0
    lost: int = 0
    twice: int = 0
    violations: list[str] = field(default_factory=list)


def undisturbed(folder: Path, search: tuple[str, ...], storage: str | None) -> Found:
    """What a search finds that nothing happens to."""
    (folder / "disk").mkdir()
    with Life(folder, search, storage) as life:
        while life.listen(1):
            pass
        status, errors = life.end()
    require((status, errors) == (0, ""), f"the undisturbed search: status {status}, {errors}")
    found = finished_in(folder / "disk" / "results", storage)
    require(len(found.trials) == TRIALS, f"the undisturbed search has {len(found.trials)} trials")
    return found


def stormy(
    folder: Path,
    search: tuple[str, ...],
    storage: str | None,
    expected: Found,
    left: list[str],
    rng: random.Random,
    tally: Tally,
    kinds: Mapping[str, Fault],
) -> None:
    """One search until it is done, hit by faults from the end of the list; those that hit nothing stay in it."""
    known: dict[tuple[object, ...], Ended] = {}
    results = folder / "disk" / "results"
    status = -1

    def tried(fault: str, life: Life) -> bool:
        tally.latest = fault
        return kinds[fault](life, rng)

    while status != 0:
        hit_by: list[str] = []
        tally.lives += 1
        with Life(folder, search, storage) as life:
            while life.listen(rng.randint(1, 12)):
                if not left:
                    continue
                fault = left.pop()
                enough = fault in OF_WORKERS and sum(kind in OF_WORKERS for kind in hit_by) == WORKER_FAULTS
                if enough or not tried(fault, life):
                    left.insert(0, fault)  # another one first
                    continue
                hit_by.append(fault)
                tally.faults[fault] += 1
                now = found_in(results, storage)
                if now is not None:
                    known = still_there(known, now, tally)
            status, errors = life.end()
        require_good_end(status, errors, hit_by)
    last = finished_in(results, storage)
    still_there(known, last, tally)
    tally.searches += 1
    tally.ended += len(last.trials) + len(last.runs)
    require(last.running == 0, f"{last.running} trainings are still RUNNING")
    require(len(last.ended) == len(last.trials) + len(last.runs), "a training is there twice")
    for name in ("trials", "runs", "winner", "files"):
        now, then = getattr(last, name), getattr(expected, name)
        require(now == then, f"the {name} are not what they would have been:\n{now}\n{then}")


NETWORK = "10.177.0."  # of a cluster, whose head is 1
BRIDGE = "nas-chaos"
QUICKLY = {  # a node that does not answer is taken for dead after 4 s, not 30
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
NODE_SECONDS = 30.0  # in which a node that is cut off is taken for dead, or ends when it hears of that


def _ip(*command: str) -> str:
    return subprocess.run(["ip", *command], check=True, capture_output=True, text=True).stdout


def _until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        require(time.monotonic() < deadline, f"{what} after {seconds:g} s")
        time.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a Ray cluster, with a network of its own on this machine and a cable to the others."""

    number: int
    cluster: "Cluster"

    @property
    def name(self) -> str:
        """Of its network, and of the near end of its cable."""
        return f"{BRIDGE}-{self.number}"

    @property
    def address(self) -> str:
        """In the network of the cluster."""
        return f"{NETWORK}{self.number}"

    def connect(self) -> None:
        """Make its network, and start it there."""
        _ip("netns", "add", self.name)
        _ip("link", "add", self.name, "type", "veth", "peer", "name", "cable", "netns", self.name)
        _ip("link", "set", self.name, "master", BRIDGE, "up")
        _ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", "cable")
        for device in ("lo", "cable"):
            _ip("-n", self.name, "link", "set", device, "up")
        self.join()

    def join(self) -> None:
        """Start it, with the command for that; it may have been one before."""
        start = (str(Path(sys.executable).with_name("ray")), "start", "--address", self.cluster.address)
        options = ("--node-ip-address", self.address, "--num-cpus", "1", "--object-store-memory", str(150 << 20))
        _ip("netns", "exec", self.name, *start, *options, "--disable-usage-stats")

    def kill(self) -> None:
        """All of its processes."""
        for pid in self.processes:
            _kill(pid, signal.SIGKILL)

    def plug(self, how: Literal["up", "down"]) -> None:
        """Cut its cable, or mend it."""
        _ip("link", "set", self.name, how)

    @property
    def processes(self) -> dict[int, str]:
        """With their commands."""
        found = map(int, _ip("netns", "pids", self.name).split())
        return {pid: command for pid in found if (command := command_of(pid))}

    @property
    def trains(self) -> bool:
        """Whether an actor is there."""
        return not self.processes.keys().isdisjoint(trainers())

    @property
    def is_known(self) -> bool:
        """Whether the cluster counts on it."""
        nodes = self.cluster.global_state.node_table()  # type: ignore[no-untyped-call]  # Ray's
        return any(node["Alive"] and node["NodeManagerAddress"] == self.address for node in nodes)

    @property
    def runs(self) -> bool:
        """Whether its own process is there, or an actor."""
        return self.trains or any(command.split(" ")[0].endswith("/raylet") for command in self.processes.values())


def _faults_of(nodes: Sequence[Node]) -> dict[str, Fault]:
    """What can happen to nodes; only to one that trains, while the program is at work."""

    def of_one(happen: Callable[[Node, random.Random], None]) -> Fault:
        def fault(life: Life, rng: random.Random) -> bool:
            for node in nodes:
                if not node.runs:  # on a busy machine, a moment may have been too long
                    node.join()
            training = [node for node in nodes if life.alive and node.trains]
            if training:
                happen(rng.choice(training), rng)
            return bool(training)

        return fault

    def kill(node: Node, rng: random.Random) -> None:
        node.kill()
        node.join()

    def cut_off(node: Node, rng: random.Random) -> None:
        """Until it is taken for dead; when it is there again, it hears of that, and ends with all its actors."""
        node.plug("down")
        try:
            _until(lambda: not node.is_known, NODE_SECONDS, "a node that is cut off is still counted on")
            node.plug("up")
            _until(lambda: not node.runs, NODE_SECONDS, "of a node that was lost, processes are there")
        finally:
            node.plug("up")
            kill(node, rng)

    def blink(node: Node, rng: random.Random) -> None:
        node.plug("down")
        time.sleep(2 * rng.random())
        node.plug("up")

    return {NODE_KILLED: of_one(kill), NODE_CUT_OFF: of_one(cut_off), NODE_BLINKED: of_one(blink)}


def _disconnect(nodes: Sequence[Node]) -> None:
    """Do away with the networks of nodes and all that is in them, and with what a killed program left of such."""
    for node in nodes:
        with suppress(subprocess.CalledProcessError):
            node.kill()
            _ip("netns", "del", node.name)
    for cable in (*(node.name for node in nodes), BRIDGE):
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", cable)


@contextmanager
def a_cluster() -> Iterator[tuple[str, dict[str, Fault]]]:
    """A Ray cluster of three nodes on this machine: its address, and the faults of its nodes."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    nodes = [Node(number, cluster) for number in (2, 3)]
    _disconnect(nodes)
    try:
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{NETWORK}1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        cluster.add_node(num_cpus=1, include_dashboard=False, node_ip_address=f"{NETWORK}1", _system_config=QUICKLY)
        for node in nodes:
            node.connect()
        yield cluster.address, _faults_of(nodes)
    finally:
        _disconnect(nodes)
        cluster.shutdown()  # type: ignore[no-untyped-call]  # Ray's


def _shuffled(kinds: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """So many, all kinds equally often as far as that goes."""
    found: list[str] = []
    while len(found) < count:
        found += rng.sample(kinds, min(len(kinds), count - len(found)))
    return found


def still_there(before: dict[tuple[object, ...], Ended], now: Found, tally: Tally) -> dict[tuple[object, ...], Ended]:
    """What has ended now, of which all that had ended before must be as it was."""
    tally.lost += sum(key not in now.ended for key in before)
    tally.twice += len(now.trials) + len(now.runs) - len(now.ended)
    for key, ended in before.items():
        require(now.ended.get(key) == ended, f"{ended} has become {now.ended.get(key)}")
    return now.ended


def storm(
    faults: int,
    seed: int,
    show: Callable[[str], None],
    storage_of: Callable[[str], str | None] = lambda _: None,
    searches: Sequence[tuple[str, ...]] = SEARCHES,
    kinds: Mapping[str, Fault] = FAULTS,
) -> Tally:
    """So many faults, spread over as many searches as that takes; `storage_of` gives the URL for each search's name.

    A search in which something did not hold ends there; the tally says what it was.
    """
    rng, tally = random.Random(seed), Tally()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what runs in the background ignore it
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nas-chaos-")))
        expected = []
        for index, search in enumerate(searches):
            task = root / f"calm{index}"
            task.mkdir()
            expected.append(undisturbed(make_task(task), search, storage_of(task.name)))
        with small_disk(root / "disk") as mounted:
            left = _shuffled([kind for kind in kinds if mounted or kind != "disk full"], faults, rng)
        in_vain = 0
        for place in itertools.count():
            if not left or in_vain == IN_VAIN:
                break
            task = root / f"stormy{place}"
            task.mkdir()
            make_task(task)
            storage = storage_of(task.name)
            some, left = left[-AT_ONCE:], left[:-AT_ONCE]
            before = len(some)
            with small_disk(task / "disk"), Poller(task, storage) as poller:
                index = place % len(searches)
                try:
                    stormy(task, searches[index], storage, expected[index], some, rng, tally, kinds)
                except ViolationError as error:
                    tally.violations.append(f"search {place}, after {tally.latest}: {error}")
                    show(f"violated: {tally.violations[-1]}")
            in_vain = in_vain + 1 if len(some) == before else 0
            left += some
            tally.answers += poller.answers
            tally.refusals += poller.errors
            shutil.rmtree(task)
            show(f"{tally.faults.total()} of {faults} faults survived, {tally.searches} searches")
    if left:
        tally.violations.append(f"in {in_vain} searches, nothing was hit by any of: {', '.join(sorted(set(left)))}")
    return tally


def table(tally: Tally) -> Table:
    """For a person to read."""
    shown = Table("fault", "survived")
    for kind in (*FAULTS, *OF_NODES):
        shown.add_row(kind, str(tally.faults[kind]) if tally.faults[kind] else "0 (not tried)")
    shown.add_section()
    shown.add_row("all faults", str(tally.faults.total()))
    shown.add_row("searches, each equal to the undisturbed one", str(tally.searches))
    shown.add_row("programs started", str(tally.lives))
    shown.add_row("trainings ended", str(tally.ended))
    shown.add_row("of these lost", str(tally.lost))
    shown.add_row("of these twice", str(tally.twice))
    shown.add_row("violations", str(len(tally.violations)))
    shown.add_row("answers of the dashboard meanwhile", f"{tally.answers:,}")
    shown.add_row("its errors", str(tally.refusals))
    return shown


def troubles(tally: Tally) -> list[str]:
    """What did not hold, in sentences."""
    counted = {
        "trainings were lost": tally.lost,
        "trainings were there twice": tally.twice,
        "times the dashboard ended, or did not answer": tally.refusals,
    }
    return [*tally.violations, *(f"{count} {what}" for what, count in counted.items() if count)]


def main() -> int:
    """The command; its exit status: 1 when something did not hold."""
    options = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    options.add_argument("--faults", type=int, default=200, help="how many (default: 200)")
    options.add_argument("--seed", type=int, default=0, help="of the list of faults (default: 0)")
    options.add_argument("--postgresql", action="store_true", help="on a PostgreSQL server of its own, not on SQLite")
    options.add_argument(
        "--ray", action="store_true", help="on a Ray cluster of its own, as root; its nodes are hit, too"
    )
    args = options.parse_args()
    if args.ray and (os.geteuid() != 0 or shutil.which("ip") is None):
        options.error("--ray gives nodes networks of their own; run it as root, with the program ip of iproute2")
    began = time.monotonic()
    searches, kinds = SEARCHES, dict(FAULTS)
    with ExitStack() as stack:
        storage_of = stack.enter_context(a_server()) if args.postgresql else lambda _: None
        if args.ray:
            address, of_nodes = stack.enter_context(a_cluster())
            searches = tuple((*search, "--ray", address) for search in (*SEARCHES, IDLE))
            kinds = {kind: fault for kind, fault in FAULTS.items() if kind != NOT_ON_RAY} | of_nodes
        tally = storm(args.faults, args.seed, lambda line: print(line, flush=True), storage_of, searches, kinds)
    Console().print(table(tally))
    print(f"{time.monotonic() - began:.0f} s, seed {args.seed}")
    for trouble in troubles(tally):
        print(f"violated: {trouble}")
    return 1 if troubles(tally) else 0


if __name__ == "__main__":
    sys.exit(main())
