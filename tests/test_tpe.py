"""TPE from tables: the same distribution as Optuna's, looked up."""

import math
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.trial import FrozenTrial

from nas.optuna_internals.ranking import DRAWN
from nas.optuna_internals.tpe import FEW, RepeatedTPESampler, TabulatedEstimator
from nas.space.loading import load_space

SPACE: dict[str, BaseDistribution] = {
    "cells": IntDistribution(4, 6),
    "kernels": IntDistribution(12, 40, step=4),
    "width": IntDistribution(1, 30, log=True),
    "dropout": FloatDistribution(0.0, 0.3, step=0.1),
    "size": CategoricalDistribution((3, 5)),
    "after": CategoricalDistribution(("nothing", "pool", None)),
    "same": IntDistribution(7, 7),
}
CONTINUOUS: dict[str, BaseDistribution] = {**SPACE, "rate": FloatDistribution(1e-3, 1e-1, log=True)}


def study_of(space: dict[str, BaseDistribution], trials: int, seed: int = 0) -> optuna.Study:
    """Better with more kernels and less dropout."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=seed))
    for i in range(trials):
        trial = study.ask(space)
        study.tell(trial, trial.params.get("kernels", 0) / 40 - trial.params.get("dropout", 0) + 0.01 * (i % 7))
    return study


def begun(study: optuna.Study) -> FrozenTrial:
    """A trial that nothing has been proposed for yet."""
    number = study.ask().number
    return study.get_trials(deepcopy=False)[number]


def estimators(space: dict[str, BaseDistribution], trials: int, seed: int) -> dict[bool, _ParzenEstimator]:
    """Optuna's own of the good and of the other trials."""
    study = study_of(space, trials, seed)
    ended, tpe = study.get_trials(deepcopy=False), TPESampler()
    good, others = ended[: trials // 4], ended[trials // 4 :]
    return {
        True: tpe._build_parzen_estimator(study, space, good, handle_below=True),
        False: tpe._build_parzen_estimator(study, space, others, handle_below=False),
    }


@settings(max_examples=20, deadline=None)
@given(trials=st.integers(0, 60), seed=st.integers(0, 99), good=st.booleans())
def test_densities_are_those_of_optuna(trials: int, seed: int, good: bool) -> None:
    estimator = estimators(SPACE, trials, seed)[good]
    samples = estimator.sample(np.random.RandomState(seed), 24)
    np.testing.assert_allclose(TabulatedEstimator(estimator).log_pdf(samples), estimator.log_pdf(samples), rtol=1e-10)


def test_samples_come_as_often_as_their_densities_say() -> None:
    """Over all 96 combinations of three parameters."""
    names, draws = ("kernels", "dropout", "after"), 50_000
    estimator = estimators({name: SPACE[name] for name in names}, 40, 0)[True]
    samples = TabulatedEstimator(estimator).sample(np.random.RandomState(0), draws)
    seen, counts = np.unique(np.array([samples[name] for name in names]).round(9), axis=1, return_counts=True)
    expected = draws * np.exp(estimator.log_pdf(dict(zip(names, seen, strict=True))))
    assert expected.sum() == pytest.approx(draws, rel=0.01)  # so that nothing likely is missing, ...
    z = (counts - expected) / np.sqrt(expected)
    assert np.abs(z).max() < 4.5  # ... and nothing comes too often or too seldom


@pytest.mark.parametrize("high", [0.3, 0.6, 0.7, 1.2])
def test_every_value_of_a_table_is_one_of_its_parameter(high: float) -> None:
    """Three steps of 0.1 are more than 0.3."""
    parameter = FloatDistribution(0.0, high, step=0.1)
    estimator = TabulatedEstimator(estimators({"dropout": parameter}, 8, 0)[False])
    values = np.unique(estimator.sample(np.random.RandomState(0), 5_000)["dropout"])
    assert len(values) == round(10 * high) + 1
    assert all(map(parameter._contains, values))
    assert values[-1] == high


@pytest.mark.parametrize("space", [SPACE, CONTINUOUS, load_space("mnist").distributions])
def test_what_was_fitted_once_proposes_the_same_again(space: dict[str, BaseDistribution]) -> None:
    study = study_of(space, 30)
    varied = {name: distribution for name, distribution in space.items() if not distribution.single()}
    trial = begun(study)
    first, again = RepeatedTPESampler(5), RepeatedTPESampler(5)
    proposed = first.sample_relative(study, trial, varied)
    again.fitted = first.fitted
    assert again.sample_relative(study, trial, varied) == proposed
    kind = _ParzenEstimator if space is CONTINUOUS else TabulatedEstimator
    assert {type(fitted) for fitted in first.fitted[tuple(varied)].values()} == {kind}
    for name, value in proposed.items():
        assert space[name]._contains(space[name].to_internal_repr(value))
        assert type(value) in (str, int, float, type(None))


@pytest.mark.parametrize("space", [SPACE, CONTINUOUS])
def test_the_first_of_a_ranking_is_what_optuna_takes_and_the_others_follow_by_gain(
    space: dict[str, BaseDistribution],
) -> None:
    study = study_of(space, 30)
    trial = begun(study)
    ranked = list(RepeatedTPESampler(5).ranked(study, trial, space))
    sampler = RepeatedTPESampler(5)
    assert ranked[0] == sampler.sample_relative(study, trial, space)
    assert len(ranked) == DRAWN
    kept = {name: [d.to_internal_repr(params[name]) for params in ranked] for name, d in space.items()}
    samples = {name: np.array(values) for name, values in kept.items()}
    good, others = (sampler.fitted[tuple(space)][which] for which in (True, False))
    gains = good.log_pdf(samples) - others.log_pdf(samples)
    assert (np.diff(gains) <= 1e-9).all()


def test_without_enough_trials_nothing_is_ranked() -> None:
    study = study_of(SPACE, 3)
    assert list(RepeatedTPESampler(5).ranked(study, begun(study), SPACE)) == [{}]


def test_a_continuous_parameter_leaves_all_to_optuna() -> None:
    study = study_of(CONTINUOUS, 30)
    trial = begun(study)
    expected = TPESampler(seed=3, n_ei_candidates=DRAWN).sample_relative(study, trial, CONTINUOUS)
    assert RepeatedTPESampler(3).sample_relative(study, trial, CONTINUOUS) == expected


@pytest.mark.parametrize(
    ("distribution", "tabulated"),
    [
        (IntDistribution(0, FEW), True),
        (IntDistribution(0, FEW + 1), False),
        (FloatDistribution(0, 1, step=0.01), True),
        (FloatDistribution(0, 1), False),
        (CategoricalDistribution(tuple(range(FEW))), True),
        (CategoricalDistribution(tuple(range(FEW + 1))), False),
    ],
)
def test_parameters_of_many_values_have_no_table(distribution: BaseDistribution, tabulated: bool) -> None:
    space: dict[str, BaseDistribution] = {"kernels": IntDistribution(1, 9), "dropout": FloatDistribution(0, 1, step=1)}
    study = study_of({**space, "x": distribution}, 12)
    sampler = RepeatedTPESampler(0)
    found = sampler.sample_relative(study, begun(study), {"x": distribution})
    assert (type(sampler.fitted[("x",)][True]) is TabulatedEstimator) is tabulated
    assert not math.isnan(found["x"])


def test_better_values_are_proposed_more_often() -> None:
    """Of many kernels and little dropout, which is what was good."""
    study = study_of(SPACE, 60)
    trial = begun(study)
    proposed: list[dict[str, Any]] = [RepeatedTPESampler(i).sample_relative(study, trial, SPACE) for i in range(40)]
    assert np.mean([params["kernels"] for params in proposed]) > 30
    assert np.mean([params["dropout"] for params in proposed]) < 0.08
