"""Accuracy against what it costs, as Plotly figures."""

from collections.abc import Iterable

import plotly.graph_objects as go
from plotly.graph_objects import Figure

from nas.analysis.finalists import Winner
from nas.datasets.metrics import EvaluationSet
from nas.network.architecture import Architecture
from nas.network.cost import cost
from nas.network.limits import ACTIVATION_BYTES, MACS, PARAMS
from nas.reporting.figures.style import (
    BLUE,
    ERROR_TICKS,
    GREEN,
    GREY,
    ORANGE,
    RED,
    add_points,
    add_target,
    hover,
    how_far,
    least_error,
    new_figure,
    on_accuracies,
)
from nas.study.history import History
from nas.study.records import Record, TrialRecord

LIMITED = {"params": PARAMS, "macs": MACS, "peak_activation_bytes": ACTIVATION_BYTES}  # fields of a Cost
COSTS = {what: limit.noun for what, limit in LIMITED.items()}


def accuracy_against(history: History, winner: Winner | None, validation: EvaluationSet, what: str) -> Figure:
    """Accuracy against one of COSTS: every trained trial, the Pareto front, the network to beat, target and limit."""
    figure, least = new_figure(COSTS[what], validation.metric.name), least_error(validation.images)
    _add_trials(figure, history.stopped_early, what, least, name="stopped early", color=GREY, opacity=0.45)
    _add_trials(figure, history.diverged, what, least, name="diverged", color=RED, opacity=0.45)
    _add_front(figure, history.completed, what, least)
    _add_trials(figure, history.completed, what, least, name="trained to the end", color=BLUE)
    if winner is not None:
        _add_winner(figure, winner, what)
        _add_baseline(figure, winner, history.task.baseline, what)
    on_accuracies(figure)
    add_target(figure, history.task.target)
    bound = history.constraints.bound(LIMITED[what])
    if bound is not None:
        figure.add_vline(x=bound, line={"dash": "dot", "color": RED}, annotation_text="limit")
    return figure


def _price(architecture: Architecture, what: str) -> int:
    return int(getattr(cost(architecture), what))


def _beside(record: Record, accuracy: float, what: str, said: str) -> str:
    """What stands beside the pointer, the price included; the parameters stand there anyway."""
    price = "" if what == "params" else f"{_price(record.candidate.architecture, what):,} {COSTS[what]}<br>"
    return hover(record, accuracy, f"{price}{said}")


def _add_trials(
    figure: Figure, trials: Iterable[TrialRecord], what: str, least: float, *, name: str, color: str, **more: object
) -> None:
    """The trials that have an accuracy, as points; nothing without any."""
    shown = [(trial, trial.val_accuracy) for trial in trials if trial.val_accuracy is not None]
    if shown:
        add_points(
            figure,
            [_price(trial.candidate.architecture, what) for trial, _ in shown],
            [max(1 - accuracy, least) for _, accuracy in shown],
            [_beside(trial, accuracy, what, how_far(trial)) for trial, accuracy in shown],
            name=name,
            color=color,
            **more,
        )


def _add_front(figure: Figure, trials: Iterable[TrialRecord], what: str, least: float) -> None:
    """The Pareto front as a line; nothing for a single point."""
    front = pareto_front([(_price(t.candidate.architecture, what), t.val_accuracy or 0) for t in trials])
    if len(front) > 1:
        figure.add_trace(
            go.Scatter(
                x=[x for x, _ in front],
                y=[max(1 - accuracy, least) for _, accuracy in front],
                name="Pareto front",
                mode="lines",
                line={"shape": "hv", "color": BLUE, "width": 1.5},
                hoverinfo="skip",
            )
        )


def _add_winner(figure: Figure, winner: Winner, what: str) -> None:
    at = _price(winner.record.candidate.architecture, what)
    text = _beside(winner.record, winner.test.mean, what, f"test, mean of n = {winner.test.n}")
    _add_star(figure, at, winner.test.mean, text, "winner (test)", ORANGE)


def _add_baseline(figure: Figure, winner: Winner, baseline: Architecture | None, what: str) -> None:
    """The network to beat, where it was trained beside the winner."""
    if winner.baseline is None or baseline is None:
        return
    at = _price(baseline, what)
    said = f"{at:,} {COSTS[what]}<br>test, mean of n = {winner.baseline.n}"
    text = f"<b>network to beat</b> {winner.baseline.mean:.2%}<br>{said}"
    _add_star(figure, at, winner.baseline.mean, text, "network to beat (test)", GREEN)


def _add_star(figure: Figure, x: int, accuracy: float, text: str, name: str, color: str) -> None:
    error = max(1 - accuracy, ERROR_TICKS[0] / 10)
    add_points(figure, [x], [error], [text], name=name, color=color, symbol="star", line={"width": 1})


def pareto_front(points: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Those of (cost, accuracy) that no other one matches at no more cost, cheapest first."""
    front: list[tuple[int, float]] = []
    for price, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((price, accuracy))
    return front
