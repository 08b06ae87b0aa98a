"""What a study has come to, as a value: the best network, the trials, the plots, a view for notebooks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plotly.graph_objects import Figure

from nas.analysis.finalists import Winner, measured_noise, winner_of
from nas.analysis.statistics import Spread
from nas.api.finishing import BEST
from nas.api.network import TrainedNetwork
from nas.codegen.card import trial_card, winner_card
from nas.codegen.source import model_source
from nas.datasets.dataset import Dataset
from nas.datasets.images import load_training
from nas.datasets.metrics import EvaluationSet
from nas.errors import UserError
from nas.network.architecture import Architecture
from nas.network.cost import Cost, cost
from nas.reporting.conclusions import verdict, what_was_done
from nas.reporting.figures import costs, counts, curves
from nas.reporting.page import network_picture, notebook_view
from nas.reporting.tables import run_rows, trial_rows
from nas.space.objective import reached
from nas.study.history import History
from nas.study.location import StudyLocation, read_weights
from nas.study.records import TrialRecord

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best network of a study; accuracies are fractions.

    `score` is the one validation score of the search; `rerun` is of fresh seeds, `test` of the test images, which are
    read once and after the choice: None before.
    """

    trial: int
    architecture: Architecture = field(repr=False)
    notation: str
    cost: Cost = field(repr=False)
    score: float
    rerun: Spread | None
    test: Spread | None
    reached: bool | None  # the target; None without one, or before the test
    _record: TrialRecord = field(repr=False)
    _winner: Winner | None = field(repr=False)
    _location: StudyLocation = field(repr=False)
    _dataset: Dataset = field(repr=False)

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return self.cost.params

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return self.cost.macs

    @property
    def folder(self) -> Path:
        """Where a finished search has written model.py and its weights."""
        return self._location.folder / BEST

    @property
    def source(self) -> str:
        """The network as source code, as it stands in model.py."""
        return model_source(self.architecture, self._card)

    @property
    def _card(self) -> Any:
        if self._winner is not None:
            return winner_card(self._location, self._winner, self._dataset)
        return trial_card(self._location, self._record, self._dataset, None)

    def load(self) -> TrainedNetwork:
        """The network with its weights: those of its first final model, or else of its trial.

        Raises:
            UserError: there are no weights.
        """
        models = self._winner.models if self._winner is not None else ()
        path = self._location.run_weights_path(models[0].number) if models else self._location.weights_path(self.trial)
        title = models[0].title if models else self._record.title
        card = self._card
        return TrainedNetwork(self.architecture, read_weights(path, title), card.mean, card.std, card.classes)

    def _repr_html_(self) -> str:
        return str(network_picture(self.architecture))


@dataclass(frozen=True, slots=True)
class Plots:
    """The report's plots of a study, as Plotly figures."""

    _history: History
    _winner: Winner | None
    _validation: EvaluationSet

    def pareto(self, cost: str = "params") -> Figure:
        """Accuracy against "params", "macs" or "peak_activation_bytes" of every trial, with the Pareto front."""
        if cost not in costs.COSTS:
            raise UserError(f"pareto: cost {cost!r} must be one of {', '.join(costs.COSTS)}")
        return costs.accuracy_against(self._history, self._winner, self._validation, cost)

    def curves(self) -> Figure:
        """Validation accuracy of every trial after each epoch."""
        return curves.learning_curves(self._history, self._validation)

    def best_so_far(self) -> Figure:
        """The best final accuracy against the epochs spent."""
        return curves.best_so_far(self._history, self._validation)

    def rejections(self) -> Figure:
        """How many proposals each limit has rejected."""
        return counts.rejections(self._history.ledger)

    def times(self) -> Figure:
        """Seconds of training of each trial."""
        return counts.times(self._history)


def as_frame(rows: list[dict[str, Any]]) -> "pandas.DataFrame":
    """A pandas DataFrame, which needs the extra `notebook`."""
    try:
        import pandas
    except ImportError as error:
        raise UserError(f"a table needs pandas ({error}); install it with: pip install 'nas[notebook]'") from error
    return pandas.DataFrame(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A study as it stood when it was read."""

    name: str
    best: Best | None  # None before a trial was trained to the end
    verdict: str
    history: History
    winner: Winner | None  # None before the choice among the best trials was judged on the test images
    validation: EvaluationSet
    written: tuple[Path, ...] = ()  # files of the search that gave this result
    complaint: str = ""  # why that search ended without a winner, or short of its trials; "" when it did not

    @property
    def plot(self) -> Plots:
        """The report's plots."""
        return Plots(self.history, self.winner, self.validation)

    def trials(self) -> "pandas.DataFrame":
        """One row a trial, as in trials.csv."""
        return as_frame(trial_rows(self.history.trials))

    def runs(self) -> "pandas.DataFrame":
        """One row a full training on a fresh seed, as in final_runs.csv."""
        return as_frame(run_rows(self.history.runs))

    def __repr__(self) -> str:
        best = "no network was trained to the end yet"
        if self.best is not None:
            best = f"trial {self.best.trial}: {self.best.notation} ({self.best.params:,} parameters)"
        return f"{self.verdict}\n{best}\n{what_was_done(self.history)}"

    def html(self) -> str:
        """The verdict, the networks compared, and the best one drawn, as a notebook shows them."""
        return notebook_view(self.history, self.winner, self.verdict)

    def _repr_html_(self) -> str:
        return self.html()


def result_of(history: History, location: StudyLocation, dataset: Dataset) -> Result:
    """What a study has come to, with the best network: the winner, or before there is one the leader."""
    winner, validation = winner_of(history), load_training(dataset).evaluation
    return Result(
        name=history.name,
        best=_best(history, winner, location, dataset),
        verdict=_verdict(history, winner, validation),
        history=history,
        winner=winner,
        validation=validation,
    )


def _verdict(history: History, winner: Winner | None, validation: EvaluationSet) -> str:
    leader, target = history.leader, history.task.target
    if winner is not None and target is not None:
        return verdict(winner, measured_noise(history.runs, validation), target)
    if winner is not None:
        return f"Trial {winner.record.number} wins with {winner.test} of the test images, n = {winner.test.n}."
    if leader is None or leader.val_accuracy is None:
        return f"Study {history.name!r}: no network was trained to the end yet."
    leads = f"Trial {leader.number} leads with {leader.val_accuracy:.2%} of the validation images"
    return f"{leads}; the test images have not been read."


def _best(history: History, winner: Winner | None, location: StudyLocation, dataset: Dataset) -> Best | None:
    leader = history.leader
    if leader is None or leader.val_accuracy is None:
        return None
    return Best(
        trial=leader.number,
        architecture=leader.candidate.architecture,
        notation=leader.notation,
        cost=cost(leader.candidate.architecture),
        score=leader.val_accuracy,
        rerun=winner.rerun if winner else None,
        test=winner.test if winner else None,
        reached=reached(winner.test.mean, history.task.target) if winner else None,
        _record=leader,
        _winner=winner,
        _location=location,
        _dataset=dataset,
    )
