"""Which studies there are, and how each of them stands."""

from dataclasses import dataclass
from pathlib import Path

from nas.errors import UserError
from nas.reporting.status import Status, status
from nas.study.history import history_at
from nas.study.location import DATABASE, DEFAULT_OUTPUT, FINAL_RUNS, default_storage, locate
from nas.study.opening import study_names


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedStudy:
    """A study by name; `problem` says why it cannot be read, and then it has no status."""

    name: str
    status: Status | None
    problem: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """Name, task, trained of total, the best accuracy so far, its parameters, and whether a command is at work."""
        stands = self.status
        if stands is None:
            return (self.name, "–", "–", "–", "–", "cannot be read")
        best = stands.best
        score = f"{best.val_accuracy:.2%}" if best and best.val_accuracy is not None else "–"
        trained = f"{stands.trained} of {stands.trials}" if stands.trials is not None else str(stands.trained)
        state = "running" if stands.running else "not running"
        return (self.name, stands.dataset, trained, score, f"{best.params:,}" if best else "–", state)


def studies(output_dir: str | Path = DEFAULT_OUTPUT, storage: str | None = None) -> list[ListedStudy]:
    """The studies of an output folder, or of an Optuna storage, by name.

    Raises:
        UserError: the storage cannot be opened.
    """
    folder, storage = Path(output_dir), storage or default_storage()
    if storage is not None:
        names = study_names(locate("any", folder, storage))
        names = [name for name in names if not name.endswith(FINAL_RUNS)]
    else:
        names = sorted(file.parent.name for file in folder.glob(f"*/{DATABASE}"))
    return [_listed(name, folder, storage) for name in names]


def _listed(name: str, folder: Path, storage: str | None) -> ListedStudy:
    location = locate(name, folder, storage)
    try:
        return ListedStudy(name=name, status=status(history_at(location), location))
    except UserError as error:
        return ListedStudy(name=name, status=None, problem=str(error))
