"""Which of Optuna's samplers proposes, and by which path: the quick TPE of `tpe`, or what Optuna's interface offers."""

from collections.abc import Callable
from typing import TypeAlias

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import TrialState, create_trial

from nas.optuna_internals.ranking import DRAWN, RankingSampler
from nas.optuna_internals.snapshot import as_study

PUBLIC_PATH = "Optuna's public interface"  # what trials are proposed by where the quick TPE cannot be used
Maker: TypeAlias = Callable[[int], BaseSampler]


def tpe() -> Maker:
    """TPE for a seed: the quick one if it works with this release of Optuna, or else Optuna's own."""
    try:
        from nas.optuna_internals.tpe import RepeatedTPESampler

        _try_out(RepeatedTPESampler(0))
    except (ImportError, AttributeError, TypeError, ValueError, LookupError):
        return public_tpe
    return RepeatedTPESampler


def public_tpe(seed: int) -> BaseSampler:
    """Optuna's own TPE; it fits its estimators for every proposal."""
    return TPESampler(seed=seed, n_ei_candidates=DRAWN)


def path_of(make: Maker) -> str | None:
    """By which path candidates are proposed, if it is not the usual one."""
    return PUBLIC_PATH if make is public_tpe else None


def _try_out(sampler: RankingSampler) -> None:
    """Let it rank proposals from a few trials. Raises ValueError, or what Optuna says, if it does not."""
    space: dict[str, BaseDistribution] = {"x": IntDistribution(1, 5), "y": CategoricalDistribution((True, False))}
    trials = [
        create_trial(params={"x": 1 + i % 5, "y": i < 10}, distributions=space, value=float(i)) for i in range(20)
    ]
    for number, trial in enumerate(trials):
        trial.number = number
    running = create_trial(state=TrialState.RUNNING)
    running.number = len(trials)
    ranked = list(sampler.ranked(as_study(trials), running, space))
    if len(ranked) != DRAWN or any(params.keys() != space.keys() for params in ranked) or not sampler.fitted:
        raise ValueError(f"{len(ranked)} proposals in place of {DRAWN}")
