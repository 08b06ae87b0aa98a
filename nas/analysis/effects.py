"""What each design choice is worth, as far as the trials of a search can tell.

Each question is a number that a candidate has, such as how many cells come after its last pool. The logarithm of the
validation loss is regressed on that number and on the logarithm of the parameters, so that a choice is not credited
with the size that it happens to come with. Trials are compared after the first epoch at which any of them ended: all
have reached it, while those that went further did so for their low losses. An effect is visible when chance alone
would show any such one among all the questions in less than 5 % of searches (Holm).

These are observations of candidates that a sampler liked, not experiments; `nas.analysis.ablation` has those.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from nas.analysis.ablation import Ablation, Effect
from nas.analysis.questions import QUESTIONS, Question
from nas.analysis.statistics import holm, t_quantile, two_sided
from nas.network.cost import MapTooSmallError
from nas.space.candidate import Candidate
from nas.space.variants import variants
from nas.study.records import TrialRecord

Vector = NDArray[np.float64]
MIN_TRIALS = 10  # that a regression takes
ROUNDING = 1e-12  # of a sum of squares
MOST_EXPLAINED = 0.99  # of a number's variance by the parameters: beyond it the two cannot be told apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the trials show: the loss is `ratio` times as high for each step, with 95 % between `low` and `high`."""

    ratio: float
    low: float
    high: float
    p: float
    trials: int
    visible: bool
    points: tuple[tuple[float, float, int], ...]  # number, loss relative to what its size predicts, trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the trials say to a question, in `seen`, None where they do not differ; and what the ablation tried."""

    question: Question
    trials: int  # that can be compared
    values: tuple[float, ...]  # of the number, among the trials, in order
    seen: Seen | None
    tried: tuple[tuple[Effect, float], ...]  # each with how many steps it goes
    barred: bool  # whether a limit rules out all that the ablation could have tried
    epoch: int  # after which the trials are compared

    @property
    def words(self) -> str:
        """What the trials say, in plain words."""
        if self.trials < MIN_TRIALS:
            return f"too few trials to say: {self.trials} of {MIN_TRIALS}"
        if self.seen is None:
            value = self.question.said(self.values[0])
            only = f" ({self.question.axis}: always {value})" if len(self.values) == 1 else ""
            return f"the trials do not say: it does not vary enough among them{only}"
        if not self.seen.visible:
            return "no visible effect above the noise"
        side = "lower" if self.seen.ratio < 1 else "higher"
        return f"{self.question.step}: {abs(self.seen.ratio - 1):.0%} {side} validation loss".replace("%", " %")

    @property
    def experiment(self) -> str:
        """What the ablation says of it, and whether the two agree; "" when it tried nothing of the kind."""
        known = [(effect, steps) for effect, steps in self.tried if effect.points is not None]
        if not known:
            return "every such change breaks a limit" if self.barred else ""
        clear = [(effect, steps) for effect, steps in known if effect.visible and effect.points is not None]
        if not clear:
            said = f"none of {len(known)} changes has a visible effect"
            if len(known) == 1:
                said = "the one change tried has no visible effect"
            if self.seen is None or not self.seen.visible:
                return said
            return f"{said}: the experiment does not confirm it{self._early(known)}"
        worse = {steps > 0 for effect, steps in clear if effect.points and effect.points.mean < 0}
        better = {steps > 0 for effect, steps in clear if effect.points and effect.points.mean > 0}
        said = f"{len(clear)} of {len(known)} changes {'have' if len(clear) > 1 else 'has'} a visible effect; "
        if worse == {True, False} and not better:
            return said + "both more and less of it is worse: this network stands at the best place"
        if len(worse) == 2 or len(better) == 2 or worse & better:
            return said + "whether more of it is better depends on where"
        more_is_worse = True in worse or False in better
        side = "more of it is worse" if more_is_worse else "less of it is worse"
        if self.seen is None or not self.seen.visible:
            return f"{said}{side}, which the trials could not show"
        agrees = (self.seen.ratio > 1) == more_is_worse
        return f"{said}{side}: the experiment {'agrees' if agrees else 'contradicts the trials'}"

    def _early(self, known: Sequence[tuple[Effect, float]]) -> str:
        """What the experiment saw for each step where the trials are compared, and at the end."""
        curves = [[loss / steps for loss in effect.log_losses] for effect, steps in known if effect.log_losses]
        if not curves or self.epoch > min(map(len, curves)):
            return ""
        early, late = (100 * (math.exp(fmean(curve[at] for curve in curves)) - 1) for at in (self.epoch - 1, -1))
        where = f"after epoch {self.epoch}, where the trials are compared"
        return f" (each step: {early:+.0f} % of loss {where}; {late:+.0f} % at the end)"


