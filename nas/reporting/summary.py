"""The summary of a search, in plain text: what was found, how sure that is, and what it costs."""

import io
import textwrap

import torchinfo
from rich import box
from rich.console import Console
from rich.table import Table

from nas.analysis.finalists import Winner
from nas.network.module import build
from nas.reporting.findings import Findings
from nas.reporting.sentences import (
    costs,
    curse,
    earlier_readings,
    how_it_was_run,
    how_judged,
    margin,
    noise_floor,
    story,
    verdict,
    what_was_done,
)

WIDTH = 100


def _costs(found: Findings, winner: Winner) -> Table:
    """The winner's costs beside those of the network to beat and the limits."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("", "winner", *(["network to beat"] if found.task.baseline else []), "limit"):
        table.add_column(column, justify="right" if column else "left")
    for row in costs(found, winner.record):
        table.add_row(*(cell for cell in (row.name, row.ours, row.baseline, row.limit) if cell is not None))
    return table


def _story(found: Findings, winner: Winner) -> Table:
    """From the score in the search to the accuracy on the test images, network by network."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for column in ("parameters", "search score", "fresh seeds", "n", "test", "n"):
        table.add_column(column, justify="right")
    for row in story(found, winner):
        cells = [f"{row.params:,}", "–" if row.score is None else f"{row.score:.2%}"]
        for accuracies in (row.rerun, row.test):
            cells += ["–", "–"] if accuracies is None else [str(accuracies), str(accuracies.n)]
        table.add_row(row.name, *cells)
    return table


def summary(found: Findings, winner: Winner) -> str:
    """What was found, in plain text, with torchinfo's table of the winner."""
    best = winner.record
    architecture = best.candidate.architecture
    shape = (1, *architecture.input_shape)
    columns = ("output_size", "num_params", "mult_adds")  # of a width that a terminal of 100 columns shows whole
    layers = torchinfo.summary(build(architecture), shape, col_names=columns, col_width=17, verbose=0)
    return "\n".join(
        [
            _filled(what_was_done(found)),
            "",
            f"Winner: trial {best.number}, {best.notation}",
            _plain_text(_story(found, winner)),
            _filled(how_judged(found, winner)),
            "",
            _filled(curse(found, winner)),
            _filled(verdict(winner, found.noise, found.task.target)),
            *map(_filled, margin(found, winner)),
            _filled(noise_floor(found, best)),
            *map(_filled, earlier_readings(found, winner)),
            _plain_text(_costs(found, winner)),
            str(layers).replace(" (Units.MEGABYTES)", " in millions"),
            "",
            how_it_was_run(found, winner),
            "",
        ]
    )


def _plain_text(table: Table) -> str:
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_on_hyphens=False)
