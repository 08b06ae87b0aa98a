"""The exported file is judged by others: by ruff, by the built network and, run as a script, by itself."""

import ast
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import nodes
from PIL import Image

from nas.analysis.statistics import Spread
from nas.codegen.card import ModelCard
from nas.codegen.exporting import export
from nas.codegen.proof import ExportError, in_fresh_process
from nas.codegen.source import TEMPLATES, model_source
from nas.datasets.augmentation import normalize
from nas.datasets.metrics import ACCURACY
from nas.datasets.pixels import read_image
from nas.errors import UserError
from nas.network.architecture import Architecture
from nas.network.layers import Conv, Head, MaxPool, Transition
from nas.network.limits import Constraints
from nas.network.module import build
from nas.space.loading import load_space
from nas.space.pictures import Pictures
from nas.space.recipe import Augmentation, Recipe
from nas.space.search_space import Feasible, SearchSpace
from nas.training.score import Score

SPACE = load_space("mnist")
assert SPACE.baseline is not None
BASELINE = SPACE.baseline
TEMPLATE_FOLDER = Path(str(files("nas.codegen"))) / "templates"
HOSTILE = 'a"""\n\\\'"; import os; os.abort() #\x00\x1b\u202e\u00e9\U0001f600{x}%s\\'

CARD = ModelCard(
    study="mnist",
    trial=12,
    dataset="mnist",
    pictures=Pictures(),
    metric=ACCURACY,
    seeds=(7, 8, 9),
    epochs=19,
    recipe=Recipe(epochs=19),
    environment={"nas": "0.1.0", "torch": "2.15.0", "precision": "bfloat16"},
    n_train=60_000,
    search_accuracy=0.9948,
    rerun=Spread(mean=0.9941, sd=0.0004, n=3),
    n_val=10_000,
    test=Spread(mean=0.99385, sd=0.00036, n=3),
    judged=Score(loss=0.02, accuracy=0.9938, n=10_000),
    mean=(0.1306,),
    std=(0.3081,),
    classes=tuple("0123456789"),
)
FOLDER_CARD = replace(CARD, dataset="my digits")
ALONE = replace(CARD, seeds=(7,), n_train=50_000, rerun=None)  # a trial, not the winner of a stage of finalists


SMALL = Architecture(
    input_shape=(1, 12, 12),
    num_classes=10,
    layers=(Conv(out_channels=4, dropout=0.1), MaxPool(), Transition(out_channels=3), Conv(out_channels=6, padding=0)),
    head=Head(),
)
LINEAR = replace(SMALL, head=Head(kind="linear"))
DISGUISED = replace(SMALL, layers=(*SMALL.layers, Conv(out_channels=8, kernel_size=4, padding=0)))  # on a 4×4 map
WIDE = Architecture(  # lines that leave no room for their comments, more than one channel, long tuples
    input_shape=(3, 20, 20),
    num_classes=47,
    layers=(Conv(out_channels=1024), Conv(out_channels=1024, kernel_size=11, padding=15, dropout=0.123456789)),
    head=Head(kind="conv_pool", padding=2, bias=False),
)
WIDE_CARD = replace(
    CARD,
    mean=(0.49139968, 0.48215841, 0.44653091),
    std=(1e-05, 1.0, 1 / 3),
    classes=tuple(f"{i:03}" for i in range(47)),
)
HOSTILE_CARD = replace(
    CARD,
    study=HOSTILE,
    dataset=HOSTILE * 9,
    environment={"nas": HOSTILE, "torch": HOSTILE, "python": HOSTILE, "precision": HOSTILE},
    classes=(HOSTILE, "it's", 'say "hi"', "'\"", "", " ", "\\N{DASH}", "\udc80", "{mean}", "7"),
)
SOURCES = [  # every kind of file that there is
    *(model_source(architecture, CARD) for architecture in (BASELINE, SMALL, LINEAR, DISGUISED)),
    *(model_source(SMALL, card) for card in (HOSTILE_CARD, FOLDER_CARD, ALONE)),
    *(model_source(SMALL, replace(CARD, dataset=name)) for name in ("fashion_mnist", "kmnist", "emnist")),
    *(model_source(WIDE, replace(WIDE_CARD, dataset=name)) for name in ("mnist", "my pictures")),
    model_source(WIDE, replace(WIDE_CARD, dataset="cifar10", test=None, judged=None)),
    model_source(SMALL, replace(CARD, recipe=replace(CARD.recipe, balanced_batches=True))),
    model_source(SMALL, replace(CARD, recipe=replace(CARD.recipe, augmentation=Augmentation(vertical_flip=True)))),
    model_source(replace(SMALL, input_shape=(2, 12, 12)), replace(FOLDER_CARD, mean=(0.5, 0.5), std=(1.0, 1.0))),
]
STILL = Augmentation(rotation=0, shift=0, scale=0, shear=0, horizontal_flip=True)
HARMLESS = ast.parse(model_source(SMALL, FOLDER_CARD))


