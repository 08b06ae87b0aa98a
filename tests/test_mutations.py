"""The short form of `make mutations`: mutated inputs are results or sentences, and what does nothing is no test."""

from pathlib import Path

import pytest
from mutations import SHARES, attack

INPUTS = 2_500


@pytest.mark.usefixtures("one_thread")
@pytest.mark.filterwarnings("ignore")  # such as those of the compiler about a mutated space
def test_thousands_of_mutated_inputs_are_results_or_sentences(tmp_path: Path) -> None:
    tally = attack(INPUTS, 0, tmp_path)
    assert tally.crashes == []
    assert tally.results.total() + tally.refusals.total() == INPUTS
    names = {target.__name__ for target in SHARES}
    assert names - tally.refusals.keys() == {"names_in_source", "names_on_the_page"}, "names may be anything there"
    assert names - tally.results.keys() <= {"dataset_names", "embedded_files"}, (
        "none is there; their checksums are known"
    )
