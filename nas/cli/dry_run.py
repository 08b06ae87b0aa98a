"""What `--dry-run` prints: what a search space holds, and how long a search of it would take."""

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from nas.network.architecture import Architecture, notation
from nas.network.cost import cost, lower
from nas.reporting.sentences import images_held_out, ledger_line, roughly
from nas.space.search_space import Feasible, SearchSpace
from nas.tuner.estimate import Preview
from nas.tuner.names import PrunerName

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


def layer_table(baseline: Architecture) -> Table:
    """The layers of the network to beat."""
    price = cost(baseline)
    title = f"the network to beat: {price.params:,} parameters, {price.macs:,} MACs"
    table = Table("layer", "output", title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("sees", justify="right")
    table.add_column("parameters", justify="right")
    for step in lower(baseline):
        shape = "×".join(map(str, step.output_shape))
        table.add_row(step.call.source().removeprefix("nn."), shape, str(step.receptive_field), f"{step.params:,}")
    return table


def _extreme(label: str, chosen: Feasible) -> str:
    price = chosen.cost
    name = notation(chosen.candidate.architecture)
    return f"{label}: {price.params:,} parameters, {price.macs:,} MACs, receptive field {price.receptive_field}: {name}"


def _time(found: Preview, space: SearchSpace, pruner: PrunerName) -> str:
    """How long the trials take, and why."""
    pace = "" if found.here else ", if they are as fast as this machine"
    each = f"each of {found.workers} workers" if found.workers > 1 else "a worker"
    return (
        f"an epoch takes {roughly(found.epoch_seconds)} in {each}{pace}; with pruner {pruner} a trial trains "
        f"{found.epochs_per_trial:.1f} of {space.recipe.epochs} epochs on average: {found.trials} trials take "
        f"{roughly(found.search_seconds)}"
    )


def show_preview(found: Preview, space: SearchSpace, pruner: PrunerName, console: Console) -> None:
    """Print a preview."""

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    say(f"{found.dataset}: {images_held_out(found.n_train, found.n_val, found.networks)}")
    say(
        f"{found.draws.ledger.proposals:,} candidates drawn uniformly, {len(found.draws.feasible):,} feasible; "
        f"{found.draws.per_second:,.0f} drawn and checked per s"
    )
    say(ledger_line(found.draws.ledger))
    if found.draws.ledger.nearest is not None:
        say(f"nearest miss: {found.draws.ledger.nearest}")
    console.print(size_histogram(found.draws.feasible))
    say(_extreme("smallest", found.draws.smallest))
    say(_extreme("largest", found.draws.largest) + "\n")
    if space.baseline is not None:
        console.print(layer_table(space.baseline))
    say(f"kernels: {found.kernels}")
    if found.recipe_seconds:
        say(f"finding the recipe, before the search, takes {roughly(found.recipe_seconds)} at most")
    say(_time(found, space, pruner))
    if found.final_seconds:
        say(f"the final runs after them take {roughly(found.final_seconds)}")
