"""The report and the dashboard of a real small search, in a real browser: they show what the study says."""

import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import pytest
from browser import Watched, watched
from helpers import small_architecture, small_space, write_mnist_folder
from playwright.sync_api import Browser

from docs.browser import a_browser, chromium
from nas.analysis.ablation import ablation, ablation_runs
from nas.analysis.effects import answers
from nas.analysis.finalists import Winner, winner_of
from nas.api.finishing import finish
from nas.datasets.dataset import Dataset
from nas.datasets.images import load_training
from nas.datasets.metrics import EvaluationSet
from nas.errors import UserError
from nas.reporting.figures.costs import pareto_front
from nas.reporting.notes import annotate_trial
from nas.reporting.page import page as whole_page
from nas.reporting.page import write_report
from nas.reporting.tables import write_tables
from nas.samplers.feasible import FeasibleSampler, make_sampler
from nas.space.objective import LOSS_FIRST
from nas.study.history import History, read_history
from nas.study.location import StudyLocation, locate
from nas.study.opening import writing
from nas.study.records import TrialRecord, digests, records
from nas.study.settings import remember_task, settings
from nas.tuner.progress import Progress
from nas.tuner.pruning import make_pruner
from nas.tuner.reruns import train_runs
from nas.tuner.selection import FinalSettings, TestSet
from nas.tuner.trials import Plan, Search, train_all
from nas.workers.local import LocalFleet

HOSTILE = "<img src=x onerror=alert(1)>"  # a class's folder
STUDY = "it's {{ found }} & co"  # as hostile as a study's name may be
TRIALS = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A finished search with an ablation, its report, and the page of the same search before its end."""

    location: StudyLocation
    study: optuna.Study
    history: History
    winner: Winner
    validation: EvaluationSet
    early: str


def through(events: Iterator[Progress], title: str) -> None:
    list(events)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("images")
    found = write_mnist_folder(folder)
    for part in ("train", "test"):
        (folder / part / "7").rename(folder / part / HOSTILE)
    return found


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Iterator[Reported]:
    space = small_space(dataset, epochs=3, max_params=500)
    space = replace(space, baseline=small_architecture(12, 12), target=0.3)
    location = locate(STUDY, tmp_path_factory.mktemp("results"), None)
    plan = Plan(trials=TRIALS, fleet=LocalFleet(("cpu",)), dataset=dataset, constraints=space.constraints, seed=0)
    with writing(location, settings(space, seed=0, sampler="random", pruner="rungs")) as study:
        remember_task(study, space)
        study.pruner = make_pruner("rungs", 3)
        sampler = FeasibleSampler(make_sampler("random", space, 0), space, 0, seen=digests(records(study)))

        def annotate(trial: optuna.Trial, record: TrialRecord) -> dict[Path, str]:
            return annotate_trial(study, location, dataset, trial, record)

        list(train_all(Search(study, location, records(study), plan, sampler, annotate=annotate), plan))
        page = write_report(read_history(study), location, dataset, TestSet(dataset), running=True)
        early = page.read_text(encoding="utf-8")
        final = FinalSettings(finalists=2, seeds=2, baseline=True)
        finish(study, location, plan, final, through)
        history = read_history(study)
        leader, winner = history.leader, winner_of(history)
        assert leader is not None
        assert winner is not None
        wanted = ablation_runs(leader, ["head", "augmentation"], space.constraints, 2, 0)
        history = train_runs(study, location, history, wanted, plan, through, "ablation")
        validation = load_training(dataset).evaluation
        write_tables(history, location, validation)
        write_report(history, location, dataset, TestSet(dataset), running=False)
        yield Reported(
            location=location, study=study, history=history, winner=winner, validation=validation, early=early
        )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Without one, the tests that ask for it are not run, or under CI fail."""
    try:
        chromium()
    except UserError as error:
        not_run = pytest.fail if os.environ.get("CI") else pytest.skip
        not_run(f"not run: {error}")
    with a_browser() as found:
        yield found


@pytest.fixture(scope="module")
def seen(browser: Browser, reported: Reported) -> Iterator[Watched]:
    with watched(browser, (reported.location.folder / "report.html").as_uri()) as page:
        yield page


def table(seen: Watched, name: str) -> list[list[str]]:
    rows = seen.page.locator(f"#{name} tr").all()
    return [[cell.inner_text().strip() for cell in row.locator("th, td").all()] for row in rows]


