"""The end of a search: the choice, the one reading of the test images, the files, and exports of other trials."""

import csv
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from safetensors.torch import load_file

from nas import export
from nas.analysis.finalists import Winner
from nas.analysis.statistics import spread
from nas.api.finishing import finish
from nas.datasets.dataset import Dataset
from nas.datasets.images import load_test
from nas.network.architecture import Architecture
from nas.network.layers import Conv, Head, MaxPool
from nas.network.limits import Constraints
from nas.network.module import build
from nas.optuna_internals.attributes import set_own_attribute
from nas.optuna_internals.trials import report_epoch
from nas.reporting.conclusions import verdict
from nas.samplers.feasible import FeasibleSampler, ask, make_sampler
from nas.space.candidate import Candidate
from nas.space.recipe import Recipe
from nas.space.search_space import SearchSpace
from nas.space.suggestions import Trial
from nas.study.history import read_history
from nas.study.location import TRIALS, StudyLocation, locate
from nas.study.opening import writing
from nas.study.records import digests, ranked, records, scores_on_test
from nas.study.settings import remember_task, settings
from nas.training.score import Score
from nas.training.training import weights_of
from nas.tuner.progress import Progress
from nas.tuner.selection import FinalSettings, TestSet, choose
from nas.tuner.trials import Plan
from nas.workers.local import LocalFleet

MNIST = Dataset(name="mnist", input_shape=(1, 28, 28))
RECIPE = Recipe(epochs=3)


def sample(trial: Trial) -> Candidate:
    layers = (Conv(out_channels=trial.suggest_int("kernels", 2, 9)), MaxPool(kernel_size=4))
    architecture = Architecture(input_shape=(1, 28, 28), num_classes=10, layers=layers, head=Head())
    return Candidate(architecture=architecture, recipe=RECIPE)


SPACE = SearchSpace(
    sample=sample,
    constraints=Constraints(max_params=400, forbid=("linear",)),
    dataset="mnist",
    recipe=RECIPE,
    target=0.99,
)

# (validation accuracies, validation loss, how it ended): trials 1 and 2 tie, and 2 has the lower loss
TRIALS_TOLD: list[tuple[list[float], float, TrialState]] = [
    ([0.1, 0.2, 0.3], 2.0, TrialState.COMPLETE),
    ([0.2, 0.9, 0.8], 1.0, TrialState.COMPLETE),
    ([0.3, 0.4, 0.8], 0.9, TrialState.COMPLETE),
    ([0.95], 0.1, TrialState.PRUNED),
]


def report(trial: optuna.Trial, accuracies: list[float], loss: float) -> None:
    """As the scheduler does after each epoch, and in the end."""
    curve = [{"epoch": i, "val_accuracy": accuracy, "val_loss": loss} for i, accuracy in enumerate(accuracies, 1)]
    for epoch in range(1, len(curve) + 1):
        report_epoch(trial, curve[:epoch])
    set_own_attribute(trial, "environment", {"nas": "0.1.0", "precision": "float32"})


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[optuna.Study, StudyLocation]]:
    """A study whose trials have weights (untrained ones: what is tested here does not depend on them)."""
    location = locate("told", tmp_path_factory.mktemp("results"), None)
    with writing(location, settings(SPACE, seed=0, sampler="random", pruner="none")) as study:
        remember_task(study, SPACE)
        sampler = FeasibleSampler(make_sampler("random", SPACE, 0), SPACE, 0, seen=set())
        for accuracies, loss, state in TRIALS_TOLD:
            trial = ask(study, sampler, 0)
            report(trial, accuracies, loss)
            torch.manual_seed(trial.number)
            path = location.weights_path(trial.number)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(weights_of(build(records(study)[-1].candidate.architecture)))
            study.tell(trial, accuracies[-1] if state is TrialState.COMPLETE else None, state=state)
        yield study, location


PLAN = Plan(trials=4, fleet=LocalFleet(("cpu",)), dataset=MNIST, constraints=SPACE.constraints, seed=0)
SCORE = Score(loss=0.02, accuracy=0.995, n=10_000)
AS_IT_IS = FinalSettings(finalists=0, seeds=3, baseline=False)


