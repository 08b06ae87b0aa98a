"""The interactive plots of the report, as Plotly figures; where Optuna has one that serves, it is Optuna's.

Accuracies stand on an axis of errors, logarithmic and upside down: near 100 % that is where differences show.
"""

import html
import math
import textwrap
import warnings
from collections.abc import Iterable, Sequence

import optuna
import plotly.graph_objects as go
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import TrialState, create_trial
from plotly.graph_objects import Figure

from nas.analysis.ablation import Ablation
from nas.analysis.effects import MIN_TRIALS, Answer, compared
from nas.network.cost import cost
from nas.reporting.findings import Findings
from nas.space.rejections import Ledger
from nas.study.records import Record, TrialRecord
from nas.study.runs import RunRecord
from nas.training.score import Score

BLUE, ORANGE, GREEN, RED, GREY = "#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b93a1"
ERROR_TICKS = (0.001, 0.002, 0.003, 0.004, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 0.9)
FINER_TICKS = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001)  # steps, where those are too few
LEAST_TICKS = 3
MOST_NUMBERED = 20  # classes whose counts are written into the confusion matrix
HOVER_WIDTH = 44  # characters, which fit on a phone
REASONS = {
    "max_params": "too many parameters",
    "max_macs": "too many MACs",
    "max_activation_bytes": "activations too large",
    "max_epochs": "too many epochs",
    "min_receptive_field": "receptive field too small",
    "forbid linear": "fully connected layer",
}
COSTS = {"params": "parameters", "macs": "MACs", "peak_activation_bytes": "peak activation bytes"}


def _figure(x: str, y: str, *, height: int = 380) -> Figure:
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


def _on_accuracies(figure: Figure) -> None:
    """Ticks at round accuracies, as many as the errors leave room for."""
    errors = [error for trace in figure.data for error in trace.y or ()]
    low, high = (0.99 * min(errors), 1.01 * max(errors)) if errors else (0.0, 1.0)
    steps = ([step * i for i in range(1, round(1 / step))] for step in FINER_TICKS)
    inside = ([error for error in ticks if low <= error <= high] for ticks in (ERROR_TICKS, *steps))
    ticks = next((ticks for ticks in inside if len(ticks) >= LEAST_TICKS), errors[:1])
    labels = [f"{100 * (1 - error):.5g} %" for error in ticks]
    figure.update_yaxes(type="log", autorange="reversed", tickvals=ticks, ticktext=labels)


def _on_epochs(figure: Figure) -> None:
    """Ticks at whole epochs."""
    last = max((x for trace in figure.data for x in trace.x or ()), default=1)
    figure.update_xaxes(tick0=1, dtick=math.ceil(last / 10))


def _add_target(figure: Figure, target: float | None) -> None:
    """A line at an accuracy; on a logarithmic axis Plotly takes annotations, unlike lines, by their logarithm."""
    if target is not None and target < 1:
        figure.add_hline(y=1 - target, line={"dash": "dash", "color": RED})
        y = math.log10(1 - target)
        figure.add_annotation(text="target", x=0, xref="paper", xanchor="left", y=y, yanchor="bottom", showarrow=False)


def _least_error(n: int) -> float:
    return 0.5 / max(1, n)


def _hover(record: Record, accuracy: float, said: str) -> str:
    """What stands beside the pointer; data-carried text is escaped, as Plotly reads tags."""
    lines = [f"<b>{html.escape(record.title)}</b> {accuracy:.2%}"]
    lines += [html.escape(line) for line in textwrap.wrap(record.notation, HOVER_WIDTH)]
    return "<br>".join([*lines, f"{record.params:,} parameters", said])


def _how_far(record: Record) -> str:
    return f"epoch {record.epochs} of {record.candidate.recipe.epochs}"


def _scatter(
    figure: Figure,
    x: Sequence[float],
    errors: Sequence[float],
    text: Sequence[str],
    *,
    name: str,
    color: str,
    **more: object,
) -> None:
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