def test_the_page_complains_of_nothing_and_asks_nobody(seen: Watched) -> None:
    seen.page.wait_for_load_state("networkidle")
    assert seen.complaints == []
    assert seen.page.locator("img[src=x]").count() == 0
    assert HOSTILE in seen.page.locator("#source").inner_text().replace("\\", "")


def test_every_plot_has_points(seen: Watched, reported: Reported) -> None:
    counts = seen.page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.js-plotly-plot')].map(plot => "
        "[plot.id, plot.data.reduce((sum, trace) => sum + (trace.x?.length ?? 0), 0)]))"
    )
    asked = [a for a in answers(reported.history.trials, None, None) if a.seen is not None]
    assert len(asked) >= 4
    plain = {"learning-curve", "confusion", "curves", "best-so-far", "rejections", "times", "importances", "ablation"}
    costs = {f"against-{name}" for name in ("params", "macs", "peak_activation_bytes")}
    names = {name.removeprefix("plot-") for name in counts}
    assert {name for name in names if not name.startswith("answer-")} == plain | costs
    assert len([name for name in names if name.startswith("answer-")]) == len(asked)
    assert min(counts.values()) > 0, counts
    assert counts["plot-curves"] == sum(trial.epochs for trial in reported.history.trials)
    assert counts["plot-times"] == TRIALS
    assert seen.page.locator("#plot-against-params .point").count() >= TRIALS


def test_hovering_names_the_network(seen: Watched, reported: Reported) -> None:
    point = seen.page.locator("#plot-against-params .scatterlayer .point").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    assert box is not None
    seen.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    label = seen.page.locator("#plot-against-params .hoverlayer text").first
    label.wait_for()
    said = label.text_content() or ""
    number = re.match(r"trial (\d+)", said)
    assert number is not None, said
    assert reported.history.trials[int(number[1])].notation in said


def test_copy_gives_the_exported_source(seen: Watched, reported: Reported) -> None:
    seen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    seen.page.locator("#copy").click()
    seen.page.get_by_text("Copied").wait_for()
    copied = seen.page.evaluate("navigator.clipboard.readText()")
    assert copied == (reported.location.folder / "best" / "model.py").read_text(encoding="utf-8")


def test_the_numbers_are_those_of_the_study(seen: Watched, reported: Reported) -> None:
    history, winner, validation = reported.history, reported.winner, reported.validation
    rerun, baseline, score = winner.rerun, winner.baseline, winner.record.val_accuracy
    assert rerun is not None
    assert baseline is not None
    assert score is not None
    title = seen.page.locator("h1").inner_text()
    assert title == f"{STUDY}: trial {winner.record.number} wins with {winner.test} on the test images"
    rows = table(seen, "story")
    params = f"{winner.record.params:,}"
    assert rows[1] == [
        *(f"trial {winner.record.number}, the winner", params, f"{100 * score:.2f} %"),
        *(str(rerun), "1", str(winner.test), "2"),
    ]
    assert rows[-1] == ["network to beat", "1,582", "–", "–", "–", str(baseline), "2"]
    assert table(seen, "limits")[1] == ["parameters", params, "1,582", "500"]
    assert re.search(r" points \(mean of n = 2 (equal )?seeds", seen.page.locator("#verdict").inner_text())
    assert seen.page.locator(".pictures img").count() == min(100, len(winner.judged.mistakes))
    assert f"{len(winner.judged.mistakes)} of 120 test images" in seen.page.locator("body").inner_text()
    assert seen.page.locator("#notation").inner_text() == winner.record.notation
    how = dict(row for row in table(seen, "how") if len(row) == 2)
    assert how["data set"].endswith("300 training and 60 validation images")
    assert how["seeds of its final models"] == ", ".join(str(model.seed) for model in winner.models)
    assert how["limits"] == "≤ 500 params"
    assert how["augmentation"] == "rotation ± 10.0, shift ± 2.0, scale ± 0.1, shear ± 0.2"
    assert "ablation.csv" in seen.page.locator("footer").inner_text()
    assert "ablation.csv" not in reported.early
    changed = ablation(winner.record, history.runs, history.constraints, validation)
    assert changed is not None
    assert [row[0] for row in table(seen, "ablation")[1:]] == [effect.variant.change for effect in changed.effects]
    assert [row[2] for row in table(seen, "ablation")[1:]] == [str(effect.accuracy) for effect in changed.effects]
    told = table(seen, "answers")[1:]
    known = answers(history.trials, changed, winner.record.candidate)
    assert [row[0].split("\n")[0] for row in told] == [answer.question.text for answer in known]
    assert [row[1].split("\n")[0] for row in told] == [answer.words for answer in known]


