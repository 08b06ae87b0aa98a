"""What follows a search or further trainings: the choice, the winner's files, the tables, the summary, the report."""

from dataclasses import dataclass
from pathlib import Path

import optuna

from nas.analysis.finalists import Winner, winner_of
from nas.codegen.exporting import export_winner
from nas.codegen.proof import MODEL, WEIGHTS
from nas.datasets.dataset import Dataset
from nas.datasets.images import load_training
from nas.reporting.notes import annotate_runs, annotate_study
from nas.reporting.page import write_report
from nas.reporting.sentences import diagnosis
from nas.reporting.summary import summary
from nas.reporting.tables import write_tables
from nas.space.rejections import Ledger
from nas.study.history import History, read_history
from nas.study.location import StudyLocation
from nas.study.records import TrialRecord
from nas.system.files import write_whole
from nas.tuner.progress import Show
from nas.tuner.selection import FinalSettings, TestSet, choose
from nas.tuner.trials import Plan

BEST = "best"  # the folder of the winner, in that of its study
SUMMARY = "summary.txt"
NOTHING_TRAINED = "No network was trained to the end, so there is no winner; trials.csv says why."
NO_WINNER = "Every training on a fresh seed failed, so there is no winner; final_runs.csv says why."


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What came of the end of a search, and the files that it wrote; no winner, no summary."""

    history: History
    winner: Winner | None
    summary: str
    written: tuple[Path, ...]
    exhausted: Ledger | None = None  # of the proposals, if the search ended because nothing new was feasible

    @property
    def complaint(self) -> str:
        """What did not come out as it should, in sentences; "" when all did."""
        lines = [] if self.exhausted is None else [diagnosis(self.exhausted)]
        if self.winner is None:
            lines.append(NO_WINNER if self.history.completed else NOTHING_TRAINED)
        return "\n".join(lines)


def finish(
    study: optuna.Study,
    location: StudyLocation,
    plan: Plan,
    final: FinalSettings,
    show: Show,
    proven: TrialRecord | None = None,
) -> Finished:
    """Choose, read the test set, and write the winner's files, the tables and the report.

    A trial that is `proven` to reach the target is the choice.
    """
    history, test = read_history(study), TestSet(plan.dataset)
    validation = load_training(plan.dataset).evaluation
    write_tables(history, location, validation)
    history, winner = choose(study, location, history, plan, final, test, show, proven)
    annotate_runs(study, history)
    written, text = write_tables(history, location, validation), ""
    if winner is not None:
        best = location.folder / BEST
        export_winner(history, location, winner, plan.dataset, best)
        text = write_summary(study, location, history, winner, plan.dataset)
        written = [best / MODEL, best / WEIGHTS, best / SUMMARY, *written]
    written.append(write_report(history, location, plan.dataset, test, running=False))
    return Finished(history=history, winner=winner, summary=text, written=tuple(written))


def write_summary(
    study: optuna.Study, location: StudyLocation, history: History, winner: Winner, dataset: Dataset
) -> str:
    """Write what was found, into the winner's folder and for the dashboard; the text."""
    data = load_training(dataset)
    text = summary(history, winner, data)
    write_whole(location.folder / BEST / SUMMARY, text)
    annotate_study(study, location, history, winner, text, data.evaluation)
    return text


def write_anew(study: optuna.Study, location: StudyLocation, history: History, dataset: Dataset) -> None:
    """Write the tables, the summary of a winner and the report, as the study now stands."""
    write_tables(history, location, load_training(dataset).evaluation)
    if (winner := winner_of(history)) is not None:
        write_summary(study, location, history, winner, dataset)
    write_report(history, location, dataset, TestSet(dataset), running=False)
