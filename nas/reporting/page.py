"""The page of a study: what it has found, how sure that is, and what each choice is worth."""

import base64
import io
import json
import re
import shlex
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
import plotly.io
from markupsafe import Markup, escape
from optuna.distributions import BaseDistribution, json_to_distribution
from PIL import Image
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

import nas
from nas.analysis.ablation import METHOD, Ablation, ablation, said_loss, said_points
from nas.analysis.effects import MIN_TRIALS, Answer, answers, compared
from nas.codegen.card import trial_card, winner_card
from nas.codegen.source import model_source
from nas.data.datasets import Dataset
from nas.data.images import load_training
from nas.optuna_internals.attributes import reading
from nas.reporting import figures
from nas.reporting.drawing import COLUMN, columns
from nas.reporting.findings import Findings, findings_of
from nas.reporting.sentences import (
    costs,
    curse,
    duration,
    earlier_readings,
    how_judged,
    margin,
    noise_floor,
    reached,
    story,
    verdict,
    what_was_done,
)
from nas.study.commands import commands
from nas.study.location import TABLES, StudyLocation, location_options
from nas.study.records import total_ledger
from nas.study.settings import settings_of
from nas.system.files import write_whole
from nas.system.templates import templates
from nas.training.environment import versions
from nas.tuner.selection import Exam

REPORT = "report.html"
MOST_PICTURES = 100  # wrongly answered images that are shown
PICTURE_SIZE = 84  # pixels of their longer side at most; smaller ones are shown as they are


def _percent(accuracy: float | None) -> str:
    return "–" if accuracy is None else f"{100 * accuracy:.2f} %"


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


def _judged(found: Findings, exam: Exam, dataset: Dataset) -> dict[str, Any]:
    """The confusion of the winner's weights, and what they get wrong, once the test images were read for them."""
    if found.winner is None:
        return {"confusion": None, "pictures": [], "mistakes": 0}
    score, classes = found.winner.judged, load_training(dataset).classes
    images = exam.images
    sizes = Counter(images.labels.tolist())
    with reading("what the test images said"):  # a class that there is not
        figure = figures.confusion(score, [sizes[i] for i in range(len(classes))], classes)
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
        "plot": _plot(figures.answer_plot(answer), f"answer-{place}"),
    }


def _how_run(found: Findings) -> list[tuple[str, str]]:
    """What one needs to run it again, name by name."""
    stored = settings_of(found.study)
    leader = found.leader
    recipe = asdict(leader.candidate.recipe) if leader else stored["recipe"]
    environments = {versions(t.environment) for t in found.trials if t.environment}
    processors = sorted({t.environment.get("device", "cpu") for t in found.trials if t.environment})
    machines = sorted({t.environment.get("processor", "not told") for t in found.trials if t.environment})
    limits = [
        f"{name.replace('_', ' ')} {value:,}" for name, value in stored["constraints"].items() if isinstance(value, int)
    ]
    forbidden = [f"no {kind} layer" for kind in stored["constraints"]["forbid"]]
    lines = dict.fromkeys(command.line for command in commands(found.study))  # one that went on is the same
    rows = [("command", line) for line in lines]
    rows += [
        ("data set", f"{found.dataset}: {found.n_train:,} training and {found.n_val:,} validation images"),
        ("limits", ", ".join([*limits, *forbidden]) or "none"),
        ("target", "none" if found.task.target is None else f"{found.task.target:.2%}"),
        ("search", f"sampler {stored['sampler']}, pruner {stored['pruner']}, seed {stored['seed']}"),
        (
            "recipe",
            ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in recipe.items() if name != "augmentation"),
        ),
        ("augmentation", ", ".join(f"{name} ± {value}" for name, value in recipe["augmentation"].items())),
        ("trained on", f"{', '.join(machines)} ({', '.join(processors)})" if machines else "–"),
        ("versions", "; ".join(sorted(environments)) or "–"),
    ]
    if found.winner is not None:
        winner = found.winner
        rows.append(("seed of the winner's trial", str(winner.record.seed)))
        if winner.models:
            rows.append(("seeds of its final models", ", ".join(str(model.seed) for model in winner.models)))
    seconds = sum(record.seconds or 0 for record in [*found.trials, *found.runs])
    rows.append(("training on one worker", f"{duration(seconds)} in all"))
    return rows