def show(events: Iterator[Progress], title: str) -> None:
    raise AssertionError(f"nothing is trained: {title}")


_opened: list[str] = []
sys.addaudithook(lambda event, args: _opened.append(str(args[0])) if event == "open" else None)


@contextmanager
def opened_test_files() -> Iterator[list[str]]:
    """The files of MNIST's test set that were opened meanwhile."""
    _opened.clear()
    found: list[str] = []
    yield found
    found += [name for name in _opened if "t10k" in name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A study after `finish` ran twice: what each run printed, and which test files it opened."""

    study: optuna.Study
    location: StudyLocation
    said: list[str]
    opened: list[list[str]]


@pytest.fixture(scope="module")
def finished(told: tuple[optuna.Study, StudyLocation]) -> Finished:
    study, location = told
    result = Finished(study=study, location=location, said=[], opened=[])
    for _ in range(2):
        with opened_test_files() as opened:
            done = finish(study, location, PLAN, AS_IT_IS, show)
        result.said.append(f"{done.summary}\nwritten: {', '.join(map(str, done.written))}\n")
        result.opened.append(opened)
    return result


def test_winner_is_the_best_final_epoch_then_the_lower_loss(finished: Finished) -> None:
    known = read_history(finished.study)
    _, winner = choose(finished.study, finished.location, known, PLAN, AS_IT_IS, TestSet(MNIST), show)
    assert winner is not None
    assert winner.record.number == 2
    assert [trial.number for trial in ranked(records(finished.study))] == [2, 1, 0]


def test_test_images_are_opened_once_by_a_command_and_judged_once_in_a_studys_life(finished: Finished) -> None:
    assert [len(opened) for opened in finished.opened] == [2, 2]  # images and labels; again to show the mistakes
    assert len(scores_on_test(finished.study)) == 1


def test_finish_writes_the_promised_files_and_says_where(finished: Finished) -> None:
    folder = finished.location.folder
    for name in ("best/model.py", "best/weights.safetensors", "best/summary.txt", TRIALS):
        assert (folder / name).is_file()
        assert str(folder / name) in finished.said[0]
    assert not list(folder.glob(".*"))


def test_test_accuracy_is_that_of_the_exported_file(finished: Finished) -> None:
    folder = finished.location.folder / "best"
    model: dict[str, Any] = {"__name__": "exported"}
    exec((folder / "model.py").read_text(), model)
    net = model["Net"]().eval()
    net.load_state_dict(load_file(folder / "weights.safetensors"))
    images = load_test(MNIST)
    with torch.no_grad():
        answers = net(model["preprocess"](images.images)).argmax(1)
    accuracy = float((answers == images.labels).double().mean())
    ((trial, stored),) = scores_on_test(finished.study).items()
    assert stored.accuracy == pytest.approx(accuracy, abs=1e-12)
    assert (trial, stored.n) == (2, 10_000)
    wrong = (answers != images.labels).nonzero().flatten()
    assert [mistake.image for mistake in stored.mistakes] == wrong.tolist()
    for said in finished.said:
        assert f" {accuracy:.2%}   1 \n" in said.replace("\n", " \n")
        assert "judged on 10,000 test images, opened after the choice" in " ".join(said.split())


def test_trials_csv_tells_what_the_study_tells(finished: Finished) -> None:
    rows = list(csv.DictReader((finished.location.folder / TRIALS).read_text().splitlines()))
    trials = finished.study.get_trials()
    assert [int(row["number"]) for row in rows] == [0, 1, 2, 3]
    assert [row["state"] for row in rows] == ["COMPLETE", "COMPLETE", "COMPLETE", "PRUNED"]
    assert [int(row["kernels"]) for row in rows] == [trial.params["kernels"] for trial in trials]
    assert [int(row["seed"]) for row in rows] == [trial.user_attrs["seed"] for trial in trials]
    assert [float(row["val_accuracy"]) for row in rows] == [0.3, 0.8, 0.8, 0.95]
    assert [int(row["epochs"]) for row in rows] == [3, 3, 3, 1]
    assert [row["precision"] for row in rows] == ["float32"] * 4


def test_summary_file_is_what_was_printed_and_has_torchinfos_total(finished: Finished) -> None:
    text = (finished.location.folder / "best/summary.txt").read_text()
    params = ranked(records(finished.study))[0].params
    assert text in finished.said[1]
    assert f"Total params: {params:,}" in text
    assert "4 networks trained, 1 of them stopped" in text
    assert "10 epochs" in text


def command(monkeypatch: pytest.MonkeyPatch, location: StudyLocation, *arguments: str) -> int:
    common = ["--study-name", location.name, "--output-dir", str(location.folder.parent)]
    monkeypatch.setattr(sys, "argv", ["nas.export", *common, *arguments])
    return export.main()


def test_export_of_a_stopped_trial_says_how_far_it_got(
    told: tuple[optuna.Study, StudyLocation], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, location = told
    folder = location.folder / "trials/3"
    with opened_test_files() as opened:
        assert command(monkeypatch, location, "--trial", "3") == 0
    assert capsys.readouterr().out == f"written: {folder / 'model.py'}, {folder / 'weights.safetensors'}\n"
    text = " ".join((folder / "model.py").read_text().split())
    assert "Stopped after epoch 1 of 3" in text
    assert "the test set was not read for this network" in text
    assert opened == []


@pytest.mark.parametrize("trial", ["9", "-1", "x"])
def test_export_of_no_such_trial_is_one_sentence(
    told: tuple[optuna.Study, StudyLocation], monkeypatch: pytest.MonkeyPatch, trial: str
) -> None:
    _, location = told
    messages = {
        "9": "--trial 9: study 'told' has no such trained trial; it has 0 to 3",
        "-1": "argument --trial: '-1' must be a whole number of at least 0; see --help",
        "x": "argument --trial: 'x' must be a whole number of at least 0; see --help",
    }
    with pytest.raises(ValueError, match=f"^{re.escape(messages[trial])}$"):
        command(monkeypatch, location, f"--trial={trial}")


def test_export_without_weights_is_one_sentence(
    told: tuple[optuna.Study, StudyLocation], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, location = told
    path = location.weights_path(0)
    content = path.read_bytes()
    path.unlink()
    try:
        message = f"trial 0 has no weights: {path} cannot be read (No such file or directory)"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            command(monkeypatch, location, "--trial", "0")
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("accuracy", "target", "text"),
    [
        (0.9950, 0.994, "Target 99.40 %: reached by 0.10 points (one run, n = 1, 1.4 standard errors)."),
        (0.9940, 0.994, "Target 99.40 %: reached by 0.00 points (one run, n = 1, 0.0 standard errors)."),
        (0.9930, 0.994, "Target 99.40 %: missed by 0.10 points (one run, n = 1, 1.2 standard errors)."),
        (0.9930, None, "No target was set."),
    ],
)
def test_verdict_says_how_sure_one_run_is(
    told: tuple[optuna.Study, StudyLocation], accuracy: float, target: float | None, text: str
) -> None:
    best = records(told[0])[0]
    assert verdict(Winner(record=best, test=spread([accuracy]), judged=SCORE), None, target) == text


def test_a_longer_search_reads_the_test_images_for_its_new_winner_and_says_so(finished: Finished) -> None:
    study, location = finished.study, finished.location
    trial = ask(study, FeasibleSampler(make_sampler("random", SPACE, 0), SPACE, 0, seen=digests(records(study))), 0)
    report(trial, [0.9] * 3, 0.5)
    location.weights_path(trial.number).write_bytes(weights_of(build(records(study)[-1].candidate.architecture)))
    study.tell(trial, 0.9)
    with opened_test_files() as opened:
        done = finish(study, location, PLAN, AS_IT_IS, show)
    assert len(opened) == 2
    assert list(scores_on_test(study)) == [2, 4]
    assert "The test images were read before, for trial 2." in done.summary
