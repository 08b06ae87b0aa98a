"""What a study has come to, in rows and sentences: the summary prints them, the report shows them."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from optuna.trial import TrialState

from nas.analysis.finalists import Noise, Winner
from nas.analysis.statistics import (
    Spread,
    binomial_sd,
    chance_of_reaching,
    error_of_mean,
    least_difference,
    pooled_sd,
    t_quantile,
)
from nas.network.cost import cost
from nas.reporting.findings import Findings
from nas.space.rejections import Ledger, Reason
from nas.space.search_space import SearchSpace
from nas.study.commands import commands
from nas.study.location import StudyLocation
from nas.study.records import TrialRecord, scores_on_test
from nas.study.runs import name_of
from nas.training.environment import versions


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """A cost of the network, of the network to beat, and the limit on it, as they are printed."""

    name: str
    ours: str
    baseline: str | None  # None: there is no network to beat
    limit: str


def costs(found: Findings, leader: TrialRecord) -> list[CostRow]:
    """A network's costs beside those of the network to beat and the limits."""
    limits, baseline = found.constraints, cost(found.task.baseline) if found.task.baseline else None
    ours = cost(leader.candidate.architecture)

    def row(label: str, name: str, limit: str) -> CostRow:
        value, other = getattr(ours, name), getattr(baseline, name) if baseline else None
        return CostRow(name=label, ours=f"{value:,}", baseline=other if other is None else f"{other:,}", limit=limit)

    def at_most(limit: int | None) -> str:
        return "–" if limit is None else f"{limit:,}"

    field = f"at least {limits.min_receptive_field}" if limits.min_receptive_field else "–"
    return [
        row("parameters", "params", at_most(limits.max_params)),
        row("MACs", "macs", at_most(limits.max_macs)),
        row("peak activation bytes", "peak_activation_bytes", at_most(limits.max_activation_bytes)),
        row("receptive field", "receptive_field", field),
        row("fully connected layers", "linear_layers", "0" if "linear" in limits.forbid else "–"),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryRow:
    """What a network was worth, from its score in the search to its accuracy on the test images."""

    name: str
    params: int
    score: float | None
    rerun: Spread | None
    test: Spread | None


def story(found: Findings, winner: Winner) -> list[StoryRow]:
    """The winner, the other finalists, the network to beat."""
    best = winner.record
    rows = [
        StoryRow(
            name=f"trial {best.number}, the winner",
            params=best.params,
            score=best.val_accuracy,
            rerun=winner.rerun,
            test=winner.test,
        )
    ]
    for other in winner.finalists:
        trial = other.record
        if trial.number != best.number:
            name = f"trial {trial.number}"
            rows.append(
                StoryRow(name=name, params=trial.params, score=trial.val_accuracy, rerun=other.rerun, test=None)
            )
    if found.task.baseline is not None and winner.baseline is not None:
        params = cost(found.task.baseline).params
        rows.append(StoryRow(name="network to beat", params=params, score=None, rerun=None, test=winner.baseline))
    return rows


def curse(found: Findings, winner: Winner) -> str:
    """What fresh seeds made of the score by which the network was among the best of many."""
    score, rerun, trained = winner.record.val_accuracy, winner.rerun, len(found.trained)
    assert score is not None
    if rerun is None:
        return f"The search score is the best of {trained}, so it flatters; --finalists trains it on fresh seeds."
    drop = score - rerun.mean
    groups = [finalist.rerun for finalist in winner.finalists]
    sd, two = pooled_sd(groups) or 0.0, math.sqrt(1 + 1 / rerun.n)
    from_seeds = t_quantile(sum(group.n - 1 for group in groups)) * sd * two if sd else 0.0
    from_images = t_quantile(math.inf) * binomial_sd(score, found.n_val) * two
    if drop <= max(from_seeds, from_images):
        seen = "one seed differs from another" if drop <= from_seeds else f"{found.n_val:,} images can tell"
        return f"On fresh seeds the winner keeps its score in the search, as far as {seen} ({100 * -drop:+.2f} points)."
    return (
        f"On fresh seeds the winner has {100 * drop:.2f} points less than its score in the search: the winner's curse, "
        f"since a score that is among the best of {trained} is partly luck."
    )


def reached(winner: Winner, target: float | None) -> bool | None:
    """None without a target."""
    return None if target is None else winner.test.mean >= target


def verdict(winner: Winner, noise: Noise | None, target: float | None) -> str:
    """Whether the target is reached, by how many standard errors, and whether a fresh seed would reach it.

    The standard error is that of the mean over seeds; of one run, the measured noise, at least the binomial deviation.
    """
    if target is None:
        return "No target was set."
    test, images = winner.test, binomial_sd(winner.test.mean, winner.judged.n)
    error = error_of_mean(test, winner.judged.n) or max(images, noise.sd if noise else 0.0)
    distance = abs(test.mean - target)
    how = ["one run, n = 1" if test.n == 1 else f"mean of n = {test.n} {'equal ' if test.sd == 0 else ''}seeds"]
    how.append(f"{distance / error:.1f} standard errors")
    if test.sd == 0:
        how[-1] += " of the choice of images"
    elif test.n > 1 and distance < 2 * images:
        how.append(f"which other test images may undo: their choice alone moves it by ± {100 * images:.2f}")
    said = f"Target {100 * target:.2f} %: {'reached' if reached(winner, target) else 'missed'}"
    said += f" by {100 * distance:.2f} points ({', '.join(how)})."
    chance = chance_of_reaching(target, test)
    if chance is None or winner.diverged:
        return said
    return f"{said} A fresh seed reaches it with a chance of {_percent(chance)}."


def _percent(chance: float) -> str:
    """Without decimals, and never certain."""
    return (
        "more than 99 %" if chance > 0.99 else "less than 1 %" if chance < 0.01 else f"{chance:.0%}".replace("%", " %")
    )


def margin(found: Findings, winner: Winner) -> list[str]:
    """The winner against the network to beat, where that was trained."""
    if winner.baseline is None or found.task.baseline is None:
        return []
    points = 100 * (winner.test.mean - winner.baseline.mean)
    errors = [error_of_mean(accuracies, winner.judged.n) for accuracies in (winner.test, winner.baseline)]
    known = [error for error in errors if error is not None]
    source = ", from the choice of images where seeds are equal" if 0 in (winner.test.sd, winner.baseline.sd) else ""
    error = f" (standard error of the difference {100 * math.hypot(*known):.2f}{source})" if len(known) == 2 else ""
    saved = cost(found.task.baseline).params - winner.record.params
    return [
        f"Against the network to beat, trained by the same recipe on the same seeds: {points:+.2f} points{error}, "
        f"{abs(saved):,} parameters {'fewer' if saved >= 0 else 'more'}."
    ]


def how_judged(found: Findings, winner: Winner) -> str:
    """On which images, with which seeds."""
    best, n_train, n_val = winner.record, found.n_train, found.n_val
    text = f"Search score{' and fresh seeds' if winner.finalists else ''}: trained on {n_train:,} images, "
    text += f"judged on {n_val:,} validation images. "
    if winner.models:
        seeds = ", ".join(str(model.seed) for model in winner.models)
        text += f"Test: trained on all {n_train + n_val:,} (seeds {seeds}), "
    else:
        text += f"Test: the same weights (seed {best.seed}), "
    text += f"judged on {winner.judged.n:,} test images, opened after the choice and read once for each model. "
    if winner.diverged:
        text += f"{winner.diverged} more trainings on all images failed and are left out. "
    return f"{text}Final epoch, {best.epochs} of {best.candidate.recipe.epochs}; mean ± sd."


def what_was_done(found: Findings) -> str:
    """How many networks, epochs and seconds, and what was rejected."""
    ledger = sum((trial.ledger for trial in found.trials), Ledger())
    runs = [run for run in found.runs if run.run.stage in ("finalist", "final") and run.accuracy is not None]
    trained = found.trained
    stopped = sum(trial.state is TrialState.PRUNED for trial in trained)
    epochs, seconds = sum(trial.epochs for trial in trained), sum(trial.seconds or 0 for trial in trained)
    text = (
        f"Study {found.name!r} on {found.dataset!r}: {len(trained)} networks trained, {stopped} of them stopped "
        f"early; {epochs} epochs, {duration(seconds)} of training on one worker. {ledger.rejected:,} of "
        f"{ledger.proposals:,} proposals rejected before training ({ledger.acceptance:.1%} accepted)."
    )
    if not runs:
        return text
    seconds = sum(run.seconds or 0 for run in runs)
    return f"{text} Then {len(runs)} full trainings on fresh seeds, {duration(seconds)} on one worker."


def how_it_was_run(found: Findings, winner: Winner) -> str:
    """The command, versions and processor."""
    searches, environment = [c for c in commands(found.study) if c.plan], winner.environment
    line = ""
    if searches:
        workers = f", workers on {_counted(searches[-1].devices)}" if searches[-1].devices else ""
        line = f"Last command{workers}:\n{searches[-1].line}\n"
    machine = environment.get("processor", "processor not told")
    if environment.get("device", "cpu") != "cpu":
        machine = environment["device"]
    precision = f"; activations in {environment['precision']}" if "precision" in environment else ""
    return f"{line}{versions(environment)}; {machine}{precision}"


def noise_floor(found: Findings, leader: TrialRecord) -> str:
    """What two scores must differ by to mean something."""
    noise, accuracy = found.noise, leader.val_accuracy
    assert accuracy is not None
    if noise is not None:
        least, source = noise.least_difference, f"measured from seed to seed, n = {noise.n}"
        if noise.of_images:
            source = f"from the choice of {noise.images:,} images; the seeds measured, n = {noise.n}, differ less"
    else:
        least = least_difference(binomial_sd(accuracy, found.n_val))
        source = "from the choice of images alone; python -m nas.noise measures what seeds do"
    return f"Two single validation scores must differ by {100 * least:.2f} points to mean something (95 %, {source})."


def earlier_readings(found: Findings, winner: Winner) -> list[str]:
    """That the test images were read for other networks before, when a longer search has found a better one."""
    present = {model.number for model in winner.models}
    others = {name_of(run.run) for run in found.runs if run.test and run.run.trial != winner.record.number}
    trials = {f"trial {number}" for number in scores_on_test(found.study)}
    if not present:
        trials -= {f"trial {winner.record.number}"}
    read = sorted((others - {"the network to beat"}) | trials)
    return [f"The test images were read before, for {', '.join(read)}."] if read else []


def _counted(devices: Sequence[str]) -> str:
    """Such as `2 × cpu`."""
    return ", ".join(f"{count} × {device}" for device, count in Counter(devices).items())


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, such as 0:21:03."""
    return str(timedelta(seconds=round(seconds)))


def roughly(seconds: float) -> str:
    """A duration as one says it, such as `about 12 min`."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"


def ledger_line(ledger: Ledger) -> str:
    """What became of the proposals, in one line."""
    reasons = sorted(ledger.reasons.items(), key=lambda item: -item[1])
    detail = " · ".join(f"{reason} {count:,}" for reason, count in reasons)
    line = f"{ledger.rejected:,} of {ledger.proposals:,} proposals rejected before training"
    return f"{line}: {detail}" if detail else line


SMALLER = "Loosen that limit, or let the space propose smaller networks (fewer cells, fewer kernels)."
FITTING = "Let the space propose fewer poolings or smaller kernels, so that layers fit on their maps."
ADVICE: dict[Reason, str] = {
    "max_params": SMALLER,
    "max_macs": SMALLER,
    "max_activation_bytes": SMALLER,
    "max_epochs": "Loosen that limit, or give the recipe fewer epochs.",
    "min_receptive_field": "Loosen that limit, or let the space propose more cells, larger kernels or more poolings.",
    "forbid linear": "Let the space propose a convolutional head, and no kernel as large as the map it meets.",
    "map too small": FITTING,
    "duplicate": "Let the space propose more.",
}


def diagnosis(ledger: Ledger) -> str:
    """Why nothing new fits: the limit that rejects most, the nearest miss, and what to widen."""
    reason, count = max(ledger.reasons.items(), key=lambda item: item[1])
    missing = "new" if reason == "duplicate" else "feasible"
    lines = [
        f"Nothing {missing} among {ledger.proposals:,} candidates drawn from the space.",
        f"{reason} rejects most: {count:,} of them.",
    ]
    if ledger.nearest is not None:
        lines.append(f"The nearest miss is {ledger.nearest}.")
    lines.append(ADVICE[reason])
    return "\n".join(lines)


def headline(space: SearchSpace, location: StudyLocation) -> str:
    """What is searched within which limits."""
    limits = space.constraints
    parts = [
        f"≤ {limits.max_params:,} params" if limits.max_params else "",
        f"≤ {limits.max_macs:,} MACs" if limits.max_macs else "",
        f"≤ {limits.max_activation_bytes:,} activation bytes" if limits.max_activation_bytes else "",
        f"receptive field ≥ {limits.min_receptive_field}" if limits.min_receptive_field else "",
        "no fully connected layer" if "linear" in limits.forbid else "",
        f"{space.recipe.epochs} epochs",
    ]
    return f"study {location.name} on {space.dataset} · {' · '.join(part for part in parts if part)}"
