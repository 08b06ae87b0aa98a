"""What one design choice is worth: the effect of changing it alone, on fresh seeds, against the network unchanged."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from optuna.trial import TrialState

from nas.analysis.finalists import fresh_seeds
from nas.analysis.statistics import Difference, Spread, differences, holm, per_cent, spread
from nas.datasets.metrics import EvaluationSet
from nas.network.limits import Constraints
from nas.space.candidate import Candidate
from nas.space.variants import Variant, forbidden_by, variants
from nas.study.history import History
from nas.study.records import TrialRecord
from nas.study.runs import Run, RunRecord

METHOD = (
    "Points of accuracy: changed minus unchanged ± standard error; loss: by how many per cent the validation loss is "
    "higher or lower. The deviation from seed to seed is pooled over the networks, but for those that spread more "
    "than three times as much as the median one, which have their own; if all seeds are equal, it is taken from the "
    "choice of the images. An effect is visible when chance alone would show any such one among all of these in less "
    "than 5 % of ablations (Holm)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a variant came to; the differences are those from the network unchanged.

    Without at least one training to the end there is no accuracy, and no difference without two of some network.
    """

    variant: Variant
    params: int
    macs: int
    failed: int  # seeds on which it diverged, or ended otherwise before its last epoch
    accuracy: Spread | None = None  # on the validation images
    points: Difference | None = None  # of accuracy, as a fraction
    log_loss: Difference | None = None  # of the logarithm of the validation loss: 0.1 is 10 % more of it
    log_losses: tuple[float, ...] = ()  # the same after each epoch, over the seeds that both were trained on
    visible: bool = False  # whether the accuracy differs by more than chance, all variants considered (Holm, 5 %)

    @property
    def trained(self) -> str:
        """How many trainings came to their end, and how many did not."""
        n = self.accuracy.n if self.accuracy else 0
        return f"{n}, {self.failed} failed" if self.failed else str(n)

    @property
    def verdict(self) -> str:
        """In words, whether the change is seen."""
        if self.accuracy is None:
            return "failed" if self.failed else "not finished"
        if self.points is None:
            return "one seed says nothing"
        return ("better" if self.points.mean > 0 else "worse") if self.visible else "not visible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """What changing one trial's network does, worst first, and the variants that a limit rules out, with the reason."""

    trial: int
    accuracy: Spread  # of the network unchanged
    effects: tuple[Effect, ...]
    forbidden: tuple[tuple[Variant, str], ...]


def ablation_runs(trial: TrialRecord, choices: Iterable[str], limits: Constraints, seeds: int, seed: int) -> list[Run]:
    """The network unchanged and its allowed variants of these choices, all on the same fresh seeds."""
    asked = [variant for variant in variants(trial.candidate) if variant.choice in set(choices)]
    allowed = [variant for variant in asked if not forbidden_by(variant.candidate, limits)]
    candidates = [("", trial.candidate), *((variant.change, variant.candidate) for variant in allowed)]
    return [
        Run(stage="ablation", trial=trial.number, candidate=candidate, seed=fresh, change=change)
        for fresh in fresh_seeds("ablation", seeds, seed)
        for change, candidate in candidates
    ]


def ablation(
    trial: TrialRecord, runs: Iterable[RunRecord], limits: Constraints, validation: EvaluationSet
) -> Ablation | None:
    """What the runs say so far of changing this trial's network; None before the network unchanged has been trained.

    Each was judged on the `validation` images.
    """
    every = variants(trial.candidate)
    asked, trained = {trial.candidate, *(variant.candidate for variant in every)}, dict[Candidate, list[RunRecord]]()
    for run in runs:
        if run.stage == "ablation" and run.candidate in asked:  # it may be a variant of another trial's, too
            trained.setdefault(run.candidate, []).append(run)
    accuracies = _spreads(trained, lambda run: run.val_accuracy)
    if trial.candidate not in accuracies:
        return None
    one_score = validation.standard_error(accuracies[trial.candidate].mean)
    points = differences(accuracies, trial.candidate, one_score)
    log_losses = differences(_spreads(trained, lambda run: math.log(run.val_loss or math.nan)), trial.candidate)
    tried = [variant for variant in every if variant.candidate in trained]
    visible = dict(zip(points, holm([points[candidate].p for candidate in points]), strict=True))
    effects = [
        Effect(
            variant=variant,
            params=trained[variant.candidate][0].params,
            macs=trained[variant.candidate][0].macs,
            failed=_failed(trained[variant.candidate]),
            accuracy=accuracies.get(variant.candidate),
            points=points.get(variant.candidate),
            log_loss=log_losses.get(variant.candidate),
            log_losses=_epoch_by_epoch(trained[trial.candidate], trained[variant.candidate]),
            visible=visible.get(variant.candidate, False),
        )
        for variant in tried
    ]
    forbidden = [(variant, forbidden_by(variant.candidate, limits)) for variant in every]
    return Ablation(
        trial=trial.number,
        accuracy=accuracies[trial.candidate],
        effects=tuple(sorted(effects, key=lambda effect: effect.accuracy.mean if effect.accuracy else 0)),
        forbidden=tuple((variant, why) for variant, why in forbidden if why),
    )


