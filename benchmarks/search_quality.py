"""How good the network is that a search chooses, against the epochs that it has spent: replays on an emulator.

Every arm searches the default space until its epochs are spent; nothing is trained, the emulator tells the scores (see
`benchmarks.emulator`, which needs scikit-learn). The regret is how far the expected final log loss of the chosen
network lies above that of the best of many random feasible ones. An arm is a sampler and a pruner of the program, or
Optuna as its documentation shows it: candidates outside the limits are pruned, the accuracy is maximised. Or it is
another tool of the field (see `benchmarks.rivals`); these need `pip install -e .[benchmarks]`, and repeat themselves
with PYTHONHASHSEED=0.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, cast

import numpy as np
import optuna
from optuna.pruners import BasePruner, MedianPruner
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

import nas
import search_spaces
from benchmarks.emulator import Emulator, Floats
from benchmarks.rivals import EPOCHS, RIVALS, Chosen, HardlyAnyError
from benchmarks.table import FILE as ROWS
from benchmarks.table import SPACE, appending, drawn, load, objects
from nas.cli.options import positive
from nas.cli.terminal import run
from nas.errors import UserError
from nas.optuna_internals.studies import new_study
from nas.optuna_internals.trials import is_hopeless, report_epoch
from nas.samplers.feasible import FeasibleSampler, ask, make_sampler
from nas.samplers.names import SamplerName
from nas.space.loading import load_space
from nas.space.search_space import Feasible
from nas.space.seeds import derive_seed
from nas.space.suggestions import Trial
from nas.system.processes import process_pool
from nas.tuner.names import PrunerName
from nas.tuner.pruning import make_pruner
from nas.workers.local import devices

FILE = Path(__file__).parent / "data" / "search_quality.jsonl"
FOLDERS = ("network", "optuna_internals", "samplers", "space")  # that a replay depends on
LIBRARIES = ("numpy", "optuna", "scikit-learn", "scipy")
TOOLS = {"NePS": ["neural-pipeline-search"], "syne-tune": ["syne-tune"], "SMAC": ["smac"]}
EMULATORS = 10
WORKERS = 2
WIDTH = 130  # of the table, in characters
POOL = 1_000  # random feasible candidates, to compare with
TOP = 0.01  # of them
CHECKED = (60, 120, 180, 240)  # epochs


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One search: regrets after as many epochs as are checked, the mean over all, and the epochs to the top."""

    arm: str
    number: int
    regrets: tuple[float, ...]
    mean: float
    epochs_to_top: float | None  # None where it is not reached
    made_of: str  # see `made_of`


def with_ours(sampler: SamplerName, pruner: PrunerName, emulator: Emulator, seed: int) -> Chosen:
    """The program's own loop: the best by its last loss."""
    spent, best, chosen = 0, np.inf, None
    for trial in trials_of(sampler, make_pruner(pruner, EPOCHS), emulator, seed):
        spent = trial.spent
        if trial.complete and trial.loss < best:
            best, chosen = trial.loss, trial.params
        yield spent, chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A trial of a replay that has ended, and the epochs of all trials until then."""

    params: dict[str, Any]
    loss: float  # the last
    complete: bool
    spent: int


def trials_of(
    sampler: SamplerName, pruner: BasePruner, emulator: Emulator, seed: int, count: int | None = None
) -> Iterator[Ended]:
    """The trials of the program's own loop, two at a time; without a `count`, there is no end of them."""
    space = load_space(SPACE)
    study = new_study("replay", pruner=pruner)
    proposing = FeasibleSampler(make_sampler(sampler, space, seed), space, seed, set())
    flying: list[tuple[optuna.Trial, list[dict[str, float]], list[dict[str, float]]]] = []
    begun, spent = 0, 0
    while flying or begun != count:
        while len(flying) < WORKERS and begun != count:
            trial, begun = ask(study, proposing, seed), begun + 1
            curve = emulator.train(trial.params, trial.user_attrs["seed"])
            flying.append(
                (trial, [{"epoch": e, "val_loss": loss} for e, loss in enumerate(curve.loss.tolist(), 1)], [])
            )
        for flight in tuple(flying):
            trial, epochs, known = flight
            known.append(epochs[len(known)])
            spent += 1
            report_epoch(trial, known)
            loss = known[-1]["val_loss"]
            if len(known) == len(epochs):
                study.tell(trial, loss)
            elif is_hopeless(trial):
                study.tell(trial, state=TrialState.PRUNED)
            else:
                continue
            flying.remove(flight)
            yield Ended(params=trial.params, loss=loss, complete=len(known) == len(epochs), spent=spent)


