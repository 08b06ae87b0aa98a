"""The choice among the best trials, on fresh seeds; and what the chosen network is worth on the test images.

One score chose each of the best trials, so it flatters them. On fresh seeds they are compared again on the validation
images. Then the winner is trained on all the training images, and only then the test images are opened.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from nas.analysis.statistics import Spread, least_difference, pooled_sd, spread
from nas.datasets.metrics import ACCURACY, EvaluationSet, Metric
from nas.errors import UserError
from nas.space.candidate import Candidate
from nas.space.objective import LOSS_FIRST, Objective
from nas.space.seeds import derive_seed
from nas.study.history import History
from nas.study.records import TrialRecord, ranked
from nas.study.runs import Run, RunRecord, Stage, accuracies
from nas.study.settings import Task
from nas.training.score import Score

RIVALS_SEED = 0  # of every study: the network to beat is the same for all, so that one training of it will do
# What a trial's score counts for, in fresh seeds. Finalists share their fresh seeds and not that of the search, and
# seeds moved the losses of 19 variants by a quarter of what else was noise.
SEARCH_SCORE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """How far one network's validation accuracy moves from seed to seed, and with the choice of the images."""

    sd: float
    n: int  # accuracies; of several networks, as many as one network would need for the same degrees of freedom
    accuracy: float  # mean
    validation: EvaluationSet  # on which each accuracy was judged

    @property
    def least_difference(self) -> float:
        """What two single scores must differ by to mean something (95 %): never less than the images allow."""
        return max(self._from_seeds, self._from_images)

    @property
    def of_images(self) -> bool:
        """Whether the seeds were closer together than the choice of the images tells scores apart."""
        return self._from_seeds < self._from_images

    @property
    def _from_seeds(self) -> float:
        return least_difference(self.sd, self.n)

    @property
    def _from_images(self) -> float:
        return least_difference(self.validation.standard_error(self.accuracy))