def _failed(runs: Sequence[RunRecord]) -> int:
    """On how many seeds every run failed."""
    seeds = {run.seed for run in runs if run.state is TrialState.FAIL}
    return len(seeds - {run.seed for run in runs if run.state is not TrialState.FAIL})


def _epoch_by_epoch(unchanged: Sequence[RunRecord], changed: Sequence[RunRecord]) -> tuple[float, ...]:
    """The mean logarithm of the ratio of the validation losses, on the seeds on which both came to their end."""
    base, other = ({run.seed: run.curve for run in runs if run.accuracy is not None} for runs in (unchanged, changed))
    pairs = [zip(base[seed], other[seed], strict=False) for seed in base.keys() & other.keys()]
    ratios = [[math.log(b.val_loss or math.nan) - math.log(a.val_loss or math.nan) for a, b in p] for p in pairs]
    return tuple(fmean(epoch) for epoch in zip(*ratios, strict=False))


def _spreads(
    trained: Mapping[Candidate, Sequence[RunRecord]], value: Callable[[RunRecord], float | None]
) -> dict[Candidate, Spread]:
    """Mean and deviation of a value over the runs of each candidate that were trained to the end."""
    known = {
        candidate: [number for run in runs if run.accuracy is not None and (number := value(run)) is not None]
        for candidate, runs in trained.items()
    }
    return {candidate: spread(numbers) for candidate, numbers in known.items() if numbers}


def said_points(difference: Difference | None) -> str:
    """Points of accuracy ± standard error."""
    return "–" if difference is None else f"{100 * difference.mean:+.2f} ± {100 * difference.standard_error:.2f}"


def said_loss(log_ratio: Difference | None) -> str:
    """Per cent of the validation loss ± standard error."""
    return "–" if log_ratio is None else "{:+.1f} ± {:.1f} %".format(*per_cent(log_ratio))


def ablation_csv(found: Iterable[Ablation]) -> str:
    """One row a variant; accuracies and differences as fractions."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["trial", "choice", "change", "params", "macs", "n", "failed", "val_accuracy", "sd", "difference"]
    writer.writerow([*names, "standard_error", "p", "visible", "log_loss_difference", "its_error", "why_not"])
    for one in found:
        base = one.accuracy
        writer.writerow([one.trial, "", "unchanged", "", "", base.n, 0, base.mean, base.sd, *[""] * 7])
        for e in one.effects:
            mean, sd, n = (e.accuracy.mean, e.accuracy.sd, e.accuracy.n) if e.accuracy else ("", "", 0)
            points = (e.points.mean, e.points.standard_error, e.points.p, e.visible) if e.points else [""] * 4
            loss = (e.log_loss.mean, e.log_loss.standard_error) if e.log_loss else [""] * 2
            row = [one.trial, e.variant.choice, e.variant.change, e.params, e.macs, n, e.failed, mean, sd]
            writer.writerow([*row, *points, *loss, ""])
        for variant, why in one.forbidden:
            writer.writerow([one.trial, variant.choice, variant.change, *[""] * 12, why])
    return text.getvalue()


def ablations(history: History, validation: EvaluationSet) -> list[Ablation]:
    """Every ablation that the study holds, by trial; judged on the `validation` images."""
    runs = history.runs_of("ablation")
    numbers = {run.trial for run in runs}
    found = [
        ablation(trial, runs, history.constraints, validation) for trial in history.trials if trial.number in numbers
    ]
    return [one for one in found if one is not None]
