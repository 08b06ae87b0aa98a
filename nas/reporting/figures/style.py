"""What the plots of the report share, as Plotly figures: colours, axes, points and what stands beside the pointer.

Accuracies stand on an axis of errors, logarithmic and upside down: near 100 % that is where differences show.
"""

import html
import math
import textwrap
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.graph_objects import Figure

from nas.study.records import Record

BLUE, ORANGE, GREEN, RED, GREY = "#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b93a1"
ERROR_TICKS = (0.001, 0.002, 0.003, 0.004, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 0.9)
FINER_TICKS = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001)  # steps, where those are too few
LEAST_TICKS = 3
HOVER_WIDTH = 44  # characters, which fit on a phone


def new_figure(x: str, y: str, *, height: int = 380) -> Figure:
    """An empty plot with titles on its axes."""
    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 64, "r": 16, "t": 16, "b": 52},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "yref": "container", "y": 1, "yanchor": "top", "x": 0},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(title_text=x, zeroline=False, automargin=True)
    figure.update_yaxes(title_text=y, zeroline=False, automargin=True)
    return figure


def on_accuracies(figure: Figure) -> None:
    """Ticks at round accuracies, as many as the errors leave room for."""
    errors = [error for trace in figure.data for error in trace.y or ()]
    low, high = (0.99 * min(errors), 1.01 * max(errors)) if errors else (0.0, 1.0)
    steps = ([step * i for i in range(1, round(1 / step))] for step in FINER_TICKS)
    inside = ([error for error in ticks if low <= error <= high] for ticks in (ERROR_TICKS, *steps))
    ticks = next((ticks for ticks in inside if len(ticks) >= LEAST_TICKS), errors[:1])
    labels = [f"{100 * (1 - error):.5g} %" for error in ticks]
    figure.update_yaxes(type="log", autorange="reversed", tickvals=ticks, ticktext=labels)


def on_epochs(figure: Figure) -> None:
    """Ticks at whole epochs."""
    last = max((x for trace in figure.data for x in trace.x or ()), default=1)
    figure.update_xaxes(tick0=1, dtick=math.ceil(last / 10))


def add_target(figure: Figure, target: float | None) -> None:
    """A line at an accuracy; on a logarithmic axis Plotly takes annotations, unlike lines, by their logarithm."""
    if target is not None and target < 1:
        figure.add_hline(y=1 - target, line={"dash": "dash", "color": RED})
        y = math.log10(1 - target)
        figure.add_annotation(text="target", x=0, xref="paper", xanchor="left", y=y, yanchor="bottom", showarrow=False)


def least_error(n: int) -> float:
    """Where no error among so many images stands, as a logarithmic axis has no zero."""
    return 0.5 / max(1, n)


def hover(record: Record, accuracy: float, said: str) -> str:
    """What stands beside the pointer; data-carried text is escaped, as Plotly reads tags."""
    lines = [f"<b>{html.escape(record.title)}</b> {accuracy:.2%}"]
    lines += [html.escape(line) for line in textwrap.wrap(record.notation, HOVER_WIDTH)]
    return "<br>".join([*lines, f"{record.params:,} parameters", said])


def how_far(record: Record) -> str:
    """The last epoch of a training, in words."""
    return f"epoch {record.epochs} of {record.candidate.recipe.epochs}"


def add_points(
    figure: Figure,
    x: Sequence[float],
    errors: Sequence[float],
    text: Sequence[str],
    *,
    name: str,
    color: str,
    **more: object,
) -> None:
    """Add markers with texts; `more` are further settings of the marker."""
    figure.add_trace(
        go.Scatter(
            x=x,
            y=errors,
            text=text,
            name=name,
            mode="markers",
            hovertemplate="%{text}<extra></extra>",
            marker={"color": color, "size": 9, **more},
        )
    )
