"""The page of a study: what it has found, how sure that is, and what each choice is worth."""

import base64
import io
import json
import re
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.io
from markupsafe import Markup, escape
from optuna.distributions import BaseDistribution, json_to_distribution
from PIL import Image
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

import nas
from nas.analysis.ablation import METHOD, ablation, said_loss, said_points
from nas.analysis.effects import MIN_TRIALS, Answer, answers, compared
from nas.analysis.finalists import Winner, measured_noise, winner_of
from nas.codegen.card import trial_card, winner_card
from nas.codegen.source import model_source
from nas.datasets.dataset import Dataset
from nas.datasets.images import TrainingData, load_training
from nas.datasets.metrics import ACCURACY, EvaluationSet
from nas.network.architecture import Architecture
from nas.optuna_internals.attributes import reading
from nas.reporting.conclusions import (
    constant_answer,
    costs,
    curse,
    earlier_readings,
    how_judged,
    margin,
    noise_floor,
    story,
    verdict,
    what_was_done,
)
from nas.reporting.drawing import COLUMN, columns
from nas.reporting.figures import costs as cost_figures
from nas.reporting.figures import counts, curves, effects
from nas.reporting.reproduction import how_to_repeat
from nas.space.objective import reached
from nas.study.history import History
from nas.study.location import TABLES, StudyLocation, location_options
from nas.system.files import write_whole
from nas.system.templates import templates
from nas.tuner.selection import TestSet

REPORT = "report.html"
MOST_PICTURES = 100  # wrongly answered images that are shown
PICTURE_SIZE = 84  # pixels of their longer side at most; smaller ones are shown as they are


def _percent(accuracy: float | None) -> str:
    return "–" if accuracy is None else ACCURACY.shown(accuracy)


def _commands(text: str) -> Markup:
    """Escaped, and with its commands in one piece."""
    return Markup(re.sub(r"python -m nas\.\w+", r'<code class="command">\g<0></code>', str(escape(text))))


TEMPLATES = templates("nas.reporting", autoescape=True)
TEMPLATES.filters.update(percent=_percent, points=said_points, loss=said_loss, commands=_commands)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A test image that the network gets wrong."""

    source: str  # a data URL
    label: str
    predicted: str


def _plot(figure: Figure | None, name: str) -> Markup | None:
    """A figure as the part of a page; Plotly's JSON leaves no `<`, so nothing in it can end the script."""
    if figure is None:
        return None
    config = {"displaylogo": False, "displayModeBar": False}
    part = plotly.io.to_html(figure, full_html=False, include_plotlyjs=False, config=config, div_id=f"plot-{name}")
    return Markup(part)


def _picture(pixels: Any) -> str:
    """A uint8 image (C, H, W) as a data URL."""
    array = pixels.permute(1, 2, 0).numpy()
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    image.thumbnail((PICTURE_SIZE, PICTURE_SIZE))
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _judged(winner: Winner | None, test: TestSet, classes: tuple[str, ...]) -> dict[str, Any]:
    """The confusion of the winner's weights, and what they get wrong, once the test images were read for them."""
    if winner is None:
        return {"confusion": None, "pictures": [], "mistakes": 0}
    score, images = winner.judged, test.images
    sizes = Counter(images.labels.tolist())
    with reading("what the test images said"):  # a class that there is not
        figure = counts.confusion(score, [sizes[i] for i in range(len(classes))], classes)
    pictures = [
        Picture(source=_picture(images.images[m.image]), label=classes[m.label], predicted=classes[m.predicted])
        for m in score.mistakes[:MOST_PICTURES]
    ]
    return {"confusion": _plot(figure, "confusion"), "pictures": pictures, "mistakes": len(score.mistakes)}


def _answer_row(place: int, answer: Answer) -> dict[str, Any]:
    seen = answer.seen
    interval = None
    if seen is not None:
        low, high = (100 * (value - 1) for value in (seen.low, seen.high))
        interval = f"{100 * (seen.ratio - 1):+.0f} % ({low:+.0f} to {high:+.0f} %)"
    return {
        "question": answer.question.text,
        "step": answer.question.step,
        "words": answer.words,
        "effect": interval,
        "n": seen.trials if seen else 0,
        "visible": bool(seen and seen.visible),
        "experiment": answer.experiment,
        "plot": _plot(effects.answer_plot(answer), f"answer-{place}"),
    }


def network_picture(architecture: Architecture) -> Markup:
    """A network drawn, as the part of a page."""
    return Markup(TEMPLATES.get_template("network.svg").render(columns=columns(architecture), column_width=COLUMN))


