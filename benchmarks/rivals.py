"""The field's own tools as arms of `benchmarks.search_quality`, each set up as its documentation says.

A tool is asked for a configuration, and told the loss after as many epochs as it wants, one at a time. What it asks for
again goes on where it stopped, as if every checkpoint was kept, whether or not the tool counts on that. A network
outside the limits costs no epochs, and fails. The tools are an optional extra, imported when they are used.
"""

import logging
import random
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from functools import partial
from itertools import count
from math import ceil, inf, log
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from benchmarks.emulator import Emulator, Floats
from benchmarks.table import SPACE
from nas.space.loading import load_space
from nas.space.search_space import Feasible
from nas.space.seeds import derive_seed

EPOCHS = load_space(SPACE).recipe.epochs
GUESSING = log(10)  # the loss of a network that knows nothing
ENOUGH = 50  # feasible networks, which a tool must find ...
PATIENCE = 600.0  # ... in so many seconds of the process's own time
Chosen = Iterator[tuple[int, Mapping[str, Any] | None]]  # after each trial: epochs spent, and the best network so far
Domain = TypeVar("Domain")


class HardlyAnyError(Exception):
    """A tool has found too few feasible networks in its time."""


class Request(NamedTuple):
    """What a tool wants to know: the loss of a configuration after so many epochs."""

    number: int  # of the configuration
    values: Mapping[str, Any]
    epochs: int


Asking = Generator[Request, float | None, None]  # is told the loss, or None of a network outside the limits


def searched(name: str, tool: Callable[[int], Asking], emulator: Emulator, seed: int) -> Chosen:
    """An arm: the best has the lowest loss of those trained longest.

    Raises:
        HardlyAnyError: the tool is too slow.
    """
    space, started = load_space(SPACE), process_time()
    params: dict[int, Mapping[str, Any]] = {}  # by configuration
    losses: dict[int, Floats] = {}  # of those within the limits
    reached: dict[int, int] = {}  # epochs
    best, chosen, answer = (0, inf), None, None
    own_seed = derive_seed(name, seed) % 2**31
    for seeded in (random.seed, np.random.seed, torch.manual_seed):  # NePS, and parts of syne-tune, have no other seed
        seeded(own_seed)
    with closing(tool(own_seed)) as asking:
        while True:
            if len(losses) < ENOUGH and process_time() - started > PATIENCE:
                raise HardlyAnyError(
                    f"left out, as of {len(params):,} candidates that it proposed in {PATIENCE:g} s, "
                    f"{len(losses)} were within the limits"
                )
            with _quiet():
                number, values, epochs = asking.send(answer)
            answer = None
            if number not in params:
                params[number] = {key: plain(values[key], of) for key, of in space.distributions.items()}
                if isinstance(space.check(space.decode(params[number])), Feasible):
                    losses[number] = emulator.train(params[number], derive_seed(name, seed, number)).loss
            if number in losses:
                reached[number] = max(epochs, reached.get(number, 0))
                answer = float(losses[number][epochs - 1])
                if (-epochs, answer) < best:
                    best, chosen = (-epochs, answer), params[number]
                yield sum(reached.values()), chosen


@contextmanager
def _quiet() -> Iterator[None]:
    level = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(level)


def converted(
    integer: Callable[[int], Domain],
    real: Callable[[float, float, bool], Domain],
    choice: Callable[[list[int]], Domain],
) -> dict[str, Domain]:
    """The space in a tool's terms: where a parameter has a list of values, their index."""

    def one(of: BaseDistribution) -> Domain:
        values = _values(of)
        if isinstance(of, IntDistribution | FloatDistribution) and values is None:
            return real(of.low, of.high, of.log)
        assert values is not None
        return choice([*range(len(values))]) if isinstance(of, CategoricalDistribution) else integer(len(values) - 1)

    return {name: one(of) for name, of in load_space(SPACE).distributions.items()}


def plain(value: Any, of: BaseDistribution) -> Any:
    """What the space calls a tool's value."""
    values = _values(of)
    if values is None:
        return round(value) if isinstance(of, IntDistribution) else float(value)
    return values[int(value)]


