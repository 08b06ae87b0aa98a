"""Full trainings outside the search: finalists on fresh seeds, the final models, and runs that measure the noise.

They are trials of a second Optuna study in the same storage, so that the dashboard shows them, and neither the search
nor whoever reads its study takes them for trials of it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.architecture import Candidate, digest, from_json, notation, to_json
from nas.constraints import Constraints
from nas.cost import cost
from nas.progress import RunProgress, Standing
from nas.readers import HOLDOUT, Dataset
from nas.scheduler import Flight, Scheduler, keep
from nas.spread import spread
from nas.storage import StudyLocation
from nas.study import FinalScore, Record, add_test_score, in_flight, scores_on_test
from nas.training import Score, TrainingJob
from nas.workers import LocalWorker, Worker

Stage: TypeAlias = Literal["finalist", "final", "noise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A training to the end, on a seed of its own.

    A finalist and a noise run are judged on the validation images. A final one trains on them, too, and its weights
    are judged on the test images.
    """

    stage: Stage
    trial: int | None  # whose candidate it is; None: the network to beat
    candidate: Candidate
    seed: int

    @property
    def key(self) -> tuple[Stage, str, int]:
        """What makes two runs the same run."""
        return self.stage, digest(self.candidate), self.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord(Record):
    """A run as its study tells it."""

    run: Run
    test: FinalScore | None  # None as well when the run is judged on the validation images

    @property
    def accuracy(self) -> float | None:
        """What the run is judged by; None before its end."""
        if self.state is not TrialState.COMPLETE:
            return None
        return self.val_accuracy if self.test is None else self.test.accuracy

    @property
    def title(self) -> str:
        return f"{name_of(self.run)}, seed {self.seed}"

    @property
    def label(self) -> str:
        return label_of(self.run)


def name_of(run: Run) -> str:
    """Whose network a run trains, in a sentence."""
    return "the network to beat" if run.trial is None else f"trial {run.trial}"


def label_of(run: Run) -> str:
    """The same in a table."""
    return "–" if run.trial is None else str(run.trial)


def final_study_name(name: str) -> str:
    """The study that holds the final runs of the study of this name."""
    return f"{name} (final runs)"


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
    runs = optuna.load_study(study_name=name, storage=storage)
    scores = scores_on_test(runs)
    return [read_run(trial, scores.get(trial.number)) for trial in runs.get_trials(deepcopy=False)]


def read_run(trial: FrozenTrial, test: FinalScore | None) -> RunRecord:
    """What the study of the final runs says of one of them."""
    attributes = trial.user_attrs
    candidate = from_json(attributes["architecture"])
    price = cost(candidate.architecture)
    run = Run(stage=attributes["stage"], trial=attributes["trial"], candidate=candidate, seed=attributes["seed"])
    return RunRecord(
        number=trial.number,
        state=trial.state,
        candidate=candidate,
        params=price.params,
        macs=price.macs,
        seed=run.seed,
        curve=attributes.get("curve", ()),
        seconds=attributes.get("seconds"),
        environment=attributes.get("environment", {}),
        reason=attributes.get("reason", ""),
        run=run,
        test=test,
    )


def _begin(runs: optuna.Study, run: Run) -> int:
    """The number of a new trial for a run; its user attributes, the readable ones first, are written with it."""
    price = cost(run.candidate.architecture)
    attributes = {
        "stage": run.stage,
        "trial": run.trial,
        "notation": notation(run.candidate.architecture),
        "params": price.params,
        "macs": price.macs,
        "seed": run.seed,
        "architecture": to_json(run.candidate),
    }
    template = create_trial(state=TrialState.RUNNING, user_attrs=attributes)
    trial_id = runs._storage.create_new_trial(runs._study_id, template)
    return runs._storage.get_trial_number_from_id(trial_id)


Judge: TypeAlias = Callable[[bytes, Candidate], Score]


