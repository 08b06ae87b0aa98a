"""Accuracies as training goes on, as Plotly figures: of a network by epoch, and of a search by epochs spent."""

import math
from collections.abc import Iterable, Iterator

import plotly.graph_objects as go
from optuna.trial import TrialState
from plotly.graph_objects import Figure

from nas.datasets.metrics import EvaluationSet
from nas.reporting.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    add_target,
    hover,
    least_error,
    new_figure,
    on_accuracies,
    on_epochs,
)
from nas.space.objective import LOSS_FIRST
from nas.study.history import History
from nas.study.records import Record, TrialRecord, total_epochs
from nas.study.runs import RunRecord


def _add_curve(
    figure: Figure, record: Record, least: float, *, name: str, color: str, width: float, **more: object
) -> None:
    """Validation accuracy after each epoch."""
    rows = [(row.epoch, row.val_accuracy) for row in record.curve if row.val_accuracy is not None]
    figure.add_trace(
        go.Scatter(
            x=[epoch for epoch, _ in rows],
            y=[max(1 - accuracy, least) for _, accuracy in rows],
            text=[hover(record, accuracy, f"epoch {epoch}") for epoch, accuracy in rows],
            name=name,
            mode="lines+markers",
            hovertemplate="%{text}<extra></extra>",
            line={"color": color, "width": width},
            marker={"size": 4},
            **more,
        )
    )


def learning_curves(history: History, validation: EvaluationSet) -> Figure:
    """Validation accuracy after each epoch of every trial; those stopped early are faded."""
    figure, least = (
        new_figure("epoch", f"validation {validation.metric.name}", height=440),
        least_error(validation.images),
    )
    shown = sorted((t for t in history.trials if t.curve), key=lambda t: t.state is TrialState.COMPLETE)
    leader = history.leader
    for trial in shown:
        complete = trial.state is TrialState.COMPLETE
        first = leader is not None and trial.number == leader.number
        color, width = (ORANGE, 2.5) if first else (BLUE if complete else GREY, 1.5)
        opacity = 1 if complete else 0.35
        _add_curve(figure, trial, least, name=trial.title, color=color, width=width, opacity=opacity, showlegend=False)
    on_accuracies(figure)
    on_epochs(figure)
    return figure


def learning_curve(leader: TrialRecord, runs: Iterable[RunRecord], validation: EvaluationSet) -> Figure:
    """One network's validation accuracy after each epoch, in the search and on fresh seeds."""
    figure, least = (
        new_figure("epoch", f"validation {validation.metric.name}", height=340),
        least_error(validation.images),
    )
    fresh = [run for run in runs if run.candidate == leader.candidate and run.stage in ("finalist", "noise")]
    for record, name in [(leader, "in the search"), *((run, f"fresh seed {run.seed}") for run in fresh)]:
        color, width = (ORANGE, 2.5) if record is leader else (BLUE, 1.2)
        _add_curve(figure, record, least, name=name, color=color, width=width)
    on_accuracies(figure)
    on_epochs(figure)
    return figure


def best_so_far(history: History, validation: EvaluationSet) -> Figure:
    """The accuracy of the best trial so far against the epochs spent, in the order in which trials were asked for."""
    figure, least = (
        new_figure("epochs trained", f"validation {validation.metric.name} of the best so far"),
        least_error(validation.images),
    )
    steps = list(_improvements(history.trials))
    x, y = [spent for spent, _, _ in steps], [max(1 - best, least) for _, best, _ in steps]
    text = [text for _, _, text in steps]
    if steps:
        spent = total_epochs(history.trials)
        x, y = [*x, spent], [*y, y[-1]]
        text.append(f"{steps[-1][1]:.2%} to the end, {spent} epochs")
    figure.add_trace(
        go.Scatter(
            x=x,
            y=y,
            text=text,
            mode="lines+markers",
            hovertemplate="%{text}<extra></extra>",
            line={"shape": "hv", "color": BLUE},
            showlegend=False,
        )
    )
    on_accuracies(figure)
    add_target(figure, history.task.target if x else None)
    return figure


def _improvements(trials: Iterable[TrialRecord]) -> Iterator[tuple[int, float, str]]:
    """Whenever a trial was the best so far: the epochs spent until then, its accuracy, and what is said of it."""
    spent, best = 0, tuple[float, ...]((math.inf,))
    for trial in trials:
        spent += trial.epochs
        if trial.state is TrialState.COMPLETE and trial.val_accuracy is not None and LOSS_FIRST.place(trial) < best:
            best = LOSS_FIRST.place(trial)
            yield spent, trial.val_accuracy, hover(trial, trial.val_accuracy, f"after {spent} epochs")
