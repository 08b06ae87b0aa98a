"""The short form of `make mutations`: mutated inputs are results or sentences, and what does nothing is no test."""

from pathlib import Path

import pytest
from mutations import SHARES, attack

INPUTS = 5_000


@pytest.mark.usefixtures("one_thread")
@pytest.mark.filterwarnings("ignore")  # such as those of the compiler about a mutated space
def test_thousands_of_mutated_inputs_are_results_or_sentences(tmp_path: Path) -> None:
    tally = attack(INPUTS, 0, tmp_path)
    assert tally.crashes == []
    assert tally.results.total() + tally.refusals.total() == INPUTS
    for target in SHARES:
        name = target.__name__
        assert tally.refusals[name] > 0, f"nothing that {name} mutates is refused"
        assert tally.results[name] > 0, f"everything that {name} mutates is refused"
