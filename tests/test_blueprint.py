"""Our own sampler: what it knows of a candidate, what it expects of one, and in a study of somebody else."""

import math
import random
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

import nas
from nas.network.architecture import Architecture
from nas.network.features import features
from nas.network.layers import Conv, Head, MaxPool, Transition
from nas.optuna_internals.studies import new_study
from nas.samplers.blueprint import STARTUP, BlueprintSampler
from nas.samplers.carried_on import carried_on
from nas.samplers.description import Describer
from nas.samplers.drafts import Drafts
from nas.samplers.evolution import EvolutionSampler
from nas.samplers.feasible import FeasibleSampler, make_sampler
from nas.samplers.forecast import LEARNED, Forecaster
from nas.samplers.mutation import mutated
from nas.samplers.surrogate import Floats, Scores, Surrogate
from nas.space.loading import load_space
from nas.space.search_space import Feasible
from nas.space.suggestions import Trial

DIGITS = load_space(str(Path(__file__).parent / "data" / "digits.py"))
LAST = math.log(19)


# what it knows of a candidate


def test_features_are_what_the_layers_make() -> None:
    layers = (
        Conv(out_channels=8),
        MaxPool(),
        Transition(out_channels=4),
        Conv(out_channels=16, padding=0, dropout=0.1),
    )
    found = features(Architecture(input_shape=(1, 28, 28), num_classes=10, layers=layers, head=Head()))
    assert found["log parameters"] == pytest.approx(math.log(8 * 9 + 16 + 8 * 4 + 4 + 4 * 16 * 9 + 32 + 170))
    assert found["log last map"] == pytest.approx(math.log(12 * 12))
    assert found["log last channels"] == pytest.approx(math.log(16))
    assert found["kernels larger than 1"] == 2
    assert found["log channels"] == pytest.approx(math.log(8 * 16) / 2)
    assert found["log fewest channels"] == pytest.approx(math.log(4))
    assert found["log extent"] == pytest.approx(math.log(3))
    assert found["dropout"] == pytest.approx(-math.log(0.9))
    assert (found["count of Convolution"], found["count of MaxPooling"]) == (4, 1)


def test_descriptions_are_deviations_among_the_examples() -> None:
    examples = [*islice(Drafts(DIGITS).drawn(random.Random(0)), 100)]
    describer = Describer(DIGITS.distributions, examples)
    table = describer.describe(examples)
    assert table.mean(axis=0) == pytest.approx(0, abs=1e-9)
    assert (table**2).mean() == pytest.approx(1), "a row is as long as it has features, whatever their weights"
    assert describer.describe([]).shape == (0, table.shape[1])
    assert (describer.describe(examples[:1]) == table[:1]).all()


# what it expects of one