def test_a_recipe_that_moves_nothing_says_so() -> None:
    card = replace(CARD, recipe=replace(CARD.recipe, augmentation=STILL))
    told = " ".join(docstring(model_source(SMALL, card)).split())
    assert "images neither turned, shifted, scaled nor sheared, every second one flipped left to right" in told
    assert "turned by up to 10 degrees" in " ".join(docstring(model_source(SMALL, CARD)).split())


def feasible_architectures(space: SearchSpace, n: int) -> list[Architecture]:
    found: list[Architecture] = []
    rng = random.Random(0)
    while len(found) < n:
        checked = space.check(space.decode(space.draw(rng)))
        if isinstance(checked, Feasible):
            found.append(checked.candidate.architecture)
    return found


def run_source(source: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "exported"}
    exec(compile(source, "model.py", "exec"), namespace)
    return namespace


def trained_weights(architecture: Architecture) -> bytes:
    """Weights of a network that has seen a batch, so that the statistics of its batch normalization are its own."""
    torch.manual_seed(3)
    network = build(architecture)
    network(torch.randn(16, *architecture.input_shape))
    return safetensors.torch.save(network.state_dict())


def run_script(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, folder / "model.py"], capture_output=True, text=True, check=False)


def docstring(source: str) -> str:
    text = ast.get_docstring(ast.parse(source))
    assert text is not None
    return " ".join(text.split())


