"""Search spaces: recording, decoding and drawing against Optuna and scipy, and what a space file may not do."""

import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import log
from pathlib import Path
from time import process_time
from typing import Any, cast

import optuna
import pytest
from optuna.trial import FixedTrial, create_trial
from scipy import stats

import search_spaces
from nas.errors import UserError
from nas.network.architecture import Architecture
from nas.network.cost import cost
from nas.network.layers import Conv, Head
from nas.network.limits import MACS, PARAMS, Constraints, Violation
from nas.space.candidate import Candidate
from nas.space.loading import load_space, space_name
from nas.space.recipe import Recipe
from nas.space.search_space import Feasible, Rejected, SearchSpace
from nas.space.suggestions import Trial

DATA = Path(__file__).parent / "data"
DRAWS = 5_000
SIGNIFICANCE = 1e-3  # of tests with a fixed seed: they fail only when the code changes


def sample_every_kind(trial: Trial) -> Candidate:
    """Suggests each kind of parameter once; the candidate does not depend on them."""
    trial.suggest_int("int", 3, 9)
    trial.suggest_int("int step", 8, 32, step=4)
    trial.suggest_int("int log", 1, 8, log=True)
    trial.suggest_float("float", -1.0, 2.0)
    trial.suggest_float("float step", 0.0, 0.3, step=0.1)
    trial.suggest_float("float log", 1e-4, 1e-1, log=True)
    trial.suggest_float("float log of one value", 0.1, 0.1, log=True)
    trial.suggest_categorical("categorical", ("a", "b", None))
    architecture = Architecture(input_shape=(1, 28, 28), num_classes=10, layers=(), head=Head())
    return Candidate(architecture=architecture, recipe=Recipe())


def every_kind() -> SearchSpace:
    return SearchSpace(sample=sample_every_kind, constraints=Constraints(), dataset="mnist", recipe=Recipe())


def recorded_by_optuna(sample: Callable[[Trial], Candidate]) -> dict[str, Any]:
    trial = optuna.create_study().ask()
    sample(cast(Trial, trial))  # the protocol keeps the types of choices, which Optuna's signature widens
    return trial.distributions


def test_distributions_are_those_that_optuna_records() -> None:
    for space in (load_space("mnist"), every_kind()):
        assert space.distributions == recorded_by_optuna(space.sample)


def test_distributions_of_every_known_space_are_those_that_optuna_records() -> None:
    for file in Path(search_spaces.__path__[0]).glob("[!_]*.py"):
        space = load_space(file.stem)
        assert space.distributions == recorded_by_optuna(space.sample)


def test_decode_gives_what_optuna_gives_for_the_same_parameters() -> None:
    space, rng = load_space("mnist"), random.Random(0)
    for _ in range(200):
        params = space.draw(rng)
        assert space.decode(params) == space.sample(cast(Trial, FixedTrial(params)))


def draws(name: str) -> list[Any]:
    space, rng = every_kind(), random.Random(0)
    return [space.draw(rng)[name] for _ in range(DRAWS)]


@pytest.mark.parametrize("name", every_kind().distributions)
def test_draw_stays_within_the_distribution(name: str) -> None:
    distribution = every_kind().distributions[name]
    for value in set(draws(name)):  # create_trial refuses a value that its distribution does not contain
        create_trial(params={name: value}, distributions={name: distribution}, value=0.0)


@pytest.mark.parametrize(
    ("name", "chances"),
    [
        ("int", dict.fromkeys(range(3, 10), 1 / 7)),
        ("int step", dict.fromkeys(range(8, 33, 4), 1 / 7)),
        ("int log", {k: log((k + 1) / k) / log(9) for k in range(1, 9)}),
        ("categorical", {"a": 1 / 3, "b": 1 / 3, None: 1 / 3}),
    ],
)
def test_draw_is_uniform_over_discrete_values(name: str, chances: dict[Any, float]) -> None:
    counts = Counter(draws(name))
    assert set(counts) == set(chances)
    test = stats.chisquare([counts[value] for value in chances], [DRAWS * chance for chance in chances.values()])
    assert test.pvalue > SIGNIFICANCE


