"""Pruners: which trials they stop, by hand."""

from collections.abc import Callable

import optuna
import pytest

from nas.optuna_internals.studies import new_study
from nas.optuna_internals.trials import is_hopeless, report_epoch
from nas.tuner.names import PRUNERS, PrunerName
from nas.tuner.pruning import RungPruner, make_pruner


def curve(losses: list[float]) -> list[dict[str, float]]:
    """All with the same accuracy."""
    return [{"epoch": epoch, "val_accuracy": 0.5, "val_loss": loss} for epoch, loss in enumerate(losses, 1)]


def stopped_at(study: optuna.Study, losses: list[float]) -> int | None:
    """The epoch after which a new trial is stopped; the trial stays in flight."""
    trial = study.ask()
    for epoch in range(1, len(losses) + 1):
        report_epoch(trial, curve(losses)[:epoch])
        if is_hopeless(trial):
            return epoch
    return None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rungs", RungPruner),
        ("hyperband", optuna.pruners.HyperbandPruner),
        ("median", optuna.pruners.MedianPruner),
        ("none", optuna.pruners.NopPruner),
    ],
)
def test_make_pruner(name: PrunerName, kind: Callable[..., optuna.pruners.BasePruner]) -> None:
    assert isinstance(make_pruner(name, 4), kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PRUNERS)
def test_the_first_trial_is_never_stopped(name: PrunerName) -> None:
    study = new_study("x", pruner=make_pruner(name, 19))
    assert stopped_at(study, [0.5] * 18) is None


def test_rung_pruner_keeps_the_share_of_all_trials_with_the_lowest_losses() -> None:
    study = new_study("x", pruner=RungPruner({1: 1 / 2, 3: 1 / 3}))
    assert stopped_at(study, [0.5, 0.4, 0.3, 0.2]) is None  # alone
    assert stopped_at(study, [0.6, 0.1, 0.1, 0.1]) == 1  # the best half of 2 is 0.5
    assert stopped_at(study, [0.4, 0.9, 0.4, 0.1]) == 3  # of 3: 0.4; no rung at 2; at 3 the best third of 3 is 0.3
    assert stopped_at(study, [0.5, 0.4, 0.2, 0.2]) is None  # of 4: 0.4 and 0.5, and it is as good
    assert stopped_at(study, [0.5001, 0.1, 0.1, 0.1]) == 1  # of 5: 0.4 and 0.5
    assert stopped_at(study, [0.4, 0.4, 0.3, 0.3]) is None  # of 6, all of which count after epoch 3: 0.2 and 0.3


def test_rung_pruner_decides_alike_after_a_resume() -> None:
    """It keeps nothing of its own: a new one on the same study goes on where the other was."""
    storage = optuna.storages.InMemoryStorage()
    losses = [[0.5, 0.4], [0.6, 0.4], [0.4, 0.3], [0.45, 0.2], [0.3, 0.35]]
    straight = new_study("x", pruner=make_pruner("rungs", 19))
    expected = [stopped_at(straight, [*trial, 0.1, 0.1]) for trial in losses]
    for i, trial in enumerate(losses):
        study = new_study("x", storage, make_pruner("rungs", 19))
        assert stopped_at(study, [*trial, 0.1, 0.1]) == expected[i]


@pytest.mark.parametrize(
    ("epochs", "rungs"), [(19, {1, 3, 7}), (40, {1, 3, 7, 15}), (6, {1, 3}), (4, {1}), (2, {1}), (1, set())]
)
def test_rungs_are_in_the_first_half_of_a_training(epochs: int, rungs: set[int]) -> None:
    study = new_study("x", pruner=make_pruner("rungs", epochs))
    stopped_at(study, [0.1] * epochs)
    found = set()
    for rung in range(1, epochs + 1):
        found.add(stopped_at(study, [0.1] * (rung - 1) + [0.2] * (epochs - rung + 1)))
    assert found - {None} == rungs
