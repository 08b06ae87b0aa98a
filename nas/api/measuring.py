"""Trainings of a study's networks outside its search: the noise of one network, and the ablation of one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from nas.analysis.ablation import Ablation, Effect, ablation, ablation_runs
from nas.analysis.finalists import Noise, fresh_seeds, measured_noise, runs_of
from nas.analysis.statistics import Spread, spread
from nas.api.finishing import write_anew
from nas.datasets.dataset import Dataset
from nas.datasets.images import load_training
from nas.datasets.metrics import EvaluationSet
from nas.errors import UserError
from nas.reporting.ablations import ablation_text
from nas.reporting.conclusions import telling_difference
from nas.reporting.notes import annotate_runs
from nas.study.commands import this_command
from nas.study.history import History, read_history
from nas.study.location import StudyLocation, locate
from nas.study.opening import BusyError, writing
from nas.study.records import TrialRecord
from nas.study.runs import Run, RunRecord, accuracies
from nas.training.job import TrainingJob
from nas.tuner.progress import Show
from nas.tuner.reruns import train_runs
from nas.tuner.trials import Plan
from nas.workers.fleet import Workers, make_fleet

NOT_KEPT = "not kept, as another run works on the study"


class TooFewTrainedError(Exception):
    """Too few trainings came to their end for anything to be said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A study to be worked on further, the trial that is asked about, and what to train with what."""

    history: History
    location: StudyLocation
    trial: TrialRecord
    plan: Plan


def trial_of(history: History, number: int | None) -> TrialRecord:
    """The trial of this number, by default the winner of the search, or the best so far when there is none yet.

    Raises:
        UserError: there is no such trial.
    """
    found = history.leader if number is None else history.trial(number)
    if found is not None:
        return found
    if number is None:
        raise UserError(f"study {history.name!r} has no trial that was trained to the end; name one with --trial")
    held = f"0 to {history.trials[-1].number}" if history.trials else "none"
    raise UserError(f"--trial {number}: study {history.name!r} has no such trial; it has {held}")


def work_on(history: History, location: StudyLocation, number: int | None, dataset: Dataset, workers: Workers) -> Work:
    """What is to be trained with what.

    Raises:
        UserError: no such trial, or an unknown device.
    """
    trial, limits = trial_of(history, number), history.constraints
    job = TrainingJob(candidate=trial.candidate, constraints=limits, dataset=dataset, seed=trial.seed)
    plan = Plan(
        trials=0,
        fleet=make_fleet(workers, lambda: job),
        dataset=dataset,
        constraints=limits,
        seed=history.seed,
        epoch_timeout=workers.epoch_timeout,
    )
    return Work(history=history, location=location, trial=trial, plan=plan)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trained:
    """The runs of a study with those that were wanted, and whether it keeps them."""

    runs: Sequence[RunRecord]
    kept: bool


def _trained(work: Work, wanted: Sequence[Run], title: str, command: str, show: Show) -> _Trained:
    """Train what is missing of the runs, and write the results anew; an interrupted call goes on later.

    While a search works on the study, nobody else may write it: then the runs are for this answer only.
    """
    try:
        with writing(work.location, None, this_command(command, work.plan.fleet.devices, {})) as study:
            history = train_runs(study, work.location, read_history(study), wanted, work.plan, show, title)
            annotate_runs(study, history)
            write_anew(study, work.location, history, work.plan.dataset)
            return _Trained(runs=history.runs, kept=True)
    except BusyError:
        return _trained_aside(work, wanted, f"{title}, {NOT_KEPT}", show)


def _trained_aside(work: Work, wanted: Sequence[Run], title: str, show: Show) -> _Trained:
    """Train what is missing of the runs in a study of their own, which is gone afterwards."""
    history = work.history
    settled = {run.key: run for run in history.runs if run.settled}
    missing = [run for run in wanted if run.key not in settled]
    with TemporaryDirectory(prefix="nas-") as folder:
        aside = locate(history.name, Path(folder), None)
        with writing(aside, dict(history.settings)) as study:
            trained = train_runs(study, aside, replace(history, runs=()), missing, work.plan, show, title)
    return _Trained(runs=(*settled.values(), *trained.runs), kept=False)


def _remark(kept: bool) -> str:
    return "" if kept else f"\nThese runs are {NOT_KEPT}."


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MeasuredNoise:
    """How far one network's accuracy moves from seed to seed, and what two single scores must differ by."""

    trial: TrialRecord
    scores: tuple[float, ...]  # on the validation images, one a seed
    noise: Noise  # of all the networks of the study that were trained on fresh seeds
    kept: bool = True  # in the study

    @property
    def accuracy(self) -> Spread:
        """Mean, deviation and number of the scores."""
        return spread(self.scores)

    def __repr__(self) -> str:
        noise, measured = self.noise, self.accuracy
        binomial = 100 * noise.validation.standard_error(measured.mean)
        source = f"Student's t, as from n = {noise.n}"
        if noise.of_images:
            source = f"from the choice of {noise.validation.images:,} images; the seeds, n = {noise.n}, differ less"
        return (
            f"trial {self.trial.number}, {self.trial.notation}\n"
            f"validation accuracy on n = {measured.n} seeds: {', '.join(f'{score:.2%}' for score in self.scores)}\n"
            f"mean ± sd: {measured}; "
            f"one score of {noise.validation.images:,} images has a binomial deviation of {binomial:.2f} points\n"
            f"{telling_difference(noise.least_difference, source)}{_remark(self.kept)}"
        )


