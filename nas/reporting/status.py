"""Where a study stands, as values and in words."""

from collections import Counter
from dataclasses import dataclass

from optuna.trial import TrialState

from nas.analysis.statistics import Spread, spread
from nas.reporting.sentences import duration
from nas.study.commands import Command
from nas.study.history import History
from nas.study.location import StudyLocation
from nas.study.locks import is_being_worked_on
from nas.study.records import TrialRecord
from nas.study.runs import RunRecord, accuracies


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best trial by its score in the search."""

    trial: int
    val_accuracy: float | None
    params: int
    notation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """The runs of a stage that have begun, and what those trained to the end came to."""

    complete: int
    failed: int
    in_flight: int  # in training, or interrupted
    networks: dict[str, Spread | None]  # none of those that recipes are tried on


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Status:
    """Where a study stands; accuracies are fractions."""

    study: str
    dataset: str
    storage: str
    running: bool  # as far as the locks of this output folder and of an SQLite file tell
    command: Command | None  # the last one
    trained: int
    trials: int | None  # that the last search was to train
    stopped_early: int
    failed: int
    in_flight: int  # in training, or interrupted
    epochs: int  # final runs included
    seconds: float  # of training, on one worker, final runs included
    best: Best | None
    winner: int | None  # the trial chosen last
    kernels: tuple[str, ...]  # whose the trainings used
    stages: dict[str, StageStatus]

    def __repr__(self) -> str:
        return text_of(self)


def _stage(runs: list[RunRecord]) -> StageStatus:
    states = Counter(run.state for run in runs)
    known = {run.network: accuracies(runs, run.candidate) for run in runs if run.stage != "recipe"}
    return StageStatus(
        complete=states[TrialState.COMPLETE],
        failed=states[TrialState.FAIL],
        in_flight=states[TrialState.RUNNING],
        networks={name: spread(scores) if scores else None for name, scores in known.items()},
    )


def status(history: History, location: StudyLocation) -> Status:
    """Where the study stands; nothing is written."""
    return Status(
        study=history.name,
        dataset=history.dataset,
        storage=location.public_storage,
        running=is_being_worked_on(location),
        command=history.commands[-1] if history.commands else None,
        trained=len(history.trained),
        trials=history.goal,
        stopped_early=len(history.stopped_early),
        failed=len(history.failed),
        in_flight=len(history.in_flight),
        epochs=history.epochs,
        seconds=round(history.seconds, 2),
        best=None if history.best is None else _best(history.best),
        winner=None if history.choice is None else history.choice.winner,
        kernels=history.kernels,
        stages={stage: _stage(history.runs_of(stage)) for stage in dict.fromkeys(run.stage for run in history.runs)},
    )


def _best(trial: TrialRecord) -> Best:
    return Best(trial=trial.number, val_accuracy=trial.val_accuracy, params=trial.params, notation=trial.notation)


def _flying(count: int, running: bool) -> str:
    return f"{count} {'in training' if running else 'interrupted'}"


def text_of(status: Status) -> str:
    """The status as a person reads it."""
    lines = [f"study {status.study} on {status.dataset}, in {status.storage}"]
    if status.command is not None:
        lines.append(f"{'running' if status.running else 'not running; the last command was'}: {status.command}")
    goal = "trained"
    if status.trials is not None:
        goal = f"of {status.trials} trained, {max(0, status.trials - status.trained)} to go"
    lines += [
        f"{status.trained} {goal}: {status.stopped_early} stopped early, {status.failed} failed, "
        f"{_flying(status.in_flight, status.running)}",
        f"{status.epochs:,} epochs; {duration(status.seconds)} of training on one worker, final runs included",
    ]
    if status.best is not None and status.best.val_accuracy is not None:
        best = status.best
        lines.append(
            f"lowest loss: trial {best.trial}, {best.val_accuracy:.2%}, {best.params:,} params, {best.notation}"
        )
    for name, stage in status.stages.items():
        flying = _flying(stage.in_flight, status.running)
        stood = f"{stage.complete} trained to the end, {stage.failed} failed, {flying}"
        lines.append(f"{name} runs, judged on the {'test' if name == 'final' else 'validation'} images: {stood}")
        lines += [
            f"  {network}: {'none finished' if scores is None else f'{scores}, n = {scores.n}'}"
            for network, scores in stage.networks.items()
        ]
    if status.winner is not None:
        lines.append(f"winner: trial {status.winner}")
    lines += [f"kernels: {kernels}" for kernels in status.kernels]
    return "\n".join(lines)
