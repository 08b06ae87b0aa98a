"""Trials that were stopped, as if they had gone on: for samplers that learn from complete trials alone."""

from collections.abc import Sequence
from statistics import median

from optuna.trial import FrozenTrial, TrialState, create_trial


def carried_on(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that have reported, each complete with the score that is expected of it at the last epoch of all.

    A trial that was stopped goes on from its last score as the median of those did that were not stopped.
    """
    scored = [trial for trial in trials if trial.intermediate_values]
    if not scored:
        return []
    ends = {max(trial.intermediate_values) for trial in scored}
    last = max(ends)
    went_on = [trial.intermediate_values for trial in scored if last in trial.intermediate_values]
    falls = {
        end: median([scores[last] / scores[end] for scores in went_on if scores.get(end)] or [1.0]) for end in ends
    }
    return [_complete(trial, falls) for trial in scored]


def _complete(trial: FrozenTrial, falls: dict[int, float]) -> FrozenTrial:
    end = max(trial.intermediate_values)
    ended = create_trial(
        state=TrialState.COMPLETE,
        value=trial.intermediate_values[end] * falls[end],
        params=trial.params,
        distributions=trial.distributions,
    )
    ended.number = trial.number
    return ended
