"""A table to search in without training: candidates of the default space, each trained to its last epoch.

The candidates of the arm `random` are nobody's choice: each is the first feasible draw of a seed of its own. The scores
are those of the averaged weights on the 10,000 validation images. A candidate takes about 80 seconds of two cores, and
is written as soon as it has ended; interrupted, the same command goes on. The data set is described in docs/table.md.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nas.cli.options import positive
from nas.cli.terminal import run
from nas.data.dataset import Dataset
from nas.errors import UserError
from nas.network.architecture import notation
from nas.reporting.sentences import roughly
from nas.space.loading import load_space
from nas.space.rejections import derive_seed
from nas.space.search_space import Feasible, SearchSpace
from nas.system.processes import process_pool
from nas.training.environment import versions
from nas.training.job import TrainingJob
from nas.training.training import train
from nas.workers.local import devices

FILE = Path(__file__).parent / "data" / "table.jsonl"
SPACE = "mnist"
RANDOM = "random"


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


def drawn(space: SearchSpace, number: int) -> dict[str, Any]:
    """The suggestions of the first feasible draw of this number's own seed."""
    rng = random.Random(derive_seed("table", RANDOM, number))
    while True:
        suggestions = space.draw(rng)
        if isinstance(space.check(space.decode(suggestions)), Feasible):
            return suggestions


def trained(entry: Entry, suggestions: dict[str, Any]) -> Row:
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
        suggestions=suggestions,
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
    """The rows so far, in order; a line that was cut off when the program was killed does not count."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return sorted((row for row in map(_row, lines) if row is not None), key=lambda row: row.entry)


def _row(line: str) -> Row | None:
    try:
        return Row(**json.loads(line))
    except (TypeError, ValueError):
        return None


def missing(rows: Sequence[Row], candidates: int) -> list[Entry]:
    """The trainings that are not there yet."""
    there = {row.entry for row in rows}
    return [entry for entry in (Entry(RANDOM, number) for number in range(candidates)) if entry not in there]


def main() -> int:
    """Train what is missing, and write it."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    options.add_argument("--candidates", type=positive, default=200, metavar="N", help="drawn at random (default: 200)")
    candidates = options.parse_args().candidates
    space, wanted = load_space(SPACE), missing(load(), candidates)
    workers, started = len(devices("cpu", None)), time.monotonic()
    with process_pool(workers) as pool, FILE.open("a+", encoding="utf-8") as file:
        file.seek(0)
        if file.read()[-1:] not in ("", "\n"):
            file.write("\n")  # after a line that was cut off
        futures = [pool.submit(trained, entry, drawn(space, entry.number)) for entry in wanted]
        for done, future in enumerate(as_completed(futures), 1):
            row = future.result()
            print(json.dumps(asdict(row), ensure_ascii=False), file=file, flush=True)
            left = (time.monotonic() - started) / done * (len(wanted) - done)
            print(f"{row.arm} {row.number}: {row.accuracy[-1]:.2%}, {row.notation}; {roughly(left)} left", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