def made_up(trials: int, *, stopped_after: int, seed: int = 0) -> tuple[Floats, Floats, Scores]:
    """Trials whose scores at the last epoch are a sum of their features; nine of ten were stopped."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((trials, 6))
    final = 0.2 * x[:, 0] + 0.1 * x[:, 1] - 4.0
    rows = []
    for i in range(trials):
        for epoch in [stopped_after, *([19] if i % 10 == 0 else [])]:
            early = 0.4 * (LAST - math.log(epoch))
            rows.append((i, math.log(epoch), final[i] + early + 0.02 * rng.standard_normal()))
    trial, log_epoch, value = (np.array(column) for column in zip(*rows, strict=True))
    return x, final, Scores(features=x, trial=trial, log_epoch=log_epoch, value=value, slopes=np.zeros(6))


@pytest.mark.parametrize("stopped_after", [1, 7])
def test_surrogate_tells_how_stopped_and_new_trials_would_end(stopped_after: int) -> None:
    _, final, scores = made_up(40, stopped_after=stopped_after)
    model = Surrogate(scores, LAST)
    assert np.corrcoef(model.known, final)[0, 1] > 0.95
    new, truth, _ = made_up(60, stopped_after=1, seed=1)
    assert np.corrcoef(model.expected(new), truth)[0, 1] > 0.95


def test_surrogate_expects_most_of_what_looks_better_than_the_best_and_less_beside_pending_ones() -> None:
    _, _, scores = made_up(40, stopped_after=1)
    model = Surrogate(scores, LAST)
    better, worse = np.array([[-3.0, -3.0, 0, 0, 0, 0]]), np.array([[3.0, 3.0, 0, 0, 0, 0]])
    nothing = np.empty((0, 6))
    (much,), (little,) = model.improvement(better, nothing), model.improvement(worse, nothing)
    assert much > 100 * little >= 0
    far = np.array([[0.0, 0.0, 4.0, 4.0, 4.0, 4.0]])
    assert model.improvement(far, far)[0] < model.improvement(far, nothing)[0]


def test_surrogate_of_equal_scores_expects_nothing_in_particular() -> None:
    scores = Scores(
        features=np.eye(3), trial=np.arange(3), log_epoch=np.zeros(3), value=np.full(3, 0.5), slopes=np.zeros(3)
    )
    assert np.isfinite(Surrogate(scores, LAST).improvement(np.eye(3), np.empty((0, 3)))).all()


# small changes

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "whole": IntDistribution(2, 11, step=3),
    "scale": IntDistribution(1, 1000, log=True),
    "share": FloatDistribution(0.0, 0.3, step=0.1),
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "free": FloatDistribution(-1.0, 1.0),
    "kind": CategoricalDistribution(("a", None, 3)),
}
FIRST = {"whole": 5, "scale": 10, "share": 0.1, "rate": 0.1, "free": 0.0, "kind": "a"}


@given(st.integers())
def test_a_mutation_stays_among_what_may_be_suggested(seed: int) -> None:
    changed = mutated(FIRST, DISTRIBUTIONS, random.Random(seed))
    assert changed.keys() == FIRST.keys()
    for name, distribution in DISTRIBUTIONS.items():
        create_trial(params={name: changed[name]}, distributions={name: distribution}, value=0.0)  # which checks it


# in a study of somebody else


def test_blueprint_sampler_serves_any_study_of_the_space() -> None:
    """It proposes feasible candidates only, each once, and finds larger ones where those score better."""

    def objective(trial: optuna.Trial) -> float:
        candidate = DIGITS.sample(cast(Trial, trial))
        found = DIGITS.check(candidate)
        assert isinstance(found, Feasible)
        tried.append(candidate)
        return -float(found.cost.params)

    scores = {}
    for direction, sign in ((StudyDirection.MINIMIZE, 1), (StudyDirection.MAXIMIZE, -1)):
        tried: list[Any] = []
        study = optuna.create_study(sampler=nas.BlueprintSampler(DIGITS, seed=3), direction=direction)
        study.optimize(lambda trial, sign=sign: sign * objective(trial), n_trials=STARTUP + 8)  # type: ignore[misc]
        values = [abs(trial.value or 0) for trial in study.trials]
        scores[direction] = sum(values[STARTUP:]) / 8 - sum(values[:STARTUP]) / STARTUP
        assert len(set(tried)) == len(tried)
    assert min(scores.values()) > 0


def test_every_second_candidate_of_blueprint_is_a_draw_whatever_the_scores() -> None:
    def proposed(better: bool) -> list[dict[str, Any]]:
        """What is proposed after trials that scored better with more parameters, or worse."""
        study, found = new_study("study"), list[dict[str, Any]]()
        for number, draft in enumerate(islice(Drafts(DIGITS).drawn(random.Random(0)), STARTUP + 6)):
            if number >= STARTUP:
                found.append(
                    FeasibleSampler(make_sampler("blueprint", DIGITS, 0), DIGITS, 0, set()).propose(study).params
                )
            size = features(draft.candidate.architecture)["log parameters"]
            study.add_trial(
                create_trial(
                    value=math.exp(-size if better else size),
                    params=dict(draft.params),
                    distributions=DIGITS.distributions,
                    intermediate_values={1: math.exp(-size if better else size)},
                )
            )
        return found

    some, others = proposed(True), proposed(False)
    assert [one == other for one, other in zip(some, others, strict=True)] == [False, True] * 3


def test_blueprint_sampler_passes_over_what_is_none_of_the_space() -> None:
    """Optuna fills in one parameter after the other, and people mark what is not feasible as pruned."""
    sampler = BlueprintSampler(DIGITS, seed=1)
    study = optuna.create_study(sampler=sampler)
    rng = random.Random(0)
    for _ in range(40):
        study.add_trial(
            create_trial(params=DIGITS.draw(rng), distributions=DIGITS.distributions, state=TrialState.PRUNED)
        )
    name, distribution = next(iter(DIGITS.distributions.items()))
    study.add_trial(create_trial(params={name: DIGITS.draw(rng)[name]}, distributions={name: distribution}, value=1.0))
    for number in range(STARTUP + 2):
        trial = study.ask(dict(DIGITS.distributions))
        assert isinstance(DIGITS.check(DIGITS.decode(trial.params)), Feasible)
        study.tell(trial, 1.0 + number)


def test_a_forecast_passes_over_scores_that_are_no_number_and_what_the_space_does_not_suggest() -> None:
    forecaster, rng = Forecaster(DIGITS, 0), random.Random(0)
    known = [draft.params for draft in islice(forecaster.drafts.drawn(rng), 8)]
    name = next(n for n, d in DIGITS.distributions.items() if isinstance(d, IntDistribution))
    odd = {**known[6], name: 10_000}
    trials = [
        create_trial(params=dict(params), distributions=DIGITS.distributions, value=value)
        for params, value in zip(known, [1.0, 2.0, math.inf, -math.inf, 0.5], strict=False)
    ]
    for number, trial in enumerate(trials):
        trial.number = number
    forecast = forecaster.fit(trials, StudyDirection.MINIMIZE, 1)
    assert forecast is not None
    assert forecast.trials == [0, 1, 4]
    assert np.isfinite(forecast.model.known).all()
    assert forecaster.fit(trials, StudyDirection.MINIMIZE, 4) is None
    assert forecaster.drafts.known(odd) is None


def test_a_forecast_of_many_trials_learns_from_the_best_and_from_some_others() -> None:
    forecaster = Forecaster(DIGITS, 0)
    drafts = [*islice(forecaster.drafts.drawn(random.Random(1)), LEARNED + 50)]
    trials = [
        create_trial(params=dict(draft.params), distributions=DIGITS.distributions, value=float(number))
        for number, draft in enumerate(drafts)
    ]
    for number, trial in enumerate(trials):
        trial.number = number
    forecast = forecaster.fit(trials, StudyDirection.MAXIMIZE, 1)
    assert forecast is not None
    assert len(forecast.trials) == LEARNED
    assert set(range(len(trials) - LEARNED // 2, len(trials))) <= set(forecast.trials), "the best half of them"


def test_blueprint_sampler_learns_where_hardly_any_draw_is_feasible() -> None:
    tight = load_space("mnist").restrict(max_params=4_600)
    study = optuna.create_study(sampler=BlueprintSampler(tight, seed=1))
    rng = random.Random(1)
    draws = (tight.draw(rng) for _ in range(60_000))
    parent = next(params for params in draws if isinstance(tight.check(tight.decode(params)), Feasible))
    for number in range(STARTUP):
        changed = mutated(parent, tight.distributions, rng)
        while not isinstance(tight.check(tight.decode(changed)), Feasible):
            changed = mutated(parent, tight.distributions, rng)
        study.add_trial(create_trial(params=changed, distributions=tight.distributions, value=1.0 + number))
    trial = study.ask(dict(tight.distributions))
    assert isinstance(tight.check(tight.decode(trial.params)), Feasible)


def test_blueprint_sampler_draws_where_nothing_is_feasible() -> None:
    nowhere = DIGITS.restrict(max_params=1)
    study = optuna.create_study(sampler=BlueprintSampler(nowhere, seed=0))
    trial = study.ask(dict(nowhere.distributions))
    assert trial.params.keys() == nowhere.distributions.keys()


def test_evolution_changes_the_best_of_the_latest() -> None:
    study = optuna.create_study(sampler=EvolutionSampler(seed=0, population=6, tournament=6))

    def objective(trial: optuna.Trial) -> float:
        score = abs(trial.suggest_int("x", 0, 100) - 70) + trial.suggest_int("y", 0, 100)
        trial.report(score, 1)
        return score

    study.optimize(objective, n_trials=60)
    values = [trial.value or 0.0 for trial in study.trials]
    assert sum(values[-20:]) < 0.6 * sum(values[:20])


# trials that were stopped


def a_trial(number: int, *scores: float, state: TrialState) -> optuna.trial.FrozenTrial:
    trial = create_trial(
        state=state,
        value=scores[-1],
        params={"x": number},
        distributions={"x": IntDistribution(0, 9)},
        intermediate_values=dict(enumerate(scores, 1)),
    )
    trial.number = number
    return trial


def test_stopped_trials_are_carried_on_as_the_others_went() -> None:
    stopped, complete = TrialState.PRUNED, TrialState.COMPLETE
    trials = [
        a_trial(0, 1.0, 0.5, 0.2, state=complete),
        a_trial(1, 2.0, state=stopped),
        a_trial(2, 1.0, 0.8, 0.4, state=complete),
        a_trial(3, 1.5, 1.0, state=stopped),
    ]
    carried = carried_on(trials)
    assert [trial.number for trial in carried] == [0, 1, 2, 3]
    assert {trial.state for trial in carried} == {complete}
    assert [trial.value for trial in carried] == pytest.approx([0.2, 2.0 * 0.3, 0.4, 1.0 * 0.45])
    assert [trial.value for trial in carried_on(trials[1:2])] == [2.0], "none went further"
    assert carried_on([]) == []
