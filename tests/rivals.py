"""The other tools as arms of the benchmark `search_quality`: each searches, counts its epochs and repeats itself.

Run by `make rivals`, which installs them.
"""

import itertools
from dataclasses import replace

import pytest
from test_benchmarks import made_up_rows

from benchmarks import rivals
from benchmarks.emulator import Emulator
from benchmarks.rivals import EPOCHS, RIVALS
from nas.network.limits import Constraints
from nas.space.loading import load_space
from nas.space.search_space import Feasible, SearchSpace

SPENT = 60


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return Emulator(made_up_rows(40))


@pytest.fixture
def loose(monkeypatch: pytest.MonkeyPatch) -> SearchSpace:
    """The space with no limit but that its layers fit on their maps, so that half of what is drawn is feasible."""
    space = replace(load_space("mnist"), constraints=Constraints())
    monkeypatch.setattr(rivals, "load_space", lambda name: space)
    return space


@pytest.mark.parametrize("rival", RIVALS)
def test_a_rival_counts_its_epochs_and_repeats(rival: str, emulator: Emulator, loose: SearchSpace) -> None:
    steps, again = (list(itertools.takewhile(lambda step: step[0] <= SPENT, RIVALS[rival](emulator, 1))) for _ in "ab")
    assert steps == again
    spent, chosen = zip(*steps, strict=True)
    assert list(spent) == sorted(spent)
    assert spent[-1] > SPENT - EPOCHS
    for params in chosen:
        assert params.keys() == loose.distributions.keys()
        assert {type(value) for value in params.values()} <= {int, float, str}
        assert isinstance(loose.check(loose.decode(params)), Feasible)
