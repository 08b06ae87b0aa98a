"""What a study has come to, in rows and sentences: the summary prints them, the report shows them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nas.analysis.finalists import Noise, Winner, measured_noise
from nas.analysis.recipe_fit import fit_of
from nas.analysis.statistics import (
    Spread,
    chance_of_reaching,
    error_of_mean,
    least_difference,
    t_quantile,
    wilson,
)
from nas.datasets.images import TrainingData
from nas.datasets.metrics import ACCURACY, EvaluationSet
from nas.network.cost import cost
from nas.network.limits import EPOCHS, LIMITS
from nas.reporting.sentences import duration
from nas.space.objective import reached
from nas.study.history import History
from nas.study.records import TrialRecord, total_epochs, total_seconds
from nas.training.score import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """A cost of the network, of the network to beat, and the limit on it, as they are printed."""

    name: str
    ours: str
    baseline: str | None  # None: there is no network to beat
    limit: str


def costs(history: History, leader: TrialRecord) -> list[CostRow]:
    """A network's costs beside those of the network to beat and the limits."""
    ours, rival = cost(leader.candidate.architecture), history.task.baseline
    beaten = None if rival is None else cost(rival)
    return [
        CostRow(
            name=limit.noun,
            ours=f"{limit.measure(ours, leader.epochs):,}",
            baseline=None if beaten is None else f"{limit.measure(beaten, leader.epochs):,}",
            limit=limit.shown(history.constraints.bound(limit)),
        )
        for limit in LIMITS
        if limit is not EPOCHS
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryRow:
    """What a network was worth, from its score in the search to its accuracy on the test images."""

    name: str
    params: int
    score: float | None
    rerun: Spread | None
    test: Spread | None


def story(history: History, winner: Winner) -> list[StoryRow]:
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
    if history.task.baseline is not None and winner.baseline is not None:
        params = cost(history.task.baseline).params
        rows.append(StoryRow(name="network to beat", params=params, score=None, rerun=None, test=winner.baseline))
    return rows


def curse(history: History, winner: Winner, noise: Noise | None, validation: EvaluationSet) -> str:
    """What fresh seeds made of the score by which the network was among the best of many."""
    score, rerun, trained = winner.record.val_accuracy, winner.rerun, len(history.trained)
    assert score is not None
    if rerun is None:
        return f"The search score is the best of {trained}, so it flatters."
    drop = score - rerun.mean
    fresh, two = "a fresh seed" if rerun.n == 1 else "fresh seeds", math.sqrt(1 + 1 / rerun.n)
    from_seeds = t_quantile(noise.n - 1) * noise.sd * two if noise else 0.0
    from_images = t_quantile(math.inf) * validation.standard_error(score) * two
    if drop <= max(from_seeds, from_images):
        seen = "one seed differs from another" if drop <= from_seeds else f"{validation.images:,} images can tell"
        return f"On {fresh} the winner keeps its score in the search, as far as {seen} ({100 * -drop:+.2f} points)."
    return (
        f"On {fresh} the winner has {100 * drop:.2f} points less than its score in the search: the winner's curse, "
        f"since a score that is among the best of {trained} is partly luck."
    )


def verdict(winner: Winner, noise: Noise | None, target: float | None) -> str:
    """Whether the target is reached, by how many standard errors, and whether a fresh seed would reach it.

    The standard error is that of the mean over seeds; of one run, the measured noise, at least the binomial deviation.
    """
    if target is None:
        return "No target was set."
    test, images = winner.test, winner.evaluation.standard_error(winner.test.mean)
    error = error_of_mean(test, images) or max(images, noise.sd if noise else 0.0)
    distance = abs(test.mean - target)
    how = ["one run, n = 1" if test.n == 1 else f"mean of n = {test.n} {'equal ' if test.sd == 0 else ''}seeds"]
    how.append(f"{distance / error:.1f} standard errors")
    if test.sd == 0:
        how[-1] += " of the choice of images"
    elif test.n > 1 and distance < 2 * images:
        how.append(f"which other test images may undo: their choice alone moves it by ± {100 * images:.2f}")
    outcome = "reached" if reached(test.mean, target) else "missed"
    said = f"Target {winner.metric.shown(target)}: {outcome} by {100 * distance:.2f} points ({', '.join(how)})."
    chance = chance_of_reaching(target, test)
    if chance is None or winner.diverged:
        return said
    return f"{said} A fresh seed reaches it with a chance of {_percent(chance)}."


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """How well the test images of one class are known, by the weights that are exported."""

    name: str
    images: int
    recall: float
    low: float  # of its interval (95 %)
    high: float


def recalls(score: Score, classes: Sequence[str]) -> list[ClassRow]:
    """The classes that have test images, the worst first; none where an earlier version did not count them."""
    counted = zip(classes, score.counts, score.correct, strict=False)
    rows = [
        ClassRow(
            name=name, images=images, recall=right / images, low=wilson(right, images)[0], high=wilson(right, images)[1]
        )
        for name, images, right in counted
        if images
    ]
    return sorted(rows, key=lambda row: (row.recall, row.low))


def constant_answer(winner: Winner, classes: Sequence[str], target: float | None) -> list[str]:
    """What always giving the same answer would have scored, and a warning where the network does hardly better."""
    score, judging = winner.judged, winner.evaluation
    if not score.counts:
        return []
    label, value = judging.constant_answer()
    name, share = classes[label], ACCURACY.of(score.counts, [score.n - score.counts[label]])
    found = [f"Always answering {name!r} would be right for {ACCURACY.shown(share)} of the test images."]
    if winner.metric is not ACCURACY:
        found[-1] += f" Its {winner.metric.name} is {winner.metric.shown(value)}."
    if never := [classes[other] for other in score.never_answered]:
        found.append(f"WARNING: the network never answers {', '.join(map(repr, never))}.")
    if target is not None and value >= target:
        found.append(f"WARNING: always answering {name!r} reaches the target as well.")
    elif value >= score.accuracy:
        found.append(f"WARNING: the network is no better than always answering {name!r}.")
    return found


def _percent(chance: float) -> str:
    """A chance without decimals, and never certain."""
    return (
        "more than 99 %" if chance > 0.99 else "less than 1 %" if chance < 0.01 else f"{chance:.0%}".replace("%", " %")
    )


def margin(history: History, winner: Winner) -> list[str]:
    """The winner against the network to beat, where that was trained."""
    if winner.baseline is None or history.task.baseline is None:
        return []
    points = 100 * (winner.test.mean - winner.baseline.mean)
    errors = [
        error_of_mean(accuracies, winner.evaluation.standard_error(accuracies.mean))
        for accuracies in (winner.test, winner.baseline)
    ]
    known = [error for error in errors if error is not None]
    source = ", from the choice of images where seeds are equal" if 0 in (winner.test.sd, winner.baseline.sd) else ""
    error = f" (standard error of the difference {100 * math.hypot(*known):.2f}{source})" if len(known) == 2 else ""
    saved = cost(history.task.baseline).params - winner.record.params
    return [
        f"Against the network to beat, trained by the same recipe: {points:+.2f} points{error}, "
        f"{abs(saved):,} parameters {'fewer' if saved >= 0 else 'more'}."
    ]


def how_judged(winner: Winner, data: TrainingData) -> str:
    """On which images and with which seeds the numbers were found."""
    best, n_train, n_val, networks = winner.record, len(data.train), len(data.validation), len(data.folds)
    text = f"Search score{' and fresh seeds' if winner.finalists else ''}: "
    if networks > 1:
        text += f"{networks} networks, each trained on {n_train:,} images or about as many and judged on the other "
        text += f"{n_val:,}, so that each of {n_train + n_val:,} images judges {data.rounds}. "
    else:
        text += f"trained on {n_train:,} images, judged on {n_val:,} validation images. "
    if winner.models:
        seeds = ", ".join(str(model.seed) for model in winner.models)
        text += f"Test: trained on all {n_train + n_val:,} (seeds {seeds}), "
    else:
        which = "the weights of the first of them" if networks > 1 else "the same weights"
        text += f"Test: {which} (seed {best.seed}), "
    text += f"judged on {winner.judged.n:,} test images, opened after the choice and read once for each model. "
    if winner.diverged:
        text += f"{winner.diverged} more trainings on all images failed and are left out. "
    return f"{text}Final epoch, {best.epochs} of {best.candidate.recipe.epochs}; mean ± sd."


def what_was_done(history: History) -> str:
    """How many networks, epochs and seconds, and what was rejected."""
    trained, stopped, ledger = history.trained, history.stopped_early, history.ledger
    of = " of all networks of cross-validation" if history.settings["cross_validation"] else ""
    text = (
        f"Study {history.name!r} on {history.dataset!r}: {len(trained)} networks trained, {len(stopped)} of them "
        f"stopped early; {total_epochs(trained)} epochs{of}, {duration(total_seconds(trained))} of training on one "
        "worker. "
        f"{ledger.rejected:,} of {ledger.proposals:,} proposals rejected before training "
        f"({ledger.acceptance:.1%} accepted)."
    )
    if (fit := fit_of(history)) is not None:
        text += f" {fit}"
    if history.metric is not ACCURACY:
        text += f" Scores are the {history.metric.name}: the mean recall of the classes."
    runs = [run for run in history.runs_of("finalist", "final") if run.accuracy is not None and run.epochs]
    if not runs:
        return text
    return f"{text} Then {len(runs)} full trainings on fresh seeds, {duration(total_seconds(runs))} on one worker."


def noise_floor(history: History, leader: TrialRecord, validation: EvaluationSet) -> str:
    """What two scores must differ by to mean something."""
    noise, accuracy = measured_noise(history.runs, validation), leader.val_accuracy
    assert accuracy is not None
    if noise is not None:
        least, source = noise.least_difference, f"measured from seed to seed, n = {noise.n}"
        if noise.of_images:
            source = (
                f"from the choice of {noise.validation.images:,} images; the seeds measured, n = {noise.n}, differ less"
            )
    else:
        least = least_difference(validation.standard_error(accuracy))
        source = "from the choice of images alone; python -m nas.noise measures what seeds do"
    return telling_difference(least, source)


def telling_difference(least: float, source: str) -> str:
    """What two single scores must differ by to mean something; more than a whole is out of reach."""
    if least >= 1:
        return f"No difference between two single validation scores means anything (95 %, {source})."
    return f"Two single validation scores must differ by {100 * least:.2f} points to mean something (95 %, {source})."


def earlier_readings(history: History, winner: Winner) -> list[str]:
    """That the test images were read for other networks before, when a longer search has found a better one."""
    others = {run.network for run in history.runs if run.test and run.trial != winner.record.number}
    trials = {f"trial {number}" for number in history.test_scores}
    if not winner.models:
        trials -= {f"trial {winner.record.number}"}
    read = sorted((others - {"the network to beat"}) | trials)
    return [f"The test images were read before, for {', '.join(read)}."] if read else []