def accuracy_against(found: Findings, what: str) -> Figure:
    """Accuracy against one of COSTS: every trained trial, the Pareto front, the network to beat, target and limit."""
    figure = _figure(COSTS[what], "accuracy")
    least = _least_error(found.n_val)

    def price(record: Record) -> int:
        return int(getattr(cost(record.candidate.architecture), what))

    def priced(number: int) -> str:
        return "" if what == "params" else f"{number:,} {COSTS[what]}<br>"

    def add(trials: Iterable[TrialRecord], name: str, color: str, **more: object) -> None:
        shown = [(trial, trial.val_accuracy) for trial in trials if trial.val_accuracy is not None]
        if shown:
            _scatter(
                figure,
                [price(trial) for trial, _ in shown],
                [max(1 - accuracy, least) for _, accuracy in shown],
                [_hover(trial, accuracy, f"{priced(price(trial))}{_how_far(trial)}") for trial, accuracy in shown],
                name=name,
                color=color,
                **more,
            )

    complete = [trial for trial in found.trials if trial.state is TrialState.COMPLETE]
    add((t for t in found.trained if t.state is TrialState.PRUNED), "stopped early", GREY, opacity=0.45)
    add((t for t in found.trained if t.diverged), "diverged", RED, opacity=0.45)
    front = pareto_front([(price(t), t.val_accuracy or 0) for t in complete])
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
    add(complete, "trained to the end", BLUE)
    if found.winner is not None:
        winner = found.winner
        said = f"test, mean of n = {winner.test.n}"
        text = _hover(winner.record, winner.test.mean, f"{priced(price(winner.record))}{said}")
        _add_star(figure, price(winner.record), winner.test.mean, text, "winner (test)", ORANGE)
        if winner.baseline is not None and found.task.baseline is not None:
            at = int(getattr(cost(found.task.baseline), what))
            said = f"{at:,} {COSTS[what]}<br>test, mean of n = {winner.baseline.n}"
            text = f"<b>network to beat</b> {winner.baseline.mean:.2%}<br>{said}"
            _add_star(figure, at, winner.baseline.mean, text, "network to beat (test)", GREEN)
    _on_accuracies(figure)
    _add_target(figure, found.task.target)
    limits = found.constraints
    limit = {"params": limits.max_params, "macs": limits.max_macs}.get(what, limits.max_activation_bytes)
    if limit is not None:
        figure.add_vline(x=limit, line={"dash": "dot", "color": RED}, annotation_text="limit")
    return figure


def _add_star(figure: Figure, x: int, accuracy: float, text: str, name: str, color: str) -> None:
    error = max(1 - accuracy, ERROR_TICKS[0] / 10)
    _scatter(figure, [x], [error], [text], name=name, color=color, symbol="star", line={"width": 1})


