"""What a study was made with, what it is after, and which trial was chosen last."""

import hashlib
import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.distributions import distribution_to_json

from nas.datasets.dataset import IN_MEMORY
from nas.errors import UserError
from nas.network.architecture import Architecture
from nas.network.limits import Constraints
from nas.optuna_internals.attributes import expected, reading
from nas.space.candidate import Candidate, digest, from_json, plain, to_json
from nas.space.objective import METRIC_NAMES
from nas.space.pictures import Pictures
from nas.space.search_space import SearchSpace

DIGESTED_DRAWS = 100
MOST_TOLD = 4  # differences between two searches
SETTINGS: dict[str, type] = {
    "dataset": str,
    "input_shape": list,
    "pictures": dict,
    "metric": str,
    "cross_validation": int,
    "fit_recipe": bool,
    "num_classes": int,
    "constraints": dict,
    "recipe": dict,
    "parameters": dict,
    "seed": int,
    "sampler": str,
    "pruner": str,
}
LATER = {  # settings that earlier versions lacked, as they were then
    "pictures": asdict(Pictures()),
    "metric": "accuracy",
    "cross_validation": 0,
    "fit_recipe": False,
}
FORMAT = 3  # of what a study holds: a program reads only what it could have written


def settings(space: SearchSpace, *, seed: int, sampler: str, pruner: str) -> dict[str, Any]:
    """What makes two searches the same search, as plain JSON values."""
    distributions = {name: json.loads(distribution_to_json(d)) for name, d in space.distributions.items()}
    found = {
        "format": FORMAT,
        "dataset": space.dataset,
        "input_shape": space.input_shape,
        "pictures": asdict(space.pictures),
        "metric": space.metric,
        "cross_validation": space.cross_validation,
        "fit_recipe": space.fit_recipe,
        "num_classes": space.num_classes,
        "constraints": asdict(space.constraints),
        "recipe": plain(space.recipe),
        "parameters": distributions,
        "candidates": _sample_digest(space),
        "seed": seed,
        "sampler": sampler,
        "pruner": pruner,
    }
    restored: dict[str, Any] = json.loads(json.dumps(found))
    return restored


def _sample_digest(space: SearchSpace) -> str:
    """Tells spaces apart whose parameters are equal and mean other candidates."""
    rng = random.Random(0)
    drawn = (digest(space.decode(space.draw(rng))) for _ in range(DIGESTED_DRAWS))
    return hashlib.sha256(" ".join(drawn).encode()).hexdigest()[:12]


def settings_of(study: optuna.Study) -> dict[str, Any]:
    """What the study was made with, as `settings` gives it.

    Raises:
        UserError: the study was made by another program.
    """
    with reading(f"study {study.study_name!r}"):
        stored: dict[str, Any] | None = study.user_attrs.get("settings")
    if stored is None:
        raise UserError(f"study {study.study_name!r} was made by another program; give another --study-name")
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise UserError(f"study {study.study_name!r} was made by another version of nas; give another --study-name")
    stored = {**LATER, **stored}
    with reading("the settings of the study"):
        for name, kind in SETTINGS.items():
            expected(stored[name], kind)
        if stored["metric"] not in METRIC_NAMES:
            raise ValueError(f"unknown metric {stored['metric']!r}")
        if stored["cross_validation"] < 0:
            raise ValueError(f"{stored['cross_validation']} rounds of cross-validation")
        channels, height, width = stored["input_shape"]
        for size in (channels, height, width):
            expected(size, int)
    return stored


def difference(stored: dict[str, Any], wanted: dict[str, Any]) -> str:
    """How the settings of a study differ from others, and how they would agree; "" where they do."""
    stored, wanted = {**LATER, **stored}, {**LATER, **wanted}
    found = list(_differences({**stored, "candidates": ""}, {**wanted, "candidates": ""}))
    if not found and stored.get("candidates") != wanted.get("candidates"):
        found = ["the space's sample makes other candidates of the same parameters"]
    if not found:
        return ""
    few, more = found[:MOST_TOLD], len(found) - MOST_TOLD  # those between two spaces would fill a page
    told = "; ".join([*few, f"and {more} more"] if more > 0 else few)
    return f"{told}; {_way_back(stored, wanted)}"


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted(old.keys() | new.keys()):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            yield from _differences(before, now, f"{prefix}{key}.")
        elif before != now:
            name = re.sub(r"^parameters\.(.+)\.attributes\.", r"parameter \1: ", f"{prefix}{key}")
            yield f"{name} {_change(before, now)}"


def _change(before: Any, now: Any) -> str:
    """What became of a setting; all of a parameter would be too long to read."""
    if isinstance(before, dict) or isinstance(now, dict):
        return "is gone" if now is None else "is new"
    return f"was {json.dumps(before)} and is {json.dumps(now)}"


def _way_back(stored: dict[str, Any], wanted: dict[str, Any]) -> str:
    before = str(stored.get("dataset"))
    of_memory = before.startswith(IN_MEMORY) and before != wanted.get("dataset")
    return "give the same images to data=" if of_memory else "use the old ones"


def pictures_of(stored: Mapping[str, Any]) -> Pictures:
    """How the study's picture files are prepared, from its settings."""
    with reading("the settings of the study"):
        found = stored["pictures"]
        values = found["value_range"]
        return Pictures(**{**found, "value_range": None if values is None else tuple(values)})


def constraints_of(study: optuna.Study) -> Constraints:
    """The limits that the study was made with."""
    stored = settings_of(study)["constraints"]
    with reading("the limits of the study"):
        return Constraints(**{**stored, "forbid": tuple(stored["forbid"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a search is after, besides its settings; it may change from one command to the next."""

    target: float | None
    baseline: Architecture | None  # the network to beat


def remember_task(study: optuna.Study, space: SearchSpace) -> None:
    """Store the space's target and network to beat, for those who read the study without the space."""
    rival = space.baseline and to_json(Candidate(architecture=space.baseline, recipe=space.recipe))
    study.set_user_attr("task", {"target": space.target, "baseline": rival})


def task_of(study: optuna.Study) -> Task:
    """What the latest search was after."""
    stored = study.user_attrs.get("task", {"target": None, "baseline": None})
    with reading("the task of the study"):
        rival = expected(stored["baseline"], str, type(None))
        target = expected(stored["target"], float, int, type(None))
        return Task(target=target, baseline=None if rival is None else from_json(rival).architecture)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which trial was chosen, among which finalists, on how many fresh seeds.

    Without finalists the score in the search decided.
    """

    winner: int
    finalists: tuple[int, ...] = ()
    seeds: int = 0


def choice_of(study: optuna.Study) -> Choice | None:
    """The latest choice; None before the first."""
    stored = study.user_attrs.get("choice")
    if stored is None:
        return None
    with reading("the choice of the study"):
        numbers = tuple(expected(number, int) for number in stored["finalists"])
        return Choice(winner=expected(stored["winner"], int), finalists=numbers, seeds=expected(stored["seeds"], int))


def remember_choice(study: optuna.Study, choice: Choice) -> None:
    """Store a choice."""
    study.set_user_attr("choice", asdict(choice))