def test_draw_is_uniform_over_steps_of_a_float() -> None:
    steps = Counter(round(value * 10) for value in draws("float step"))
    assert set(steps) == {0, 1, 2, 3}
    assert stats.chisquare(list(steps.values())).pvalue > SIGNIFICANCE


@pytest.mark.parametrize(
    ("name", "distribution"),
    [("float", stats.uniform(-1.0, 3.0)), ("float log", stats.loguniform(1e-4, 1e-1))],
)
def test_draw_is_uniform_over_continuous_values(name: str, distribution: Any) -> None:
    assert stats.kstest(draws(name), distribution.cdf).pvalue > SIGNIFICANCE


def test_draw_repeats_with_the_seed() -> None:
    space = load_space("mnist")
    assert space.draw(random.Random(7)) == space.draw(random.Random(7)) != space.draw(random.Random(8))


def candidate_of(*layers: Conv) -> Candidate:
    architecture = Architecture(input_shape=(1, 28, 28), num_classes=10, layers=layers, head=Head())
    return Candidate(architecture=architecture, recipe=Recipe())


def test_check_tells_feasible_from_rejected() -> None:
    space = load_space("mnist")
    good = candidate_of(Conv(out_channels=8))
    assert space.check(good) == Feasible(candidate=good, cost=cost(good.architecture))
    # 9·200 + 400 parameters of the first cell, 9·200·10 + 20 of the second, 10·10 + 10 of the head.
    heavy = candidate_of(Conv(out_channels=200), Conv(out_channels=10))
    assert space.check(heavy) == Rejected(
        violations=(
            Violation(limit=PARAMS, value=20_330, bound=20_000),
            Violation(limit=MACS, value=(1_800 + 18_000) * 784 + 100, bound=2_000_000),
        )
    )
    assert space.check(candidate_of(Conv(out_channels=8, kernel_size=29, padding=0))) == Rejected(violations=())


def test_draw_decode_and_check_of_the_default_space_exceed_5000_candidates_a_second() -> None:
    space, rng, count = load_space("mnist"), random.Random(0), 2_000

    def rate() -> float:
        start = process_time()  # of this process alone, because the machine may be busy
        for _ in range(count):
            space.check(space.decode(space.draw(rng)))
        return count / (process_time() - start)

    assert max(rate() for _ in range(8)) > 5_000


def test_load_space_by_path_gives_its_parameters_and_task() -> None:
    space = load_space(str(DATA / "valid.py"))
    assert list(space.distributions) == ["kernels"]
    assert (space.input_shape, space.num_classes) == ((1, 28, 28), 10)


@pytest.mark.parametrize(("text", "name"), [("mnist", "mnist"), ("somewhere/my_space.py", "my_space")])
def test_space_name_is_that_of_the_file(text: str, name: str) -> None:
    assert space_name(text) == name


