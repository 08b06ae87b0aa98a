"""`import nas`: the functions that the commands are made of, on real images, in scripts, threads and other folders."""

import csv
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ENVIRONMENT, MNIST, ended, make_task, small_space, started
from torch import Tensor
from torch.utils.data import TensorDataset

import nas
from nas.api.result import Result
from nas.api.task import asked_for
from nas.datasets.images import load_test, load_training
from nas.datasets.memory import given_images, read_given
from nas.network.measure import measure
from nas.study.opening import writing
from nas.tuner.progress import Progress

SPACE = replace(small_space(MNIST, epochs=2), name="tiny")
SEARCH = {"trials": 3, "finalists": 2, "final_seeds": 2, "jobs": 2, "device": "cpu", "progress": False}


def some_images(count: int = 400) -> tuple[Tensor, Tensor]:
    """The first training images of MNIST (N, 1, 28, 28) and their labels."""
    train = load_training(MNIST).train
    return train.images[:count], train.labels[:count]


def judged_images() -> tuple[Tensor, Tensor]:
    """The first test images."""
    test = load_test(MNIST)
    return test.images[:200], test.labels[:200]


def search(folder: Path, **changed: object) -> Result:
    return nas.search(SPACE, **{**SEARCH, "data": some_images(), "output_dir": folder, **changed})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def result(folder: Path) -> Result:
    return search(folder, study="demo", test=judged_images())


# the door itself


@pytest.mark.parametrize("lines", ["import nas; import nas.search", "import nas.search; import nas"])
def test_the_command_never_hides_the_function(lines: str) -> None:
    code = f"{lines}; import nas.search; assert nas.search.__module__ == 'nas.api.front_door', nas.search"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_import_offers_every_name_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, nas; assert set(nas.__all__) <= set(dir(nas)); nas.Conv, nas.SearchSpace, nas.load_space; "
        "sys.exit(' '.join({'torch', 'sqlalchemy', 'rich'} & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert all(getattr(nas, name).__name__ == name for name in nas.__all__ if name != "Layer")  # a union has no name
    with pytest.raises(AttributeError, match=r"^module 'nas' has no attribute 'serach'$"):
        nas.serach  # type: ignore[attr-defined]  # noqa: B018


# a search and its result


def test_search_trains_what_is_asked_for_and_gives_the_best_network(result: Result, folder: Path) -> None:
    assert result.best is not None
    assert result.best.test is not None
    assert (result.name, result.best.test.n, result.complaint) == ("demo", 2, "")
    assert len(result.trials()) == 3
    assert list(result.trials()["number"]) == [0, 1, 2]
    finalists = set(result.runs()["trial"])
    raced = len(finalists) if len(finalists) > 1 else 0
    assert len(result.runs()) == raced + 2  # a fresh seed each, and the winner's final models
    assert {path.name for path in result.written} >= {"model.py", "weights.safetensors", "summary.txt", "report.html"}
    assert (folder / "demo" / "best" / "model.py").read_text(encoding="utf-8") == result.best.source
    first, second, third = repr(result).splitlines()
    assert first == f"Trial {result.best.trial} wins with {result.best.test} of the test images, n = 2."
    assert second == f"trial {result.best.trial}: {result.best.notation} ({result.best.params:,} parameters)"
    assert third.startswith("Study 'demo' on 'in memory ")


def test_a_search_ends_when_a_network_is_sure_to_reach_the_target(tmp_path: Path) -> None:
    """Its trainings on fresh seeds are those of a finalist; the same call then trains nothing more."""
    asked: dict[str, object] = {"target": 0.05, "until_target": True, "trials": 5, "jobs": 1, "study": "soon"}
    titles: list[str] = []

    def progress(events: Iterator[Progress], title: str) -> None:
        titles.append(title)
        for _ in events:
            pass

    found = search(tmp_path, **asked, progress=progress)
    assert len(found.trials()) < 5
    assert "trial 0 has the accuracy asked for; is it there on fresh seeds, too?" in titles
    assert found.best is not None
    before = len(found.runs())
    again = search(tmp_path, **asked)
    assert (len(again.trials()), len(again.runs())) == (len(found.trials()), before)
    missed = search(tmp_path, **{**asked, "target": 1.0, "study": "never"})
    assert len(missed.trials()) == 5


