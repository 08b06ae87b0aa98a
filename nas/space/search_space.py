"""Search spaces: a Python function of an Optuna trial, loaded by name or path, its parameters recorded and checked.

A space suggests the same parameters, with the same ranges, for every candidate and ignores those it does not use.
That is what lets multivariate samplers model it, and what makes plots and importances of its trials mean something.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import methodcaller
from typing import Any

from optuna.distributions import BaseDistribution

from nas.errors import UserError, did_you_mean, require, require_bool, require_whole
from nas.network.architecture import Architecture
from nas.network.cost import Cost, MapTooSmallError, cost
from nas.network.layers import Shape
from nas.network.limits import (
    ACTIVATION_BYTES,
    EPOCHS,
    MACS,
    PARAMS,
    RECEPTIVE_FIELD,
    Constraints,
    Limit,
    Violation,
    violations,
)
from nas.space.candidate import Candidate
from nas.space.objective import METRIC_NAMES, TARGET_RULE, MetricName, is_target
from nas.space.pictures import Pictures
from nas.space.recipe import FEW_IMAGES, ROUNDS, Recipe
from nas.space.suggestions import Recorder, Replay, Trial, draw_value, suggestable

CHECKED_DRAWS = 20
MOST_ROUNDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Feasible:
    """A candidate within the limits, and what it costs."""

    candidate: Candidate
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Why a candidate is out: the limits it breaks, or none of them when a layer does not fit on its map."""

    violations: tuple[Violation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """A task, its limits and the networks to try.

    `sample` builds a candidate from a trial's suggestions; every candidate has the epochs of `recipe` and the same
    input shape and classes. `baseline` is the network to beat, `target` the score asked for, as a fraction. `start`
    are the candidates that a search tries first, each as some or all of its parameters; the others are drawn.
    `pictures` says how the files of a folder or table are prepared. `metric` is what scores are: "accuracy", or
    "balanced_accuracy", the mean recall of the classes, where a rare class matters as much as a frequent one. With
    `cross_validation`, every sixth of the training images is held out in turn, so many times over, and a candidate is
    six networks each time; without, one sixth is held out. With `fit_recipe`, trainings before the search say whether
    a change of the recipe fits the pictures better.

    Raises:
        UserError: `sample` does not keep to these rules in twenty random draws, or `start` asks for what the space does
            not suggest.
    """

    sample: Callable[[Trial], Candidate]
    constraints: Constraints
    dataset: str
    recipe: Recipe
    pictures: Pictures = field(default_factory=Pictures)
    metric: MetricName = "accuracy"
    cross_validation: int = 0
    fit_recipe: bool = False
    target: float | None = None
    baseline: Architecture | None = None
    start: Sequence[Mapping[str, Any]] = ()
    name: str | None = None  # what a study of it is called, unless told otherwise
    distributions: dict[str, BaseDistribution] = field(init=False)
    input_shape: Shape = field(init=False)
    num_classes: int = field(init=False)

    def __post_init__(self) -> None:
        if self.target is not None and not is_target(self.target):
            raise UserError(f"target {self.target} {TARGET_RULE}")
        if not (isinstance(self.dataset, str) and self.dataset.isprintable()):
            raise UserError(f"dataset {self.dataset!r} must be the name or path of a data set, in printable characters")
        require(isinstance(self.pictures, Pictures), "SearchSpace", "pictures", self.pictures, "a nas.Pictures")
        require(self.metric in METRIC_NAMES, "SearchSpace", "metric", self.metric, f"one of {', '.join(METRIC_NAMES)}")
        require_bool("SearchSpace", "fit_recipe", self.fit_recipe)
        require_whole("SearchSpace", "cross_validation", self.cross_validation, 0)
        rounds = self.cross_validation
        require(rounds <= MOST_ROUNDS, "SearchSpace", "cross_validation", rounds, f"at most {MOST_ROUNDS}")
        limit = self.constraints.max_epochs
        if limit is not None and self.recipe.epochs > limit:
            raise UserError(f"recipe: epochs {self.recipe.epochs} is more than the space's limit of {limit}")
        distributions, architecture = _record(self)
        object.__setattr__(self, "distributions", distributions)
        object.__setattr__(self, "input_shape", architecture.input_shape)
        object.__setattr__(self, "num_classes", architecture.num_classes)
        shape = (architecture.input_shape, architecture.num_classes)
        if self.baseline is not None and (self.baseline.input_shape, self.baseline.num_classes) != shape:
            raise UserError(
                "baseline has another input shape or number of classes than the candidates; make them equal"
            )
        several = isinstance(self.start, Sequence) and not isinstance(self.start, str)
        require(several, "SearchSpace", "start", self.start, "a list of dicts, parameters by name")
        for params in self.start:
            self.decode(self.complete(params, random.Random(0)))

    def draw(self, rng: random.Random) -> dict[str, Any]:
        """Parameters drawn uniformly."""
        return {name: draw_value(distribution, rng) for name, distribution in self.distributions.items()}

    def complete(self, params: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
        """These parameters, and those that are missing drawn.

        Raises:
            UserError: a parameter or a value that the space does not suggest.
        """
        require(isinstance(params, Mapping), "SearchSpace", "start", params, "parameters by name, a dict each")
        for name in params:
            if name not in self.distributions:
                hint = did_you_mean(str(name), self.distributions)
                raise UserError(f"the space suggests no parameter {name!r}{hint}")
        given = {name: suggestable(name, value, self.distributions[name]) for name, value in params.items()}
        return {**self.draw(rng), **given}

    def decode(self, params: Mapping[str, Any]) -> Candidate:
        """The candidate that these parameters stand for.

        Raises:
            UserError: `sample` raises, or gives something else than a candidate of the recipe's epochs.
        """
        try:
            candidate = self.sample(Replay(params))
        except Exception as error:  # whatever the code of somebody else raises is theirs to mend
            reason = error if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            raise UserError(f"sample fails for the parameters {dict(params)}: {reason}") from error
        _require_candidate(candidate, self)
        return candidate

    def check(self, candidate: Candidate) -> Feasible | Rejected:
        """Whether the description of a candidate keeps within the limits."""
        try:
            price = cost(candidate.architecture)
        except MapTooSmallError:
            return Rejected(violations=())
        broken = violations(self.constraints, price, candidate.recipe.epochs)
        return Rejected(violations=broken) if broken else Feasible(candidate=candidate, cost=price)

    def restrict(
        self,
        *,
        epochs: int | None = None,
        max_params: int | None = None,
        max_macs: int | None = None,
        max_activation_bytes: int | None = None,
        min_receptive_field: int | None = None,
    ) -> "SearchSpace":
        """The space with tighter limits, or with shorter trainings; None leaves a setting alone.

        Raises:
            UserError: a value below 1, or one that the space does not allow.
        """
        bounds = {PARAMS: max_params, MACS: max_macs, ACTIVATION_BYTES: max_activation_bytes}
        asked = {**bounds, RECEPTIVE_FIELD: min_receptive_field}
        tighter = {limit: bound for limit, bound in asked.items() if bound is not None}
        for limit, bound in tighter.items():
            _require_tighter(limit.option, limit, bound, self.constraints)
        changed: dict[str, Any] = {limit.name: bound for limit, bound in tighter.items()}
        space = replace(self, constraints=replace(self.constraints, **changed))
        if epochs is None or epochs == self.recipe.epochs:
            return space
        _require_tighter("--epochs", EPOCHS, epochs, self.constraints)
        return _trained_otherwise(space, partial(replace, epochs=epochs))

    def on(
        self,
        dataset: str,
        input_shape: Shape,
        num_classes: int,
        *,
        called: str | None = None,
    ) -> "SearchSpace":
        """The same networks for another data set; limits on MACs and activations grow and shrink with the pixels.

        Its target and its network to beat are those of another task, and are left out. Its recipe is made for other
        pictures, and is fitted to these. `called` is its new name.

        Raises:
            UserError: as `SearchSpace` does.
        """
        pixels = math.prod(input_shape[1:]) / math.prod(self.input_shape[1:])
        bounds = {limit.name: self.constraints.bound(limit) for limit in (MACS, ACTIVATION_BYTES)}
        grown: dict[str, Any] = {n: None if bound is None else round(bound * pixels) for n, bound in bounds.items()}
        architecture = {"input_shape": input_shape, "num_classes": num_classes}
        return replace(
            self,
            sample=_Changed(self.sample, architecture=architecture),
            constraints=replace(self.constraints, **grown),
            dataset=dataset,
            fit_recipe=True,
            cross_validation=0,
            target=None,
            baseline=None,
            name=called,
        )

    def for_few(self, images: int, *, own_validation: bool = False) -> "SearchSpace":
        """The space for so many training images: few have smaller batches, and are held out in turn.

        The latter is left out where the data has validation images of its own.
        """
        rounds = 0 if own_validation or images >= FEW_IMAGES else ROUNDS
        space = replace(self, cross_validation=rounds)
        return _trained_otherwise(space, methodcaller("for_few", images))

    def trained_by(self, change: Callable[[Recipe], Recipe]) -> "SearchSpace":
        """The same candidates by changed recipes."""
        return _trained_otherwise(self, change)

    def judged_by(self, metric: MetricName) -> "SearchSpace":
        """The same candidates by another metric; for balanced accuracy, they see every class equally often."""
        space = replace(self, metric=metric)
        return (
            _trained_otherwise(space, partial(replace, balanced_batches=True))
            if metric == "balanced_accuracy"
            else space
        )


def _trained_otherwise(space: SearchSpace, change: Callable[[Recipe], Recipe]) -> SearchSpace:
    return replace(space, sample=_Changed(space.sample, recipe=change), recipe=change(space.recipe))


def _require_candidate(candidate: object, space: SearchSpace) -> None:
    if not isinstance(candidate, Candidate):
        raise UserError(f"sample returned {type(candidate).__name__}; it must return a nas.space.candidate.Candidate")
    if candidate.recipe.epochs != space.recipe.epochs:
        raise UserError(f"a candidate has {candidate.recipe.epochs} epochs; all must have the recipe's")


def _record(space: SearchSpace) -> tuple[dict[str, BaseDistribution], Architecture]:
    """Draw at random; every draw must ask for the same parameters and give the same kind of candidate."""
    rng = random.Random(0)
    first: dict[str, BaseDistribution] | None = None
    architecture: Architecture | None = None
    for _ in range(CHECKED_DRAWS):
        recorder = Recorder(rng)
        candidate = space.sample(recorder)
        _require_candidate(candidate, space)
        first = first or recorder.distributions
        architecture = architecture or candidate.architecture
        for name in [*first, *recorder.distributions]:
            ours, theirs = first.get(name), recorder.distributions.get(name)
            if ours is None or theirs is None:
                raise UserError(
                    f"parameter {name!r} is suggested only for some candidates; "
                    "suggest it always and ignore it when unused"
                )
            if ours != theirs:
                raise UserError(f"parameter {name!r} changes its range from draw to draw; give it one range")
        other = candidate.architecture
        if (other.input_shape, other.num_classes) != (architecture.input_shape, architecture.num_classes):
            raise UserError("candidates differ in input shape or number of classes; all must be for the same task")
    assert first is not None
    assert architecture is not None
    if all(distribution.single() for distribution in first.values()):
        raise UserError("sample suggests no parameter that can vary, so there is nothing to search")
    return first, architecture


def _require_tighter(option: str, limit: Limit, bound: int, allowed: Constraints) -> None:
    """Raise UserError unless a bound is at least 1, and no looser than the space's own."""
    if bound < 1:
        raise UserError(f"{option} {bound} must be at least 1")
    own = allowed.bound(limit)
    if own is not None and limit.breaks(bound, own):
        side = "less than the search space asks for"
        if limit.sense == "at most":
            side = "more than the search space allows"
        raise UserError(f"{option} {bound} is {side} ({own}); loosen its constraints instead")


@dataclass(frozen=True, slots=True)
class _Changed:
    """A space's `sample`, with some values of its architectures replaced, and with other recipes."""

    sample: Callable[[Trial], Candidate]
    architecture: Mapping[str, Any] = field(default_factory=dict)
    recipe: Callable[[Recipe], Recipe] | None = None

    def __call__(self, trial: Trial) -> Candidate:
        candidate = self.sample(trial)
        architecture = replace(candidate.architecture, **self.architecture)
        recipe = candidate.recipe if self.recipe is None else self.recipe(candidate.recipe)
        return Candidate(architecture=architecture, recipe=recipe)