def measured_noise(runs: Sequence[RunRecord], validation: EvaluationSet) -> Noise | None:
    """The deviation of the runs on fresh seeds about the mean of their network; None without two runs of one network.

    A single score is judged on the `validation` images. Final models count, though they are judged on the test
    images, as networks of their own. Runs of an ablation and of other recipes are left out: some of them train less
    steadily than what a search would choose.
    """
    known: dict[tuple[Candidate, bool], list[float]] = {}
    for run in runs:
        if run.stage not in ("recipe", "ablation") and run.accuracy is not None:
            known.setdefault((run.candidate, run.stage == "final"), []).append(run.accuracy)
    groups = [spread(scores) for scores in known.values()]
    sd = pooled_sd(groups)
    if sd is None:
        return None
    validated = [spread(scores) for (_, final), scores in known.items() if not final] or groups
    accuracy = fmean([group.mean for group in validated], [group.n for group in validated])
    return Noise(sd=sd, n=1 + sum(group.n - 1 for group in groups), accuracy=accuracy, validation=validation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalist:
    """A trial that could not be told apart from the best, and how it scored on fresh seeds."""

    record: TrialRecord
    rerun: Spread  # accuracies
    value: Spread  # what the objective looks at, of the same trainings


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """The chosen network; accuracies on the test images are of its `models`, or of the trial itself without any."""

    record: TrialRecord
    finalists: tuple[Finalist, ...] = ()  # the winner first; none when the stage is off
    models: tuple[RunRecord, ...] = ()  # trained on all the training images, in the order of their seeds
    diverged: int = 0  # trainings that were to be models, too
    test: Spread
    judged: Score  # of the exported weights, on the test images
    baseline: Spread | None = None  # of the network to beat, on the test images
    metric: Metric = ACCURACY  # of all these

    @property
    def evaluation(self) -> EvaluationSet:
        """The test images as those that it was judged on."""
        return EvaluationSet(self.metric, self.judged.counts or (self.judged.n,))

    @property
    def rerun(self) -> Spread | None:
        """Its accuracy on the validation images on fresh seeds."""
        return next((f.rerun for f in self.finalists if f.record.number == self.record.number), None)

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment in which the exported weights were trained."""
        return (self.models[0] if self.models else self.record).environment


def finalists(
    trials: Sequence[TrialRecord], count: int, least_difference: float, objective: Objective = LOSS_FIRST
) -> list[TrialRecord]:
    """The best trials trained to the end, at most `count`, whose accuracies do not differ from the best one's."""
    of_candidates = {trial.candidate: trial for trial in reversed(ranked(trials, objective))}  # one may be there twice
    best_first = list(of_candidates.values())[::-1][:count]
    best = best_first[0].val_accuracy if best_first else None
    return [t for t in best_first if (best or 0) - (t.val_accuracy or 0) <= least_difference]


def rounds_of_race(count: int, seeds: int) -> list[int]:
    """How many finalists are trained on each fresh seed: after each the worse half is out, until one is left."""
    rounds: list[int] = []
    while len(rounds) < seeds and count > 1:
        rounds.append(count)
        count = _half(count)
    return rounds


def better_half(contenders: Sequence[Finalist]) -> list[Finalist]:
    """Those that stay in a race, of contenders that are ordered, best first: half of them, rounded down."""
    return [*contenders[: _half(len(contenders))]]


def _half(count: int) -> int:
    return max(1, count // 2)


def runs_of(trials: Sequence[TrialRecord], stage: Stage, seeds: Sequence[int]) -> list[Run]:
    """Each trial's candidate on the same fresh seeds."""
    return [
        Run(stage=stage, trial=trial.number, candidate=trial.candidate, seed=seed) for seed in seeds for trial in trials
    ]


def fresh_seeds(stage: Stage, count: int, study_seed: int) -> list[int]:
    """The first so many seeds of a stage, none of which any trial has; more seeds begin with the same ones."""
    return [derive_seed(study_seed, stage, index) for index in range(count)]


def final_runs(winner: TrialRecord, rival: Candidate | None, seeds: int, study_seed: int) -> list[Run]:
    """The winner's runs, and before them those of the network to beat, as they take longest."""
    own = runs_of([winner], "final", fresh_seeds("final", seeds, study_seed))
    if rival is None or rival == winner.candidate:
        return own
    of_rival = fresh_seeds("final", seeds, RIVALS_SEED)
    return [*(Run(stage="final", trial=None, candidate=rival, seed=seed) for seed in of_rival), *own]


def compared(
    trials: Sequence[TrialRecord], reruns: Sequence[RunRecord], objective: Objective = LOSS_FIRST
) -> list[Finalist]:
    """The trials as they scored in these runs, best first; a trial whose runs all failed is left out.

    First come those that were trained on the most seeds, which is where a race has led. Among these the mean value
    decides, in which the search counts for less than a fresh seed (see SEARCH_SCORE).
    """

    def place(finalist: Finalist) -> tuple[float, ...]:
        fresh, searched = finalist.value, objective.value(finalist.record)
        assert searched is not None  # it was trained to the end
        mean = (fresh.n * fresh.mean + SEARCH_SCORE * searched) / (fresh.n + SEARCH_SCORE)
        return -fresh.n, -objective.merit(mean), *objective.of_equal_values(finalist.record)

    found = []
    for trial in trials:
        runs = [run for run in reruns if run.candidate == trial.candidate and run.accuracy is not None]
        values = [value for value in map(objective.value, runs) if value is not None]
        if values:
            rerun = spread(accuracies(runs, trial.candidate))
            found.append(Finalist(record=trial, rerun=rerun, value=spread(values)))
    return sorted(found, key=place)


def rival_of(task: Task, winner: TrialRecord) -> Candidate | None:
    """The network to beat, to be trained by the winner's recipe."""
    return None if task.baseline is None else replace(winner.candidate, architecture=task.baseline)


def winner_of(history: History) -> Winner | None:
    """The network chosen last; None before its last final model was judged on the test images.

    Raises:
        UserError: a trial that was chosen among is not there, or has no score.
    """
    choice = history.choice
    if choice is None:
        return None
    trials = {trial.number: trial for trial in history.trials if trial.val_accuracy is not None}
    if missing := {choice.winner, *choice.finalists} - trials.keys():
        raise UserError(
            f"study {history.name!r} has chosen among trials that are not there, or without a score: "
            f"{sorted(missing)}; put a copy of its storage in its place, or begin anew with another --study-name"
        )
    record = trials[choice.winner]
    if not choice.finalists:
        score = history.test_scores.get(record.number)
        return (
            None
            if score is None
            else Winner(record=record, test=spread([score.accuracy]), judged=score, metric=history.metric)
        )
    if choice.seeds > len(history.runs):  # they have not all begun
        return None
    reruns = _among(history, "finalist", fresh_seeds("finalist", choice.seeds, history.seed))
    contenders = compared([trials[number] for number in choice.finalists], reruns)
    return _judged(history, record, contenders, choice.seeds)


def _judged(history: History, record: TrialRecord, contenders: Sequence[Finalist], seeds: int) -> Winner | None:
    """The trial that was chosen among these contenders; None before all of its final models have ended."""
    finals = _among(history, "final", fresh_seeds("final", seeds, history.seed))
    own = [run for run in finals if run.candidate == record.candidate and run.state.is_finished()]
    models = [run for run in own if run.accuracy is not None]
    rival = rival_of(history.task, record)
    if rival != record.candidate:
        finals = _among(history, "final", fresh_seeds("final", seeds, RIVALS_SEED))
    rivals = accuracies(finals, rival) if rival else []
    if len({run.seed for run in own}) < seeds or not models or models[0].test is None:
        return None
    return Winner(
        record=record,
        finalists=tuple(sorted(contenders, key=lambda finalist: finalist.record.number != record.number)),
        models=tuple(models),
        diverged=seeds - len(models),
        test=spread(accuracies(models, record.candidate)),
        judged=models[0].test,
        baseline=spread(rivals) if rivals else None,
        metric=history.metric,
    )


def _among(history: History, stage: Stage, seeds: Sequence[int]) -> list[RunRecord]:
    """The runs of a stage on these seeds, in their order."""
    return sorted((run for run in history.runs_of(stage) if run.seed in seeds), key=lambda run: seeds.index(run.seed))
