"""The end of a search: the winner, the one reading of the test set, its files, and tables of all trials and runs."""

import csv
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import optuna
import safetensors.torch
import torch
import torchinfo
from optuna.trial import TrialState
from rich import box
from rich.console import Console
from rich.table import Table

from nas.architecture import Candidate
from nas.console import duration
from nas.cost import cost
from nas.data import TrainingData, load_test, load_training
from nas.environment import versions
from nas.export import MODEL, WEIGHTS, export_winner, read_weights
from nas.files import write_whole
from nas.finalists import Noise, Winner, best_of, compared, final_runs, finalists, noise, runs_of
from nas.network import build
from nas.progress import Progress
from nas.readers import Dataset, Images
from nas.runs import Run, RunRecord, Runs, name_of, paces, run_records
from nas.space import SearchSpace
from nas.spread import Spread, chance_of_reaching, spread
from nas.storage import StudyLocation
from nas.study import FinalScore, TrialRecord, add_test_score, ranked, records, scores_on_test, total_ledger
from nas.training import Score, evaluate
from nas.trials import Plan

SUMMARY = "summary.txt"
TRIALS = "trials.csv"
RUNS = "final_runs.csv"
SUMMARY_WIDTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What follows the search: how many finalists, on how many seeds, and whether the network to beat is trained, too.

    With no finalists the best trial is judged as it is.
    """

    finalists: int
    seeds: int
    baseline: bool


class TestSet:
    """The test images, opened when the first weights are judged."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    @cached_property
    def images(self) -> Images:
        """The images and labels."""
        return load_test(self._dataset)

    def judge(self, weights: bytes, candidate: Candidate, *, hold_out: bool = False) -> Score:
        """What weights are worth that were trained with or without the validation images."""
        network = build(candidate.architecture)
        network.load_state_dict(safetensors.torch.load(weights))
        data = load_training(self._dataset, hold_out=hold_out)
        return evaluate(network, self.images, data, torch.device("cpu"))


