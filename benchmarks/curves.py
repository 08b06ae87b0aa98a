"""Train candidates of the default space to the end, none stopped, and keep how each got there.

The candidates are those that a search without a pruner proposes. The scores of the raw weights are kept beside those of
the averaged ones that the search goes by. One to two hours on two cores; interrupted, the same command goes on.
`benchmarks.search_cost` replays what it writes.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from nas.cli.options import positive
from nas.cli.terminal import run
from nas.data.dataset import Dataset
from nas.errors import UserError
from nas.optuna_internals.attributes import own_attributes
from nas.reporting.live_view import follow
from nas.samplers.feasible import FeasibleSampler, make_sampler
from nas.space.loading import load_space
from nas.study.location import locate
from nas.study.opening import writing
from nas.study.records import digests, records
from nas.study.settings import settings
from nas.system.files import write_whole
from nas.training.environment import environment, versions
from nas.training.job import EpochReport, TrainingJob
from nas.training.kernels import TORCHS_OWN
from nas.training.training import Training, evaluate
from nas.tuner.pruning import make_pruner
from nas.tuner.trials import Plan, Search, train_all
from nas.workers.local import LocalFleet, LocalWorker, devices

SEED = 1  # not that of the published search
FILE = Path(__file__).parent / "data" / "curves.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class BothReport(EpochReport):
    """An epoch's report with what the raw weights score, too."""

    raw_loss: float
    raw_accuracy: float


def train(job: TrainingJob) -> Iterator[BothReport]:
    """`nas.training.training.train`, with the raw weights judged after each epoch beside the averaged ones."""
    training = Training(job)
    for report in training.epochs():
        raw = evaluate(training.network, training.data.validation, training.data, training.device)
        fields = {name: getattr(report, name) for name in EpochReport.__dataclass_fields__}
        yield BothReport(**fields, raw_loss=raw.loss, raw_accuracy=raw.accuracy)


def make_worker(device: str) -> LocalWorker:
    return LocalWorker(device, train)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """A candidate and its validation scores after each epoch; accuracies are fractions, losses mean cross-entropies."""

    notation: str
    params: int
    macs: int
    accuracy: list[float]
    loss: list[float]
    raw_accuracy: list[float]  # of the weights themselves, not of their average
    raw_loss: list[float]


def curves_of(trial: FrozenTrial) -> Curves:
    """What a trial that was trained to the end tells."""
    attributes = trial.user_attrs
    epochs = own_attributes(trial)["curve"]

    def column(name: str, digits: int) -> list[float]:
        return [round(epoch[name], digits) for epoch in epochs]

    return Curves(
        notation=attributes["notation"],
        params=attributes["params"],
        macs=attributes["macs"],
        accuracy=column("val_accuracy", 4),
        loss=column("val_loss", 5),
        raw_accuracy=column("raw_accuracy", 4),
        raw_loss=column("raw_loss", 5),
    )


def text_of(table: list[Curves]) -> str:
    """JSON, one candidate a line."""
    lines = ",\n".join(json.dumps(asdict(curves)) for curves in table)
    told = json.dumps(versions(environment(torch.device("cpu"), torch.float32, TORCHS_OWN.said)))
    return f'{{"versions": {told},\n"candidates": [\n{lines}\n]}}\n'


def load() -> list[Curves]:
    """The table that `python -m benchmarks.curves` wrote.

    Raises:
        UserError: there is none.
    """
    if not FILE.exists():
        raise UserError(f"{FILE} is missing; python -m benchmarks.curves writes it, in one to two hours on two cores")
    return [Curves(**candidate) for candidate in json.loads(FILE.read_text())["candidates"]]


def main() -> int:
    """Train what is missing and write the file."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__)
    options.add_argument("--candidates", type=positive, default=30, metavar="N", help="in total (default: 30)")
    candidates = options.parse_args().candidates
    torch.set_num_threads(1)
    space = load_space("mnist")
    dataset = Dataset(name=space.dataset, input_shape=space.input_shape)
    location = locate("curves", Path("results"), None)
    with writing(location, settings(space, seed=SEED, sampler="tpe", pruner="none")) as study:
        sampler = FeasibleSampler(make_sampler("tpe", space, SEED), space, SEED, seen=digests(records(study)))
        study.pruner = make_pruner("none", space.recipe.epochs)
        plan = Plan(
            trials=candidates,
            fleet=LocalFleet(devices("cpu", None), make_worker),
            dataset=dataset,
            constraints=space.constraints,
            seed=SEED,
        )
        follow(
            train_all(Search(study, location, records(study), plan, sampler), plan), "curves", Console(), verbosity=0
        )
        write_whole(FILE, text_of([curves_of(trial) for trial in study.get_trials(states=(TrialState.COMPLETE,))]))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