def _leader(found: Findings, location: StudyLocation, dataset: Dataset) -> dict[str, Any]:
    leader = found.leader
    if leader is None:
        return {"leader": None, "noise_floor": ""}
    winner, architecture = found.winner, leader.candidate.architecture
    picture = TEMPLATES.get_template("network.svg").render(columns=columns(architecture), column_width=COLUMN)
    card = winner_card(location, winner, dataset) if winner else trial_card(location, leader, dataset, None)
    return {
        "leader": leader,
        "costs": costs(found, leader),
        "drawing": Markup(picture),
        "source": model_source(architecture, card),
        "learning_curve": _plot(figures.learning_curve(leader, found.runs, found.n_val), "learning-curve"),
        "noise_floor": noise_floor(found, leader),
    }


def _verdict(found: Findings) -> dict[str, Any]:
    winner = found.winner
    if winner is None:
        return {"story": [], "sentences": [], "more": [], "judged": "", "reached": None}
    sentences = [verdict(winner, found.noise, found.task.target), *margin(found, winner)]
    more = [curse(found, winner), *earlier_readings(found, winner)]
    return {
        "story": story(found, winner),
        "sentences": sentences,
        "more": more,
        "judged": how_judged(found, winner),
        "reached": reached(winner, found.task.target),
    }


def _command(location: StudyLocation) -> str:
    """The options that lead to this study, for a shell."""
    return shlex.join(["--study-name", location.name, *location_options(location)])


def _distributions(found: Findings) -> dict[str, BaseDistribution]:
    stored = settings_of(found.study)["parameters"]
    return {name: json_to_distribution(json.dumps(value)) for name, value in stored.items()}


def _ablation(found: Findings) -> Ablation | None:
    """Of the leader."""
    return ablation(found.leader, found.runs, found.constraints, found.n_val) if found.leader else None


def page(found: Findings, location: StudyLocation, dataset: Dataset, exam: Exam, *, running: bool) -> str:
    """The whole page."""
    changed, ledger = _ablation(found), total_ledger(found.study)
    base = found.leader.candidate if found.leader else None
    epoch, rows = compared(found.trials)
    context = {
        "version": nas.__version__,
        "found": found,
        "running": running,
        "done": what_was_done(found),
        **_verdict(found),
        **_leader(found, location, dataset),
        **_judged(found, exam, dataset),
        "against": [_plot(figures.accuracy_against(found, what), f"against-{what}") for what in figures.COSTS],
        "curves": _plot(figures.learning_curves(found), "curves"),
        "best_so_far": _plot(figures.best_so_far(found), "best-so-far"),
        "ledger": ledger,
        "rejections": _plot(figures.rejections(ledger), "rejections"),
        "times": _plot(figures.times(found), "times"),
        "answers": [_answer_row(i, answer) for i, answer in enumerate(answers(found.trials, changed, base))],
        "compared": {"epoch": epoch, "trials": len(rows), "least": MIN_TRIALS},
        "command": _command(location),
        "importances": _plot(figures.importances(found.trials, _distributions(found)), "importances"),
        "ablation": changed,
        "ablation_plot": changed and _plot(figures.ablation_plot(changed), "ablation"),
        "ablation_method": METHOD,
        "how_run": _how_run(found),
        "tables": [name for name in TABLES if (location.folder / name).exists()],
        "plotlyjs": Markup(get_plotlyjs()),
    }
    return TEMPLATES.get_template("report.html").render(context)


def write_report(study: optuna.Study, location: StudyLocation, dataset: Dataset, exam: Exam, *, running: bool) -> Path:
    """Write the page beside the other results of a study; the file."""
    found = findings_of(study, location, load_training(dataset))
    path = location.folder / REPORT
    write_whole(path, page(found, location, dataset, exam, running=running))
    return path