def notebook_view(history: History, winner: Winner | None, said: str) -> str:
    """What a notebook shows of a study: the verdict, the networks compared, the leader drawn."""
    leader = history.leader
    return TEMPLATES.get_template("result.html").render(
        verdict=said,
        leader=leader,
        story=story(history, winner) if winner else [],
        drawing=network_picture(leader.candidate.architecture) if leader else None,
        done=what_was_done(history),
    )


def _leader(
    history: History, winner: Winner | None, location: StudyLocation, dataset: Dataset, validation: EvaluationSet
) -> dict[str, Any]:
    leader = history.leader
    if leader is None:
        return {"leader": None, "noise_floor": ""}
    architecture = leader.candidate.architecture
    card = winner_card(location, winner, dataset) if winner else trial_card(location, leader, dataset, None)
    return {
        "leader": leader,
        "costs": costs(history, leader),
        "drawing": network_picture(architecture),
        "source": model_source(architecture, card),
        "learning_curve": _plot(curves.learning_curve(leader, history.runs, validation), "learning-curve"),
        "noise_floor": noise_floor(history, leader, validation),
    }


def _verdict(history: History, winner: Winner | None, data: TrainingData) -> dict[str, Any]:
    if winner is None:
        return {"story": [], "sentences": [], "more": [], "judged": "", "reached": None}
    target, validation = history.task.target, data.evaluation
    noise = measured_noise(history.runs, validation)
    sentences = [verdict(winner, noise, target), *margin(history, winner)]
    sentences += constant_answer(winner, data.classes, target)
    more = [curse(history, winner, noise, validation), *earlier_readings(history, winner)]
    return {
        "story": story(history, winner),
        "sentences": sentences,
        "more": more,
        "judged": how_judged(winner, data),
        "reached": reached(winner.test.mean, target),
    }


def _command(location: StudyLocation) -> str:
    """The options that lead to this study, for a shell."""
    return shlex.join(["--study-name", location.name, *location_options(location)])


def _distributions(history: History) -> dict[str, BaseDistribution]:
    stored = history.settings["parameters"]
    return {name: json_to_distribution(json.dumps(value)) for name, value in stored.items()}


def _effects(history: History, validation: EvaluationSet) -> dict[str, Any]:
    """What each design choice of the leader is worth."""
    leader, trials = history.leader, history.trials
    changed = ablation(leader, history.runs, history.constraints, validation) if leader else None
    known = answers(trials, changed, leader.candidate if leader else None)
    epoch, rows = compared(trials)
    return {
        "answers": [_answer_row(i, answer) for i, answer in enumerate(known)],
        "compared": {"epoch": epoch, "trials": len(rows), "least": MIN_TRIALS},
        "importances": _plot(effects.importances(trials, _distributions(history)), "importances"),
        "ablation": changed,
        "ablation_plot": changed and _plot(effects.ablation_plot(changed), "ablation"),
        "ablation_method": METHOD,
    }


def _plots(history: History, winner: Winner | None, validation: EvaluationSet) -> dict[str, Any]:
    """The plots of the search."""
    against = [(what, cost_figures.accuracy_against(history, winner, validation, what)) for what in cost_figures.COSTS]
    return {
        "against": [_plot(figure, f"against-{what}") for what, figure in against],
        "curves": _plot(curves.learning_curves(history, validation), "curves"),
        "best_so_far": _plot(curves.best_so_far(history, validation), "best-so-far"),
        "rejections": _plot(counts.rejections(history.ledger), "rejections"),
        "times": _plot(counts.times(history), "times"),
    }


def page(history: History, location: StudyLocation, dataset: Dataset, test: TestSet, *, running: bool) -> str:
    """The whole page."""
    winner, data = winner_of(history), load_training(dataset)
    validation = data.evaluation
    context = {
        "version": nas.__version__,
        "history": history,
        "winner": winner,
        "running": running,
        "done": what_was_done(history),
        **_verdict(history, winner, data),
        **_leader(history, winner, location, dataset, validation),
        **_judged(winner, test, data.classes),
        **_plots(history, winner, validation),
        **_effects(history, validation),
        "ledger": history.ledger,
        "command": _command(location),
        "how_run": how_to_repeat(history, winner, data),
        "tables": [name for name in TABLES if (location.folder / name).exists()],
        "plotlyjs": Markup(get_plotlyjs()),
    }
    return TEMPLATES.get_template("report.html").render(context)


def write_report(history: History, location: StudyLocation, dataset: Dataset, test: TestSet, *, running: bool) -> Path:
    """Write the page beside the other results of a study; the file."""
    path = location.folder / REPORT
    write_whole(path, page(history, location, dataset, test, running=running))
    return path