def with_optuna(make: Callable[[int], BaseSampler], emulator: Emulator, seed: int) -> Chosen:
    """What a person writes with Optuna alone."""
    space = load_space(SPACE)
    study = optuna.create_study(direction="maximize", sampler=make(seed), pruner=MedianPruner())
    spent, best, chosen = 0, -np.inf, None
    while True:
        trial = study.ask()
        candidate = space.sample(cast(Trial, trial))
        if not isinstance(space.check(candidate), Feasible):
            study.tell(trial, state=TrialState.PRUNED)
            continue
        params = dict(trial.params)
        for epoch, accuracy in enumerate(
            emulator.train(params, derive_seed("optuna", seed, trial.number)).accuracy.tolist(), 1
        ):
            spent += 1
            trial.report(accuracy, epoch)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, accuracy)
            if accuracy > best:
                best, chosen = accuracy, params
        yield spent, chosen


ARMS: dict[str, Callable[[Emulator, int], Chosen]] = {
    "random": partial(with_ours, "random", "rungs"),
    "tpe": partial(with_ours, "tpe", "rungs"),
    "blueprint": partial(with_ours, "blueprint", "rungs"),
    "evolution": partial(with_ours, "evolution", "rungs"),
    "hyperband": partial(with_ours, "random", "hyperband"),
    "Optuna's TPE": partial(with_optuna, lambda seed: TPESampler(seed=seed, multivariate=True)),
    "Optuna's GP": partial(with_optuna, lambda seed: GPSampler(seed=seed)),
    **RIVALS,
}


def replay(arm: str, number: int, emulators: int) -> Replay:
    """One search on the emulator of one bootstrap sample."""
    emulator, pool = emulator_of(number % emulators)
    best, top = float(pool.min()), float(np.quantile(pool, TOP))
    steps: list[tuple[int, float]] = []
    for spent, params in ARMS[arm](emulator, number):
        if spent > CHECKED[-1]:
            break
        if params is not None:
            steps.append((spent, float(np.log(emulator.expected(params).loss[-1])) - best))
    worst = float(np.median(pool)) - best  # before anything is chosen: as good as any
    after = [next((r for s, r in reversed(steps) if s <= epoch), worst) for epoch in range(1, CHECKED[-1] + 1)]
    return Replay(
        arm=arm,
        number=number,
        regrets=tuple(round(after[epoch - 1], 4) for epoch in CHECKED),
        mean=round(fmean(after), 4),
        epochs_to_top=next((s for s, r in steps if r <= top - best), None),
        made_of=made_of(arm),
    )


@cache
def made_of(arm: str) -> str:
    """A digest of what the outcome of a replay depends on: the table, the sources and the versions of libraries."""
    here, package = Path(__file__).parent, Path(nas.__file__).parent
    sources = [
        *(source for folder in FOLDERS for source in sorted((package / folder).glob("*.py"))),
        *(package / "tuner" / name for name in ("names.py", "pruning.py")),
        package / "system" / "threads.py",
        *(here / name for name in ("emulator.py", "rivals.py", "search_quality.py", "table.py")),
        Path(search_spaces.__file__).parent / f"{SPACE}.py",
        ROWS,
    ]
    versions = [_version(name) for name in (*LIBRARIES, *TOOLS.get(arm, ()))]
    parts = [*(source.read_bytes() for source in sources), json.dumps(versions).encode()]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def known() -> dict[tuple[str, int], Replay]:
    """The replays that are kept and would not come out otherwise now."""
    replays = (Replay(**found) for found in objects(FILE))
    return {(replay.arm, replay.number): replay for replay in replays if replay.made_of == made_of(replay.arm)}