@pytest.mark.parametrize("text", ["mnits", "pyproject.toml", "nas", "", "__init__"])
def test_load_space_of_an_unknown_name_lists_the_known_ones(text: str) -> None:
    known = sorted(file.stem for file in Path(search_spaces.__path__[0]).glob("[!_]*.py"))
    assert "mnist" in known
    message = f"unknown search space {text!r}; known are {', '.join(known)}, or give the path of a .py file"
    if text == "mnits":
        message += "; did you mean mnist?"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        load_space(text)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "sometimes_suggested",
            "parameter 'dropout' is suggested only for some candidates; suggest it always and ignore it when unused",
        ),
        ("changing_range", "parameter 'kernels' changes its range from draw to draw; give it one range"),
        ("suggested_twice", "parameter 'kernels' is suggested twice with different ranges; give each its own name"),
        ("other_epochs", "a candidate has 3 epochs; all must have the recipe's"),
        ("changing_task", "candidates differ in input shape or number of classes; all must be for the same task"),
        ("no_parameters", "sample suggests no parameter that can vary, so there is nothing to search"),
        ("wrong_return", "sample returned Architecture; it must return a nas.space.candidate.Candidate"),
        ("bad_layer", "Conv: out_channels 0 must be a whole number, at least 1"),
        ("raises", "ZeroDivisionError: integer division or modulo by zero; the file must run without errors"),
        ("leaves", "SystemExit: bye; the file must run without errors"),
        ("no_space", "defines no SPACE; it must end with SPACE = SearchSpace(...)"),
    ],
)
def test_load_space_says_which_rule_a_file_breaks(name: str, message: str) -> None:
    path = DATA / f"{name}.py"
    with pytest.raises(UserError, match=f"^{re.escape(f'{path}: {message}')}$"):
        load_space(str(path))


def test_load_space_says_where_the_syntax_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "unfinished.py"  # not in tests/data: the linter would stop at it
    path.write_text("SPACE = (\n")
    message = f"{path}: SyntaxError: '(' was never closed (unfinished.py, line 1); the file must run without errors"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        load_space(str(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": 99.4}, "target 99.4 must be a fraction above 0 and at most 1, such as 0.994"),
        ({"target": 0.0}, "target 0.0 must be a fraction above 0 and at most 1, such as 0.994"),
        ({"constraints": Constraints(max_epochs=1)}, "recipe: epochs 2 is more than the space's limit of 1"),
        (
            {"baseline": replace(candidate_of().architecture, num_classes=11)},
            "baseline has another input shape or number of classes than the candidates; make them equal",
        ),
    ],
)
def test_search_space_refuses_settings_that_contradict(changes: dict[str, Any], message: str) -> None:
    space = load_space(str(DATA / "valid.py"))
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        replace(space, **changes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"epochs": 25},
            "--epochs 25 is more than the search space allows (19); loosen its constraints instead",
        ),
        (
            {"max_params": 20_001},
            "--max-params 20001 is more than the search space allows (20000); loosen its constraints instead",
        ),
        (
            {"max_macs": 2_000_001},
            "--max-macs 2000001 is more than the search space allows (2000000); loosen its constraints instead",
        ),
        (
            {"min_receptive_field": 19},
            "--min-receptive-field 19 is less than the search space asks for (20); loosen its constraints instead",
        ),
        ({"epochs": 0}, "--epochs 0 must be at least 1"),
        ({"max_params": -5}, "--max-params -5 must be at least 1"),
        ({"max_macs": 0}, "--max-macs 0 must be at least 1"),
    ],
)
def test_restrict_refuses_more_than_the_space_allows(settings: dict[str, int], message: str) -> None:
    space = load_space("mnist").restrict(min_receptive_field=20)
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        space.restrict(**settings)


def test_restrict_changes_the_recipe_of_every_candidate_and_nothing_else_of_it() -> None:
    space, rng = load_space("mnist"), random.Random(0)
    short = space.restrict(epochs=3)
    assert short.recipe == replace(space.recipe, epochs=3)
    assert (short.constraints, short.distributions) == (space.constraints, space.distributions)
    for _ in range(20):
        params = space.draw(rng)
        long = space.decode(params)
        assert short.decode(params) == replace(long, recipe=replace(long.recipe, epochs=3))


def test_restrict_tightens_the_limits() -> None:
    space = load_space("mnist")
    tight = space.restrict(epochs=19, max_params=10_000, max_macs=1_000_000)
    assert tight.constraints == replace(space.constraints, max_params=10_000, max_macs=1_000_000)
    assert tight.recipe == space.recipe
    assert space.restrict(max_params=20_000).constraints == space.constraints


