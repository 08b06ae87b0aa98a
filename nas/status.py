"""python -m nas.status: where a study stands, running or not."""

import argparse
import json
from collections import Counter
from dataclasses import asdict, dataclass

import optuna
from optuna.trial import TrialState

from nas.commands import Command, commands
from nas.console import duration
from nas.options import DONE, Parser, add_location, existing_location, run
from nas.progress import Standing
from nas.runs import run_records, standings
from nas.storage import StudyLocation, is_being_worked_on, open_study
from nas.study import ranked, records, settings_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best trial by its score in the search."""

    trial: int
    val_accuracy: float | None
    params: int
    notation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """How many runs of a stage are finished, and what they came to."""

    finished: int
    begun: int
    standings: tuple[Standing, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where a study stands; accuracies are fractions."""

    study: str
    dataset: str
    storage: str
    running: bool
    command: Command | None  # the last one
    trained: int
    trials: int | None  # that the last search was to train
    stopped_early: int
    failed: int
    in_flight: int  # in training, or interrupted
    epochs: int
    seconds: float  # of training, on one worker
    best: Best | None
    stages: dict[str, Stage]


def status(study: optuna.Study, location: StudyLocation) -> Status:
    """What the study tells; nothing is written."""
    trials, runs, known = records(study), run_records(study), commands(study)
    states = Counter(trial.state for trial in trials)
    best = next(iter(ranked(trials)), None)
    goals = [command.plan["trials"] for command in known if "trials" in command.plan]
    stages: dict[str, Stage] = {}
    for name in dict.fromkeys(record.run.stage for record in runs):
        begun = [record for record in runs if record.run.stage == name]
        finished = [record for record in begun if record.state.is_finished()]
        so_far = standings([record.run for record in begun], finished)
        stages[name] = Stage(finished=len(finished), begun=len(begun), standings=so_far)
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
        epochs=sum(trial.epochs for trial in trials),
        seconds=round(sum(trial.seconds or 0 for trial in trials), 2),
        best=None
        if best is None
        else Best(trial=best.number, val_accuracy=best.val_accuracy, params=best.params, notation=best.notation),
        stages=stages,
    )


def text_of(status: Status) -> str:
    """For a person to read."""
    goal = ""
    if status.trials is not None:
        goal = f" of {status.trials} trained, {max(0, status.trials - status.trained)} to go"
    lines = [
        f"study {status.study} on {status.dataset}, in {status.storage}",
        f"running: {status.command}" if status.running else f"not running; last was {status.command}",
        f"{status.trained}{goal or ' trained'}: {status.stopped_early} stopped early, {status.failed} failed, "
        f"{status.in_flight} {'in training' if status.running else 'interrupted'}",
        f"{status.epochs:,} epochs, {duration(status.seconds)} of training on one worker",
    ]
    if status.best is not None and status.best.val_accuracy is not None:
        best = status.best
        lines.append(
            f"best score: trial {best.trial}, {best.val_accuracy:.2%}, {best.params:,} params, {best.notation}"
        )
    for name, stage in status.stages.items():
        lines.append(f"{name} runs: {stage.finished} of {stage.begun} begun are finished")
        lines += [
            f"  trial {s.label}: {s.accuracy or 'none finished'}" + (f", n = {s.accuracy.n}" if s.accuracy else "")
            for s in stage.standings
        ]
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(prog="python -m nas.status", description="Say where a study stands, running or not.")
    options.add_argument("--study-name", metavar="NAME", default="mnist", help="the study (default: mnist)")
    options.add_argument("--format", choices=("text", "json"), default="text", help="text (default) or json")
    add_location(options)
    return options


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    location = existing_location(args)
    found = status(open_study(location), location)
    print(json.dumps(asdict(found), indent=2) if args.format == "json" else text_of(found))
    return DONE


if __name__ == "__main__":
    run(main)
