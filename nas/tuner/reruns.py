"""Full trainings outside the search: finalists on fresh seeds, the final models, and runs that measure the noise.

They are trials of a second Optuna study in the same storage, so that the dashboard shows them, and neither the search
nor whoever reads its study takes them for trials of it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeAlias

import optuna
from optuna.trial import TrialState

from nas.analysis.statistics import spread
from nas.datasets.split import epochs_on_all_images
from nas.network.architecture import notation
from nas.network.cost import cost
from nas.optuna_internals.attributes import set_own_attribute
from nas.optuna_internals.batched_storage import batch, commit
from nas.optuna_internals.trials import stored, trial_numbered
from nas.space.candidate import Candidate
from nas.study.history import History
from nas.study.location import StudyLocation
from nas.study.records import Record
from nas.study.runs import Run, RunRecord, accuracies, begin_run, final_study, read_run
from nas.system.files import write_whole
from nas.training.score import Score
from nas.tuner.active_training import ActiveTraining
from nas.tuner.progress import RunProgress, Show, Standing
from nas.tuner.scheduler import LoopState
from nas.tuner.trials import Plan, train_all

Judge: TypeAlias = Callable[[bytes, Candidate], Score]


class Runs:
    """What is still missing of the wanted runs, as a source of work.

    `known` are the runs that the study holds; `ended` are those that this command has brought to their end. `judge`
    reads the test images for the weights of a final run; other stages need none. `paces` are the seconds an epoch of
    known candidates, for the time left.
    """

    def __init__(
        self,
        study: optuna.Study,
        location: StudyLocation,
        known: Iterable[RunRecord],
        wanted: Sequence[Run],
        plan: Plan,
        *,
        judge: Judge | None = None,
        paces: Mapping[Candidate, float],
    ) -> None:
        self._study = final_study(study)
        self._location = location
        self._wanted = {run.key: run for run in wanted}
        self._plan = plan
        self._judge = judge
        self._paces = dict(paces)
        self._of_final = epochs_on_all_images(plan.dataset.cross_validation)
        self._records = {record.key: record for record in known}
        self._settled = {key for key, record in self._records.items() if record.settled}
        self.ended: list[RunRecord] = []

    @property
    def left(self) -> int:
        return len(self._wanted.keys() - self._settled)

    @property
    def closed(self) -> bool:
        return not self.left

    def prepare(self, state: LoopState[RunRecord]) -> Iterator[RunProgress]:
        """Conclude the runs of which all is kept."""
        for key in self._wanted:
            record = self._records.get(key)
            if record is not None and record.state is TrialState.RUNNING and self._is_kept(record):
                trial = trial_numbered(self._study, record.number)
                yield self.progress(state, self._conclude(trial, replace(record, state=TrialState.COMPLETE)))

    def _is_kept(self, record: RunRecord) -> bool:
        """Whether all of a training is there, and the program was killed before the study was told."""
        return record.epochs == record.candidate.recipe.epochs and self._weights(record.number).exists()

    def next(self, active: Sequence[ActiveTraining[RunRecord]]) -> ActiveTraining[RunRecord] | None:
        """The first wanted run that is neither settled nor active."""
        begun = {training.record.key for training in active}
        for key, run in self._wanted.items():
            if key in self._settled or key in begun:
                continue
            known = self._records.get(key)
            if known is None or known.state.is_finished():  # one that crashed in an earlier command runs anew
                trial = begin_run(self._study, run)
                return self._training(run, trial, read_run(stored(trial)))
            return self._training(run, trial_numbered(self._study, known.number), known)
        return None

    def _training(self, run: Run, trial: optuna.Trial, record: RunRecord) -> ActiveTraining[RunRecord]:
        job = run.job(self._plan.constraints, self._plan.dataset)
        return ActiveTraining(trial, record, replace(job, micro_batches=record.micro_batches), reported=record.epochs)

    def _weights(self, number: int) -> Path:
        return self._location.run_weights_path(number)

    def is_hopeless(self, training: ActiveTraining[RunRecord]) -> bool:
        return False

    def recording(self) -> AbstractContextManager[None]:
        return batch(self._study)

    def end(self, training: ActiveTraining[RunRecord], state: TrialState, reason: str) -> str:
        record = training.keep(self._weights(training.record.number), state, reason, write_whole)
        self._paces = {**paces([record], self._plan.dataset.cross_validation), **self._paces}
        return self._conclude(training.trial, record)

    def leave(self, state: LoopState[RunRecord]) -> Iterator[RunProgress]:
        yield from ()

    def _conclude(self, trial: optuna.Trial, record: RunRecord) -> str:
        """Judge a run whose weights are kept, and tell the study how it ended; the news of it."""
        if record.state is TrialState.COMPLETE and record.stage == "final":
            record = replace(record, test=self._judged(trial, record))
        self._study.tell(trial, record.loss, state=record.state)
        self._records[record.key] = record
        self._settled.add(record.key)
        self.ended.append(record)
        return f"{record.title}: {record.reason if record.accuracy is None else f'{record.accuracy:.2%}'}"

    def _judged(self, trial: optuna.Trial, record: RunRecord) -> Score:
        """On the test images, which are read for these weights only once."""
        if record.test is not None:
            return record.test
        assert self._judge is not None
        score = self._judge(self._weights(record.number).read_bytes(), record.candidate)
        set_own_attribute(trial, "test", asdict(score))
        commit(self._study)  # it has been read now
        return score

    def _finished(self) -> list[RunRecord]:
        return [self._records[key] for key in self._wanted if key in self._settled]

    def progress(self, state: LoopState[RunRecord], news: str) -> RunProgress:
        finished = self._finished()
        return RunProgress(
            done=len(finished),
            total=len(self._wanted),
            failed=sum(record.state is TrialState.FAIL for record in finished),
            epochs=sum(record.epochs for record in finished) + sum(run.epoch for run in state.running),
            running=state.running,
            seconds_left=self._seconds_left(state),
            standings=standings(self._wanted.values(), finished),
            news=news,
            nodes=state.nodes,
        )

    def _seconds_left(self, state: LoopState[RunRecord]) -> float | None:
        """At the known pace of each network, or that of a known one at equal seconds per MAC; None without any."""
        begun = {training.record.key: training for training in state.trainings}
        finished = {record.key for record in self._finished()}
        left: list[float] = []
        for key, run in self._wanted.items():
            if key in finished:
                continue
            pace = self._pace(run.candidate)
            if pace is None:
                return None
            images = self._of_final if run.stage == "final" else 1
            spent = begun[key].seconds if key in begun else 0.0
            left.append(max(0.0, pace * images * run.candidate.recipe.epochs - spent))
        return max(sum(left) / state.workers, max(left, default=0.0))

    def _pace(self, candidate: Candidate) -> float | None:
        """Seconds an epoch of a candidate."""
        if candidate in self._paces or not self._paces:
            return self._paces.get(candidate)
        per_mac = sum(self._paces.values()) / sum(cost(known.architecture).macs for known in self._paces)
        return per_mac * cost(candidate.architecture).macs


def paces(records: Iterable[Record], rounds: int) -> dict[Candidate, float]:
    """Seconds an epoch of each candidate that was trained for at least one, with images held out, in such `rounds`."""
    of_final = epochs_on_all_images(rounds)
    return {
        record.candidate: record.seconds / record.epochs / (1 if record.val_accuracy is not None else of_final)
        for record in records
        if record.seconds and record.epochs
    }


def standings(wanted: Iterable[Run], finished: Sequence[RunRecord]) -> tuple[Standing, ...]:
    """What the runs of each network have come to, in the order in which they are wanted."""
    networks = {run.candidate: run for run in wanted}
    return tuple(
        Standing(
            label=run.label,
            notation=run.change if run.stage == "recipe" else notation(candidate.architecture),
            params=cost(candidate.architecture).params,
            accuracy=spread(known) if (known := accuracies(finished, candidate)) else None,
        )
        for candidate, run in networks.items()
    )


def train_runs(
    study: optuna.Study,
    location: StudyLocation,
    history: History,
    wanted: Sequence[Run],
    plan: Plan,
    show: Show,
    title: str,
    *,
    judge: Judge | None = None,
) -> History:
    """Train the wanted runs that are missing, while `show` tells of it; the history with them, failed ones included."""
    of_recipe = any(run.stage == "recipe" for run in wanted)  # on fewer images
    alike = [run for run in history.runs if (run.stage == "recipe") == of_recipe]
    known_paces = paces(alike if of_recipe else [*history.trials, *alike], plan.dataset.cross_validation)
    runs = Runs(study, location, history.runs, wanted, plan, judge=judge, paces=known_paces)
    show(train_all(runs, plan), title)
    return history.with_runs(runs.ended)