def answers(trials: Sequence[TrialRecord], found: Ablation | None, base: Candidate | None) -> list[Answer]:
    """One answer a question; `found` is an ablation of `base`."""
    epoch, rows = compared(trials)
    measured = [_measured(question, rows) for question in QUESTIONS]
    asked = [effect for effect in measured if effect is not None]
    visible = iter(holm([effect.p for effect in asked]))
    return [
        Answer(
            question=question,
            trials=len(rows),
            values=tuple(sorted({question.number(trial.candidate) for trial, _ in rows})),
            seen=None if effect is None else replace(effect, visible=next(visible)),
            tried=_tried(question, found, base),
            barred=_barred(question, found, base),
            epoch=epoch,
        )
        for question, effect in zip(QUESTIONS, measured, strict=True)
    ]


def _tried(question: Question, found: Ablation | None, base: Candidate | None) -> tuple[tuple[Effect, float], ...]:
    if found is None or base is None:
        return ()
    here = question.number(base)
    steps = [(effect, question.number(effect.variant.candidate) - here) for effect in found.effects]
    return tuple((e, step) for e, step in steps if e.variant.choice in question.choices and step)


def _barred(question: Question, found: Ablation | None, base: Candidate | None) -> bool:
    if found is None or base is None:
        return False
    ruled_out = {variant.candidate for variant, _ in found.forbidden}
    asked = [variant.candidate for variant in variants(base) if variant.choice in question.choices]
    tries = [candidate for candidate in asked if _differs(question, candidate, base)]
    return bool(tries) and ruled_out.issuperset(tries)


def _differs(question: Question, candidate: Candidate, base: Candidate) -> bool:
    try:
        return question.number(candidate) != question.number(base)
    except MapTooSmallError:  # it has no cost, so it is another one
        return True


def compared(trials: Sequence[TrialRecord]) -> tuple[int, list[tuple[TrialRecord, float]]]:
    """The first epoch at which any trial has ended, and each with the logarithm of its validation loss there."""
    ended = [trial for trial in trials if trial.curve and trial.state.is_finished() and not trial.diverged]
    epoch = min((trial.epochs for trial in ended), default=0)
    reached = [trial for trial in trials if trial.epochs >= epoch > 0 and not trial.diverged]
    losses = [(trial, trial.curve[epoch - 1].val_loss) for trial in reached]
    return epoch, [(trial, math.log(loss)) for trial, loss in losses if loss]


def _measured(question: Question, rows: Sequence[tuple[TrialRecord, float]]) -> Seen | None:
    """What the trials show; None when they are too few, or do not differ enough in what is asked beyond their size."""
    if len(rows) < MIN_TRIALS:
        return None
    x = np.array([question.number(trial.candidate) for trial, _ in rows])
    others = [np.ones(len(rows))]
    if question.adjusted:
        others.append(np.log([trial.params for trial, _ in rows]))
    fitted = regressed(np.array([loss for _, loss in rows]), x, np.stack(others, axis=1))
    if fitted is None:
        return None
    slope, error, residuals = fitted
    freedom = len(rows) - 1 - len(others)
    reach = t_quantile(freedom) * error
    relative = np.exp(residuals + slope * (x - x.mean()))
    numbers = (trial.number for trial, _ in rows)
    return Seen(
        ratio=math.exp(slope),
        low=math.exp(slope - reach),
        high=math.exp(slope + reach),
        p=two_sided(slope, error, freedom),
        trials=len(rows),
        visible=False,
        points=tuple(zip(x.tolist(), relative.tolist(), numbers, strict=True)),
    )


def regressed(y: Vector, x: Vector, others: Vector) -> tuple[float, float, Vector] | None:
    """Least squares of y (N,) on x (N,) and others (N, K): the slope of x, its standard error, the residuals.

    The error is the larger of the usual one, which holds when few rows differ in x, and the robust one (HC3), which
    holds when some rows scatter more (Angrist and Pischke, Mostly Harmless Econometrics, 2009, 8.1). None when x is
    nearly a combination of the others, or when a single row decides the slope.
    """
    design = np.column_stack([x, others])
    if len(y) <= design.shape[1]:
        return None
    unexplained = x - others @ np.linalg.lstsq(others, x, rcond=None)[0]
    if np.sum(unexplained**2) <= (1 - MOST_EXPLAINED) * np.sum((x - x.mean()) ** 2) + ROUNDING * np.sum(x**2):
        return None
    bread = np.linalg.inv(design.T @ design)
    slopes = bread @ design.T @ y
    residuals = y - design @ slopes
    leverages = np.sum(design @ bread * design, axis=1)
    if leverages.max() > MOST_EXPLAINED:
        return None
    scores = design * (residuals / (1 - leverages))[:, None]
    robust = (bread @ (scores.T @ scores) @ bread)[0, 0]
    usual = bread[0, 0] * np.sum(residuals**2) / (len(y) - design.shape[1])
    return float(slopes[0]), math.sqrt(max(usual, robust)), residuals
