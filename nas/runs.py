"""Full trainings outside the search: finalists on fresh seeds, the final models, and runs that measure the noise.

They are trials of a second Optuna study in the same storage, so that the dashboard shows them, and neither the search
nor whoever reads its study takes them for trials of it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.architecture import Candidate, digest, notation, to_json
from nas.constraints import Constraints
from nas.cost import cost
from nas.details import as_system_attributes, details, expected, keep_detail, reading
from nas.files import write_whole
from nas.progress import Progress, RunProgress, Show, Standing
from nas.readers import HOLDOUT, Dataset
from nas.scheduler import Flight, Scheduler, keep
from nas.score import Score, read_score
from nas.spread import spread
from nas.storage import FINAL_RUNS, StudyLocation, commit
from nas.study import Record, common, in_flight, records, trials_of
from nas.training import TrainingJob
from nas.trials import Plan

Stage: TypeAlias = Literal["finalist", "final", "noise", "ablation"]
STAGES: tuple[Stage, ...] = get_args(Stage)
ALL_IMAGES = HOLDOUT / (HOLDOUT - 1)  # so many times as many to train on as with some held out


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A training to the end, on a seed of its own.

    A final one trains on the validation images, too, and its weights are judged on the test images; all others are
    judged on the validation images.
    """

    stage: Stage
    trial: int | None  # whose candidate it is; None: the network to beat
    candidate: Candidate
    seed: int
    change: str = ""  # what makes the candidate of an ablation differ from that trial's

    @property
    def key(self) -> tuple[Stage, str, int]:
        """What makes two runs the same run."""
        return self.stage, digest(self.candidate), self.seed

    def job(self, limits: Constraints, dataset: Dataset) -> TrainingJob:
        """Its training; the network to beat is trained as it is, within no limits."""
        return TrainingJob(
            candidate=self.candidate,
            constraints=Constraints() if self.trial is None else limits,
            dataset=dataset,
            seed=self.seed,
            hold_out=self.stage != "final",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord(Record):
    """A run as its study tells it."""

    run: Run
    test: Score | None  # None as well when the run is judged on the validation images

    @property
    def accuracy(self) -> float | None:
        """What the run is judged by; None before its end."""
        if self.state is not TrialState.COMPLETE:
            return None
        return self.val_accuracy if self.test is None else self.test.accuracy

    @property
    def settled(self) -> bool:
        """Whether it need not be trained again: it came to its end, or its loss is what ended it."""
        return self.state is TrialState.COMPLETE or self.diverged

    @property
    def title(self) -> str:
        return f"{name_of(self.run)}, seed {self.seed}"

    @property
    def label(self) -> str:
        return label_of(self.run)


def name_of(run: Run) -> str:
    """Whose network a run trains, in a sentence."""
    name = "the network to beat" if run.trial is None else f"trial {run.trial}"
    return f"{name}, {run.change}" if run.change else name


def label_of(run: Run) -> str:
    """The same in a table."""
    return run.change or ("–" if run.trial is None else str(run.trial))


def final_study_name(name: str) -> str:
    """The study that holds the final runs of the study of this name."""
    return name + FINAL_RUNS


def final_study(study: optuna.Study) -> optuna.Study:
    """Where the runs of a search are kept, beside its own study; made if missing."""
    return optuna.create_study(
        study_name=final_study_name(study.study_name),
        storage=study._storage,
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(),  # never asked
    )


def run_records(study: optuna.Study) -> list[RunRecord]:
    """Every run of the search whose study this is, in order of number."""
    storage, name = study._storage, final_study_name(study.study_name)
    if name not in optuna.get_all_study_names(storage):
        return []
    return [read_run(trial) for trial in trials_of(optuna.load_study(study_name=name, storage=storage))]


def read_run(trial: FrozenTrial) -> RunRecord:
    """What the study of the final runs says of one of them."""
    attributes, kept = trial.user_attrs, details(trial)
    with reading(f"final run {trial.number}"):
        known = common(trial)
        run = Run(
            stage=_read_stage(attributes["stage"]),
            trial=expected(attributes["trial"], int, type(None)),
            candidate=known["candidate"],
            seed=known["seed"],
            change=expected(attributes.get("change", ""), str),
        )
        return RunRecord(**known, run=run, test=read_score(kept["test"]) if "test" in kept else None)


def _read_stage(stored: str) -> Stage:
    (stage,) = (stage for stage in STAGES if stage == stored)
    return stage


def begin_run(runs: optuna.Study, run: Run) -> int:
    """The number of a new trial for a run; its attributes are written with it."""
    price = cost(run.candidate.architecture)
    attributes = {
        "stage": run.stage,
        "trial": run.trial,
        "notation": notation(run.candidate.architecture),
        "params": price.params,
        "macs": price.macs,
        "seed": run.seed,
    }
    if run.change:
        attributes["change"] = run.change
    kept = as_system_attributes({"architecture": to_json(run.candidate)})
    template = create_trial(state=TrialState.RUNNING, user_attrs=attributes, system_attrs=kept)
    trial_id = runs._storage.create_new_trial(runs._study_id, template)
    return runs._storage.get_trial_number_from_id(trial_id)


Judge: TypeAlias = Callable[[bytes, Candidate], Score]


class Runs(Scheduler[RunRecord]):
    """Trains what is still missing of the wanted runs; `events` is the loop.

    `judge` reads the test images for the weights of a final run; other stages need none. `paces` are the seconds an
    epoch of known candidates, for the time left.
    """

    def __init__(
        self,
        study: optuna.Study,
        location: StudyLocation,
        wanted: Sequence[Run],
        plan: Plan,
        *,
        judge: Judge | None = None,
        paces: Mapping[Candidate, float],
    ) -> None:
        super().__init__(final_study(study), plan.fleet, plan.epoch_timeout)
        self._location = location
        self._wanted = {run.key: run for run in wanted}
        self._plan = plan
        self._judge = judge
        self._paces = dict(paces)
        self._records = {record.run.key: record for record in run_records(study)}
        self._settled = {key for key, record in self._records.items() if record.settled}

    def events(self) -> Iterator[Progress]:
        for key in self._wanted:
            record = self._records.get(key)
            if record is not None and record.state is TrialState.RUNNING and self._is_kept(record):
                trial = in_flight(self._study, record.number)
                yield self._progress(self._conclude(trial, record, TrialState.COMPLETE))
        yield from super().events()

    def _is_kept(self, record: RunRecord) -> bool:
        """Whether all of a training is there, and the program was killed before the study was told."""
        return record.epochs == record.candidate.recipe.epochs and self._weights(record.number).exists()

    def _finished(self) -> list[RunRecord]:
        return [self._records[key] for key in self._wanted if key in self._settled]

    def _left(self) -> int:
        return len(self._wanted.keys() - self._settled)

    def _next_flight(self) -> Flight[RunRecord] | None:
        flying = {flight.record.run.key for flight in self._flights}
        for key, run in self._wanted.items():
            if key in self._settled or key in flying:
                continue
            known = self._records.get(key)
            if known is None or known.state.is_finished():  # one that crashed in an earlier command runs anew
                return self._flight(run, begin_run(self._study, run))
            return self._flight(run, known.number)
        return None

    def _flight(self, run: Run, number: int) -> Flight[RunRecord]:
        record = self._read(number)
        job = replace(run.job(self._plan.constraints, self._plan.dataset), micro_batches=record.micro_batches)
        return Flight(in_flight(self._study, number), record, job, reported=record.epochs)

    def _read(self, number: int) -> RunRecord:
        return read_run(self._study.get_trials(deepcopy=False)[number])

    def _weights(self, number: int) -> Path:
        return self._location.run_weights_path(number)

    def _hopeless(self, flight: Flight[RunRecord]) -> bool:
        return False

    def _leave(self) -> Iterator[RunProgress]:
        yield from ()

    def _tell(self, flight: Flight[RunRecord], state: TrialState, reason: str) -> str:
        keep(flight, self._weights(flight.record.number), reason, write_whole)
        return self._conclude(flight.trial, self._read(flight.record.number), state)

    def _conclude(self, trial: optuna.Trial, record: RunRecord, state: TrialState) -> str:
        """Judge a run whose weights are kept, and tell the study how it ended; the news of it."""
        value = None
        if state is TrialState.COMPLETE:
            value = record.val_accuracy
            if record.run.stage == "final":
                value = self._judged(trial, record).accuracy
        self._study.tell(trial, value, state=state)
        self._records[record.run.key] = self._read(record.number)
        self._settled.add(record.run.key)
        return f"{record.title}: {record.reason if value is None else f'{value:.2%}'}"

    def _judged(self, trial: optuna.Trial, record: RunRecord) -> Score:
        """On the test images, which are read for these weights only once."""
        if record.test is not None:
            return record.test
        assert self._judge is not None
        score = self._judge(self._weights(record.number).read_bytes(), record.candidate)
        keep_detail(trial, "test", asdict(score))
        commit(self._study)  # it has been read now
        return score

    def _progress(self, news: str) -> RunProgress:
        finished, running = self._finished(), self._running
        return RunProgress(
            done=len(finished),
            total=len(self._wanted),
            failed=sum(record.state is TrialState.FAIL for record in finished),
            epochs=sum(record.epochs for record in finished) + sum(run.epoch for run in running),
            running=running,
            seconds_left=self._seconds_left(),
            standings=standings(self._wanted.values(), finished),
            news=news,
            nodes=self._nodes,
        )

    def _seconds_left(self) -> float | None:
        """At the known pace of each network, or that of a known one at equal seconds per MAC; None without any."""
        begun = {flight.record.run.key: flight for flight in self._flights}
        finished = {record.run.key for record in self._finished()}
        left: list[float] = []
        for key, run in self._wanted.items():
            if key in finished:
                continue
            pace = self._pace(run.candidate)
            if pace is None:
                return None
            images = ALL_IMAGES if run.stage == "final" else 1
            spent = begun[key].seconds if key in begun else 0.0
            left.append(max(0.0, pace * images * run.candidate.recipe.epochs - spent))
        return max(sum(left) / self._workers, max(left, default=0.0))

    def _pace(self, candidate: Candidate) -> float | None:
        """Seconds an epoch of a candidate."""
        if candidate in self._paces or not self._paces:
            return self._paces.get(candidate)
        per_mac = sum(self._paces.values()) / sum(cost(known.architecture).macs for known in self._paces)
        return per_mac * cost(candidate.architecture).macs


def paces(records: Iterable[Record]) -> dict[Candidate, float]:
    """Seconds an epoch of each candidate that was trained for at least one, with images held out."""
    return {
        record.candidate: record.seconds / record.epochs / (1 if record.val_accuracy is not None else ALL_IMAGES)
        for record in records
        if record.seconds and record.epochs
    }


def standings(wanted: Iterable[Run], finished: Sequence[RunRecord]) -> tuple[Standing, ...]:
    """What the runs of each network have come to, in the order in which they are wanted."""
    networks = {run.candidate: run for run in wanted}
    return tuple(
        Standing(
            label=label_of(run),
            notation=notation(candidate.architecture),
            params=cost(candidate.architecture).params,
            accuracy=spread(known) if (known := accuracies(finished, candidate)) else None,
        )
        for candidate, run in networks.items()
    )


def accuracies(records: Iterable[RunRecord], candidate: Candidate) -> list[float]:
    """Of the runs of a candidate that were trained to the end."""
    return [r.accuracy for r in records if r.candidate == candidate and r.accuracy is not None]


def train_runs(
    study: optuna.Study,
    location: StudyLocation,
    wanted: Sequence[Run],
    plan: Plan,
    show: Show,
    title: str,
    *,
    judge: Judge | None = None,
) -> list[RunRecord]:
    """The wanted runs, trained where they were not yet, while `show` tells of it; those that failed are among them."""
    known = paces([*records(study), *run_records(study)])
    show(Runs(study, location, wanted, plan, judge=judge, paces=known).events(), title)
    found = {record.run.key: record for record in run_records(study)}
    return [found[run.key] for run in wanted]
