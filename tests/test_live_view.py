"""The terminal view, rendered for made-up progress: what it says, that names are not markup, live and plain."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState
from rich.console import Console

from nas.analysis.statistics import Spread
from nas.reporting.live_view import NORMAL, QUIET, VERBOSE, follow, view
from nas.reporting.sentences import duration, ledger_line, roughly
from nas.space.loading import load_space
from nas.space.rejections import Ledger
from nas.study.curves import Epoch
from nas.study.records import TrialRecord
from nas.tuner.progress import Running, RunProgress, SearchProgress, Standing

LONG = " ".join(["c16d5 p2 t8"] * 20) + " | gap 1×1"
LEDGER = Ledger(proposals=1500, rejected=1488, reasons={"max_params": 1400, "forbid linear": 90, "duplicate": 2})
LEDGER_LINE = "1,488 of 1,500 proposals rejected before training: max_params 1,400 · forbid linear 90 · duplicate 2"
SPACE = load_space(str(Path(__file__).parent / "data" / "valid.py"))

BEST = TrialRecord(
    number=7,
    state=TrialState.COMPLETE,
    candidate=SPACE.decode({"kernels": 5}),
    params=1234,
    macs=1,
    receptive_field=3,
    seed=0,
    ledger=Ledger(proposals=1),
    curve=tuple(Epoch(epoch=epoch, val_accuracy=0.98765, val_loss=0.1) for epoch in range(1, 20)),
    seconds=1.0,
    environment={"precision": "float32"},
    reason="",
    suggestions={},
)


def progress(
    *,
    done: int = 3,
    news: str = "",
    milestone: bool = True,
    seconds_left: float | None = 754,
    notation: str = LONG,
) -> SearchProgress:
    return SearchProgress(
        done=done,
        total=50,
        stopped_early=2,
        failed=1,
        epochs=1312,
        ledger=LEDGER,
        running=(
            Running(label="8", notation=notation, params=19_999, epoch=0, epochs=19, val_accuracy=None),
            Running(label="9", notation=notation, params=20, epoch=4, epochs=19, val_accuracy=0.9901),
        ),
        best=(BEST,) if done else (),
        seconds_left=seconds_left,
        news=news,
        milestone=milestone,
    )


def rendered(told: SearchProgress, width: int, title: str = "study a") -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(view(title, told, 3723.4))
    return console.export_text()


@pytest.mark.parametrize("width", [80, 120])
def test_view_says_where_the_search_stands(width: int) -> None:
    lines = rendered(progress(), width).splitlines()
    assert max(map(len, lines)) <= width
    words = " ".join(" ".join(lines).split())
    assert lines[0] == "study a"
    assert lines[1].endswith("3 of 50 trained · 2 stopped early · 1 failed · 1,312 epochs")
    assert lines[2] == "1:02:03 elapsed, about 13 min left"
    assert LEDGER_LINE in words
    assert "4/19" in words
    assert "99.01%" in words
    assert "98.77%" in words
    assert "c5 | gap 1×1" in words
    assert sum(line.endswith("…") for line in lines) == 2, "a notation too long for the line ends in an ellipsis"


def test_view_at_the_start_and_at_the_end() -> None:
    start = rendered(progress(done=0, seconds_left=None), 140)
    assert "time left unknown yet" in start
    assert "none yet" in start
    assert "elapsed, done" in rendered(progress(done=50, seconds_left=0), 140)
    assert "elapsed, about 13 min left" in rendered(progress(done=50), 140), "the final runs are still to come"


def test_view_of_final_runs_shows_what_the_seeds_have_come_to() -> None:
    told = RunProgress(
        done=4,
        total=9,
        failed=0,
        epochs=77,
        running=(Running(label="–", notation="c8 | gap 1×1", params=18_738, epoch=3, epochs=19, val_accuracy=None),),
        seconds_left=100,
        news="",
        milestone=True,
        standings=(
            Standing(label="22", notation=LONG, params=14_066, accuracy=Spread(mean=0.9952, sd=0.0004, n=3)),
            Standing(label="–", notation="c8 | gap 1×1", params=18_738, accuracy=None),
        ),
    )
    for width in (80, 120):
        console = Console(file=io.StringIO(), width=width, record=True)
        console.print(view("finalists: 2", told, 60.0))
        lines = console.export_text().splitlines()
        assert max(map(len, lines)) <= width
        words = " ".join(" ".join(lines).split())
        assert "4 of 9 trained · 0 failed · 77 epochs" in words
        assert "1:00 elapsed, about 2 min left" in words
        assert "22 3 99.52 ± 0.04 % 14,066 c16d5" in words
        assert "– 0 – 18,738 c8 | gap 1×1" in words
        assert "rejected" not in words


def test_view_of_a_large_cluster_fits_a_screen() -> None:
    running = tuple(replace(progress().running[1], label=str(i), node=f"host{i % 32:02d}") for i in range(256))
    shown = rendered(replace(progress(), running=running, nodes={f"host{i:02d}": 8 for i in range(32)}), width=120)
    assert "256 workers on 32 nodes · host00: 8 · host01: 8 ·" in shown
    assert "· host05: 8 · and 26 more\n" in shown
    assert "and 244 more" in shown
    assert len(shown.splitlines()) < 40


def test_view_does_not_interpret_markup() -> None:
    text = rendered(progress(notation="[red]c5[/red]"), 120, title="study [red]x")
    assert "study [red]x" in text
    assert "[red]c5[/red]" in text


def test_ledger_line_without_rejections() -> None:
    assert ledger_line(LEDGER) == LEDGER_LINE
    assert ledger_line(Ledger(proposals=3)) == "0 of 3 proposals rejected before training"


def told() -> Iterator[SearchProgress]:
    yield progress(done=0, news="workers are starting", seconds_left=None)
    yield progress(done=1, news="trial 0: epoch 1 of 19, 97.00%", milestone=False)
    yield progress(done=50, news="trial 1: epoch 19 was its last", seconds_left=0)


def followed(*, terminal: bool, verbosity: int) -> str:
    file = io.StringIO()
    events = told()
    follow(events, "study [red]x", Console(file=file, force_terminal=terminal, width=120), verbosity)
    assert next(events, None) is None, "the search was followed to its end"
    return file.getvalue()


def test_follow_plain_prints_a_line_for_each_trial() -> None:
    assert followed(terminal=False, verbosity=NORMAL).splitlines() == [
        "study [red]x",
        "0:00:00  0 of 50 trained  workers are starting",
        "0:00:00  50 of 50 trained  trial 1: epoch 19 was its last",
        LEDGER_LINE,
    ]


def test_follow_plain_prints_every_epoch_when_verbose() -> None:
    line = "0:00:00  1 of 50 trained, about 13 min left  trial 0: epoch 1 of 19, 97.00%"
    assert line in followed(terminal=False, verbosity=VERBOSE).splitlines()


def test_follow_live_redraws_on_a_terminal() -> None:
    text = followed(terminal=True, verbosity=NORMAL)
    assert "50 of 50 trained" in text
    assert "study [red]x" in text
    assert "\x1b[?25l" in text, "the cursor is hidden while the view is redrawn"
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "and shown again"


@pytest.mark.parametrize("terminal", [False, True])
def test_follow_quietly_prints_nothing(terminal: bool) -> None:
    assert followed(terminal=terminal, verbosity=QUIET) == ""


@pytest.mark.parametrize(
    ("seconds", "exact", "spoken"),
    [
        (0, "0:00:00", "about 1 s"),
        (89.4, "0:01:29", "about 89 s"),
        (90, "0:01:30", "about 2 min"),
        (754, "0:12:34", "about 13 min"),
        (5399, "1:29:59", "about 90 min"),
        (5400, "1:30:00", "about 1.5 h"),
        (90_000, "1 day, 1:00:00", "about 25.0 h"),
    ],
)
def test_durations(seconds: float, exact: str, spoken: str) -> None:
    assert (duration(seconds), roughly(seconds)) == (exact, spoken)
