"""The plots of what each design choice is worth, as Plotly figures; that of the importances is Optuna's."""

import warnings
from collections.abc import Sequence

import optuna
import plotly.graph_objects as go
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import create_trial
from plotly.graph_objects import Figure

from nas.analysis.ablation import Ablation
from nas.analysis.effects import MIN_TRIALS, Answer, compared
from nas.reporting.figures.style import BLUE, GREY, ORANGE, RED, add_points, new_figure
from nas.study.records import TrialRecord


def answer_plot(answer: Answer) -> Figure | None:
    """The trials' losses, their size taken out, against the number asked about, with the line fitted."""
    if answer.seen is None:
        return None
    question, seen = answer.question, answer.seen
    figure = new_figure(question.axis, "relative loss", height=210)
    figure.update_layout(margin={"l": 48, "r": 8, "t": 8, "b": 44}, showlegend=False, font={"size": 11})
    add_points(
        figure,
        [question.shown(x) for x, _, _ in seen.points],
        [y for _, y, _ in seen.points],
        [f"trial {n}<br>{question.axis}: {question.said(x)}<br>loss × {y:.2f}" for x, y, n in seen.points],
        name="",
        color=BLUE,
        opacity=0.5,
    )
    numbers = [x for x, _, _ in seen.points]
    mean, ends = sum(numbers) / len(numbers), (min(numbers), max(numbers))
    figure.add_trace(
        go.Scatter(
            x=[question.shown(x) for x in ends],
            y=[seen.ratio ** (x - mean) for x in ends],
            mode="lines",
            line={"color": ORANGE if seen.visible else GREY, "width": 2},
            hoverinfo="skip",
        )
    )
    figure.update_yaxes(type="log", nticks=4)
    if question.doubling:
        figure.update_xaxes(type="log", nticks=5)
    elif question.values:
        figure.update_xaxes(tickvals=list(range(len(question.values))), ticktext=question.values)
    elif all(float(x).is_integer() for x in numbers):
        figure.update_xaxes(tickvals=sorted({question.shown(x) for x in numbers}))
    figure.update_traces(marker={"size": 6}, selector={"mode": "markers"})
    return figure


def importances(
    trials: Sequence[TrialRecord], distributions: dict[str, optuna.distributions.BaseDistribution]
) -> Figure | None:
    """Optuna's PED-ANOVA, on the validation loss after the first epoch at which any trial has ended: all reached it.

    None for too few trials, or none that differ.
    """
    epoch, rows = compared(trials)
    if len(rows) < MIN_TRIALS:
        return None
    made_up = optuna.create_study(direction="minimize")
    for trial, loss in rows:
        told = create_trial(params=trial.suggestions, distributions=dict(distributions), value=loss)
        made_up.add_trial(told)
    if len({trial.value for trial in made_up.get_trials(deepcopy=False)}) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        figure = optuna.visualization.plot_param_importances(made_up, evaluator=PedAnovaImportanceEvaluator())
    ours = new_figure(
        f"importance for the loss after epoch {epoch}", "", height=max(300, 16 * len(distributions) + 100)
    )
    figure.update_layout(ours.layout, title_text="", showlegend=False)
    figure.update_traces(hovertemplate="%{y}: %{x:.2f}<extra></extra>")
    return figure


def ablation_plot(found: Ablation) -> Figure:
    """The effect of each change on the accuracy, with its standard error, worst on top."""
    shown = [effect for effect in found.effects if effect.points is not None][::-1]
    figure = new_figure("points (± standard error)", "", height=22 * len(shown) + 110)
    figure.add_trace(
        go.Scatter(
            x=[100 * effect.points.mean for effect in shown if effect.points],
            y=[effect.variant.change for effect in shown],
            error_x={
                "type": "data",
                "array": [100 * e.points.standard_error for e in shown if e.points],
                "thickness": 1.2,
                "color": GREY,
            },
            customdata=[[100 * e.points.standard_error, e.accuracy.n] for e in shown if e.points and e.accuracy],
            mode="markers",
            marker={"size": 9, "color": [RED if effect.visible else GREY for effect in shown]},
            hovertemplate="%{y}<br>%{x:+.2f} ± %{customdata[0]:.2f} points, n = %{customdata[1]}<extra></extra>",
        )
    )
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    return figure
