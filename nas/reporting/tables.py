"""Tables of all trials, runs and ablations of a study, as CSV files and for a terminal."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from rich import box
from rich.console import JustifyMethod
from rich.table import Table

from nas.analysis.ablation import ablation_csv, ablations
from nas.datasets.metrics import EvaluationSet
from nas.study.history import History
from nas.study.location import ABLATION, RUNS, TRIALS, StudyLocation
from nas.study.records import TrialRecord
from nas.study.runs import RunRecord
from nas.system.files import write_whole

Row: TypeAlias = dict[str, Any]


def trial_rows(trials: Sequence[TrialRecord]) -> list[Row]:
    """One row a trial: what it was, how it ended, and its parameters as they were suggested."""
    names = sorted({name for trial in trials for name in trial.suggestions})
    return [
        {
            "number": t.number,
            "state": t.state.name,
            "epochs": t.epochs,
            "val_accuracy": t.val_accuracy,
            "val_loss": t.val_loss,
            "params": t.params,
            "macs": t.macs,
            "receptive_field": t.receptive_field,
            "seed": t.seed,
            "precision": t.precision,
            "rejected_before": t.ledger.rejected,
            "seconds": t.seconds,
            "reason": t.reason,
            "notation": t.notation,
            **{name: t.suggestions.get(name) for name in names},
        }
        for t in trials
    ]


def run_rows(runs: Sequence[RunRecord]) -> list[Row]:
    """One row a run outside the search."""
    return [
        {
            "number": r.number,
            "stage": r.stage,
            "trial": r.trial,
            "state": r.state.name,
            "epochs": r.epochs,
            "val_accuracy": r.val_accuracy,
            "val_loss": r.val_loss,
            "test_accuracy": r.test and r.test.accuracy,
            "test_loss": r.test and r.test.loss,
            "params": r.params,
            "macs": r.macs,
            "seed": r.seed,
            "precision": r.precision,
            "seconds": r.seconds,
            "reason": r.reason,
            "notation": r.notation,
            "change": r.change,
        }
        for r in runs
    ]


def as_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV, below the names of their columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_table(rows: Sequence[Row], columns: Sequence[str]) -> Table:
    """Some columns of the rows, one line each for a terminal; the last column is cut where it does not fit."""
    table = Table(box=box.SIMPLE_HEAD, expand=True)
    cells = [[_cell(name, row[name]) for name in columns] for row in rows]
    for name, *known in zip(columns, *cells, strict=True):
        if name == columns[-1]:
            table.add_column(name, ratio=1, no_wrap=True, overflow="ellipsis")
        else:
            justify: JustifyMethod = "left" if name == "state" else "right"
            table.add_column(name, width=max(map(len, (name, *known))), justify=justify)
    for row_cells in cells:
        table.add_row(*row_cells)
    return table


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name == "val_accuracy":
        return f"{value:.2%}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def write_tables(history: History, location: StudyLocation, validation: EvaluationSet) -> list[Path]:
    """Write every trial and, where there are any, every run and what ablations have found; the files.

    The runs of ablations were judged on the `validation` images.
    """
    tables = {TRIALS: as_csv(trial_rows(history.trials))}
    if history.runs:
        tables[RUNS] = as_csv(run_rows(history.runs))
    if found := ablations(history, validation):
        tables[ABLATION] = ablation_csv(found)
    for name, text in tables.items():
        write_whole(location.folder / name, text)
    return [location.folder / name for name in tables]
