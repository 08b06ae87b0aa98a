"""The record of a search: an Optuna study that one scheduler writes and everything else reads.

A trial's user attributes are what a person should see in the dashboard; `TrialRecord` reads them back.
"""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, assert_never, get_args

import optuna
from filelock import AcquireReturnProxy, FileLock, Timeout
from optuna.distributions import distribution_to_json
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.trial import FrozenTrial, TrialState

from nas.architecture import Candidate, digest, from_json, notation, to_json
from nas.constraints import Constraints
from nas.cost import cost
from nas.errors import UserError
from nas.sampling import Ledger, derive_seed
from nas.space import Feasible, SearchSpace

if TYPE_CHECKING:  # SQLAlchemy takes half the time of --help, which needs none of it
    from sqlalchemy.engine import URL

SamplerName: TypeAlias = Literal["tpe", "random", "gp", "qmc"]
PrunerName: TypeAlias = Literal["hyperband", "median", "none"]
SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)
PRUNERS: tuple[PrunerName, ...] = get_args(PrunerName)

optuna.logging.set_verbosity(optuna.logging.WARNING)

DIVERGED = "diverged"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyLocation:
    """Where a study lives: its name, its storage's URL, and the folder of its files."""

    name: str
    storage: str
    folder: Path

    @property
    def public_storage(self) -> str:
        """The URL as it may be shown: without its password, and without the query, which may hold one."""
        return _parse(self.storage).set(query={}).render_as_string(hide_password=True)

    def weights_path(self, trial: int) -> Path:
        """The averaged weights of a trial after its last epoch."""
        return self.folder / "weights" / f"{trial:05d}.safetensors"


def locate(name: str, output_dir: Path, storage: str | None) -> StudyLocation:
    """Where a study of this name lives; without a storage URL, in a SQLite file in its folder.

    Raises:
        UserError: a name that is not a plain file name.
    """
    if (
        not name
        or name in {".", ".."}
        or any(c in '/\\:*?"<>|' or not c.isprintable() for c in name)
        or len(name) > 100
    ):
        raise UserError(
            f"--study-name {name!r} must be a plain name of at most 100 characters, without path separators"
        )
    folder = output_dir / name
    return StudyLocation(name=name, storage=storage or _sqlite(folder / "study.db"), folder=folder)


def _sqlite(path: Path) -> str:
    from sqlalchemy.engine import URL

    # written by SQLAlchemy, because a path may hold what means something in a URL, and braces, which Optuna fills in
    return URL.create("sqlite", database=str(path.resolve())).render_as_string()


def _parse(storage: str) -> "URL":
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(storage)
    except (ArgumentError, ValueError) as error:  # the text is not shown: it may hold a password
        raise UserError(
            "--storage (or $OPTUNA_STORAGE) is no database URL; give one such as sqlite:///study.db"
        ) from error


