"""What a person sees of a search: a live view at a terminal or in a notebook, and plain lines elsewhere."""

import collections
import io
from collections.abc import Iterator
from time import monotonic
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.reporting.sentences import duration, ledger_line, roughly
from nas.study.records import TrialRecord
from nas.tuner.progress import Progress, Running, RunProgress, SearchProgress, Standing

QUIET, NORMAL, VERBOSE = -1, 0, 1
REFRESH_PER_SECOND = 4
NOTEBOOK_WIDTH = 110  # columns
BAR = 16  # columns; with it a headline of usual numbers fits into 80
MOST_RUNNING, MOST_NODES = 12, 6  # that are shown: a view of hundreds fits no screen, and takes a core to draw


def _headline(progress: Progress, elapsed: float) -> RenderableType:
    counts = [Text(_done(progress), style="bold")]
    if isinstance(progress, SearchProgress):
        counts.append(Text(f"{progress.stopped_early} stopped early"))
    counts.append(Text(f"{progress.failed} failed", style="red" if progress.failed else "dim"))
    counts.append(Text(f"{progress.epochs:,} epochs"))
    line = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=max(1, progress.total), completed=progress.done, width=BAR)
    line.add_row(bar, Text(" · ").join(counts))
    lines: list[RenderableType] = [line, Text(f"{duration(elapsed)} elapsed, {_left(progress)}")]
    return Group(*lines, *([Text(_on(progress), style="dim")] if progress.nodes else []))


def _on(progress: Progress) -> str:
    """The nodes of a cluster, with the workers of each."""
    workers, nodes = sum(progress.nodes.values()), sorted(progress.nodes.items())
    shown = [f"{name}: {count}" for name, count in nodes[:MOST_NODES]]
    if more := len(nodes) - len(shown):
        shown.append(f"and {more} more")
    return f"{workers} worker{'s' * (workers > 1)} on {len(nodes)} node{'s' * (len(nodes) > 1)} · {' · '.join(shown)}"


def _done(progress: Progress) -> str:
    return f"{progress.done} of {progress.total} trained"


def _left(progress: Progress) -> str:
    seconds = progress.seconds_left
    if progress.done >= progress.total and not seconds:
        return "done"
    return "time left unknown yet" if seconds is None else f"{roughly(seconds)} left"


def _trials_table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, expand=True)
    table.add_column("trial", justify="right", width=5)
    table.add_column("epoch", width=19)
    table.add_column("val. acc.", justify="right", width=9)
    table.add_column("params", justify="right", width=7)
    table.add_column("network", ratio=1, no_wrap=True, overflow="ellipsis")
    return table


def _percent(accuracy: float | None) -> str:
    return "–" if accuracy is None else f"{accuracy:.2%}"


def _running_table(running: tuple[Running, ...]) -> Table:
    table = _trials_table("training now")
    if any(trial.node for trial in running):
        table.add_column("node", no_wrap=True)
    for trial in running[:MOST_RUNNING]:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=trial.epochs, completed=trial.epoch, width=10), f"{trial.epoch}/{trial.epochs}")
        accuracy = _percent(trial.val_accuracy)
        cells: list[RenderableType] = [trial.label, bar, accuracy, f"{trial.params:,}", escape(trial.notation)]
        table.add_row(*cells, *([escape(trial.node)] if trial.node else []))
    if more := len(running[MOST_RUNNING:]):
        table.add_row("", f"and {more} more")
    return table


def _standings_table(standings: tuple[Standing, ...]) -> Table:
    table = Table(title="so far", title_justify="left", title_style="bold", box=None, pad_edge=False, expand=True)
    table.add_column("trial", justify="right", min_width=5)
    table.add_column("seeds", justify="right", width=5)
    table.add_column("accuracy", justify="right", width=15)
    table.add_column("params", justify="right", width=7)
    table.add_column("network", ratio=1, no_wrap=True, overflow="ellipsis")
    for standing in standings:
        accuracy, seeds = (
            ("–", "0") if standing.accuracy is None else (str(standing.accuracy), str(standing.accuracy.n))
        )
        table.add_row(standing.label, seeds, accuracy, f"{standing.params:,}", escape(standing.notation))
    return table


def _best_table(best: tuple[TrialRecord, ...]) -> Table:
    table = _trials_table("best so far, trained to the end")
    for trial in best:
        accuracy = _percent(trial.val_accuracy)
        table.add_row(str(trial.number), str(trial.epochs), accuracy, f"{trial.params:,}", escape(trial.notation))
    if not best:
        table.add_row("", "", "", "", Text("none yet", style="dim"))
    return table


def view(title: str, progress: Progress, elapsed: float) -> RenderableType:
    """The whole live view."""
    parts: list[RenderableType] = [Text(title, style="bold cyan"), _headline(progress, elapsed)]
    if isinstance(progress, SearchProgress):
        parts.append(Text(ledger_line(progress.ledger), style="dim"))
    parts += [Text(), _running_table(progress.running), Text()]
    if isinstance(progress, SearchProgress):
        parts.append(_best_table(progress.best))
    elif isinstance(progress, RunProgress):
        parts.append(_standings_table(progress.standings))
    return Group(*parts, Text(), Text("Interrupting loses nothing: the same command goes on", style="dim"))


def _follow_live(events: Iterator[Progress], title: str, console: Console) -> None:
    started, shown = monotonic(), None

    def renderable() -> RenderableType:
        return Text(title) if shown is None else view(title, shown, monotonic() - started)

    with Live(console=console, get_renderable=renderable, refresh_per_second=REFRESH_PER_SECOND):
        for progress in events:
            shown = progress


def _follow_in_notebook(events: Iterator[Progress], title: str) -> None:
    from IPython.display import DisplayHandle

    started, drawn = monotonic(), 0.0
    place: Any = DisplayHandle()  # type: ignore[no-untyped-call]  # IPython's
    place.display(_for_notebook(Text(title)), raw=True)
    for progress in events:
        last = progress
        if monotonic() - drawn > 1 / REFRESH_PER_SECOND:
            drawn = monotonic()
            place.update(_for_notebook(view(title, progress, drawn - started)), raw=True)
    place.update(_for_notebook(view(title, last, monotonic() - started)), raw=True)


def _for_notebook(shown: RenderableType) -> dict[str, str]:
    console = Console(file=io.StringIO(), width=NOTEBOOK_WIDTH, record=True, force_jupyter=False)
    console.print(shown)
    html = console.export_html(inline_styles=True, clear=False, code_format="<pre>{code}</pre>")
    return {"text/html": html, "text/plain": console.export_text()}


def _follow_plain(events: Iterator[Progress], title: str, console: Console, verbosity: int) -> None:
    started = monotonic()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(title)
    for progress in events:
        if verbosity == NORMAL and not progress.milestone:
            continue
        left = f", {roughly(progress.seconds_left)} left" if progress.seconds_left else ""
        say(f"{duration(monotonic() - started)}  {_done(progress)}{left}  {progress.news}")
    if isinstance(progress, SearchProgress):
        say(ledger_line(progress.ledger))


def follow(events: Iterator[Progress], title: str, console: Console, verbosity: int) -> None:
    """Show a search to its end.

    Lines tell of every epoch when verbose, else of the milestones; the live view shows every epoch anyway.
    """
    if verbosity == QUIET:
        collections.deque(events, maxlen=0)
    elif console.is_jupyter:
        _follow_in_notebook(events, title)
    elif console.is_terminal:
        _follow_live(events, title, console)
    else:
        _follow_plain(events, title, console, verbosity)