Show = Callable[[Iterator[Progress], str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stages:
    """What trains the runs after a search."""

    study: optuna.Study
    location: StudyLocation
    plan: Plan
    test: TestSet
    show: Show

    def train(self, wanted: list[Run], title: str) -> list[RunRecord]:
        """The wanted runs, trained where they were not yet; those that failed are left out."""
        known = [*records(self.study), *run_records(self.study)]
        runs = Runs(
            self.study,
            self.location,
            wanted,
            dataset=self.plan.dataset,
            constraints=self.plan.constraints,
            devices=self.plan.devices,
            judge=self.test.judge,
            paces=paces(known),
        )
        self.show(runs.events(), title)
        found = {record.run.key: record for record in run_records(self.study)}
        return [found[run.key] for run in wanted if found[run.key].accuracy is not None]


def choose(
    study: optuna.Study, location: StudyLocation, space: SearchSpace, plan: Plan, effort: Effort, show: Show
) -> Winner | None:
    """The best network, and what it is worth on the test images, which are opened once and after the choice.

    What the study knows already is neither trained nor read again. None when no trial was trained to the end, or when
    every run on fresh seeds failed.
    """
    trials = records(study)
    best = next(iter(ranked(trials)), None)
    if best is None or best.val_accuracy is None:
        return None
    stages = _Stages(study=study, location=location, plan=plan, test=TestSet(plan.dataset), show=show)
    error = noise(run_records(study), best.val_accuracy, len(load_training(plan.dataset).validation))
    if not effort.finalists:
        score = scores_on_test(study).get(best.number) or _read_test_set(stages, best)
        test = spread([score.accuracy])
        return Winner(record=best, finalists=(), models=(), test=test, n_test=score.n, baseline=None, noise=error)
    chosen = finalists(trials, effort.finalists, error.least_difference)
    title = f"{len(chosen)} finalists, trained to the end on {effort.seeds} fresh seeds each"
    reruns = stages.train(runs_of(chosen, "finalist", effort.seeds, plan.seed), title)
    contenders = compared(chosen, reruns)
    if not contenders:
        return None
    winner = best_of(contenders, error).record
    wanted = final_runs(winner, space.baseline if effort.baseline else None, effort.seeds, plan.seed)
    title = f"trial {winner.number} is the winner: trained on all the training images, judged on the test images"
    models = stages.train(wanted, title)
    scored = [(run, run.test) for run in models if run.test is not None]
    own = [(run, test) for run, test in scored if run.run.trial is not None]
    rival = [test.accuracy for run, test in scored if run.run.trial is None]
    if not own:
        return None
    return Winner(
        record=winner,
        finalists=tuple(contenders),
        models=tuple(run for run, _ in own),
        test=spread([test.accuracy for _, test in own]),
        n_test=own[0][1].n,
        baseline=spread(rival) if rival else None,
        noise=error,
    )


def _read_test_set(stages: _Stages, trial: TrialRecord) -> FinalScore:
    """Of a trial as it is, for the first time."""
    weights = read_weights(stages.location.weights_path(trial.number), trial.title)
    score = stages.test.judge(weights, trial.candidate, hold_out=True)
    read = FinalScore(trial=trial.number, loss=score.loss, accuracy=score.accuracy, n=score.n)
    add_test_score(stages.study, read)
    return read


def trials_csv(trials: list[TrialRecord]) -> str:
    """One row a trial: what it was, how it ended, and its parameters as they were suggested."""
    names = sorted({name for trial in trials for name in trial.suggestions})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fixed = ["number", "state", "epochs", "val_accuracy", "val_loss", "params", "macs", "receptive_field"]
    writer.writerow([*fixed, "seed", "precision", "rejected_before", "seconds", "reason", "notation", *names])
    for t in trials:
        values = [t.number, t.state.name, t.epochs, t.val_accuracy, t.val_loss, t.params, t.macs, t.receptive_field]
        values += [t.seed, t.precision, t.ledger.rejected, t.seconds, t.reason, t.notation]
        writer.writerow([*values, *(t.suggestions.get(name) for name in names)])
    return text.getvalue()


def _comparison(winner: TrialRecord, space: SearchSpace) -> Table:
    """The winner's costs beside those of the network to beat and the limits."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("", "winner", *(["network to beat"] if space.baseline else []), "limit"):
        table.add_column(column, justify="right" if column else "left")
    limits = space.constraints
    baseline = cost(space.baseline) if space.baseline else None
    ours = cost(winner.candidate.architecture)
    field = f"at least {limits.min_receptive_field}" if limits.min_receptive_field else "–"

    def row(label: str, name: str, limit: str) -> None:
        values = [f"{getattr(price, name):,}" for price in (ours, baseline) if price is not None]
        table.add_row(label, *values, limit)

    def maximum(limit: int | None) -> str:
        return "–" if limit is None else f"{limit:,}"

    row("parameters", "params", maximum(limits.max_params))
    row("MACs", "macs", maximum(limits.max_macs))
    row("peak activation bytes", "peak_activation_bytes", maximum(limits.max_activation_bytes))
    row("receptive field", "receptive_field", field)
    row("fully connected layers", "linear_layers", "0" if "linear" in limits.forbid else "–")
    return table


def _runs_csv(runs: list[RunRecord]) -> str:
    """One row a run outside the search."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["number", "stage", "trial", "state", "epochs", "val_accuracy", "val_loss", "test_accuracy", "test_loss"]
    writer.writerow([*names, "params", "macs", "seed", "precision", "seconds", "reason", "notation"])
    for r in runs:
        test = (r.test.accuracy, r.test.loss) if r.test else (None, None)
        values = [r.number, r.run.stage, r.run.trial, r.state.name, r.epochs, r.val_accuracy, r.val_loss, *test]
        writer.writerow([*values, r.params, r.macs, r.seed, r.precision, r.seconds, r.reason, r.notation])
    return text.getvalue()


def _story(winner: Winner, space: SearchSpace) -> Table:
    """From the score in the search to the accuracy on the test images, network by network."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for column in ("parameters", "search score", "fresh seeds", "n", "test", "n"):
        table.add_column(column, justify="right")

    def row(name: str, params: int, score: float | None, rerun: Spread | None, test: Spread | None) -> None:
        cells = [f"{params:,}", "–" if score is None else f"{score:.2%}"]
        for accuracies in (rerun, test):
            cells += ["–", "–"] if accuracies is None else [str(accuracies), str(accuracies.n)]
        table.add_row(name, *cells)

    best = winner.record
    row(f"trial {best.number}, the winner", best.params, best.val_accuracy, winner.rerun, winner.test)
    for other in winner.finalists:
        if other.record.number != best.number:
            trial = other.record
            row(f"trial {trial.number}", trial.params, trial.val_accuracy, other.rerun, None)
    if space.baseline is not None and winner.baseline is not None:
        row("network to beat", cost(space.baseline).params, None, None, winner.baseline)
    return table


def _curse(winner: Winner, trained: int) -> str:
    """What fresh seeds made of the score that was the best of many."""
    score, rerun = winner.record.val_accuracy, winner.rerun
    assert score is not None
    if rerun is None:
        return f"The search score is the best of {trained}, so it flatters; --finalists trains it on fresh seeds."
    drop = 100 * (score - rerun.mean)
    if drop <= 0:
        return f"On fresh seeds the winner did not lose: {-drop:.2f} points more than its score in the search."
    return (
        f"On fresh seeds the winner lost {drop:.2f} points: the winner's curse, "
        f"since the best of {trained} scores is partly luck."
    )


def verdict(test: Spread, noise: Noise, target: float | None) -> str:
    """Whether the target is reached, by how many standard errors, and whether a fresh seed would reach it.

    The standard error is that of the mean over seeds; of one run, the deviation that `noise` tells.
    """
    if target is None:
        return "No target was set."
    error = noise.sd if test.standard_error is None else test.standard_error
    distance = f"{abs(test.mean - target) / error:.1f} standard errors" if error else "no standard error to be had"
    reached = test.mean >= target
    runs = "in this one run (n = 1)" if test.n == 1 else f"by the mean of n = {test.n} seeds"
    said = f"Target {target:.2%}: {'reached' if reached else 'missed'} {runs}, {distance}"
    said += f" {'above' if reached else 'below'} it."
    chance = chance_of_reaching(target, test)
    return said if chance is None else f"{said} A fresh seed reaches it with a chance of {_percent(chance)}."


def _percent(chance: float) -> str:
    """Without decimals, and never certain."""
    return (
        "more than 99 %" if chance > 0.99 else "less than 1 %" if chance < 0.01 else f"{chance:.0%}".replace("%", " %")
    )


def _margin(winner: Winner, space: SearchSpace) -> list[str]:
    """The winner against the network to beat, where that was trained."""
    if winner.baseline is None or space.baseline is None:
        return []
    points = 100 * (winner.test.mean - winner.baseline.mean)
    errors = [accuracies.standard_error for accuracies in (winner.test, winner.baseline)]
    known = [error for error in errors if error is not None]
    error = f" (standard error of the difference {100 * math.hypot(*known):.2f})" if len(known) == 2 else ""
    saved = cost(space.baseline).params - winner.record.params
    return [
        f"Against the network to beat, trained by the same recipe on the same seeds: {points:+.2f} points{error}, "
        f"{abs(saved):,} parameters {'fewer' if saved >= 0 else 'more'}."
    ]


def _how_trained(winner: Winner, n_train: int, n_val: int) -> list[str]:
    best, recipe = winner.record, winner.record.candidate.recipe
    text = [
        f"Search score and fresh seeds: {n_val:,} validation images, {n_train:,} trained on; seed {best.seed} first."
    ]
    if winner.models:
        seeds = ", ".join(str(model.seed) for model in winner.models)
        text.append(f"Test: {winner.n_test:,} images, opened after the choice, read once for each model.")
        text.append(f"These were trained on all {n_train + n_val:,} images, seeds {seeds}.")
    else:
        text.append(f"Test: {winner.n_test:,} images, opened after the choice, read once for the trial's own weights.")
    return [*text, f"Accuracies are of the last epoch, {best.epochs} of {recipe.epochs}; trained in {best.precision}."]


def summary(
    study: optuna.Study, location: StudyLocation, winner: Winner, space: SearchSpace, data: TrainingData
) -> str:
    """What was found, in plain text, with torchinfo's table of the winner."""
    ledger, best = total_ledger(study), winner.record
    trained = [trial for trial in records(study) if trial.trained]
    stopped = sum(trial.state is TrialState.PRUNED for trial in trained)
    epochs, seconds = sum(trial.epochs for trial in trained), sum(trial.seconds or 0 for trial in trained)
    runs = run_records(study)
    architecture = best.candidate.architecture
    shape = (1, *architecture.input_shape)
    columns = ("output_size", "num_params", "mult_adds")  # of a width that a terminal of 100 columns shows whole
    layers = torchinfo.summary(build(architecture), shape, col_names=columns, col_width=17, verbose=0)
    noise_source = (
        "binomial; python -m nas.noise measures it" if winner.noise.n == math.inf else "measured by nas.noise"
    )
    return "\n".join(
        [
            f"Study {location.name!r} on {space.dataset!r}: {len(trained)} networks trained, {stopped} of them stopped",
            f"early; {epochs} epochs, {duration(seconds)} of training on one worker.",
            f"{ledger.rejected:,} of {ledger.proposals:,} proposals rejected before training "
            f"({ledger.acceptance:.1%} accepted).",
            *_final_runs_line(runs),
            "",
            f"Winner: trial {best.number}, {best.notation}",
            _plain_text(_story(winner, space)),
            *_how_trained(winner, len(data.train), len(data.validation)),
            "",
            _curse(winner, len(trained)),
            verdict(winner.test, winner.noise, space.target),
            *_margin(winner, space),
            f"Two single scores must differ by {100 * winner.noise.least_difference:.2f} points to mean something "
            f"({noise_source}).",
            *_earlier_readings(study, winner),
            _plain_text(_comparison(best, space)),
            str(layers),
            "",
            f"{versions(best.environment)}; {best.environment.get('processor', 'processor not told')}",
            "",
        ]
    )


def _final_runs_line(runs: list[RunRecord]) -> list[str]:
    if not runs:
        return []
    seconds = sum(run.seconds or 0 for run in runs)
    return [f"{len(runs)} full trainings on fresh seeds besides, {duration(seconds)} on one worker."]


def _earlier_readings(study: optuna.Study, winner: Winner) -> list[str]:
    """That the test images were read for other networks before, when a longer search has found a better one."""
    present = {model.number for model in winner.models}
    others = {name_of(run.run) for run in run_records(study) if run.test and run.run.trial != winner.record.number}
    trials = {f"trial {number}" for number in scores_on_test(study)}
    if not present:
        trials -= {f"trial {winner.record.number}"}
    read = sorted((others - {"the network to beat"}) | trials)
    return [f"The test images were read before, for {', '.join(read)}."] if read else []


def _plain_text(table: Table) -> str:
    console = Console(file=io.StringIO(), width=SUMMARY_WIDTH, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def write_tables(study: optuna.Study, location: StudyLocation) -> list[Path]:
    """Every trial and, where there are any, every final run; the files."""
    write_whole(location.folder / TRIALS, trials_csv(records(study)))
    runs = run_records(study)
    if not runs:
        return [location.folder / TRIALS]
    write_whole(location.folder / RUNS, _runs_csv(runs))
    return [location.folder / TRIALS, location.folder / RUNS]


def finish(
    study: optuna.Study,
    location: StudyLocation,
    space: SearchSpace,
    plan: Plan,
    effort: Effort,
    console: Console,
    show: Show,
) -> Winner | None:
    """Choose, read the test set, export, and write the tables; None when there is no winner."""
    write_tables(study, location)
    winner = choose(study, location, space, plan, effort, show)
    if winner is None:
        return None
    best = location.folder / "best"
    export_winner(study, location, winner, plan.dataset, best)
    text = summary(study, location, winner, space, load_training(plan.dataset))
    write_whole(best / SUMMARY, text)
    written = [best / MODEL, best / WEIGHTS, best / SUMMARY, *write_tables(study, location)]
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print("written: " + ", ".join(map(str, written)), markup=False, highlight=False, soft_wrap=True)
    return winner