@contextmanager
def _told_of_storage_errors(location: StudyLocation) -> Iterator[None]:
    from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

    shown = location.public_storage
    try:
        yield
    except (ImportError, NoSuchModuleError) as error:
        raise UserError(
            f"storage {shown}: no driver for it is installed ({error.__cause__ or error}); "
            "install one, or give a URL such as sqlite:///study.db to --storage"
        ) from error
    except (SQLAlchemyError, StorageInternalError, OSError, RuntimeError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(
            f"storage {shown} cannot be used ({reason}); give a URL such as sqlite:///study.db to --storage"
        ) from error


def _storage(location: StudyLocation) -> optuna.storages.RDBStorage:
    sqlite = _parse(location.storage).get_backend_name() == "sqlite"
    # A dashboard that reads makes a writer wait; it gives up after a minute, not after SQLite's five seconds.
    options = {"connect_args": {"timeout": 60}} if sqlite else {}
    return optuna.storages.RDBStorage(location.storage, engine_kwargs=options)


def open_study(location: StudyLocation) -> optuna.Study:
    """A study that exists, to be read.

    Raises:
        UserError: there is no such study, or the storage cannot be opened.
    """
    with _told_of_storage_errors(location):
        url = _parse(location.storage)
        missing = url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists()
        names = [] if missing else optuna.get_all_study_names(_storage(location))
        if location.name not in names:
            known = f"; known are {', '.join(names)}" if names else ""
            raise UserError(f"there is no study {location.name!r} in {location.public_storage}{known}")
        return optuna.load_study(study_name=location.name, storage=_storage(location))


def settings(space: SearchSpace, *, seed: int, sampler: SamplerName, pruner: PrunerName) -> dict[str, Any]:
    """What makes two searches the same search, as plain JSON values."""
    distributions = {name: json.loads(distribution_to_json(d)) for name, d in space.distributions.items()}
    plain = {
        "dataset": space.dataset,
        "input_shape": space.input_shape,
        "constraints": asdict(space.constraints),
        "recipe": asdict(space.recipe),
        "parameters": distributions,
        "seed": seed,
        "sampler": sampler,
        "pruner": pruner,
    }
    restored: dict[str, Any] = json.loads(json.dumps(plain))
    return restored


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted(old.keys() | new.keys()):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            yield from _differences(before, now, f"{prefix}{key}.")
        elif before != now:
            yield f"{prefix}{key} was {json.dumps(before)} and is {json.dumps(now)}"


def _create_or_resume(location: StudyLocation, wanted: dict[str, Any]) -> optuna.Study:
    study = optuna.create_study(
        study_name=location.name, storage=_storage(location), direction="maximize", load_if_exists=True
    )
    stored = study.user_attrs.get("settings")
    if stored is None:
        if study.directions != [optuna.study.StudyDirection.MAXIMIZE] or study.get_trials(deepcopy=False):
            raise UserError(
                f"study {location.name!r} in {location.public_storage} was made by another program; "
                "give another --study-name"
            )
        study.set_user_attr("settings", wanted)
    elif differences := list(_differences(stored, wanted)):
        raise UserError(
            f"study {location.name!r} cannot go on with other settings: {'; '.join(differences)}; "
            "use the old ones, or begin anew with another --study-name"
        )
    return study


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _lock(location: StudyLocation) -> AcquireReturnProxy[FileLock]:
    """Held until the `with` of it ends; the operating system lets go of it when a run dies."""
    try:
        location.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(location.folder / "lock").acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"study {location.name!r} is being worked on by another run; wait for it or stop it") from error
    except OSError as error:
        raise UserError(
            f"--output-dir {location.folder.parent}: {location.folder} cannot be written ({error.strerror}); "
            "give a folder that can"
        ) from error


@contextmanager
def writing(location: StudyLocation, wanted: dict[str, Any]) -> Iterator[optuna.Study]:
    """The study of this name, made if missing, for the one run that may write it.

    Raises:
        UserError: the folder cannot be written, the storage cannot be used, the study was made with other settings or
            by another program, or another run works on it; a folder made for it is removed again.
    """
    created = [folder for folder in (location.folder, *location.folder.parents) if not folder.exists()]
    with ExitStack() as held:
        with ExitStack() as undo:
            for folder in reversed(created):
                undo.callback(_remove_if_empty, folder)
            held.enter_context(_lock(location))
            if created:
                undo.callback(shutil.rmtree, location.folder)
            with _told_of_storage_errors(location):
                study = _create_or_resume(location, wanted)
            undo.pop_all()
        yield study


def constraints_of(study: optuna.Study) -> Constraints:
    """The limits that the study was made with."""
    stored = study.user_attrs["settings"]["constraints"]
    return Constraints(**{**stored, "forbid": tuple(stored["forbid"])})


def make_sampler(name: SamplerName, study_seed: int) -> Callable[[int], optuna.samplers.BaseSampler]:
    """For `FeasibleSampler`: the Optuna sampler of this name for a seed.

    Quasi-random draws are one sequence over the whole study, so they keep the study's seed.
    """
    match name:
        case "tpe":
            return lambda seed: optuna.samplers.TPESampler(seed=seed)
        case "random":
            return lambda seed: optuna.samplers.RandomSampler(seed=seed)
        case "gp":
            return lambda seed: optuna.samplers.GPSampler(seed=seed)
        case "qmc":
            return lambda seed: _quasi_random_sampler(derive_seed(study_seed, "quasi-random"))
        case _:
            assert_never(name)


def _quasi_random_sampler(seed: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # its interface, which may change, is used here alone
        return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)


