"""The README's pictures, made from a study: `make pictures`, or `python -m docs.pictures --study-name mnist`.

It needs the study's database, the report beside it, and Chromium. The live view is drawn as it stood in the middle of
the search, from what the study remembers of its trials.
"""

import io
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from optuna.trial import TrialState
from playwright.sync_api import Browser, Error
from rich.console import Console

from docs.browser import a_browser
from nas.cli.options import Parser, add_data_dir, add_location, add_study, study_location
from nas.cli.terminal import run
from nas.dashboard import choose_port
from nas.reporting.live_view import view
from nas.reporting.page import REPORT
from nas.reporting.sentences import headline
from nas.space.loading import load_space
from nas.study.history import History, read_history
from nas.study.location import StudyLocation
from nas.study.opening import open_study
from nas.study.records import TrialRecord, ranked, total_epochs, total_ledger, total_seconds
from nas.tuner.progress import Running, SearchProgress

FOLDER = Path(__file__).parent
WIDTH, HEIGHT = 1200, 860
COLUMNS = 110


def _in_flight(trial: TrialRecord, epochs: int) -> Running:
    return Running(
        label=trial.label,
        notation=trial.notation,
        params=trial.params,
        epoch=epochs,
        epochs=trial.candidate.recipe.epochs,
        val_accuracy=trial.curve[epochs - 1].val_accuracy if epochs else None,
    )


def half_way(history: History) -> SearchProgress:
    """As the search stood when half of its trials had ended, and the next two were being trained."""
    trials = [trial for trial in history.trained if trial.seconds]
    middle = len(trials) // 2
    done, ahead = trials[:middle], trials[middle:]
    running = sorted(ahead, key=lambda trial: -trial.epochs)[:2]
    seconds = total_seconds(trials) / len(trials)
    return SearchProgress(
        done=len(done),
        total=len(trials),
        failed=0,
        epochs=total_epochs(done),
        running=tuple(_in_flight(trial, trial.epochs * 2 // 3) for trial in running),
        seconds_left=seconds * len(ahead) / 2,
        news="",
        milestone=True,
        stopped_early=sum(trial.state is TrialState.PRUNED for trial in done),
        ledger=total_ledger(done),
        best=tuple(ranked(done)[:5]),
    )


def live_view(browser: Browser, history: History, title: str, path: Path) -> None:
    """A terminal that shows a search, drawn by rich and photographed."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    progress = half_way(history)
    seconds = total_seconds(history.trained) / 4  # two workers, half of the way
    console.print(view(title, progress, seconds))
    drawing = console.export_svg(title="python -m nas.search --trials 50")
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    page.set_content(re.sub(r"@font-face \{.*?\}", "", drawing, flags=re.DOTALL))  # they would be fetched
    page.locator("svg").first.screenshot(path=path)
    page.close()


def report_views(browser: Browser, report: Path) -> None:
    """The report's first screen, and its plot of accuracy against parameters."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    page.goto(report.resolve().as_uri())
    page.locator("#plot-against-params .point").first.wait_for()
    page.screenshot(path=FOLDER / "report.png")
    page.set_viewport_size({"width": 760, "height": HEIGHT})
    page.add_style_tag(content=".grid { grid-template-columns: 1fr !important; }")
    page.wait_for_timeout(1000)  # plots follow the width
    page.locator("#plot-against-params").screenshot(path=FOLDER / "accuracy.png")
    page.close()


def dashboard_view(browser: Browser, location: StudyLocation) -> None:
    """The study's page in optuna-dashboard."""
    port = choose_port(None)
    command = [sys.executable, "-m", "nas.dashboard", "--no-browser", "--port", str(port)]
    command += ["--study-name", location.name, "--storage", location.storage]
    command += ["--output-dir", str(location.folder.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[0]
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            for _ in range(100):
                with suppress(Error):  # it is still starting
                    page.goto(address)
                    break
                time.sleep(0.1)
            page.locator("#plot-history .point").first.wait_for()
            page.wait_for_timeout(1000)
            page.screenshot(path=FOLDER / "dashboard.png")
            page.close()
        finally:
            server.kill()


def main() -> int:
    """The command; its exit status."""
    options = Parser(prog="python -m docs.pictures", description="Make the README's pictures from a study.")
    add_study(options)
    options.add_argument("--space", metavar="NAME", default="mnist", help="its search space (default: mnist)")
    add_location(options)
    add_data_dir(options)
    location = study_location(args := options.parse_args())
    history = read_history(open_study(location))
    with a_browser() as browser:
        live_view(browser, history, headline(load_space(args.space), location), FOLDER / "search.png")
        report_views(browser, location.folder / REPORT)
        dashboard_view(browser, location)
    print(
        "written: " + ", ".join(str(FOLDER / f"{name}.png") for name in ("search", "report", "accuracy", "dashboard"))
    )
    return 0


if __name__ == "__main__":
    run(main)
