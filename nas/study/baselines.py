"""Trainings of networks to beat, kept on this machine: a later search by the same recipe need not repeat them."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import optuna
from optuna.trial import TrialState, create_trial

from nas.datasets.dataset import DATA_DIR
from nas.errors import UserError
from nas.optuna_internals.attributes import as_system_attributes, own_attributes
from nas.optuna_internals.trials import begin, stored, trial_numbered
from nas.study.runs import Run, RunRecord, final_study, read_run
from nas.system.files import write_whole

FOLDER = f"{DATA_DIR}/baselines"
KNOWN = "known from an earlier search on this machine"


def remember(study: optuna.Study, record: RunRecord, images: str) -> None:
    """Keep a training that the runs of this study hold; `images` tells what it was trained and judged on."""
    trial = stored(trial_numbered(final_study(study), record.number))
    kept = {"value": trial.value, "told": trial.user_attrs, "own": own_attributes(trial)}
    with suppress(OSError, RuntimeError):  # no place, or no home to be found; it is trained again
        file = _file(record.run, images, record.environment)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(kept))


def recall(study: optuna.Study, run: Run, images: str, environment: Mapping[str, str]) -> RunRecord | None:
    """Give the runs of this study one that was trained earlier, in the same environment; None if there was none.

    Its curve and its seconds are not taken over: this study has not spent them.
    """
    try:
        kept = json.loads(_file(run, images, environment).read_text(encoding="utf-8"))
        told = {name: value for name, value in kept["told"].items() if name != "seconds"}
        template = create_trial(
            state=TrialState.COMPLETE,
            value=kept["value"],
            user_attrs={**told, "reason": KNOWN},
            system_attrs=as_system_attributes({**kept["own"], "curve": []}),
        )
        known = read_run(template)
    except (OSError, UserError, TypeError, ValueError, LookupError, AttributeError, RuntimeError):
        return None  # it is trained anew
    if known.run != run or known.accuracy is None:
        return None
    return read_run(stored(begin(final_study(study), template)))


def _file(run: Run, images: str, environment: Mapping[str, str]) -> Path:
    made_of = json.dumps([run.key, images, sorted(environment.items())])
    return Path(FOLDER).expanduser() / f"{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.json"
