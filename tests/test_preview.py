"""The dry run: what it prints of the real default space, and its estimate's parts."""

import io
import random
import re
from dataclasses import replace

import pytest
from rich.console import Console

from nas.api.searching import SearchOptions, preview
from nas.cli.dry_run import show_preview, size_histogram
from nas.network.architecture import Architecture
from nas.network.cost import MapTooSmallError, cost
from nas.network.limits import Constraints
from nas.space.loading import load_space
from nas.space.rejections import NothingFeasibleError, probe
from nas.tuner.estimate import DRAWS, expected_epochs
from nas.tuner.names import PRUNERS, PrunerName
from nas.workers.fleet import Workers

SPACE = load_space("mnist")


def test_expected_epochs_without_a_pruner_is_every_epoch() -> None:
    assert expected_epochs("none", trials=10, epochs=19) == 19


@pytest.mark.parametrize("pruner", [name for name in PRUNERS if name != "none"])
def test_expected_epochs_with_a_pruner_is_fewer_and_at_least_one(pruner: PrunerName) -> None:
    assert 1 < expected_epochs(pruner, trials=50, epochs=19) < 15


def test_histogram_counts_every_feasible_candidate() -> None:
    feasible, _ = probe(SPACE, seed=1, draws=2_000, until_feasible=False)
    output = io.StringIO()
    Console(file=output, width=100).print(size_histogram(feasible))
    counts = re.findall(r"[\d,]+ – [\d,]+ +([\d,]+)", output.getvalue())
    assert sum(int(count.replace(",", "")) for count in counts) == len(feasible) > 0


def test_dry_run_of_the_default_space_prints_what_a_person_asks() -> None:
    output = io.StringIO()
    found = preview(SPACE, SearchOptions(pruner="hyperband", workers=Workers(device="cpu", jobs=1)), None, print)
    show_preview(found, SPACE, "hyperband", Console(file=output, width=120))
    text, ledger = output.getvalue(), found.draws.ledger
    assert ledger.proposals == DRAWS
    for part in (
        "nearest miss: c",
        " over the limit of 2",  # parameters or MACs
        "max_params",
        "max_macs",
        "forbid linear",
        "smallest: ",
        "largest: ",
        "18,738 parameters",
        "50 trials take",
        "the final runs after them take about ",
    ):
        assert part in text
    rng = random.Random(0)  # the same draws, counted again
    fits = [SPACE.check(SPACE.decode(SPACE.draw(rng))) for _ in range(DRAWS)]
    accepted = sum(type(verdict).__name__ == "Feasible" for verdict in fits)
    assert ledger.rejected == DRAWS - accepted
    assert f"{DRAWS:,} candidates drawn uniformly, {accepted:,} feasible" in text
    assert found.acceptance == pytest.approx(accepted / DRAWS)
    assert str(found).startswith(f"{accepted / DRAWS:.1%} of 10,000 draws are within the limits, with ")


def test_preview_with_nothing_feasible_says_how_far_off_it_is() -> None:
    limits = Constraints(max_params=1_000)
    with pytest.raises(NothingFeasibleError) as told:
        preview(replace(SPACE, constraints=limits), SearchOptions(), None, print)
    rng = random.Random(0)
    sizes = [price_of(SPACE.decode(SPACE.draw(rng)).architecture) for _ in range(DRAWS)]
    smallest = min(size for size in sizes if size is not None)
    first, *_, miss, _ = str(told.value).splitlines()
    assert first == "Nothing feasible among 10,000 candidates drawn from the space."
    assert miss.startswith("The nearest miss is c")
    assert miss.endswith(f" {smallest:,} params, {smallest / 10 - 100:.1f} % over the limit of 1,000.")


def price_of(architecture: Architecture) -> int | None:
    """Its parameters; None where a layer does not fit on its map."""
    try:
        return cost(architecture).params
    except MapTooSmallError:
        return None
