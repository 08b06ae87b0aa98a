"""`search` and `preview`: from a search space to the best network, or to what a search would take."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import optuna
import torch

from nas.analysis.finalists import rounds_of_race
from nas.api.data import sheet_of
from nas.datasets.dataset import Dataset
from nas.datasets.images import fingerprint, hand_over, load_training, take_back
from nas.datasets.memory import GivenImages
from nas.datasets.reading import is_of_files, read_once
from nas.datasets.sheet import few_to_judge
from nas.datasets.split import epochs_on_all_images
from nas.errors import UserError, printable, require, require_seconds, require_whole
from nas.network.cost import cost
from nas.reporting.reading import reading_view
from nas.reporting.sentences import diagnosis, headline
from nas.samplers.feasible import FeasibleSampler, make_sampler
from nas.samplers.names import DEFAULT_SAMPLER, SAMPLERS, SamplerName
from nas.space.objective import reached
from nas.space.rejections import MAX_PROPOSALS, NothingFeasibleError, probe
from nas.space.search_space import SearchSpace
from nas.study.commands import this_command
from nas.study.history import History, read_history
from nas.study.location import StudyLocation
from nas.study.opening import writing
from nas.study.records import TrialRecord
from nas.study.settings import remember_task, settings
from nas.system.cores import quota_that_decides, usable_cores
from nas.training.job import TrainingJob
from nas.tuner.estimate import Preview, draw, previewed
from nas.tuner.names import DEFAULT_PRUNER, PRUNERS, PrunerName
from nas.tuner.progress import Show
from nas.tuner.pruning import make_pruner
from nas.tuner.recipe_fitting import fit_recipe
from nas.tuner.selection import FinalSettings
from nas.tuner.target import Proof, prove
from nas.tuner.trials import Plan, Search, train_all
from nas.workers.fleet import Workers, make_fleet

if TYPE_CHECKING:  # a search begins earlier without Plotly, which comes when it trains
    from nas.api.finishing import Finished


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """How a search goes about it.

    Raises:
        UserError: a value outside its range, or two that do not go together.
    """

    trials: int = 50  # networks trained in total
    sampler: SamplerName = DEFAULT_SAMPLER
    pruner: PrunerName = DEFAULT_PRUNER
    seed: int = 0
    timeout: float | None = None  # seconds, after which no further trial begins
    finalists: int = 1
    final_seeds: int = 3
    baseline: bool = False
    until_target: bool = False
    workers: Workers = field(default_factory=Workers)
    data_dir: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("seed", 0), ("finalists", 0), ("final_seeds", 1)):
            require_whole("search", name, getattr(self, name), least)
        require_seconds("search", "timeout", self.timeout)
        require(self.sampler in SAMPLERS, "search", "sampler", self.sampler, f"one of {', '.join(SAMPLERS)}")
        require(self.pruner in PRUNERS, "search", "pruner", self.pruner, f"one of {', '.join(PRUNERS)}")
        if self.baseline and not self.finalists:
            raise UserError(
                "--baseline: the network to beat is trained beside final models; give --finalists 1 or more"
            )
        if self.until_target and not (self.finalists and self.final_seeds > 1):
            raise UserError(
                "--until-target: a network is shown to reach the target on fresh seeds; give --finalists 1 or more, "
                "and --final-seeds 2 or more"
            )

    @property
    def final(self) -> FinalSettings:
        """What follows the search."""
        return FinalSettings(finalists=self.finalists, seeds=self.final_seeds, baseline=self.baseline)

    @property
    def goal(self) -> dict[str, Any]:
        """The numbers that the search works towards, which its study remembers."""
        return {name: getattr(self, name) for name in ("trials", "finalists", "final_seeds", "baseline")}


def require_feasible(space: SearchSpace, seed: int) -> None:
    """Raise NothingFeasibleError where no draw of the space is within its limits."""
    feasible, ledger = probe(space, seed, draws=MAX_PROPOSALS, until_feasible=True)
    if not feasible:
        raise NothingFeasibleError(diagnosis(ledger))


def plan_of(
    space: SearchSpace,
    options: SearchOptions,
    given: GivenImages | None,
    folder: Path,
    say: Callable[[str], None],
    *,
    quiet: bool,
) -> Plan:
    """What to train with what; images that are given are those of this process, and a file in `folder` for others.

    `say` takes what is odd about the data; `quiet` shows nothing while image files are read.

    Raises:
        UserError: an unknown device or data set, or one that does not fit the space's networks.
    """
    dataset = _dataset(space, options, given, folder, quiet=quiet)
    data = load_training(dataset)
    if (classes := len(data.classes)) != space.num_classes:
        raise UserError(
            f"data set {space.dataset!r} has {classes} classes, the networks of the space {space.num_classes}; "
            f"give their Architecture num_classes={classes}"
        )
    _say_what_is_odd(space, dataset, say)

    def largest() -> TrainingJob:
        feasible, _ = probe(space, options.seed, draws=MAX_PROPOSALS, until_feasible=False)
        candidate = max(feasible, key=lambda found: found.cost.peak_activation_bytes).candidate
        return TrainingJob(candidate=candidate, constraints=space.constraints, dataset=dataset, seed=options.seed)

    fleet, quota = make_fleet(options.workers, largest), quota_that_decides()
    if quota and options.workers.jobs is None and options.workers.ray is None and {*fleet.devices} == {"cpu"}:
        say(f"workers: {usable_cores()}, as {quota}")
    return Plan(
        trials=options.trials,
        fleet=fleet,
        dataset=dataset,
        constraints=space.constraints,
        seed=options.seed,
        timeout=options.timeout,
        epoch_timeout=options.workers.epoch_timeout,
        later_epochs=later_epochs(space, options),
    )


def _require_apart(dataset: Dataset, folder: Path) -> None:
    """Raise UserError where a study's folder would lie in the folder of its images, and so be read as a class."""
    images = Path(dataset.name).expanduser()
    if is_of_files(dataset) and images.is_dir() and folder.resolve().is_relative_to(images.resolve()):
        raise UserError(
            f"--output-dir {folder.parent}: the study would lie among the images of {images}; give another folder"
        )