def measure_noise(work: Work, seeds: int, command: str, show: Show) -> MeasuredNoise:
    """Train one network on so many fresh seeds.

    Raises:
        TooFewTrainedError: fewer than two trainings came to their end.
    """
    trial = work.trial
    validation = load_training(work.plan.dataset).evaluation
    wanted = runs_of([trial], "noise", fresh_seeds("noise", seeds, work.plan.seed))
    title = f"study {work.location.name} · noise of trial {trial.number} on {seeds} seeds"
    trained, keys = _trained(work, wanted, title, command, show), {run.key for run in wanted}
    scores = accuracies((run for run in trained.runs if run.key in keys), trial.candidate)
    noise = measured_noise(trained.runs, validation)
    if len(scores) < 2 or noise is None:
        raise TooFewTrainedError(f"{len(scores)} of {seeds} trainings came to their end, which is too few")
    return MeasuredNoise(trial=trial, scores=tuple(scores), noise=noise, kept=trained.kept)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MeasuredAblation:
    """What each change of one design choice does to a network; it prints as the command does."""

    trial: TrialRecord
    found: Ablation
    validation: EvaluationSet
    choices: tuple[str, ...]  # that were asked for
    kept: bool = True  # in the study

    @property
    def effects(self) -> tuple[Effect, ...]:
        """One for each variant that was trained, worst first."""
        return self.found.effects

    def __repr__(self) -> str:
        return ablation_text(self.trial, self.found, self.validation, self.choices) + _remark(self.kept)


def ablate(work: Work, choices: Sequence[str], seeds: int, command: str, show: Show) -> MeasuredAblation:
    """Train every allowed variant of one network that changes one of these design choices, on the same fresh seeds.

    Raises:
        TooFewTrainedError: the network unchanged did not come to its end.
    """
    trial, limits = work.trial, work.plan.constraints
    validation = load_training(work.plan.dataset).evaluation
    wanted = ablation_runs(trial, choices, limits, seeds, work.plan.seed)
    networks = len({run.candidate for run in wanted})
    title = f"study {work.location.name} · ablation of trial {trial.number}: {networks} networks on {seeds} seeds"
    trained = _trained(work, wanted, title, command, show)
    found = ablation(trial, trained.runs, limits, validation)
    if found is None:
        raise TooFewTrainedError(f"trial {trial.number}, unchanged, did not come to its end on any seed")
    return MeasuredAblation(trial=trial, found=found, validation=validation, choices=tuple(choices), kept=trained.kept)