def test_a_space_on_other_data_has_the_same_networks_for_its_shape_and_classes() -> None:
    space, rng = load_space("mnist"), random.Random(0)
    other = space.on("my/photos", (3, 56, 14), 4, called="photos")
    assert (other.dataset, other.name, other.input_shape, other.num_classes) == ("my/photos", "photos", (3, 56, 14), 4)
    assert (other.target, other.baseline) == (None, None)
    assert other.constraints == space.constraints, "as many pixels, so as many MACs"
    assert space.on("x", (1, 56, 56), 4).constraints.max_macs == 8_000_000
    for _ in range(20):
        params = space.draw(rng)
        here, there = space.decode(params), other.decode(params)
        changed = replace(here.architecture, input_shape=(3, 56, 14), num_classes=4)
        assert there == replace(here, architecture=changed)


def test_a_space_on_few_images_has_smaller_batches() -> None:
    space = load_space("mnist")
    few = space.for_few(300).restrict(epochs=3)
    assert (few.recipe.batch_size, few.recipe.epochs, few.cross_validation) == (16, 3, 2)
    assert few.decode(space.draw(random.Random(0))).recipe == few.recipe
    assert space.for_few(300, own_validation=True).cross_validation == 0
    assert [space.for_few(images).cross_validation for images in (1_279, 1_280)] == [2, 0]
    assert space.for_few(50_000).recipe == space.recipe


def test_a_space_judged_by_balanced_accuracy_balances_its_batches() -> None:
    space = load_space("mnist").judged_by("balanced_accuracy")
    params = space.draw(random.Random(0))
    assert (space.metric, space.recipe.balanced_batches) == ("balanced_accuracy", True)
    assert space.decode(params).recipe == space.recipe
    assert space.judged_by("accuracy").recipe == space.recipe, "balanced batches may serve accuracy, too"


def test_restrict_sets_limits_that_the_space_left_open() -> None:
    space = load_space(str(DATA / "valid.py"))
    bounds = {"max_params": 100, "max_macs": 200, "max_activation_bytes": 300, "min_receptive_field": 4}
    limited = space.restrict(epochs=50, **bounds)
    assert {name: getattr(limited.constraints, name) for name in bounds} == bounds
    assert limited.recipe.epochs == 50


def test_space_refuses_choices_that_cannot_be_stored() -> None:
    def sample(trial: Trial) -> Candidate:
        head = trial.suggest_categorical("head", (Head(), Head(kind="conv_pool")))
        return replace(candidate, architecture=replace(candidate.architecture, head=head))

    candidate = load_space("mnist").decode(load_space("mnist").draw(random.Random(0)))
    message = f"parameter 'head' has the choice {Head()!r}; use text, numbers, True, False or None"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        replace(load_space("mnist"), sample=sample)


def test_space_refuses_parameters_that_cannot_vary() -> None:
    def sample(trial: Trial) -> Candidate:
        trial.suggest_int("kernels", 8, 8)
        return candidate

    candidate = load_space("mnist").decode(load_space("mnist").draw(random.Random(0)))
    message = "sample suggests no parameter that can vary, so there is nothing to search"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        replace(load_space("mnist"), sample=sample)


def test_load_space_of_an_absent_file_says_so() -> None:
    message = "search space 'nowhere/absent.py': there is no such file; give its path, or one of fashion_mnist, mnist"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        load_space("nowhere/absent.py")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"kernel1": 16}, "the space suggests no parameter 'kernel1'; did you mean kernels1?"),
        ({"kernels1": 18}, "parameter 'kernels1' cannot be 18; the space suggests IntDistribution("),
        ({"kernels1": "16"}, "parameter 'kernels1' cannot be '16'; the space suggests IntDistribution("),
        ({"kernel_size1": 7}, "parameter 'kernel_size1' cannot be 7; the space suggests CategoricalDistribution("),
        ("kernels1", "SearchSpace: start 'kernels1' must be parameters by name, a dict each"),
    ],
)
def test_a_space_refuses_to_start_with_what_it_does_not_suggest(params: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        replace(load_space("mnist"), start=[params])
