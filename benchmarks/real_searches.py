"""Whole searches of MNIST by the default sampler and at random: trials, finalists, final models, test images.

The default command of five seeds, and as many random searches with the same pruner. These have more trials, so that
they train no fewer epochs. A search takes a quarter of an hour of 2 cores; interrupted, the same command goes on. Its
figures are kept when it ends, in `data/real_searches.jsonl`; the wall time is told for searches that nothing
interrupted.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path
from statistics import fmean, stdev

from rich.console import Console
from rich.table import Table

import nas
from benchmarks.table import SPACE, appending, objects
from nas.analysis.finalists import winner_of
from nas.cli.options import positive
from nas.cli.terminal import run
from nas.datasets.split import epochs_on_all_images
from nas.samplers.names import DEFAULT_SAMPLER, SamplerName
from nas.study.history import history_at
from nas.study.location import locate
from nas.training.environment import versions

FILE = Path(__file__).parent / "data" / "real_searches.jsonl"
TRIALS: dict[SamplerName, int] = {DEFAULT_SAMPLER: 50, "random": 65}  # for as many epochs, see `benchmarks.budget`
SEEDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A search that has ended."""

    sampler: SamplerName
    seed: int
    trials: int
    epochs: int  # of its trials
    later_epochs: float  # of finalists and final models, in epochs of as many images
    notation: str  # of the winner
    params: int
    macs: int
    val_loss: float  # in the search
    accuracies: tuple[float, ...]  # of the final models on the test images, as fractions
    losses: tuple[float, ...] = ()  # of the same models; rows of an earlier version lack them
    minutes: float | None  # by the wall; None for a search that went on
    versions: str
    source: str  # digest of this program


def searched(sampler: SamplerName, seed: int, folder: Path) -> Row:
    """Search, or go on."""
    location, began = locate(f"{sampler}-{seed}", folder, None), time.monotonic()
    fresh, trials = not location.folder.exists(), TRIALS[sampler]
    nas.search(SPACE, study=location.name, trials=trials, sampler=sampler, seed=seed, output_dir=folder)
    minutes = round((time.monotonic() - began) / 60, 1) if fresh else None
    history = history_at(location)
    winner = winner_of(history)
    assert winner is not None
    best, finalists = winner.record, sum(run.epochs for run in history.runs_of("finalist"))
    assert best.val_loss is not None
    return Row(
        sampler=sampler,
        seed=seed,
        trials=len(history.trained),
        epochs=sum(trial.epochs for trial in history.trials),
        later_epochs=round(finalists + epochs_on_all_images(0) * sum(model.epochs for model in winner.models), 1),
        notation=best.notation,
        params=best.params,
        macs=best.macs,
        val_loss=best.val_loss,
        accuracies=tuple(model.accuracy for model in winner.models if model.accuracy is not None),
        losses=tuple(round(model.loss, 6) for model in winner.models if model.loss is not None),
        minutes=minutes,
        versions=versions(winner.environment),
        source=winner.environment["source"],
    )


def load() -> list[Row]:
    """The searches that have ended."""
    return [Row(**found) for found in objects(FILE)]


def table_of(rows: Iterable[Row]) -> Table:
    """Means over the searches, ± standard deviation; validation and test are logarithms of losses."""
    rows = [*rows]
    title = f"Searches of MNIST, by {len({row.source for row in rows})} version(s) of this program"
    columns = ("sampler", "n", "trials", "epochs", "with finals", "validation", "test", "test images", "parameters")
    table, by_sampler = Table(*columns, title=title), dict[SamplerName, list[Row]]()
    for row in rows:
        by_sampler.setdefault(row.sampler, []).append(row)
    for sampler, done in by_sampler.items():
        table.add_row(
            sampler,
            str(len(done)),
            str(done[0].trials),
            _told([row.epochs for row in done], 0),
            _told([row.epochs + row.later_epochs for row in done], 0),
            _told([log(row.val_loss) for row in done], 3),
            _told([log(fmean(row.losses)) for row in done if row.losses], 3),
            f"{_told([100 * fmean(row.accuracies) for row in done], 3)} %",
            _told([row.params for row in done], 0),
        )
    return table


def _told(values: Sequence[float], digits: int) -> str:
    if len(values) < 2:
        return "".join(f"{value:.{digits}f}" for value in values)
    return f"{fmean(values):,.{digits}f} ± {stdev(values):,.{digits}f}"


def main() -> int:
    """Search what is missing, and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.real_searches", description=__doc__)
    options.add_argument("--seeds", type=positive, default=SEEDS, help=f"searches of each (default: {SEEDS})")
    options.add_argument("--output-dir", type=Path, default=Path("results/real_searches"), help="of the studies")
    args = options.parse_args()
    known = {(row.sampler, row.seed) for row in load()}
    wanted = [(sampler, seed) for seed in range(args.seeds) for sampler in TRIALS if (sampler, seed) not in known]
    with appending(FILE) as file:
        for sampler, seed in wanted:
            print(
                json.dumps(asdict(searched(sampler, seed, args.output_dir)), ensure_ascii=False), file=file, flush=True
            )
    Console().print(table_of(load()))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
