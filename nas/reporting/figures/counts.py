"""What was counted and timed, as Plotly figures: rejections, seconds of training, and mistakes on the test images."""

import html
import math
from collections.abc import Sequence

import plotly.graph_objects as go
from optuna.trial import TrialState
from plotly.graph_objects import Figure

from nas.network.limits import LIMITS
from nas.reporting.figures.style import BLUE, GREY, hover, how_far, new_figure
from nas.space.rejections import Ledger
from nas.study.history import History
from nas.training.score import Score

MOST_NUMBERED = 20  # classes whose counts are written into the confusion matrix
REASONS = {limit.name: limit.broken for limit in LIMITS}


def rejections(ledger: Ledger) -> Figure:
    """How many proposals each limit has rejected; one may break several."""
    figure = new_figure("proposals", "", height=300)
    reasons = sorted(ledger.reasons.items(), key=lambda item: item[1])
    figure.add_trace(
        go.Bar(
            x=[count for _, count in reasons],
            y=[REASONS.get(reason, reason) for reason, _ in reasons],
            orientation="h",
            marker={"color": GREY},
            hovertemplate="%{y}: %{x:,} proposals<extra></extra>",
        )
    )
    return figure


def times(history: History) -> Figure:
    """Seconds of training of each trial."""
    figure = new_figure("trial", "seconds on one worker", height=300)
    timed = [trial for trial in history.trials if trial.seconds is not None]
    figure.add_trace(
        go.Bar(
            x=[trial.number for trial in timed],
            y=[trial.seconds for trial in timed],
            text=[hover(t, t.val_accuracy or 0, f"{how_far(t)}, {t.seconds:.0f} s") for t in timed],
            textposition="none",
            hovertemplate="%{text}<extra></extra>",
            marker={"color": [BLUE if t.state is TrialState.COMPLETE else GREY for t in timed]},
        )
    )
    return figure


def confusion(score: Score, class_sizes: Sequence[int], classes: Sequence[str]) -> Figure:
    """How many test images of each class were taken for which; the colour tells of the mistakes alone."""
    n = len(classes)
    counts = [[0] * n for _ in range(n)]
    for mistake in score.mistakes:
        counts[mistake.label][mistake.predicted] += 1
    shown = [[counts[i][j] if i != j else class_sizes[i] - sum(counts[i]) for j in range(n)] for i in range(n)]
    names, places = [html.escape(name[:40]) for name in classes], list(range(n))
    figure = new_figure("predicted", "true class", height=max(380, 24 * n + 120))
    figure.add_trace(
        go.Heatmap(
            x=places,
            y=places,
            customdata=[[f"{names[i]} taken for {names[j]}" for j in places] for i in places],
            z=[[None if i == j else math.sqrt(counts[i][j]) for j in range(n)] for i in range(n)],
            text=[[f"{count:,}" if count else "" for count in row] for row in shown],
            hovertemplate="%{customdata}: %{text}<extra></extra>",
            colorscale=[[0, "rgba(239,68,68,0)"], [1, "rgba(239,68,68,0.85)"]],
            showscale=False,
            hoverongaps=False,
        )
    )
    if n <= MOST_NUMBERED and any(map(any, shown)):
        # as a trace of its own, which follows the colour of the page's text
        cells = [(j, i, f"{shown[i][j]:,}") for i in places for j in places if shown[i][j]]
        x, y, text = zip(*cells, strict=True)
        figure.add_trace(go.Scatter(x=x, y=y, text=text, mode="text", hoverinfo="skip", showlegend=False))
    figure.update_xaxes(tickvals=places, ticktext=names)
    figure.update_yaxes(tickvals=places, ticktext=names, autorange="reversed")
    return figure
