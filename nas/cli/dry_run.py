"""What a search space holds, and how long a search of it would take, without training anything."""

import time
from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from nas.data.images import load_training
from nas.network.architecture import notation
from nas.network.cost import cost, lower
from nas.reporting.sentences import ledger_line, roughly
from nas.space.rejections import Ledger, probe
from nas.space.search_space import Feasible, SearchSpace
from nas.tuner.estimate import epoch_seconds, expected_epochs
from nas.tuner.pruning import PrunerName
from nas.tuner.trials import Plan
from nas.workers.local import LocalFleet

DRAWS = 10_000
BINS = 12


def size_histogram(feasible: Sequence[Feasible]) -> Table:
    """How many of the feasible candidates have how many parameters."""
    table = Table(title="sizes of the feasible candidates", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("parameters", justify="right")
    table.add_column("candidates", justify="right")
    table.add_column("")
    sizes = [candidate.cost.params for candidate in feasible]
    low, high = min(sizes), max(sizes)
    width = max(1, -(-(high - low + 1) // BINS))
    counts = Counter((size - low) // width for size in sizes)
    tallest = max(counts.values())
    for index in range((high - low) // width + 1):
        first = low + index * width
        count = counts[index]
        table.add_row(f"{first:,} – {first + width - 1:,}", f"{count:,}", "█" * round(40 * count / tallest))
    return table


def layer_table(space: SearchSpace) -> Table | None:
    """The layers of the network to beat."""
    if space.baseline is None:
        return None
    price = cost(space.baseline)
    title = f"the network to beat: {price.params:,} parameters, {price.macs:,} MACs"
    table = Table("layer", "output", title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("sees", justify="right")
    table.add_column("parameters", justify="right")
    for step in lower(space.baseline):
        shape = "×".join(map(str, step.output_shape))
        table.add_row(step.call.source().removeprefix("nn."), shape, str(step.receptive_field), f"{step.params:,}")
    return table


def _extreme(label: str, chosen: Feasible) -> str:
    price = chosen.cost
    name = notation(chosen.candidate.architecture)
    return f"{label}: {price.params:,} parameters, {price.macs:,} MACs, receptive field {price.receptive_field}: {name}"


def dry_run(space: SearchSpace, plan: Plan, pruner: PrunerName, console: Console) -> Ledger:
    """Draw candidates, print what they are and what a search would take; the ledger of the draws."""

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    data = load_training(plan.dataset)
    say(f"{space.dataset}: {len(data.train):,} training and {len(data.validation):,} validation images")
    started = time.perf_counter()
    feasible, ledger = probe(space, plan.seed, draws=DRAWS, until_feasible=False)
    rate = DRAWS / (time.perf_counter() - started)
    say(f"{DRAWS:,} candidates drawn uniformly, {len(feasible):,} feasible; {rate:,.0f} drawn and checked per s")
    say(ledger_line(ledger))
    if ledger.nearest is not None:
        say(f"nearest miss: {ledger.nearest}")
    if not feasible:
        say("none is feasible, so there is nothing to time; loosen a limit, or let the space propose what fits")
        return ledger
    console.print(size_histogram(feasible))
    say(_extreme("smallest", min(feasible, key=lambda candidate: candidate.cost.params)))
    say(_extreme("largest", max(feasible, key=lambda candidate: candidate.cost.params)) + "\n")
    if (table := layer_table(space)) is not None:
        console.print(table)
    say("timing a few steps of typical candidates ...")
    seconds, workers = epoch_seconds(feasible, plan), max(1, len(plan.fleet.devices))  # of a cluster: none yet
    epochs = expected_epochs(pruner, plan.trials, space.recipe.epochs)
    pace = "" if isinstance(plan.fleet, LocalFleet) else ", if they are as fast as this machine"
    each = f"each of {workers} workers" if workers > 1 else "a worker"
    say(
        f"an epoch takes {roughly(seconds)} in {each}{pace}; with pruner {pruner} a trial trains "
        f"{epochs:.1f} of {space.recipe.epochs} epochs on average: {plan.trials} trials take "
        f"{roughly(plan.trials * epochs * seconds / workers)}"
    )
    if plan.later_epochs:
        say(f"the final runs after them take {roughly(plan.later_epochs * seconds / workers)}")
    return ledger
