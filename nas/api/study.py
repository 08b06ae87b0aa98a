"""A study that exists: what a person may ask of it, also while a search works on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.api.call_text import call_text
from nas.api.measuring import MeasuredAblation, MeasuredNoise, ablate, measure_noise, trial_of, work_on
from nas.api.progress import Progressing, said, shown
from nas.api.result import Best, Plots, Result, result_of
from nas.api.retraining import Retraining, retrain, trained_before
from nas.codegen.exporting import export_trial
from nas.datasets.dataset import Dataset
from nas.errors import UserError, require, require_whole
from nas.reporting.page import write_report
from nas.reporting.status import Status, status
from nas.space.variants import CHOICES
from nas.study.history import History, dataset_of, history_at
from nas.study.location import DEFAULT_OUTPUT, StudyLocation, default_storage, locate
from nas.study.locks import is_being_worked_on
from nas.system.files import writable
from nas.tuner.selection import TestSet
from nas.workers.fleet import Workers

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, slots=True)
class Study:
    """A study by where it lives; each call reads it as it stands at that moment."""

    location: StudyLocation
    data_dir: str | None = None

    @property
    def name(self) -> str:
        """What it is called."""
        return self.location.name

    def history(self) -> History:
        """The study as it stands. Raises UserError when there is none."""
        return history_at(self.location)

    def _read(self) -> tuple[History, Dataset]:
        """The study as it stands, and its data set."""
        history = self.history()
        return history, dataset_of(history, self.location, self.data_dir)

    def status(self) -> Status:
        """Where it stands, running or not."""
        return status(self.history(), self.location)

    def result(self) -> Result:
        """What it has come to: the best network, the trials, the plots."""
        history, dataset = self._read()
        return result_of(history, self.location, dataset)

    @property
    def best(self) -> Best | None:
        """The winner, or before there is one the best trial so far; None before any was trained to the end."""
        return self.result().best

    @property
    def plot(self) -> Plots:
        """The report's plots."""
        return self.result().plot

    def trials(self) -> "pandas.DataFrame":
        """One row a trial, as in trials.csv."""
        return self.result().trials()

    def report(self) -> Path:
        """Write the page of the study; the file."""
        history, dataset = self._read()
        running = is_being_worked_on(self.location)
        with writable(str(self.location.folder), "give another --output-dir"):
            return write_report(history, self.location, dataset, TestSet(dataset), running=running)

    def export(self, trial: int | None = None, folder: str | Path | None = None) -> Path:
        """Write a trial (default: the winner, or the best so far) as model.py and weights.safetensors; the folder.

        Raises:
            UserError: no such trained trial, or the folder cannot be written.
        """
        history, dataset = self._read()
        record = trial_of(history, None) if trial is None else history.trial(trial)
        if record is None or record.val_accuracy is None:
            trained = [record.number for record in history.trials if record.val_accuracy is not None]
            held = f"{min(trained)} to {max(trained)}" if trained else "none"
            raise UserError(f"--trial {trial}: study {self.name!r} has no such trained trial; it has {held}")
        target = self.location.folder / "trials" / str(record.number) if folder is None else Path(folder)
        with writable(f"folder {target}", "give another --folder"):
            target.mkdir(parents=True, exist_ok=True)
            export_trial(history, self.location, record, dataset, target)
        return target

    def retrain(
        self,
        trial: int | None = None,
        *,
        final_run: int | None = None,
        device: str = "auto",
        ray: str | None = None,
        progress: bool = True,
    ) -> Retraining:
        """Train a trial (default: the winner's), or a final run, again with its own seed, and compare every epoch.

        Raises:
            UserError: no such training, an unknown device, or the worker was lost.
        """
        if trial is not None and final_run is not None:
            raise UserError(f"retrain: trial {trial} and final_run {final_run} are given; give one of them")
        say = said(progress)
        history, dataset = self._read()
        if trial is None and final_run is None:
            trial = trial_of(history, None).number
        record = trained_before(history, trial, final_run)
        workers = Workers(device=device, jobs=1, ray=ray)
        return retrain(history, record, dataset, workers, tell=lambda epoch: say(str(epoch)), say=say)

    def noise(
        self,
        trial: int | None = None,
        *,
        seeds: int = 5,
        device: str = "auto",
        jobs: int | None = None,
        ray: str | None = None,
        jobs_per_gpu: int | None = None,
        epoch_timeout: float | None = None,
        progress: Progressing = True,
    ) -> MeasuredNoise:
        """Train one network (default: the winner) on fresh seeds: how far its accuracy moves from seed to seed.

        The runs are kept in the study, unless another run works on it at the moment.

        Raises:
            UserError: no such trial.
            TooFewTrainedError: fewer than two trainings came to their end.
        """
        told = dict(locals())
        require_whole("noise", "seeds", seeds, 2)
        history, dataset = self._read()
        workers = Workers(device=device, jobs=jobs, ray=ray, jobs_per_gpu=jobs_per_gpu, epoch_timeout=epoch_timeout)
        work = work_on(history, self.location, trial, dataset, workers)
        command = call_text(f"nas.open_study({self.name!r}).noise", Study.noise, told)
        return measure_noise(work, seeds, command, shown(progress))

    def ablate(
        self,
        trial: int | None = None,
        *,
        choices: Sequence[str] = tuple(CHOICES),
        seeds: int = 3,
        device: str = "auto",
        jobs: int | None = None,
        ray: str | None = None,
        jobs_per_gpu: int | None = None,
        epoch_timeout: float | None = None,
        progress: Progressing = True,
    ) -> MeasuredAblation:
        """Change one design choice of a network (default: the winner) at a time: what each change is worth.

        The runs are kept in the study, unless another run works on it at the moment.

        Raises:
            UserError: no such trial or choice.
            TooFewTrainedError: the network unchanged did not come to its end.
        """
        told = dict(locals())
        require_whole("ablate", "seeds", seeds, 1)
        for choice in choices:
            require(choice in CHOICES, "ablate", "choice", choice, f"one of {', '.join(CHOICES)}")
        history, dataset = self._read()
        workers = Workers(device=device, jobs=jobs, ray=ray, jobs_per_gpu=jobs_per_gpu, epoch_timeout=epoch_timeout)
        work = work_on(history, self.location, trial, dataset, workers)
        command = call_text(f"nas.open_study({self.name!r}).ablate", Study.ablate, told)
        return ablate(work, choices, seeds, command, shown(progress))

    def __repr__(self) -> str:
        return f"{self.result()!r}"

    def _repr_html_(self) -> str:
        return self.result().html()


def open_study(
    name: str, *, output_dir: str | Path = DEFAULT_OUTPUT, storage: str | None = None, data_dir: str | None = None
) -> Study:
    """A study that exists, by its name.

    Raises:
        UserError: there is none of this name.
    """
    study = Study(locate(name, Path(output_dir), storage or default_storage()), data_dir)
    study.history()
    return study