def test_a_search_goes_on_after_a_network_that_may_have_had_luck(tmp_path: Path, result: Result) -> None:
    """Two fresh seeds leave much room below their mean."""
    first = result.trials()["val_accuracy"][0]
    titles: list[str] = []

    def progress(events: Iterator[Progress], title: str) -> None:
        titles.append(title)
        for _ in events:
            pass

    asked = {"target": first, "until_target": True, "jobs": 1, "test": judged_images(), "progress": progress}
    found = search(tmp_path, study="unsure", **asked)
    assert "trial 0 has the accuracy asked for; is it there on fresh seeds, too?" in titles
    assert len(found.trials()) == 3
    assert found.complaint == ""


def test_a_notebook_shows_the_verdict_the_table_and_the_network(result: Result) -> None:
    html = result.html()
    assert result.verdict in html
    assert html.count("<svg") == 1
    assert f"trial {result.best.trial}, the winner" in html if result.best else False


def test_plots_are_those_of_the_report(result: Result) -> None:
    assert len(result.plot.pareto().data) >= 2
    assert len(result.plot.curves().data) == 3
    with pytest.raises(nas.UserError, match=r"^pareto: cost 'flops' must be one of params, macs, "):
        result.plot.pareto("flops")


def test_the_network_has_its_weights_and_preprocessing(result: Result) -> None:
    assert result.best is not None
    assert result.best.test is not None
    network = result.best.load()
    images, labels = judged_images()
    assert measure(network.network, (1, 28, 28)).params == result.best.params
    predicted = network.predict(images)
    assert (predicted.dtype, predicted.shape, network.training) == (torch.int64, (200,), False)
    winner = result.winner
    assert winner is not None
    assert int((predicted == labels).sum()) == round(winner.judged.accuracy * 200), "as when the images were read"
    assert torch.equal(network.predict(images.float() / 255), predicted)
    assert torch.equal(network.predict(images[:, 0].numpy()), predicted)
    assert torch.equal(network.probabilities(images).argmax(1), predicted)
    with pytest.raises(nas.UserError, match=r"^images: images of shape \(1, 8, 8\) must be \(N, 1, 28, 28\)"):
        network.predict(torch.zeros(1, 8, 8, dtype=torch.uint8))


def test_the_same_call_goes_on_to_its_total(result: Result, folder: Path) -> None:
    before = (folder / "demo" / "trials.csv").read_text(encoding="utf-8").splitlines()
    again = search(folder, study="demo", trials=4, test=judged_images())
    assert len(again.trials()) == 4
    assert (folder / "demo" / "trials.csv").read_text(encoding="utf-8").splitlines()[: len(before)] == before


def test_a_study_answers_what_the_commands_answer(result: Result, folder: Path) -> None:
    study = nas.open_study("demo", output_dir=folder)
    status = study.status()
    assert study.best is not None
    assert (status.trained, status.running, status.winner) == (len(study.trials()), False, study.best.trial)
    retraining = study.retrain(trial=0, progress=False)
    assert retraining.equal
    epochs = len(retraining.epochs)
    assert str(retraining) == f"{epochs} of {epochs} epochs are equal to the last digit."
    noise = study.noise(trial=0, seeds=2, jobs=2, progress=False)
    assert noise.accuracy.n == 2
    assert noise.noise.least_difference > 0
    ablation = study.ablate(trial=0, choices=["head"], seeds=1, progress=False)
    assert [effect.variant.choice for effect in ablation.effects] == ["head"]
    assert study.report() == folder / "demo" / "report.html"
    assert sorted(path.name for path in study.export(trial=0).iterdir()) == ["model.py", "weights.safetensors"]
    (listed,) = nas.studies(folder)
    assert listed.cells[:3] == ("demo", status.dataset, f"{status.trained} of {status.trials}")


