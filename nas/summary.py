"""The summary of a search, in plain text: what was found, how sure that is, and what it costs."""

import io
import math
import textwrap
from collections.abc import Mapping

import optuna
import torchinfo
from optuna.trial import TrialState
from rich import box
from rich.console import Console
from rich.table import Table

from nas.commands import commands
from nas.console import duration
from nas.cost import cost
from nas.data import TrainingData
from nas.environment import versions
from nas.finalists import Noise, Winner, measured_noise
from nas.network import build
from nas.runs import name_of, run_records
from nas.space import SearchSpace
from nas.spread import Spread, binomial_sd, chance_of_reaching, least_difference, pooled_sd
from nas.storage import StudyLocation
from nas.study import TrialRecord, records, scores_on_test, total_ledger

WIDTH = 100


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


def _curse(winner: Winner, trained: int, n_val: int) -> str:
    """What fresh seeds made of the score by which the network was among the best of many."""
    score, rerun = winner.record.val_accuracy, winner.rerun
    assert score is not None
    if rerun is None:
        return f"The search score is the best of {trained}, so it flatters; --finalists trains it on fresh seeds."
    drop = score - rerun.mean
    sd = pooled_sd(finalist.rerun for finalist in winner.finalists) or binomial_sd(score, n_val)
    if drop <= sd * math.sqrt(1 + 1 / rerun.n):
        return (
            "On fresh seeds the winner keeps its score in the search, as far as one seed differs from another "
            f"({100 * -drop:+.2f} points)."
        )
    return (
        f"On fresh seeds the winner has {100 * drop:.2f} points less than its score in the search: the winner's curse, "
        f"since a score that is among the best of {trained} is partly luck."
    )


def verdict(winner: Winner, noise: Noise | None, target: float | None) -> str:
    """Whether the target is reached, by how many standard errors, and whether a fresh seed would reach it.

    The standard error is that of the mean over seeds; of one run, the measured noise or else the binomial deviation.
    """
    if target is None:
        return "No target was set."
    test = winner.test
    error = test.standard_error
    if error is None:
        error = binomial_sd(test.mean, winner.n_test) if noise is None else noise.sd
    reached = test.mean >= target
    runs = "in this one run (n = 1)" if test.n == 1 else f"by the mean of n = {test.n} seeds"
    said = f"Target {target:.2%}: {'reached' if reached else 'missed'} {runs}"
    if error:
        said += f", {abs(test.mean - target) / error:.1f} standard errors {'above' if reached else 'below'} it"
    chance = chance_of_reaching(target, test)
    if chance is None or winner.diverged:
        return f"{said}."
    return f"{said}. A fresh seed reaches it with a chance of {_percent(chance)}."


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


def _how_judged(winner: Winner, data: TrainingData) -> str:
    best, n_train, n_val = winner.record, len(data.train), len(data.validation)
    text = f"Search score{' and fresh seeds' if winner.finalists else ''}: trained on {n_train:,} images, "
    text += f"judged on {n_val:,} validation images. "
    if winner.models:
        seeds = ", ".join(str(model.seed) for model in winner.models)
        text += f"Test: trained on all {n_train + n_val:,} (seeds {seeds}), "
    else:
        text += f"Test: the same weights (seed {best.seed}), "
    text += f"judged on {winner.n_test:,} test images, opened after the choice and read once for each model. "
    if winner.diverged:
        text += f"{winner.diverged} more trainings on all images failed and are left out. "
    return f"{text}Final epoch, {best.epochs} of {best.candidate.recipe.epochs}; mean ± sd."


def _what_was_done(study: optuna.Study, location: StudyLocation, space: SearchSpace) -> str:
    ledger = total_ledger(study)
    runs = [run for run in run_records(study) if run.run.stage in ("finalist", "final") and run.accuracy is not None]
    trained = [trial for trial in records(study) if trial.trained]
    stopped = sum(trial.state is TrialState.PRUNED for trial in trained)
    epochs, seconds = sum(trial.epochs for trial in trained), sum(trial.seconds or 0 for trial in trained)
    text = (
        f"Study {location.name!r} on {space.dataset!r}: {len(trained)} networks trained, {stopped} of them stopped "
        f"early; {epochs} epochs, {duration(seconds)} of training on one worker. {ledger.rejected:,} of "
        f"{ledger.proposals:,} proposals rejected before training ({ledger.acceptance:.1%} accepted)."
    )
    if not runs:
        return text
    seconds = sum(run.seconds or 0 for run in runs)
    return f"{text} Then {len(runs)} full trainings on fresh seeds, {duration(seconds)} on one worker."


def _how_it_was_run(study: optuna.Study, environment: Mapping[str, str]) -> str:
    searches = [command for command in commands(study) if command.plan]
    line = f"Last command, workers on {', '.join(searches[-1].devices)}:\n{searches[-1].line}\n" if searches else ""
    machine = environment.get("processor", "processor not told")
    if environment.get("device", "cpu") != "cpu":
        machine = environment["device"]
    precision = f"; activations in {environment['precision']}" if "precision" in environment else ""
    return f"{line}{versions(environment)}; {machine}{precision}"


def _least_difference(winner: Winner, noise: Noise | None, n_val: int) -> str:
    if noise is not None:
        least, source = noise.least_difference, f"measured by nas.noise, n = {noise.n}"
    else:
        accuracy = winner.record.val_accuracy
        assert accuracy is not None
        least = least_difference(binomial_sd(accuracy, n_val))
        source = "from the choice of images alone; python -m nas.noise measures what seeds do"
    return f"Two single validation scores must differ by {100 * least:.2f} points to mean something (95 %, {source})."


def summary(
    study: optuna.Study, location: StudyLocation, winner: Winner, space: SearchSpace, data: TrainingData
) -> str:
    """What was found, in plain text, with torchinfo's table of the winner."""
    best = winner.record
    architecture = best.candidate.architecture
    shape = (1, *architecture.input_shape)
    columns = ("output_size", "num_params", "mult_adds")  # of a width that a terminal of 100 columns shows whole
    layers = torchinfo.summary(build(architecture), shape, col_names=columns, col_width=17, verbose=0)
    trained, noise = sum(trial.trained for trial in records(study)), measured_noise(run_records(study))
    return "\n".join(
        [
            _filled(_what_was_done(study, location, space)),
            "",
            f"Winner: trial {best.number}, {best.notation}",
            _plain_text(_story(winner, space)),
            _filled(_how_judged(winner, data)),
            "",
            _filled(_curse(winner, trained, len(data.validation))),
            _filled(verdict(winner, noise, space.target)),
            *map(_filled, _margin(winner, space)),
            _filled(_least_difference(winner, noise, len(data.validation))),
            *map(_filled, _earlier_readings(study, winner)),
            _plain_text(_comparison(best, space)),
            str(layers).replace(" (Units.MEGABYTES)", " in millions"),
            "",
            _how_it_was_run(study, winner.environment),
            "",
        ]
    )


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
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_on_hyphens=False)
