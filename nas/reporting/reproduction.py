"""How a study was run: the commands, the data, the settings, the machine and the versions."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from nas.analysis.finalists import Winner
from nas.datasets.images import TrainingData
from nas.reporting.sentences import duration, images_held_out
from nas.study.history import History
from nas.training.environment import versions

Row = tuple[str, str]  # a name, and what is said under it


def how_it_was_run(history: History, winner: Winner) -> str:
    """The command, versions and processor."""
    searches, environment = [command for command in history.commands if command.plan], winner.environment
    line = ""
    if searches:
        workers = f", workers on {_counted(searches[-1].devices)}" if searches[-1].devices else ""
        line = f"Last command{workers}:\n{searches[-1].line}\n"
    machine = environment.get("processor", "processor not told")
    if environment.get("device", "cpu") != "cpu":
        machine = environment["device"]
    precision = f"; activations in {environment['precision']}" if "precision" in environment else ""
    return f"{line}{versions(environment)}; {machine}{precision}"


def _counted(devices: Sequence[str]) -> str:
    """The devices with their numbers, such as `2 × cpu`."""
    return ", ".join(f"{count} × {device}" for device, count in Counter(devices).items())


def how_to_repeat(history: History, winner: Winner | None, data: TrainingData) -> list[Row]:
    """What one needs to run the search again, name by name."""
    stored, leader = history.settings, history.leader
    held_out = images_held_out(len(data.train), data.evaluation.images, len(data.folds))
    recipe = asdict(leader.candidate.recipe) if leader else stored["recipe"]
    lines = dict.fromkeys(command.line for command in history.commands)  # one that went on is the same
    return [
        *(("command", line) for line in lines),
        ("data set", f"{history.dataset}: {held_out}"),
        ("limits", ", ".join(limit.said(bound) for limit, bound in history.constraints.bounds) or "none"),
        ("target", "none" if history.task.target is None else f"{history.task.target:.2%}"),
        ("search", f"sampler {stored['sampler']}, pruner {stored['pruner']}, seed {stored['seed']}"),
        ("recipe", ", ".join(f"{_words(name)} {value}" for name, value in recipe.items() if name != "augmentation")),
        ("augmentation", ", ".join(_augmentations(recipe["augmentation"]))),
        *(("kernels", kernels) for kernels in history.kernels),
        *_machines([trial.environment for trial in history.trials if trial.environment]),
        *(_seeds(winner) if winner is not None else ()),
        ("training on one worker", f"{duration(history.seconds)} in all"),
    ]


def _augmentations(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if not isinstance(value, bool):
            yield f"{name} ± {value}"
        elif value:
            yield _words(name)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _machines(environments: Sequence[Mapping[str, str]]) -> Iterator[Row]:
    """The processors, devices and versions of the trainings."""
    devices = sorted({environment.get("device", "cpu") for environment in environments})
    machines = sorted({environment.get("processor", "not told") for environment in environments})
    yield "trained on", f"{', '.join(machines)} ({', '.join(devices)})" if machines else "–"
    yield "versions", "; ".join(sorted({versions(environment) for environment in environments})) or "–"


def _seeds(winner: Winner) -> Iterator[Row]:
    yield "seed of the winner's trial", str(winner.record.seed)
    if winner.models:
        yield "seeds of its final models", ", ".join(str(model.seed) for model in winner.models)