def make_pruner(name: PrunerName, epochs: int) -> optuna.pruners.BasePruner:
    """The Optuna pruner of this name for trainings of so many epochs."""
    match name:
        case "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
        case "none":
            return optuna.pruners.NopPruner()
        case _:
            assert_never(name)


def describe(trial: optuna.Trial, feasible: Feasible, ledger: Ledger, seed: int) -> None:
    """Write a new trial's user attributes, the readable ones first."""
    candidate, price = feasible.candidate, feasible.cost
    attributes = {
        "notation": notation(candidate.architecture),
        "params": price.params,
        "macs": price.macs,
        "receptive_field": price.receptive_field,
        "peak_activation_bytes": price.peak_activation_bytes,
        "seed": derive_seed(seed, "training", trial.number),
        "rejected_before_it": ledger.rejected,
        "ledger": asdict(ledger),
        "digest": digest(candidate),
        "architecture": to_json(candidate),  # last: a trial that has it can be run
    }
    for name, value in attributes.items():
        trial.set_user_attr(name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """A trial as the study tells it; accuracy and loss are those of its last epoch, on the validation images."""

    number: int
    state: TrialState
    candidate: Candidate
    params: int
    macs: int
    receptive_field: int
    seed: int
    rejected_before: int
    epochs: int
    val_accuracy: float | None
    val_loss: float | None
    seconds: float | None
    reason: str
    suggestions: dict[str, Any]

    @property
    def notation(self) -> str:
        """The architecture in one line."""
        return notation(self.candidate.architecture)

    @property
    def trained(self) -> bool:
        """Whether it counts as one of the networks trained; a diverged training does, a crashed one does not."""
        diverged = self.state is TrialState.FAIL and self.reason.startswith(DIVERGED)
        return self.state in (TrialState.COMPLETE, TrialState.PRUNED) or diverged


def read_trial(trial: FrozenTrial) -> TrialRecord | None:
    """What the study says of a trial; None for one that was cut off before it was described."""
    attributes = trial.user_attrs
    if "architecture" not in attributes:
        return None
    candidate = from_json(attributes["architecture"])
    price = cost(candidate.architecture)
    return TrialRecord(
        number=trial.number,
        state=trial.state,
        candidate=candidate,
        params=price.params,
        macs=price.macs,
        receptive_field=price.receptive_field,
        seed=attributes["seed"],
        rejected_before=attributes["rejected_before_it"],
        epochs=trial.last_step or 0,
        val_accuracy=trial.intermediate_values[trial.last_step] if trial.last_step else None,
        val_loss=attributes.get("val_loss"),
        seconds=attributes.get("seconds"),
        reason=attributes.get("reason", ""),
        suggestions=trial.params,
    )


def records(study: optuna.Study) -> list[TrialRecord]:
    """Every described trial, in order of number."""
    read = (read_trial(trial) for trial in study.get_trials(deepcopy=False))
    return [record for record in read if record is not None]


def digests(study: optuna.Study) -> set[str]:
    """The digests of every candidate that the study has tried."""
    return {trial.user_attrs["digest"] for trial in study.get_trials(deepcopy=False) if "digest" in trial.user_attrs}


def ranked(trials: list[TrialRecord]) -> list[TrialRecord]:
    """The trials trained to the end, best first: by accuracy, then lower loss, then fewer parameters."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    return sorted(complete, key=lambda t: (-(t.val_accuracy or 0), t.val_loss or 0, t.params))


def total_ledger(study: optuna.Study) -> Ledger:
    """What became of all the proposals of a study."""
    total = Ledger()
    for trial in study.get_trials(deepcopy=False):
        if (stored := trial.user_attrs.get("ledger")) is not None:
            total += Ledger(proposals=stored["proposals"], rejected=stored["rejected"], reasons=stored["reasons"])
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalScore:
    """What the test images said of one trial's weights: mean cross-entropy, fraction correct, number of images."""

    trial: int
    loss: float
    accuracy: float
    n: int


def read_test_score(study: optuna.Study, trial: int) -> FinalScore | None:
    """The score on the test images, if they were read for this trial."""
    stored = study.user_attrs.get("test_score")
    return FinalScore(**stored) if stored is not None and stored["trial"] == trial else None


def write_test_score(study: optuna.Study, score: FinalScore) -> None:
    """Remember that the test images were read, for which trial, and what they said."""
    study.set_user_attr("test_score", asdict(score))