def test_noise_and_ablation_are_measured_while_a_search_writes_the_study_which_keeps_nothing_of_them(
    result: Result, folder: Path
) -> None:
    study = nas.open_study("demo", output_dir=folder)
    kept = study.noise(trial=0, seeds=2, jobs=2, progress=False)
    held = len(study.history().runs)
    with writing(study.location, None):
        files = {path: path.stat().st_mtime_ns for path in study.location.folder.rglob("*")}
        noise = study.noise(trial=0, seeds=3, jobs=2, progress=False)
        ablation = study.ablate(trial=0, choices=["head"], seeds=1, progress=False)
        assert {path: path.stat().st_mtime_ns for path in study.location.folder.rglob("*")} == files
    assert (kept.kept, noise.kept, ablation.kept) == (True, False, False)
    assert (noise.accuracy.n, noise.scores[:2]) == (3, kept.scores)
    assert str(noise).endswith("\nThese runs are not kept, as another run works on the study.")
    assert [effect.variant.choice for effect in ablation.effects] == ["head"]
    assert len(study.history().runs) == held
    assert study.noise(trial=0, seeds=3, jobs=2, progress=False).scores == noise.scores, "trained again, and kept"


@pytest.mark.parametrize("space", [None, 3, (torch.zeros(2, 28, 28), torch.zeros(2))])
def test_what_is_no_space_is_a_sentence(space: Any) -> None:
    message = rf"^space: it is a {type(space).__name__}; give a SearchSpace, its name or its path, and images to data=$"
    with pytest.raises(nas.UserError, match=message):
        nas.search(space, trials=1)


def test_names_and_paths_are_checked_for_what_they_are(tmp_path: Path) -> None:
    assert nas.load_space(Path(nas.__file__).parents[1] / "search_spaces" / "mnist.py").name == "mnist"
    with pytest.raises(nas.UserError, match=r"^load_space: space 3 must be a name, or the path of a \.py file$"):
        nas.load_space(3)  # type: ignore[arg-type]
    with pytest.raises(nas.UserError, match=r"^study: name 5 must be text, such as 'demo'$"):
        nas.open_study(5, output_dir=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(
        nas.UserError, match=r"^data: Tensor is neither \(images, labels\) nor a data set of such pairs;"
    ):
        nas.preview(SPACE, data=torch.zeros(2, 28, 28))


def test_preview_is_what_the_dry_run_says_as_a_value() -> None:
    found = nas.preview(SPACE, trials=7, data=some_images(), jobs=1, device="cpu")
    assert (found.trials, found.n_train + found.n_val) == (7, 400 - 67)  # a sixth is kept for the test
    assert 0 < found.acceptance < 1
    assert found.rejected["max_params"] == found.draws.ledger.rejected
    assert found.sizes[1] <= 400
    assert found.search_seconds > 0


# where it works


SCRIPT = """
import nas
from test_front_door import SPACE, some_images

def main():
    options = {"trials": 2, "finalists": 0, "jobs": 1, "device": "cpu", "progress": False}
    return nas.search(SPACE, data=some_images(), study="script", **options)

print(main().name)
"""


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    told = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, "script\n", "")


def test_it_works_in_a_thread_and_touches_no_signal(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    found: list[Result] = []
    seen: list[object] = []

    def show(events: Iterator[Progress], title: str) -> None:
        for _ in events:
            seen.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])

    def work() -> None:
        found.append(search(tmp_path, study="thread", trials=1, finalists=0, progress=show))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [one.name for one in found] == ["thread"]
    search(tmp_path, study="main", trials=1, finalists=0, progress=show)
    assert all(handlers == before for handlers in seen)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_interruption_loses_nothing(tmp_path: Path) -> None:
    def interrupt(events: Iterator[Progress], title: str) -> None:
        for event in events:
            if event.done == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, study="cut", jobs=1, finalists=0, progress=interrupt)
    assert nas.open_study("cut", output_dir=tmp_path).status().trained == 1
    cut = search(tmp_path, study="cut", jobs=1, finalists=0).trials()
    whole = search(tmp_path, study="whole", jobs=1, finalists=0).trials()
    assert cut.drop(columns="seconds").equals(whole.drop(columns="seconds"))


