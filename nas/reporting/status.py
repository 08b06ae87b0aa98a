"""Where a study stands, as values and in words."""

from collections import Counter
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from nas.analysis.statistics import Spread, spread
from nas.reporting.sentences import duration
from nas.study.commands import Command, commands
from nas.study.location import StudyLocation
from nas.study.locks import is_being_worked_on
from nas.study.records import ranked, records
from nas.study.runs import RunRecord, accuracies, name_of, run_records
from nas.study.settings import choice_of, settings_of


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
    networks: dict[str, Spread | None]


@dataclass(frozen=True, slots=True, kw_only=True)
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
    stages: dict[str, StageStatus]


def _stage(runs: list[RunRecord]) -> StageStatus:
    states = Counter(run.state for run in runs)
    known = {name_of(run.run): accuracies(runs, run.candidate) for run in runs}
    return StageStatus(
        complete=states[TrialState.COMPLETE],
        failed=states[TrialState.FAIL],
        in_flight=states[TrialState.RUNNING],
        networks={name: spread(scores) if scores else None for name, scores in known.items()},
    )


def status(study: optuna.Study, location: StudyLocation) -> Status:
    """What the study tells; nothing is written."""
    trials, runs, known = records(study), run_records(study), commands(study)
    states = Counter(trial.state for trial in trials)
    best = next(iter(ranked(trials)), None)
    choice = choice_of(study)
    goals = [command.plan["trials"] for command in known if "trials" in command.plan]
    return Status(
        study=location.name,
        dataset=settings_of(study)["dataset"],
        storage=location.public_storage,
        running=is_being_worked_on(location),
        command=known[-1] if known else None,
        trained=sum(trial.trained for trial in trials),
        trials=goals[-1] if goals else None,
        stopped_early=states[TrialState.PRUNED],
        failed=states[TrialState.FAIL],
        in_flight=states[TrialState.RUNNING],
        epochs=sum(record.epochs for record in [*trials, *runs]),
        seconds=round(sum(record.seconds or 0 for record in [*trials, *runs]), 2),
        best=None
        if best is None
        else Best(trial=best.number, val_accuracy=best.val_accuracy, params=best.params, notation=best.notation),
        winner=choice.winner if choice else None,
        stages={
            stage: _stage([run for run in runs if run.run.stage == stage])
            for stage in dict.fromkeys(run.run.stage for run in runs)
        },
    )


def _flying(count: int, running: bool) -> str:
    return f"{count} {'in training' if running else 'interrupted'}"


def text_of(status: Status) -> str:
    """For a person to read."""
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
            f"best score: trial {best.trial}, {best.val_accuracy:.2%}, {best.params:,} params, {best.notation}"
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
    return "\n".join(lines)
