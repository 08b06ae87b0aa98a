"""The summary of a search, in plain text: what was found, how sure that is, and what it costs."""

import io
import textwrap

import torchinfo
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nas.analysis.finalists import Winner, measured_noise
from nas.datasets.images import TrainingData
from nas.errors import printable
from nas.network.module import build
from nas.reporting.conclusions import (
    constant_answer,
    costs,
    curse,
    earlier_readings,
    how_judged,
    margin,
    noise_floor,
    recalls,
    story,
    verdict,
    what_was_done,
)
from nas.reporting.reproduction import how_it_was_run
from nas.study.history import History

WIDTH = 100
MOST_CLASSES = 12  # that are listed


def _costs(history: History, winner: Winner) -> Table:
    """The winner's costs beside those of the network to beat and the limits."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("", "winner", *(["network to beat"] if history.task.baseline else []), "limit"):
        table.add_column(column, justify="right" if column else "left")
    for row in costs(history, winner.record):
        table.add_row(*(cell for cell in (row.name, row.ours, row.baseline, row.limit) if cell is not None))
    return table


def _story(history: History, winner: Winner) -> Table:
    """From the score in the search to the accuracy on the test images, network by network."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for column in ("parameters", "search score", "fresh seeds", "n", "test", "n"):
        table.add_column(column, justify="right")
    for row in story(history, winner):
        cells = [f"{row.params:,}", "–" if row.score is None else f"{row.score:.2%}"]
        for accuracies in (row.rerun, row.test):
            cells += ["–", "–"] if accuracies is None else [str(accuracies), str(accuracies.n)]
        table.add_row(row.name, *cells)
    return table


def _recalls(winner: Winner, classes: tuple[str, ...]) -> list[str]:
    """How well each class is known, the worst first, where they were counted."""
    rows = recalls(winner.judged, classes)
    if not rows:
        return []
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("class", "test images", "recall", "95 %"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for row in rows[:MOST_CLASSES]:
        name = escape(printable(row.name))
        table.add_row(name, f"{row.images:,}", f"{row.recall:.2%}", f"{100 * row.low:.1f} to {100 * row.high:.1f} %")
    more = len(rows) - MOST_CLASSES
    return [_plain_text(table), *([f"and {more} more classes, each known better"] if more > 0 else [])]


def summary(history: History, winner: Winner, data: TrainingData) -> str:
    """What was found, in plain text, with torchinfo's table of the winner."""
    best, validation = winner.record, data.evaluation
    architecture = best.candidate.architecture
    noise, shape = measured_noise(history.runs, validation), (1, *architecture.input_shape)
    columns = ("output_size", "num_params", "mult_adds")  # of a width that a terminal of 100 columns shows whole
    layers = torchinfo.summary(build(architecture), shape, col_names=columns, col_width=17, verbose=0)
    return "\n".join(
        [
            _filled(what_was_done(history)),
            "",
            f"Winner: trial {best.number}, {best.notation}",
            _plain_text(_story(history, winner)),
            _filled(how_judged(winner, data)),
            "",
            _filled(curse(history, winner, noise, validation)),
            _filled(verdict(winner, noise, history.task.target)),
            *map(_filled, margin(history, winner)),
            *map(_filled, constant_answer(winner, data.classes, history.task.target)),
            _filled(noise_floor(history, best, validation)),
            *map(_filled, earlier_readings(history, winner)),
            *_recalls(winner, data.classes),
            _plain_text(_costs(history, winner)),
            str(layers).replace(" (Units.MEGABYTES)", " in millions"),
            "",
            how_it_was_run(history, winner),
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