def _dataset(
    space: SearchSpace, options: SearchOptions, given: GivenImages | None, folder: Path, *, quiet: bool
) -> Dataset:
    """The space's data set, its files read; or images that were given."""
    data_dir = options.data_dir if given is None else str(folder.resolve())
    dataset = Dataset(
        name=space.dataset,
        input_shape=space.input_shape,
        data_dir=data_dir,
        pictures=space.pictures,
        metric=space.metric,
        cross_validation=space.cross_validation,
    )
    if given is not None:
        hand_over(dataset, given.pool)
    else:
        with reading_view(quiet=quiet) as tell:
            dataset = read_once(dataset, tell)
    return dataset


def _say_what_is_odd(space: SearchSpace, dataset: Dataset, say: Callable[[str], None]) -> None:
    """Say what the check of the data warns of, and that a constant answer reaches the target."""
    sheet, data = sheet_of(dataset), load_training(dataset)
    drawn = [] if "validation" in sheet.given else few_to_judge(data.evaluation.images)
    for warning in [*sheet.warnings, *drawn]:
        say(printable(f"data: {warning}"))
    label, value = data.evaluation.constant_answer()
    if space.target is not None and value >= space.target:
        name, metric = data.classes[label], data.metric.name
        say(printable(f"data: always answering {name!r} reaches the target: its {metric} is {value:.2%}"))


def later_epochs(space: SearchSpace, options: SearchOptions) -> float:
    """What the final runs take, in epochs of a trial; those of the network to beat cost as its MACs."""
    if not options.finalists:
        return 0
    models = options.final_seeds * epochs_on_all_images(space.cross_validation)
    if options.baseline and space.baseline is not None:
        macs = cost(space.baseline).macs
        models *= 1 + macs / (space.constraints.max_macs or macs)
    return (sum(rounds_of_race(options.finalists, options.final_seeds)) + models) * space.recipe.epochs


