"""A table to search in without training: candidates of the default space, each trained to its last epoch.

Those of the arm `random` are nobody's choice: each is the first feasible draw of a seed of its own. Those of other arms
are what a sampler of the program proposes, two at a time, while it sees of each as much as the default pruner would
show it. The best of all are trained on more seeds. The scores are those of the averaged weights on the 10,000
validation images. A candidate takes about 90 seconds of two cores, and is written as soon as it has ended; interrupted,
the same command goes on. The data set is described in docs/table.md.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import optuna
import torch
from optuna.trial import TrialState

from nas.cli.options import positive
from nas.cli.terminal import run
from nas.datasets.dataset import Dataset
from nas.errors import UserError
from nas.network.architecture import notation
from nas.optuna_internals.studies import new_study
from nas.reporting.sentences import roughly
from nas.samplers.feasible import FeasibleSampler, ask, make_sampler
from nas.samplers.names import SAMPLERS, SamplerName
from nas.space.candidate import digest
from nas.space.loading import load_space
from nas.space.search_space import Feasible, SearchSpace
from nas.space.seeds import derive_seed
from nas.system.processes import process_pool
from nas.training.acceleration import activation_dtype
from nas.training.environment import versions
from nas.training.job import TrainingJob
from nas.training.training import train
from nas.tuner.names import DEFAULT_PRUNER
from nas.tuner.pruning import make_pruner

FILE = Path(__file__).parent / "data" / "table.jsonl"
SPACE = "mnist"
RANDOM = "random"
ARMS: tuple[SamplerName, ...] = ("blueprint", "evolution")
PRECISION = torch.bfloat16  # of the activations
SEEDS = 3  # of the best candidates
AT_A_TIME = 2  # trainings, each on a core


class Entry(NamedTuple):
    """A training that the table has or shall have; `repeat` counts the seeds of one candidate."""

    arm: str  # who proposed the candidate
    number: int
    repeat: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A training to the end: the candidate, and how it scored after each epoch."""

    arm: str
    number: int
    repeat: int
    suggestions: dict[str, Any]  # from which the space makes the candidate
    notation: str
    params: int
    macs: int
    seed: int
    loss: list[float]  # mean cross-entropy in nats, after each epoch
    accuracy: list[float]  # as fractions
    seconds: float  # of the training, in one of as many processes as there are cores
    versions: str

    @property
    def entry(self) -> Entry:
        """What tells it from other rows."""
        return Entry(self.arm, self.number, self.repeat)


def require_precision(dtype: torch.dtype) -> None:
    """Raise UserError where trainings would not be as those that the table holds."""
    if dtype is not PRECISION:
        raise UserError(
            f"this machine trains with activations in {dtype}, where the table's are in {PRECISION}; run it on a "
            "processor with AVX512-BF16"
        )


def drawn(space: SearchSpace, number: int) -> dict[str, Any]:
    """The suggestions of the first feasible draw of this number's own seed."""
    rng = random.Random(derive_seed("table", RANDOM, number))
    while True:
        suggestions = space.draw(rng)
        if isinstance(space.check(space.decode(suggestions)), Feasible):
            return suggestions


def trained(entry: Entry, suggestions: Mapping[str, Any]) -> Row:
    """Train a candidate to the end in this process."""
    space = load_space(SPACE)
    candidate = space.decode(suggestions)
    found = space.check(candidate)
    if not isinstance(found, Feasible):
        raise UserError(f"{entry}: {notation(candidate.architecture)} is outside the limits of {SPACE}")
    job = TrainingJob(
        candidate=candidate,
        constraints=space.constraints,
        dataset=Dataset(name=space.dataset, input_shape=space.input_shape),
        seed=derive_seed("table", *entry),
    )
    reports = list(train(job))
    return Row(
        **entry._asdict(),
        suggestions=dict(suggestions),
        notation=notation(candidate.architecture),
        params=found.cost.params,
        macs=found.cost.macs,
        seed=job.seed,
        loss=[round(report.val_loss or 0.0, 6) for report in reports],
        accuracy=[round(report.val_accuracy or 0.0, 4) for report in reports],
        seconds=round(sum(report.seconds for report in reports), 1),
        versions=versions(reports[-1].environment),
    )


def load(file: Path = FILE) -> list[Row]:
    """The rows so far, in order."""
    return sorted((Row(**found) for found in objects(file)), key=lambda row: row.entry)


def objects(file: Path) -> list[dict[str, Any]]:
    """The objects of JSON in a file, one a line, without a line that was cut off when a program was killed."""
    lines = file.read_bytes().splitlines() if file.exists() else []
    return [found for found in map(_object, lines) if found is not None]


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return found