def _values(of: BaseDistribution) -> Sequence[Any] | None:
    match of:
        case CategoricalDistribution(choices=choices):
            return choices
        case IntDistribution(low=low, high=high, step=step, log=False):
            return range(low, high + 1, step)
        case FloatDistribution(low=low, high=high, step=float(step)):
            return [low + step * number for number in range(round((high - low) / step) + 1)]
        case _:
            return None


def ask_neps(_: int) -> Asking:
    """What NePS chooses itself for a space with epochs and without priors: Hyperband."""
    import neps

    parameters = converted(
        lambda high: neps.Integer(0, high),
        lambda low, high, logarithmic: neps.Float(low, high, log=logarithmic),
        neps.Categorical,
    )
    space = type("Space", (neps.PipelineSpace,), {**parameters, "epochs": neps.IntegerFidelity(1, EPOCHS)})
    tool = neps.AskAndTell(neps.algorithms.hyperband(space()))
    while True:
        trial = tool.ask()
        loss = yield Request(int(trial.id.split("_rung_")[0]), trial.config, trial.config["epochs"])
        tool.tell(trial, RuntimeError("outside the limits") if loss is None else loss)


def ask_syne_tune(seed: int) -> Asking:
    """What syne-tune recommends for several fidelities: ASHA with conformal quantile regression."""
    from syne_tune.backend.trial_status import Trial
    from syne_tune.config_space import choice, loguniform, randint, uniform
    from syne_tune.optimizer.baselines import ASHACQR
    from syne_tune.optimizer.scheduler import SchedulerDecision

    space = converted(
        lambda high: randint(0, high),
        lambda low, high, logarithmic: (loguniform if logarithmic else uniform)(low, high),
        choice,
    )
    tool = ASHACQR(space, metric="loss", time_attr="epoch", max_t=EPOCHS, random_seed=seed)
    for number in count():
        trial = Trial(number, tool.suggest().config, datetime.now())
        tool.on_trial_add(trial)
        for epoch in range(1, EPOCHS + 1):
            loss = yield Request(number, trial.config, epoch)
            if loss is None:  # of a failure alone its model would not hear; before epoch 1 there is no rung to fill
                tool.on_trial_result(trial, {"loss": GUESSING, "epoch": 0})
                tool.on_trial_error(trial)
                break
            if tool.on_trial_result(trial, {"loss": loss, "epoch": epoch}) == SchedulerDecision.STOP:
                tool.on_trial_remove(trial)
                break


def ask_smac(seed: int) -> Asking:
    """SMAC's facade for several fidelities, as in its example: Hyperband, and a random forest after five at random.

    Its local search goes through a set of configurations, so two processes agree only with one PYTHONHASHSEED.
    """
    from ConfigSpace import Categorical, ConfigurationSpace, Float, Integer
    from smac import MultiFidelityFacade, Scenario
    from smac.runhistory import StatusType, TrialValue

    parameters = converted(
        lambda high: partial(Integer, bounds=(0, high)),
        lambda low, high, logarithmic: partial(Float, bounds=(low, high), log=logarithmic),
        lambda choices: partial(Categorical, items=choices),
    )
    space = ConfigurationSpace(space={name: parameter(name) for name, parameter in parameters.items()})
    failed = TrialValue(cost=GUESSING, status=StatusType.CRASHED)
    with TemporaryDirectory() as folder:
        scenario = Scenario(space, output_directory=Path(folder), min_budget=1, max_budget=EPOCHS, seed=seed)
        first = MultiFidelityFacade.get_initial_design(scenario, n_configs=5)
        tool = MultiFidelityFacade(scenario, initial_design=first, logging_level=False)
        while True:
            trial = tool.ask()
            number = tool.runhistory.get_config_id(trial.config)
            loss = yield Request(number, dict(trial.config), ceil(trial.budget))
            tool.tell(trial, failed if loss is None else TrialValue(cost=loss), save=False)


RIVALS: dict[str, Callable[[Emulator, int], Chosen]] = {
    "NePS": partial(searched, "NePS", ask_neps),
    "syne-tune": partial(searched, "syne-tune", ask_syne_tune),
    "SMAC": partial(searched, "SMAC", ask_smac),
}