def pareto_front(points: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Those of (cost, accuracy) that no other one matches at no more cost, cheapest first."""
    front: list[tuple[int, float]] = []
    for price, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((price, accuracy))
    return front


def _add_curve(
    figure: Figure, record: Record, least: float, *, name: str, color: str, width: float, **more: object
) -> None:
    """Validation accuracy after each epoch."""
    rows = [(row["epoch"], row["val_accuracy"]) for row in record.curve if row["val_accuracy"] is not None]
    figure.add_trace(
        go.Scatter(
            x=[epoch for epoch, _ in rows],
            y=[max(1 - accuracy, least) for _, accuracy in rows],
            text=[_hover(record, accuracy, f"epoch {epoch}") for epoch, accuracy in rows],
            name=name,
            mode="lines+markers",
            hovertemplate="%{text}<extra></extra>",
            line={"color": color, "width": width},
            marker={"size": 4},
            **more,
        )
    )


def learning_curves(found: Findings) -> Figure:
    """Validation accuracy after each epoch of every trial; those stopped early are faded."""
    figure, least = _figure("epoch", "validation accuracy", height=440), _least_error(found.n_val)
    shown = sorted((t for t in found.trials if t.curve), key=lambda t: t.state is TrialState.COMPLETE)
    leader = found.leader
    for trial in shown:
        complete = trial.state is TrialState.COMPLETE
        first = leader is not None and trial.number == leader.number
        color, width = (ORANGE, 2.5) if first else (BLUE if complete else GREY, 1.5)
        opacity = 1 if complete else 0.35
        _add_curve(figure, trial, least, name=trial.title, color=color, width=width, opacity=opacity, showlegend=False)
    _on_accuracies(figure)
    _on_epochs(figure)
    return figure


def learning_curve(leader: TrialRecord, runs: Iterable[RunRecord], n_val: int) -> Figure:
    """One network's validation accuracy after each epoch, in the search and on fresh seeds."""
    figure, least = _figure("epoch", "validation accuracy", height=340), _least_error(n_val)
    fresh = [run for run in runs if run.candidate == leader.candidate and run.run.stage in ("finalist", "noise")]
    for record, name in [(leader, "in the search"), *((run, f"fresh seed {run.seed}") for run in fresh)]:
        color, width = (ORANGE, 2.5) if record is leader else (BLUE, 1.2)
        _add_curve(figure, record, least, name=name, color=color, width=width)
    _on_accuracies(figure)
    _on_epochs(figure)
    return figure


def best_so_far(found: Findings) -> Figure:
    """The best final accuracy against the epochs spent, in the order in which trials were asked for."""
    figure, least = _figure("epochs trained", "best validation accuracy so far"), _least_error(found.n_val)
    spent, best = 0, 0.0
    x: list[int] = []
    y: list[float] = []
    text: list[str] = []
    for trial in found.trials:
        spent += trial.epochs
        if trial.state is TrialState.COMPLETE and trial.val_accuracy is not None and trial.val_accuracy > best:
            best = trial.val_accuracy
            x.append(spent)
            y.append(max(1 - best, least))
            text.append(_hover(trial, best, f"after {spent} epochs"))
    if x:
        x.append(spent)
        y.append(y[-1])
        text.append(f"{best:.2%} to the end, {spent} epochs")
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
    _on_accuracies(figure)
    _add_target(figure, found.task.target if x else None)
    return figure


def rejections(ledger: Ledger) -> Figure:
    """How many proposals each limit has rejected; one may break several."""
    figure = _figure("proposals", "", height=300)
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


def times(found: Findings) -> Figure:
    """Seconds of training of each trial."""
    figure = _figure("trial", "seconds on one worker", height=300)
    timed = [trial for trial in found.trials if trial.seconds is not None]
    figure.add_trace(
        go.Bar(
            x=[trial.number for trial in timed],
            y=[trial.seconds for trial in timed],
            text=[_hover(t, t.val_accuracy or 0, f"{_how_far(t)}, {t.seconds:.0f} s") for t in timed],
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
    figure = _figure("predicted", "true class", height=max(380, 24 * n + 120))
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
    if n <= MOST_NUMBERED and any(
        map(any, shown)
    ):  # as a trace of its own, which follows the colour of the page's text
        cells = [(j, i, f"{shown[i][j]:,}") for i in places for j in places if shown[i][j]]
        x, y, text = zip(*cells, strict=True)
        figure.add_trace(go.Scatter(x=x, y=y, text=text, mode="text", hoverinfo="skip", showlegend=False))
    figure.update_xaxes(tickvals=places, ticktext=names)
    figure.update_yaxes(tickvals=places, ticktext=names, autorange="reversed")
    return figure


def answer_plot(answer: Answer) -> Figure | None:
    """The trials' losses, their size taken out, against the number asked about, with the line fitted."""
    if answer.seen is None:
        return None
    question, seen = answer.question, answer.seen
    figure = _figure(question.axis, "relative loss", height=210)
    figure.update_layout(margin={"l": 48, "r": 8, "t": 8, "b": 44}, showlegend=False, font={"size": 11})
    _scatter(
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
    ours = _figure(f"importance for the loss after epoch {epoch}", "", height=max(300, 16 * len(distributions) + 100))
    figure.update_layout(ours.layout, title_text="", showlegend=False)
    figure.update_traces(hovertemplate="%{y}: %{x:.2f}<extra></extra>")
    return figure


def ablation_plot(found: Ablation) -> Figure:
    """The effect of each change on the accuracy, with its standard error, worst on top."""
    shown = [effect for effect in found.effects if effect.points is not None][::-1]
    figure = _figure("points (± standard error)", "", height=22 * len(shown) + 110)
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