_emulators: dict[int, tuple[Emulator, Floats]] = {}


def emulator_of(seed: int) -> tuple[Emulator, Floats]:
    """An emulator, and the expected final log losses of random feasible candidates; a process makes each once."""
    if seed not in _emulators:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        emulator, space = Emulator(load(), seed), load_space(SPACE)
        pool = [drawn(space, -1 - number) for number in range(POOL)]
        emulator.look_at(pool)
        _emulators[seed] = emulator, np.log([emulator.expected(params).loss[-1] for params in pool])
    return _emulators[seed]


def table_of(replays: Iterable[Replay], emulators: int, rows: int) -> Table:
    """Mean regrets ± standard errors."""
    by_arm: dict[str, list[Replay]] = {}
    for one in replays:
        by_arm.setdefault(one.arm, []).append(one)
    title = f"Regret in log loss on {emulators} emulators of {rows} trainings: mean ± standard error"
    table = Table("arm", "n", *(f"{epochs} epochs" for epochs in CHECKED), "all along", title=title)
    table.add_column(f"top {TOP:.0%} after")
    for arm, done in by_arm.items():
        if len(done) < 2:
            continue  # there is no standard error of it
        columns = [*zip(*(r.regrets for r in done), strict=True), [r.mean for r in done]]
        told = [mean_and_error(column) for column in columns]
        reached = sorted(r.epochs_to_top or np.inf for r in done)[len(done) // 2]
        median = f"{reached:.0f} epochs" if np.isfinite(reached) else "never"
        table.add_row(arm, str(len(done)), *told, median)
    return table


def mean_and_error(values: Sequence[float], digits: int = 3) -> str:
    """The mean ± its standard error."""
    return f"{fmean(values):.{digits}f} ± {stdev(values) / len(values) ** 0.5:.{digits}f}"


def main() -> int:
    """Replay what is missing, and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.search_quality", description=__doc__)
    options.add_argument("--replays", type=positive, default=500, help="of each arm (default: 500)")
    options.add_argument("--emulators", type=positive, default=EMULATORS, help=f"bootstrap samples ({EMULATORS})")
    options.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help="(default: all)")
    options.add_argument(
        "--anew", action="store_true", help="replay all and keep nothing, as with any other number of --emulators"
    )
    args = options.parse_args()
    if args.replays < 2:
        raise UserError(f"--replays {args.replays} gives no standard error; give at least 2")
    anew = args.anew or args.emulators != EMULATORS
    there = {} if anew else known()
    wanted = [(arm, number) for arm in args.arms for number in range(args.replays)]
    with process_pool(len(devices("cpu", None))) as pool, ExitStack() as stack:
        keep = None if anew else stack.enter_context(appending(FILE))
        futures = {pool.submit(replay, *one, args.emulators): one for one in wanted if one not in there}
        for done, future in enumerate(as_completed(futures), 1):
            arm, number = futures[future]
            try:
                there[arm, number] = found = future.result()
            except CancelledError:
                continue
            except (HardlyAnyError, ModuleNotFoundError) as error:
                print(f"\r{arm}: {error}", file=sys.stderr)
                for other, (of, _) in futures.items():
                    if of == arm:
                        other.cancel()
                continue
            print(f"\r{done} of {len(futures)} replays", end="", file=sys.stderr, flush=True)
            if keep is not None:
                print(json.dumps(asdict(found)), file=keep, flush=True)
    print(file=sys.stderr)
    Console(width=WIDTH).print(table_of((there[one] for one in wanted if one in there), args.emulators, len(load())))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