def test_best_so_far_is_the_accuracy_of_the_lowest_loss(seen: Watched, reported: Reported) -> None:
    errors = seen.page.evaluate("[...document.getElementById('plot-best-so-far').data[0].y]")
    done = reported.history.completed
    best = [min(done[: i + 1], key=LOSS_FIRST.place) for i in range(len(done))]
    told = [1 - (trial.val_accuracy or 0) for trial in {trial.number: trial for trial in best}.values()]
    assert errors == pytest.approx([*told, told[-1]]), "the last one to the end of the search"


def test_the_page_fits_a_phone_and_knows_the_dark(browser: Browser, reported: Reported) -> None:
    address = (reported.location.folder / "report.html").as_uri()
    with watched(browser, address, width=390, dark=True) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
        paper = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", paper)[:3])) < 60
        font = "document.getElementById('plot-curves').layout.font.color"
        assert seen.page.evaluate(font) == "#e8ebf0"
        seen.page.emulate_media(color_scheme="light")
        seen.page.wait_for_function(f"{font} === '#1b1f27'")
        assert seen.complaints == []


@pytest.mark.parametrize("width", [1440, 1000, 390])
def test_every_plot_keeps_to_its_place(browser: Browser, reported: Reported, width: int) -> None:
    with watched(browser, (reported.location.folder / "report.html").as_uri(), width=width) as seen:
        wide = "plot => plot._fullLayout.width > plot.parentElement.clientWidth + 1"
        too_wide = f"[...document.querySelectorAll('.js-plotly-plot')].filter({wide}).map(plot => plot.id)"
        seen.page.wait_for_function(f"{too_wide}.length === 0")
        curves, best = (seen.page.locator(f"#plot-{name} .main-svg").first.bounding_box() for name in PAIR)
        assert curves is not None
        assert best is not None
        beside = curves["x"] + curves["width"] <= best["x"]
        assert beside if width >= 1000 else curves["y"] + curves["height"] <= best["y"]


PAIR = ("curves", "best-so-far")


def test_numbers_in_the_dark_can_be_read(browser: Browser, reported: Reported) -> None:
    with watched(browser, (reported.location.folder / "report.html").as_uri(), dark=True) as seen:
        fill = "getComputedStyle(document.querySelector('#plot-confusion .textpoint text')).fill"
        seen.page.wait_for_function(f"{fill} === 'rgb(232, 235, 240)'")
        bars = seen.page.locator("#plot-ablation path.xerror").first.evaluate("bar => getComputedStyle(bar).stroke")
        assert bars == "rgb(139, 147, 161)"


def test_a_row_of_a_table_is_a_card_on_a_phone(browser: Browser, reported: Reported) -> None:
    with watched(browser, (reported.location.folder / "report.html").as_uri(), width=390) as seen:
        cell = seen.page.locator("#story tr").nth(1).locator("td").nth(5)
        assert cell.evaluate("cell => getComputedStyle(cell, '::before').content") == '"test: "'
        box = cell.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 390


def test_the_page_prints_in_dark_ink(browser: Browser, reported: Reported) -> None:
    address = (reported.location.folder / "report.html").as_uri()
    with watched(browser, address, dark=True) as seen:
        seen.page.emulate_media(media="print")
        seen.page.wait_for_function("document.getElementById('plot-curves').layout.font.color === '#000'")
        assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert len(seen.page.pdf()) > 50_000


def test_before_the_end_the_page_leads_with_one_score_and_the_noise_floor(
    browser: Browser, reported: Reported, tmp_path: Path
) -> None:
    (tmp_path / "early.html").write_text(reported.early, encoding="utf-8")
    with watched(browser, (tmp_path / "early.html").as_uri()) as seen:
        assert re.fullmatch(
            rf"{re.escape(STUDY)}: trial \d+ leads with \d+\.\d\d %", seen.page.locator("h1").inner_text()
        )
        verdict = seen.page.locator("#verdict").inner_text()
        said = r"\d+\.\d\d % is one validation score, n = 1; the test images have not been read\. Two single.*"
        assert re.fullmatch(said, verdict)
        assert seen.page.locator("#story").count() == 0
        assert "A command is at work on this study" in seen.page.locator("header").inner_text()
        assert seen.complaints == []


