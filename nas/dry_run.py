"""What a search space holds, and how long a search of it would take, without training anything."""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from random import Random
from statistics import fmean

import optuna
from rich import box
from rich.console import Console
from rich.table import Table

from nas.architecture import notation
from nas.console import ledger_line, roughly
from nas.cost import cost
from nas.data import load_training
from nas.errors import UserError
from nas.interrupts import without_interrupts
from nas.network import lower
from nas.pruning import PrunerName, make_pruner
from nas.sampling import Ledger, probe
from nas.space import Feasible, SearchSpace
from nas.study import report_epoch
from nas.training import TrainingJob, seconds_per_epoch
from nas.trials import Plan
from nas.workers import LocalFleet, devices, process_pool

DRAWS = 10_000
BINS = 12
TIMED = 6  # candidates, evenly spread over the sizes that were drawn


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
    for call in lower(space.baseline):
        shape = "×".join(map(str, call.output_shape))
        table.add_row(call.source().removeprefix("nn."), shape, str(call.receptive_field), f"{call.params:,}")
    return table


def expected_epochs(pruner: PrunerName, trials: int, epochs: int) -> float:
    """Epochs a trial trains on average under a pruner: replayed on made-up learning curves that never cross."""
    study = optuna.create_study(direction="maximize", pruner=make_pruner(pruner, epochs), study_name="replay")
    rng, total = Random(0), 0
    for _ in range(trials):
        trial, quality = study.ask(), rng.random()
        curve: list[dict[str, float]] = []
        for epoch in range(1, epochs + 1):
            total += 1
            curve.append({"epoch": epoch, "val_accuracy": quality, "val_loss": 1 - quality})
            report_epoch(trial, curve)
            if epoch < epochs and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, quality)
    return total / trials


def _epoch_seconds(feasible: Sequence[Feasible], plan: Plan) -> float:
    """Mean time of an epoch over typical candidates, timed here in as many processes as this machine would train in."""
    here = plan.fleet.devices if isinstance(plan.fleet, LocalFleet) else devices("auto", None)
    by_cost = sorted(feasible, key=lambda candidate: candidate.cost.macs)
    typical = [by_cost[(2 * i + 1) * len(by_cost) // (2 * TIMED)] for i in range(TIMED)]
    jobs = [
        TrainingJob(
            candidate=chosen.candidate,
            constraints=plan.constraints,
            dataset=plan.dataset,
            seed=plan.seed,
            device=here[i % len(here)],
        )
        for i, chosen in enumerate(typical)
    ]
    with process_pool(len(here)) as pool:
        with without_interrupts():  # it starts the processes
            times = pool.map(seconds_per_epoch, jobs)
        try:
            return fmean(times)
        except BrokenExecutor as error:
            raise UserError(
                "a process died that timed a few steps; if memory ran out, close other programs, or give fewer --jobs"
            ) from error


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
    seconds, workers = _epoch_seconds(feasible, plan), max(1, len(plan.fleet.devices))  # of a cluster: none yet
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