@contextmanager
def appending(file: Path) -> Iterator[TextIO]:
    """A file to add lines to, after one that was cut off, too."""
    cut_off = file.exists() and file.read_bytes()[-1:] not in (b"", b"\n")
    with file.open("a", encoding="utf-8") as opened:
        opened.write("\n" if cut_off else "")
        yield opened


Wanted = tuple[Entry, Mapping[str, Any]]  # a training that is not there yet


def of_random(rows: Sequence[Row], candidates: int) -> list[Wanted]:
    """The random candidates that are missing."""
    there, space = {row.entry for row in rows}, load_space(SPACE)
    entries = (Entry(RANDOM, number) for number in range(candidates))
    return [(entry, drawn(space, entry.number)) for entry in entries if entry not in there]


def of_best(rows: Sequence[Row], best: int) -> list[Wanted]:
    """The repeats that are missing of those that had the lowest losses on their first seed."""
    there = {row.entry for row in rows}
    ranked = sorted((row for row in rows if row.repeat == 0), key=lambda row: row.loss[-1])[:best]
    wanted = [(row.entry._replace(repeat=repeat), row.suggestions) for row in ranked for repeat in range(1, SEEDS)]
    return [(entry, suggestions) for entry, suggestions in wanted if entry not in there]


def of_sampler(rows: Sequence[Row], sampler: SamplerName, candidates: int) -> list[Wanted]:
    """What is missing of those that a sampler proposes together, in the light of all that it has seen before."""
    known = {row.number: row for row in rows if row.arm == sampler and row.repeat == 0}
    space, seed = load_space(SPACE), derive_seed("table", sampler)
    study = new_study("table", pruner=make_pruner(DEFAULT_PRUNER, space.recipe.epochs))
    seen = set()
    for first in range(0, candidates, AT_A_TIME):
        together = range(first, min(candidates, first + AT_A_TIME))
        if known.keys() >= set(together):
            _replay(study, space, [known[number] for number in together])
            seen |= {digest(space.decode(known[number].suggestions)) for number in together}
            continue
        proposing = FeasibleSampler(make_sampler(sampler, space, seed), space, seed, seen)
        trials = [ask(study, proposing, seed) for _ in together]
        for trial in trials:
            if trial.number in known and trial.params != known[trial.number].suggestions:
                raise UserError(f"{sampler} proposes another candidate {trial.number} than the table holds")
        return [(Entry(sampler, trial.number), trial.params) for trial in trials if trial.number not in known]
    return []


def _replay(study: optuna.Study, space: SearchSpace, together: Sequence[Row]) -> None:
    """Let a study see trainings that ran at the same time, each as far as its pruner lets it go."""
    for row in together:
        study.enqueue_trial(row.suggestions)
    flying = [(study.ask(space.distributions), row) for row in together]
    for epoch in range(1, space.recipe.epochs + 1):
        for trial, row in tuple(flying):
            trial.report(row.loss[epoch - 1], epoch)
            if epoch == len(row.loss):
                study.tell(trial, row.loss[-1])
            elif trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                flying.remove((trial, row))


def main() -> int:
    """Train what is missing, and write it."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    options.add_argument("--candidates", type=positive, default=200, metavar="N", help="drawn at random (default: 200)")
    options.add_argument("--samplers", nargs="*", choices=SAMPLERS, default=ARMS, help=f"(default: {' '.join(ARMS)})")
    options.add_argument("--chosen", type=positive, default=60, metavar="N", help="of each sampler (default: 60)")
    options.add_argument("--best", type=positive, default=40, metavar="N", help="trained on more seeds (default: 40)")
    args = options.parse_args()
    require_precision(activation_dtype(torch.device("cpu")))
    with process_pool(AT_A_TIME) as pool:
        _train(pool, of_random(load(), args.candidates))
        for sampler in args.samplers:
            while wanted := of_sampler(load(), sampler, args.chosen):
                _train(pool, wanted)
        _train(pool, of_best(load(), args.best))
    return 0


def _train(pool: Executor, wanted: Sequence[Wanted]) -> None:
    """Train these, and write each as soon as it has ended."""
    started = time.monotonic()
    with appending(FILE) as file:
        futures = [pool.submit(trained, *one) for one in wanted]
        for done, future in enumerate(as_completed(futures), 1):
            row = future.result()
            print(json.dumps(asdict(row), ensure_ascii=False), file=file, flush=True)
            left = (time.monotonic() - started) / done * (len(wanted) - done)
            label = f"{row.arm} {row.number}, seed {row.repeat + 1}"
            print(f"{label}: {row.accuracy[-1]:.2%}, {row.notation}; {roughly(left)} left", flush=True)


if __name__ == "__main__":
    sys.exit(run(main))