def test_sources_are_clean_for_default_ruff(tmp_path: Path) -> None:
    drawn = [model_source(architecture, CARD) for architecture in feasible_architectures(SPACE, 20)]
    for i, source in enumerate([*drawn, *SOURCES]):
        (tmp_path / f"model_{i}.py").write_text(source, encoding="utf-8")
    for command in (["check"], ["format", "--diff"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--isolated", "--no-cache", str(tmp_path)]
        result = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    lines = [line for source in [*drawn, *SOURCES] for line in source.splitlines()]
    assert all(len(line) <= 88 for line in lines if not line.startswith('    "'))  # a class name is as long as it is


def texts(parts: Iterable[nodes.Node]) -> list[str]:
    """The texts that parts of a template bring into the file as they stand."""
    return [text.data for part in parts for text in part.find_all(nodes.TemplateData) if text.data.strip()]


@pytest.mark.parametrize("template", TEMPLATES.list_templates())
def test_every_branch_of_the_templates_is_among_the_linted_sources(template: str) -> None:
    tree = TEMPLATES.parse((TEMPLATE_FOLDER / template).read_text(encoding="utf-8"))
    assert [text for text in texts([tree]) if not any(text in source for source in SOURCES)] == []
    for condition in tree.find_all(nodes.If):  # each of its branches is left out somewhere, too
        assert not condition.elif_
        for branch in (condition.body, condition.else_):
            assert [text for text in texts(branch) if all(text in source for source in SOURCES)] == []


@pytest.mark.parametrize("architecture", [*feasible_architectures(SPACE, 20), BASELINE, LINEAR, DISGUISED])
def test_source_is_the_built_network(architecture: Architecture) -> None:
    namespace = run_source(model_source(architecture, CARD))
    torch.manual_seed(1)
    built, written = build(architecture).eval(), namespace["Net"]().eval()
    state = built.state_dict()
    assert {name: value.shape for name, value in written.state_dict().items()} == {
        name: value.shape for name, value in state.items()
    }
    assert namespace["PARAMS"] == sum(parameter.numel() for parameter in built.parameters())
    written.load_state_dict(state)
    images = torch.randint(256, (2, *architecture.input_shape), dtype=torch.uint8)
    inputs = namespace["preprocess"](images)
    assert torch.equal(inputs, normalize(images, CARD.mean, CARD.std))
    assert torch.equal(written(inputs), built(inputs))


def test_source_of_seed_network_has_its_published_parameters() -> None:
    source = model_source(BASELINE, CARD)
    assert "\nPARAMS = 18_738\n" in source
    assert "10 classes, 18,738 parameters." in docstring(source)
    assert "            nn.Conv2d(1, 128, 3, padding=1),  # 128×28×28 · 3 · 1,280\n" in source


def test_source_normalises_every_channel_by_its_own_statistics() -> None:
    card = replace(CARD, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0), classes=("cat", "dog"))
    architecture = replace(SMALL, input_shape=(3, 12, 12), num_classes=2)
    namespace = run_source(model_source(architecture, card))
    white = torch.full((1, 3, 12, 12), 255, dtype=torch.uint8)
    assert namespace["preprocess"](white)[0, :, 3, 4].tolist() == [1.0, 3.0, 0.5]
    assert namespace["CLASSES"] == ("cat", "dog")


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 1, 28, 27, dtype=torch.uint8),
        torch.zeros(1, 12, 12, dtype=torch.uint8),
        torch.zeros(1, 1, 12, 12),
    ],
)
def test_source_refuses_other_images(images: torch.Tensor) -> None:
    preprocess = run_source(model_source(SMALL, CARD))["preprocess"]
    with pytest.raises(ValueError, match=r"^images must be uint8 \(N, 1, 12, 12\), not torch\.\w+ of shape \("):
        preprocess(images)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "pictures", [Pictures(), Pictures(fit="pad", background="black"), Pictures(fit="crop", value_range=(9, 99))]
)
def test_source_prepares_pictures_as_the_training_images(channels: int, pictures: Pictures, tmp_path: Path) -> None:
    """Photographs on their side, transparent icons and deep images, too."""
    architecture = replace(SMALL, input_shape=(channels, 12, 10))
    prepare = run_source(model_source(architecture, replace(CARD, pictures=pictures)))["prepare"]
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(rng.integers(0, 256, (300, 200, 3), dtype=np.uint8)).save(tmp_path / "photo.jpg", exif=exif)
    Image.fromarray(rng.integers(0, 256, (20, 30, 4), dtype=np.uint8)).save(tmp_path / "icon.png")
    Image.fromarray(rng.integers(0, 60_000, (20, 30), dtype=np.uint16)).save(tmp_path / "deep.tif")
    for path in tmp_path.iterdir():
        image, _, _ = read_image(str(path), (channels, 12, 10), pictures)
        expected = torch.from_numpy(np.array(image)).view(12, 10, channels).permute(2, 0, 1)
        assert torch.equal(prepare(path), expected[None]), path.name


def test_docstring_states_accuracy_cost_and_origin() -> None:
    text = docstring(model_source(SMALL, CARD))
    assert (
        "Accuracy: test 99.39 ± 0.04 % (mean ± sd, n = 3 seeds), 10,000 images; these weights 99.38 %; "
        "validation on fresh seeds 99.41 ± 0.04 % (mean ± sd, n = 3 seeds), 10,000 images; "
        "the search score that chose it 99.48 %. After the final epoch, 19 of 19." in text
    )
    # by hand: 36·144 + 12·36 + 162·16 + 60 MACs; 4 bytes · (1 + 4) · 144; 3 pixels, 4 after the pool, 8 after the last
    assert "8,268 multiply-accumulates (MACs), 2,880 bytes of activations at the peak (float32)" in text
    assert "fully connected layers: none. Receptive field: 8 pixels." in text
    assert "Recipe: activations in bfloat16; SGD with Nesterov momentum 0.9, batches of 64, weight decay" in text
    assert (
        "Origin: study 'mnist', trial 12; trained on 60,000 images, seed 7 (the others 8, 9); nas 0.1.0, torch 2.15.0."
        in text
    )


def test_docstring_says_when_training_stopped_early_and_test_set_was_not_read() -> None:
    text = docstring(model_source(SMALL, replace(ALONE, epochs=3, test=None, judged=None)))
    assert (
        "Accuracy: the test set was not read for this network; validation 99.48 %, n = 1, 10,000 images. "
        "Stopped after epoch 3 of 19." in text
    )