def test_the_page_of_a_study_without_trials_says_so(browser: Browser, dataset: Dataset, tmp_path: Path) -> None:
    space, location = small_space(dataset), locate("empty", tmp_path, None)
    with writing(location, settings(space, seed=0, sampler="tpe", pruner="none")) as study:
        path = write_report(read_history(study), location, dataset, TestSet(dataset), running=True)
    with watched(browser, path.as_uri()) as seen:
        assert seen.page.locator("h1").inner_text() == "empty: no trial has been trained to the end yet"
        assert seen.complaints == []


def test_the_file_is_small_enough_to_send(reported: Reported) -> None:
    assert (reported.location.folder / "report.html").stat().st_size < 6_000_000


def test_a_pareto_front_holds_what_nothing_matches() -> None:
    assert pareto_front([(3, 0.9), (1, 0.5), (2, 0.4), (3, 0.8), (4, 0.9), (5, 0.95)]) == [
        (1, 0.5),
        (3, 0.9),
        (5, 0.95),
    ]
    assert pareto_front([]) == []


def test_reading_the_study_leaves_it_as_it_was(reported: Reported, dataset: Dataset) -> None:
    before = rows_of_database(reported.location)
    whole_page(reported.history, reported.location, dataset, TestSet(dataset), running=False)
    assert rows_of_database(reported.location) == before


# the dashboard


@pytest.fixture(scope="module")
def dashboard(reported: Reported) -> Iterator[str]:
    """Where it is being served; it is asked to open a browser, and the one it opens is the command `true`."""
    folder, name = reported.location.folder.parent, reported.location.name
    command = [sys.executable, "-m", "nas.dashboard", "--study-name", name, "--output-dir", str(folder)]
    environment = {**os.environ, "BROWSER": f"{sys.executable} {folder / 'opened.py'} %s"}
    environment.pop("OPTUNA_STORAGE", None)
    (folder / "opened.py").write_text("import pathlib, sys\npathlib.Path(__file__ + '.txt').write_text(sys.argv[1])\n")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[0]
        opened = folder / "opened.py.txt"
        deadline = time.monotonic() + 60
        while not opened.exists() or opened.read_text() != address:
            assert time.monotonic() < deadline, "the browser is opened when the server answers"
            time.sleep(0.1)
        yield address
        server.kill()


def rows_of_database(location: StudyLocation) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(location.folder / "study.db")) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: database.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in names}


def test_the_dashboard_tells_of_a_trial(browser: Browser, reported: Reported, dashboard: str) -> None:
    stopped = next(trial for trial in reported.history.trials if trial.reason)
    with watched(browser, f"{dashboard}/trials?numbers={stopped.number}") as seen:
        seen.page.get_by_text("Artifacts").first.wait_for()
        text = seen.page.locator("body").inner_text()
        assert stopped.notation in text
        assert f"{stopped.params:,} parameters, {stopped.macs:,} MACs; seed {stopped.seed}." in text
        assert f"after epoch {stopped.epochs} of 3: stopped after epoch {stopped.epochs} of 3." in text
        assert "global pool" in text
        for name in ("architecture.json", "curve.csv", "model.py"):
            assert seen.page.get_by_text(name, exact=True).count() >= 1
        attributes = text[text.index("User Attributes") : text.index("Artifacts")].split("\n")
        assert max(map(len, attributes)) < 120, "none of the attributes is a long line"
        assert seen.complaints == []


def test_the_dashboard_tells_of_the_study(browser: Browser, reported: Reported, dashboard: str) -> None:
    winner = reported.winner
    with watched(browser, f"{dashboard}/note") as seen:
        seen.page.get_by_text("is the winner").wait_for()
        text = seen.page.locator("body").inner_text()
        assert f"Trial {winner.record.number} is the winner: {winner.test} of the test images, n = 2." in text
        assert (reported.location.folder / "best" / "summary.txt").read_text().splitlines()[0] in text
        seen.page.get_by_role("link", name="The final runs").click()
        seen.page.wait_for_url(re.compile(r"/studies/\d+$"))
        assert seen.complaints == []
    with watched(browser, dashboard) as seen:
        plot = seen.page.locator("[id$=accuracy-against-parameters] .point")
        plot.first.wait_for()
        assert plot.count() >= TRIALS
        assert seen.complaints == []


def test_opening_the_dashboard_changes_nothing(browser: Browser, reported: Reported, dashboard: str) -> None:
    before = rows_of_database(reported.location)
    for page in ("", "/analytics", "/trials?numbers=0", "/trialTable", "/note"):
        with watched(browser, dashboard + page) as seen:
            seen.page.wait_for_load_state("networkidle")
    assert rows_of_database(reported.location) == before
