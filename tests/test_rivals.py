"""How any tool is asked and told as an arm of the benchmark `search_quality`. `make rivals` tries the real ones."""

import itertools
from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from test_benchmarks import made_up_rows

from benchmarks import rivals
from benchmarks.emulator import Emulator
from benchmarks.rivals import Asking, HardlyAnyError, Request, plain, searched
from benchmarks.table import drawn
from nas.space.loading import load_space
from nas.space.seeds import derive_seed

TOO_LARGE = {f"kernels{number}": 40 for number in range(1, 7)} | {"cells": 6}


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return Emulator(made_up_rows(40))


def request(number: int, params: dict[str, Any], epochs: int) -> Request:
    """As a tool asks for parameters of the space."""
    known = load_space("mnist").distributions
    indices = {name: [plain(i, of) for i in range(length(of))].index(params[name]) for name, of in known.items()}
    return Request(number, indices, epochs)


def length(of: BaseDistribution) -> int:
    if isinstance(of, CategoricalDistribution):
        return len(of.choices)
    assert isinstance(of, IntDistribution)
    return (of.high - of.low) // of.step + 1


def test_trainings_go_on_where_they_stopped_and_failures_cost_nothing(emulator: Emulator) -> None:
    params = [drawn(load_space("mnist"), number) for number in range(2)]
    losses = [emulator.train(params[number], derive_seed("tool", 7, number)).loss for number in range(2)]
    params.append(params[0] | TOO_LARGE)
    wanted = [(0, 2), (2, 19), (1, 3), (0, 6), (1, 6), (1, 19), (0, 19), (2, 19), (0, 19)]
    told: list[float | None] = []

    def tool(seed: int) -> Asking:
        for number, epochs in wanted:
            told.append((yield request(number, params[number], epochs)))

    steps = list(itertools.islice(searched("tool", tool, emulator, 7), 7))
    assert told == [None if number == 2 else losses[number][epochs - 1] for number, epochs in wanted[:-1]]
    assert [spent for spent, _ in steps] == [2, 5, 9, 12, 25, 38, 38]
    better = {epochs: params[int(losses[1][epochs - 1] < losses[0][epochs - 1])] for epochs in (6, 19)}
    chosen = [params[0], params[1], params[0], better[6], params[1], better[19], better[19]]
    assert [params for _, params in steps] == chosen


def test_an_arm_without_feasible_networks_ends(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "PATIENCE", 0.1)
    large = request(0, drawn(load_space("mnist"), 0) | TOO_LARGE, 1)

    def tool(seed: int) -> Asking:
        for number in itertools.count():
            assert (yield large._replace(number=number)) is None

    with pytest.raises(HardlyAnyError, match=r"^left out, as of [\d,]+ candidates .* in 0.1 s, 0 were"):
        list(searched("tool", tool, emulator, 0))


@pytest.mark.parametrize(
    ("of", "value", "params"),
    [
        (IntDistribution(12, 40, step=4), np.int64(7), 40),
        (IntDistribution(1, 100, log=True), 9.6, 10),
        (FloatDistribution(0.5, 1.5, step=0.25), 4, 1.5),
        (FloatDistribution(0.5, 1.5), np.float64(0.7), 0.7),
        (CategoricalDistribution(("a", 0.05)), np.int64(1), 0.05),
    ],
)
def test_values_of_tools_become_plain_ones(of: BaseDistribution, value: float, params: float) -> None:
    assert (plain(value, of), type(plain(value, of))) == (params, type(params))