def preview(
    space: SearchSpace,
    options: SearchOptions,
    given: GivenImages | None,
    say: Callable[[str], None],
    *,
    quiet: bool = False,
) -> Preview:
    """What the space holds, and how long the search would take; nothing is trained but a few steps, to time them.

    Raises:
        NothingFeasibleError: no draw of the space is within its limits.
        UserError: as `plan_of` does.
    """
    draws = draw(space, options.seed)
    if not draws.feasible:
        raise NothingFeasibleError(diagnosis(draws.ledger))
    with TemporaryDirectory() as name:
        if given is not None:
            given.keep(Path(name))
        plan = plan_of(space, options, given, Path(name), say, quiet=quiet)
        try:
            return previewed(space, draws, plan, options.pruner)
        finally:
            take_back(plan.dataset)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of torch: the workers have the cores; measured beside them, gp proposes five times as fast."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def search(
    space: SearchSpace,
    location: StudyLocation,
    options: SearchOptions,
    given: GivenImages | None = None,
    *,
    command: str,
    show: Show,
    say: Callable[[str], None],
    quiet: bool = False,
) -> "Finished":
    """Run a search, or go on with one, and write its results; `command` is what the study remembers of it.

    `show` shows what is being trained; `say` takes a sentence for a person; `quiet` shows nothing of image files that
    are read.

    Raises:
        NothingFeasibleError: no draw of the space is within its limits.
        UserError: bad input, with nothing written; or a storage, disk or worker that fails.
    """
    require_feasible(space, options.seed)
    if options.until_target and space.target is None:
        raise UserError("--until-target: there is no target to reach; give --target, such as 0.994")
    if options.baseline and space.baseline is None:
        which = "" if space.name is None else f" {space.name!r}"
        raise UserError(
            f"--baseline: the search space{which} names no network to beat; set its baseline, or leave the option out"
        )
    with _one_thread():
        plan = plan_of(space, options, given, location.folder, say, quiet=quiet)
        _require_apart(plan.dataset, location.folder)
        wanted = settings(space, seed=options.seed, sampler=options.sampler, pruner=options.pruner)
        data = load_training(plan.dataset)
        wanted["training_images"] = fingerprint(data.train, data.validation)
        with writing(location, wanted, this_command(command, plan.fleet.devices, options.goal)) as study:
            if given is not None:
                given.keep(location.folder)
            remember_task(study, space)
            known = read_history(study)
            if space.fit_recipe:
                known, fit = fit_recipe(study, location, known, space, plan, show)
                say(str(fit))
                space = space.trained_by(fit.change)
            make = make_sampler(options.sampler, space, options.seed)
            sampler = FeasibleSampler(make, space, options.seed, seen=known.digests)
            study.pruner = make_pruner(options.pruner, space.recipe.epochs)
            for text in sampler.not_tried():
                say(text)
            if known.trained:
                say(_goes_on(known, options.trials))

            trials = _trials(study, location, plan, known, sampler, space.target if options.until_target else None)

            def train() -> None:
                show(train_all(trials, plan), headline(space, location))

            proof = None
            if options.until_target:
                proof = _proven(study, location, plan, known, options.final_seeds, trials, train, show)
                if proof is not None:
                    say(str(proof))
            else:
                train()
            from nas.api.finishing import finish

            proven = None if proof is None else proof.trial
            finished = finish(study, location, plan, options.final, show, proven)
            return finished if trials.exhausted is None or proof else replace(finished, exhausted=trials.exhausted)


def _goes_on(known: History, trials: int) -> str:
    """That a study goes on, and how far it has come."""
    trained = len(known.trained)
    if trained > trials:
        return f"study {known.name} goes on: {trained} trained, {trials} asked for"
    return f"study {known.name} goes on: {trained} of {trials} trained, {trials - trained} to go"


def _proven(
    study: optuna.Study,
    location: StudyLocation,
    plan: Plan,
    history: History,
    seeds: int,
    trials: Search,
    train: Callable[[], None],
    show: Show,
) -> Proof | None:
    """Train trials until one is proven to reach the target; None when there are no more to train."""
    validation = load_training(plan.dataset).evaluation
    while True:
        history, proof = prove(study, location, history, plan, seeds, validation, show)
        if proof is not None:
            return proof
        trials.found_enough = False
        train()
        if not trials.found_enough:
            return None
        history = read_history(study)


def _trials(
    study: optuna.Study,
    location: StudyLocation,
    plan: Plan,
    known: History,
    sampler: FeasibleSampler,
    target: float | None,
) -> Search:
    """What is left to train; with a target, up to a trial that has it."""

    def annotate(trial: optuna.Trial, record: TrialRecord) -> dict[Path, str]:
        from nas.reporting.notes import annotate_trial

        return annotate_trial(study, location, plan.dataset, trial, record)

    def enough(record: TrialRecord) -> bool:
        return record.val_accuracy is not None and bool(reached(record.val_accuracy, target))

    return Search(study, location, known.trials, plan, sampler, annotate=annotate, enough=enough)