class Runs(Scheduler[RunRecord]):
    """Trains what is still missing of the wanted runs; `events` is the loop.

    `judge` reads the test images for the weights of a final run. `paces` are the seconds an epoch of known candidates,
    for the time left.
    """

    def __init__(
        self,
        study: optuna.Study,
        location: StudyLocation,
        wanted: Sequence[Run],
        *,
        dataset: Dataset,
        constraints: Constraints,
        devices: Sequence[str],
        judge: Judge,
        paces: Mapping[Candidate, float],
        make_worker: Callable[[], Worker] = LocalWorker,
    ) -> None:
        super().__init__(devices, make_worker)
        self._study = final_study(study)
        self._location = location
        self._wanted = {run.key: run for run in wanted}
        self._dataset = dataset
        self._constraints = constraints
        self._judge = judge
        self._paces = dict(paces)
        self._records = {record.run.key: record for record in run_records(study)}

    def _finished(self) -> list[RunRecord]:
        found = (self._records.get(key) for key in self._wanted)
        return [record for record in found if record is not None and record.state.is_finished()]

    def _fulfilled(self) -> bool:
        return len(self._finished()) == len(self._wanted)

    def _next_flight(self) -> Flight[RunRecord] | None:
        taken = {record.run.key for record in self._finished()} | {flight.record.run.key for flight in self._flights}
        run = next((run for key, run in self._wanted.items() if key not in taken), None)
        if run is None:
            return None
        interrupted = self._records.get(run.key)
        number = _begin(self._study, run) if interrupted is None else interrupted.number
        record = self._read(number)
        job = TrainingJob(
            candidate=run.candidate,
            # the network to beat is trained as it is, and within no limits
            constraints=Constraints() if run.trial is None else self._constraints,
            dataset=self._dataset,
            seed=run.seed,
            hold_out=run.stage != "final",
        )
        return Flight(in_flight(self._study, number), record, job, reported=record.epochs)

    def _read(self, number: int) -> RunRecord:
        return read_run(self._study.get_trials(deepcopy=False)[number], scores_on_test(self._study).get(number))

    def _hopeless(self, flight: Flight[RunRecord]) -> bool:
        return False

    def _leave(self) -> Iterator[RunProgress]:
        yield from ()

    def _tell(self, flight: Flight[RunRecord], state: TrialState, reason: str) -> str:
        run, number = flight.record.run, flight.record.number
        keep(flight, self._location.run_weights_path(number), reason)
        value = None
        if state is TrialState.COMPLETE:
            value = flight.reports[-1].val_accuracy
            if run.stage == "final":
                score = self._judge(flight.reports[-1].weights, run.candidate)
                add_test_score(
                    self._study, FinalScore(trial=number, loss=score.loss, accuracy=score.accuracy, n=score.n)
                )
                value = score.accuracy
        self._study.tell(flight.trial, value, state=state)
        self._records[run.key] = self._read(number)
        return f"{flight.record.title}: {reason}" if value is None else f"{flight.record.title}: {value:.2%}"

    def _progress(self, news: str, *, milestone: bool = True) -> RunProgress:
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
            milestone=milestone,
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
            images = HOLDOUT / (HOLDOUT - 1) if run.stage == "final" else 1
            spent = begun[key].seconds if key in begun else 0.0
            left.append(max(0.0, pace * images * run.candidate.recipe.epochs - spent))
        return max(sum(left) / len(self._devices), max(left, default=0.0))

    def _pace(self, candidate: Candidate) -> float | None:
        """Seconds an epoch of a candidate."""
        if candidate in self._paces or not self._paces:
            return self._paces.get(candidate)
        per_mac = sum(self._paces.values()) / sum(cost(known.architecture).macs for known in self._paces)
        return per_mac * cost(candidate.architecture).macs


def paces(records: Iterable[Record]) -> dict[Candidate, float]:
    """Seconds an epoch of each candidate that was trained for at least one."""
    return {record.candidate: record.seconds / record.epochs for record in records if record.seconds and record.epochs}


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