def test_the_function_and_the_command_give_the_same_trials_and_files(tmp_path: Path) -> None:
    options = {"trials": 4, "finalists": 2, "final_seeds": 2}
    by_command, by_function = tmp_path / "command", tmp_path / "function"
    for folder in (by_command, by_function):
        folder.mkdir()
        make_task(folder)
    given = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    assert ended(started(by_command, *given)).status == 0
    # `python -c` has no guard, either.
    code = f"import nas; nas.search('digits.py', jobs=1, device='cpu', progress=False, **{options})"
    subprocess.run([sys.executable, "-c", code], cwd=by_function, env=ENVIRONMENT, check=True)
    told = [contents(folder / "results" / "digits") for folder in (by_command, by_function)]
    assert told[0].keys() == told[1].keys()
    assert {name for name in told[0] if told[0][name] != told[1][name]} == set()


def contents(folder: Path) -> dict[str, object]:
    """The files of a study, but for times and random names: tables without seconds, sources and weights whole."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                found[name] = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
        elif path.suffix in (".py", ".safetensors"):
            found[name] = path.read_bytes()
        elif "artifacts" not in name:
            found[name] = None
    return found


# what it refuses


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"trials": 0}, "search: trials 0 must be a whole number, at least 1"),
        ({"seed": -1}, "search: seed -1 must be a whole number, at least 0"),
        ({"sampler": "grid"}, "search: sampler 'grid' must be one of blueprint, tpe, gp, evolution, qmc, random"),
        ({"until_target": True, "final_seeds": 1}, "--until-target: a network is shown to reach the target on fresh"),
        ({"study": "a/b"}, "--study-name 'a/b' must be a plain name"),
        ({"device": "tpu"}, "--device 'tpu' is unknown; give auto, cpu, cuda or cuda:N"),
        ({"data": None, "test": some_images}, "test: test images go with data=(images, labels); give that, too"),
        ({"data": "mnist", "test": some_images}, "test: test images go with data=(images"),
        ({"data": None, "input_shape": (1, 8, 8)}, "the shape (1, 8, 8) is that of other data; give both, or let"),
        ({"input_shape": 28}, "search: input_shape 28 must be (channels, height, width)"),
        ({"data": "mnist", "input_shape": (1, 0, 8)}, "Architecture"),
        ({"metric": "f1"}, "search: metric 'f1' must be one of accuracy, balanced_accuracy"),
    ],
)
def test_bad_input_is_an_exception_with_the_same_sentence(
    changed: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(nas.UserError, match="^" + re.escape(sentence)):
        search(tmp_path, **changed)
    assert list(tmp_path.iterdir()) == []


def test_nothing_feasible_is_an_exception_that_says_why(tmp_path: Path) -> None:
    space = replace(SPACE, constraints=nas.Constraints(max_params=3))
    with pytest.raises(
        nas.NothingFeasibleError, match=r"(?s)^Nothing feasible .*max_params rejects most.*nearest miss"
    ):
        nas.search(space, data=some_images(), output_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_is_not_there_is_one_sentence(result: Result, folder: Path) -> None:
    with pytest.raises(nas.UserError, match=r"^there is no study 'dmeo' in .*; did you mean demo\?$"):
        nas.open_study("dmeo", output_dir=folder)


def test_other_images_are_refused_where_a_study_goes_on(result: Result, folder: Path) -> None:
    images, labels = some_images()
    with pytest.raises(
        nas.UserError, match=r"^study 'demo' cannot go on with other settings: dataset was \"in memory "
    ):
        search(folder, study="demo", data=(images.flip(0), labels.flip(0)), test=judged_images())


def test_a_folder_needs_no_space_of_its_own(tmp_path: Path) -> None:
    """The networks of the MNIST space, for its shape and classes; the study has its name."""
    folder = make_task(tmp_path, images=400) / "digits"
    found = nas.search(
        data=folder,
        input_shape=(1, 20, 16),
        metric="balanced_accuracy",
        trials=1,
        epochs=1,
        final_seeds=1,
        output_dir=tmp_path / "results",
        progress=False,
    )
    assert found.best is not None
    assert (tmp_path / "results" / "digits" / "study.db").is_file()
    architecture = found.best.architecture
    assert (architecture.input_shape, architecture.num_classes) == ((1, 20, 16), 10)


def test_a_study_is_not_written_among_its_images(tmp_path: Path) -> None:
    folder = make_task(tmp_path, images=400) / "digits"
    with pytest.raises(nas.UserError, match=r"^--output-dir .*: the study would lie among the images of .*; give"):
        nas.search(data=folder, input_shape=(1, 20, 16), trials=1, output_dir=tmp_path, progress=False)
    assert not (folder / "study.db").exists()


@pytest.mark.parametrize("spelt", ["digits", "digits/", "./digits"])
def test_a_folder_has_one_name_however_it_is_spelt(spelt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_task(tmp_path, images=400)
    monkeypatch.chdir(tmp_path)
    space = asked_for("mnist", spelt, (1, 20, 16), None)
    assert (space.dataset, space.name) == ("digits", "digits")
    monkeypatch.chdir(tmp_path / "digits")
    assert asked_for("mnist", ".", None, None).name == "digits"


def test_a_space_that_is_for_the_data_stays_as_it_is() -> None:
    space = nas.load_space("mnist")
    assert asked_for(space, "mnist", None, None) is space
    assert asked_for(space, "fashion_mnist", None, None).target is None
    with pytest.raises(nas.UserError, match=r"^unknown data set '': known are"):
        asked_for(space, "", None, None)


def test_how_pictures_are_prepared_may_be_said_beside_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_task(tmp_path, images=400)
    monkeypatch.chdir(tmp_path)
    space = asked_for("mnist", "digits", (1, 20, 16), None, {"background": "black"})
    assert space.pictures == nas.Pictures(background="black")
    padded = asked_for(space, None, None, None, {"fit": "pad"})
    assert padded.pictures == nas.Pictures(background="black", fit="pad"), "what is not said stays as it is"
    pictures = nas.Pictures(fit="crop", value_range=(0, 4095))
    assert nas.preview(data="digits", input_shape=(1, 20, 16), pictures=pictures, trials=1).dataset == "digits"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("mnist", "fit, background and value_range are for image files, and data set mnist is no folder or table of"),
        (None, "fit, background and value_range are for image files, and data set mnist is no folder or table of"),
        ((np.zeros((60, 28, 28), np.uint8), np.arange(60) % 10), "pictures: they say how files are prepared, and data"),
    ],
)
def test_pictures_are_refused_where_there_are_no_files(data: Any, message: str) -> None:
    with pytest.raises(nas.UserError, match=f"^{message}"):
        nas.preview(data=data, pictures=nas.Pictures(fit="pad"))


def test_images_in_memory_may_have_classes_of_their_own() -> None:
    images, labels = some_images()
    few = labels < 3
    preview = nas.preview(SPACE, trials=1, data=(images[few], labels[few]))
    assert preview.n_train > 0


def test_images_in_memory_may_say_which_ones_validate(tmp_path: Path) -> None:
    images, labels = some_images()
    last = torch.arange(len(labels)) >= len(labels) - 100
    data, validation = (images[~last], labels[~last]), (images[last], labels[last])
    test = (images[:20], labels[:20])
    given = given_images(data, test, (1, 28, 28), validation=validation)
    assert given.name != given_images((images, labels), test, (1, 28, 28)).name, "other images, as they are used"
    assert torch.equal(given.train.labels[torch.from_numpy(given.pool.held_out)], labels[last])
    given.keep(tmp_path)
    kept = read_given(tmp_path, given.name, train=True)
    assert np.array_equal(kept.held_out, given.pool.held_out)
    assert torch.equal(kept.images.images, given.train.images)
    preview = nas.preview(SPACE, trials=1, data=data, validation=validation, test=test)
    assert (preview.n_train, preview.n_val) == (len(labels) - 100, 100)
    few = nas.preview(SPACE, trials=1, data=data, validation=validation)
    assert (few.n_train, few.n_val) == (len(labels) - 100 - -(-(len(labels) - 100) // 6), 100)
    with pytest.raises(nas.UserError, match=r"^validation: label \d+ is of no class in data, which has 0 to 9"):
        nas.preview(SPACE, data=data, validation=(images[last], labels[last] + 5))
    with pytest.raises(nas.UserError, match=r"^validation: validation images go with data=\(images, labels\)"):
        nas.preview(SPACE, data="mnist", validation=validation)


def test_images_in_memory_may_have_a_shape_of_their_own(tmp_path: Path) -> None:
    images, labels = some_images()
    small = (images[:, :, ::2, ::2], labels)
    found = nas.search(
        *(SPACE, 1),
        study="small",
        data=small,
        input_shape=(1, 14, 14),
        finalists=0,
        output_dir=tmp_path,
        progress=False,
    )
    assert found.best is not None
    assert found.best.architecture.input_shape == (1, 14, 14)


def test_images_and_test_images_may_be_torch_data_sets(tmp_path: Path) -> None:
    train, test = load_training(MNIST).train, load_test(MNIST)
    data = TensorDataset(train.images[:300], train.labels[:300])
    judged = TensorDataset(test.images[:100].float() / 255, test.labels[:100])
    found = search(tmp_path, study="sets", trials=1, finalists=0, data=data, test=judged)
    assert found.best is not None
    assert found.best.test is not None
    winner = found.winner
    assert winner is not None
    assert winner.judged.n == 100


def tones(count: int, seed: int) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], np.ndarray[Any, np.dtype[np.int64]]]:
    """Spectrograms (N, 40, 98) of tones that rise, fall or stay, in noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    slopes = np.array([0.15, -0.15, 0.0])[labels][:, None]
    bands = rng.uniform(15, 25, (count, 1)) + slopes * (np.arange(98) - 49)  # (N, 98)
    loud = np.exp(-((np.arange(40)[None, :, None] - bands[:, None]) ** 2) / 4)
    return (200 * loud + rng.uniform(0, 55, loud.shape)).astype(np.uint8), labels


def test_spectrograms_go_through_everything(tmp_path: Path) -> None:
    """Nothing asks for square images: a search, an ablation, a training, the page and the exported file."""
    here: dict[str, Any] = {"device": "cpu", "progress": False}
    result = nas.search(
        *("mnist", 2),
        study="sound",
        epochs=12,
        data=tones(240, 0),
        test=tones(60, 1),
        input_shape=(1, 40, 98),
        final_seeds=2,
        output_dir=tmp_path,
        **here,
    )
    assert result.best is not None
    assert result.winner is not None
    assert result.best.architecture.input_shape == (1, 40, 98)
    assert result.winner.test.mean > 0.9, "three times what luck gives"
    assert result.best.load()(torch.zeros(2, 1, 40, 98)).shape == (2, 3)
    study = nas.open_study("sound", output_dir=tmp_path)
    assert study.ablate(choices=["head"], seeds=2, **here).found
    assert study.retrain(**here).equal
    assert "sound" in study.report().read_text(encoding="utf-8")
    script = [sys.executable, str(tmp_path / "sound" / "best" / "model.py")]
    assert subprocess.run(script, capture_output=True, text=True, check=True).stderr == ""