def test_hostile_names_stay_data() -> None:
    source = model_source(SMALL, HOSTILE_CARD)
    tree = ast.parse(source)
    # the syntax tree is that of a harmless file: no name adds to it
    assert [type(node) for node in ast.walk(tree)] == [type(node) for node in ast.walk(HARMLESS)]
    assert run_source(source)["CLASSES"] == HOSTILE_CARD.classes
    assert set(source) - {"×", "·", "±", "\n"} <= set(map(chr, range(32, 127)))


@settings(deadline=None)
@given(study=st.text(), names=st.lists(st.text(), min_size=10, max_size=10))
def test_any_names_give_a_file_that_holds_them_as_data(study: str, names: list[str]) -> None:
    source = model_source(
        SMALL, replace(CARD, study=study, dataset=f"my {study}", environment={"nas": study}, classes=tuple(names))
    )
    assert [type(node) for node in ast.parse(source).body] == [type(node) for node in HARMLESS.body]
    assert run_source(source[: source.index("class Net")])["CLASSES"] == tuple(names)
    text = ast.get_docstring(ast.parse(source))
    assert text is not None
    assert text.replace("±", "").isascii()
    assert all(len(line) <= 88 for line in text.splitlines())


@pytest.mark.parametrize("card", [CARD, replace(HOSTILE_CARD, epochs=1)])
def test_export_writes_files_that_run_as_a_script(tmp_path: Path, card: ModelCard) -> None:
    folder = tmp_path / "results" / "best"
    weights = trained_weights(SMALL)
    export(folder, SMALL, weights, card, Constraints(max_params=400, forbid=("linear",)))
    assert [path.name for path in tmp_path.rglob("*")] == ["results", "best", *(p.name for p in folder.iterdir())]
    assert {path.name for path in folder.iterdir()} == {"model.py", "weights.safetensors"}
    assert (folder / "weights.safetensors").read_bytes() == weights
    result = run_script(folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "weights loaded: 303 parameters, predicts 10 classes\nfully connected layers: none\n"


@pytest.mark.parametrize("card", [CARD, FOLDER_CARD])
def test_an_exported_file_classifies_image_files(card: ModelCard, tmp_path: Path) -> None:
    """Each as the network that was built does, whatever its size; what is no image ends it with a sentence."""
    weights = trained_weights(SMALL)
    export(tmp_path, SMALL, weights, card, Constraints())
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    (tmp_path / "two.png").write_text("no image")
    run = [sys.executable, "model.py", "one.png", "two.png"]
    result = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    network = build(SMALL).eval()
    network.load_state_dict(safetensors.torch.load(weights))
    image, _, _ = read_image(str(tmp_path / "one.png"), SMALL.input_shape, card.pictures)
    seen = torch.from_numpy(np.array(image)).view(1, *SMALL.input_shape)
    with torch.no_grad():
        shares = network(normalize(seen, card.mean, card.std)).softmax(1)[0]
    best = int(shares.argmax())
    assert result.stdout.splitlines()[2:] == [f"one.png: {card.classes[best]} ({shares[best]:.1%})"]
    assert result.stderr.startswith("two.png cannot be read as an image: ")
    assert "Traceback" not in result.stderr
    assert result.returncode == 1


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_exported_file_refuses_an_image_too_large_to_unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (40, 40)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    file = run_source(model_source(SMALL, FOLDER_CARD))
    with pytest.raises(SystemExit, match=r"huge\.png cannot be read as an image: Image size \(1600 pixels\) exceeds"):
        file["answer"](file["Net"](), str(tmp_path / "huge.png"))


@pytest.mark.parametrize("architecture", [LINEAR, DISGUISED])
def test_export_refuses_forbidden_dense_layer(tmp_path: Path, architecture: Architecture) -> None:
    message = r"^model\.py fails in a fresh interpreter: 1 fully connected layer, none allowed$"
    with pytest.raises(ExportError, match=message):
        export(tmp_path / "best", architecture, trained_weights(architecture), CARD, Constraints(forbid=("linear",)))
    assert list(tmp_path.iterdir()) == []


def test_export_writes_dense_layer_that_is_allowed(tmp_path: Path) -> None:
    export(tmp_path, LINEAR, trained_weights(LINEAR), CARD, Constraints())
    assert run_script(tmp_path).stdout.endswith("\nfully connected layers: 1\n")


def test_export_refuses_broken_limit_and_leaves_earlier_files(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("earlier")
    message = r"^model\.py fails in a fresh interpreter: 303 params, 1.0 % over the limit of 300$"
    with pytest.raises(ExportError, match=message):
        export(tmp_path, SMALL, trained_weights(SMALL), CARD, Constraints(max_params=300))
    assert [path.name for path in tmp_path.iterdir()] == ["model.py"]
    assert (tmp_path / "model.py").read_text() == "earlier"


def falls(folder: Path, times: int, signal_number: int) -> str:
    """In a process that falls so often; then an answer."""
    fallen = len(list(folder.iterdir()))
    if fallen < times:
        (folder / str(fallen)).touch()
        os.kill(os.getpid(), signal_number)
    return "proven"


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_proof_whose_process_dies_or_hangs_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: signal.Signals
) -> None:
    monkeypatch.setattr("nas.codegen.proof.PROOF_SECONDS", 5.0)
    assert in_fresh_process(falls, tmp_path, 1, fault) == "proven"


def test_a_proof_whose_processes_all_die_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^model\.py cannot be proven: 3 processes died or hung over it; "):
        in_fresh_process(falls, tmp_path, 3, signal.SIGKILL)


def test_export_refuses_weights_that_do_not_fit(tmp_path: Path) -> None:
    weights = trained_weights(SMALL)
    state = safetensors.torch.load(weights)
    del state["0.weight"]
    wrong = [
        (safetensors.torch.save(state), 'Missing key.* "0.weight"'),
        (weights[:-1], "InvalidHeader|MetadataIncompleteBuffer|incomplete"),
        (trained_weights(LINEAR), "size mismatch|Missing key"),
    ]
    for tampered, reason in wrong:
        with pytest.raises(UserError, match=rf"(?s)^the weights do not fit the network c4.* \(.*({reason})"):
            export(tmp_path / "best", SMALL, tampered, CARD, Constraints())
    assert list(tmp_path.iterdir()) == []


def test_export_refuses_weights_that_are_not_finite(tmp_path: Path) -> None:
    state = safetensors.torch.load(trained_weights(SMALL))
    state["0.weight"].fill_(torch.nan)
    with pytest.raises(UserError, match=r"\(they are not finite\); they are damaged, or another's: "):
        export(tmp_path, SMALL, safetensors.torch.save(state), CARD, Constraints())


def test_export_refuses_card_of_another_task(tmp_path: Path) -> None:
    card = replace(CARD, classes=("cat", "dog"))
    with pytest.raises(
        ExportError, match=r"^model\.py does not pass its own check: the network predicts 10 classes, not 2$"
    ):
        export(tmp_path, SMALL, trained_weights(SMALL), card, Constraints())


def test_script_refuses_tampered_files(tmp_path: Path) -> None:
    model, weights = tmp_path / "model.py", tmp_path / "weights.safetensors"
    source, content = model_source(SMALL, CARD), trained_weights(SMALL)
    model.write_text(source, encoding="utf-8")
    state = safetensors.torch.load(content)
    del state["1.bias"]

    def refusal() -> str:
        result = run_script(tmp_path)
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        return result.stderr

    prefix = "weights.safetensors cannot be loaded into this network: "
    weights.write_bytes(safetensors.torch.save(state))
    assert 'Missing key(s) in state_dict: "1.bias"' in refusal().removeprefix(prefix)
    weights.write_bytes(content[:-1])
    assert refusal().startswith(prefix)
    weights.unlink()
    assert refusal().startswith(prefix)
    weights.write_bytes(content)
    model.write_text(source.replace("PARAMS = 303", "PARAMS = 302"), encoding="utf-8")
    assert refusal() == "the network has 303 parameters, not 302\n"
    model.write_text(source.replace("DENSE_LAYERS = 0", "DENSE_LAYERS = 1"), encoding="utf-8")
    assert refusal() == "the network has 0 fully connected layers, not 1\n"
