"""Mutated inputs of everything that the program reads: python tests/mutations.py --inputs 100000 --seed 0

Each must give a result, or a UserError that prints as one line; nothing else may be raised, nothing may take long or
much memory, and no file may appear outside the folder that is being written.
"""

import argparse
import ast
import contextlib
import copy
import functools
import importlib
import io
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import safetensors.torch
import torch
from helpers import DIGITS, Workshop, make_task, small_architecture, small_space
from optuna.pruners import NopPruner
from optuna.trial import TrialState
from PIL import Image
from rich.console import Console
from rich.table import Table

from nas.analysis.ablation import ablation_csv, ablation_runs, ablations
from nas.analysis.finalists import final_runs, fresh_seeds, runs_of, winner_of
from nas.cli.terminal import run
from nas.codegen.card import ModelCard, winner_card
from nas.codegen.source import model_source
from nas.datasets.dataset import Dataset
from nas.datasets.images import forget, load_training
from nas.datasets.metrics import ACCURACY
from nas.datasets.reading import load_mnist, read_images
from nas.datasets.split import Images
from nas.errors import UserError
from nas.network.architecture import notation
from nas.network.cost import MapTooSmallError, cost
from nas.network.module import build, with_weights
from nas.optuna_internals.studies import StoredStudy, id_of, new_study, storage_of
from nas.reporting.figures.counts import confusion
from nas.reporting.notes import run_note, trial_note
from nas.reporting.page import page
from nas.reporting.status import status, text_of
from nas.reporting.summary import summary
from nas.reporting.tables import as_csv, run_rows, trial_rows
from nas.samplers.feasible import FeasibleSampler, make_sampler
from nas.search import space_of
from nas.space.candidate import Candidate, digest, from_json, to_json
from nas.space.loading import load_space
from nas.space.pictures import Pictures
from nas.space.recipe import Recipe
from nas.space.search_space import SearchSpace
from nas.study.commands import remember, this_command
from nas.study.history import History, dataset_of, read_history
from nas.study.location import StudyLocation, locate
from nas.study.opening import open_study, writing
from nas.study.records import digests, ranked, records
from nas.study.runs import final_study, run_records
from nas.study.settings import Choice, remember_choice, remember_task, settings
from nas.training.environment import differences
from nas.training.score import Mistake, Score
from nas.tuner.names import DEFAULT_PRUNER
from nas.tuner.pruning import make_pruner
from nas.tuner.reruns import Runs
from nas.tuner.selection import TestSet
from nas.tuner.trials import Plan, Search, train_all
from nas.workers.local import LocalFleet, devices

SECONDS = 10.0  # that one input may compute
WAITED = 120.0  # seconds that it may take in all: a busy machine makes it wait
MOST_MEMORY = 700 << 20  # bytes that all of them may add to the program's peak
TEXTS = (
    *(
        "",
        " ",
        "\0",
        "\n",
        "\r\x1b[2J\x1b]0;owned\a",
        "'",
        '"',
        '"""',
        "'''",
        "\\",
        "\\x41",
        "\\N{DASH}",
        "`id`",
        "$(id)",
    ),
    *(
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        ".",
        "CON",
        "a" * 100_000,
        "{x}",
        "{{7*7}}",
        "%s",
        "${HOME}",
        "<script>",
    ),
    *(
        "🦊",
        "\udc80",
        "\u202e",
        "é" * 99,
        "NaN",
        "inf",
        "1e999",
        "-0",
        "0x10",
        "9" * 5_000,
        "1_000",
        "²",
        "true",
        "null",
    ),
    *("[]", "--", "-", "=", ",", "sqlite:///x.db", "sqlite://", "postgresql://user:secret@host:port/x", "a\nb", "\t"),
    *("~nosuchuser/x", "a\0b", "://:" * 50_000, "9" * 400, "1" + "0" * 12),
    *("'; import os; os.system('true') #", '"""\nimport os\n"""', "\u2028", "\x7f", "\x85"),
)
NUMBERS: tuple[Any, ...] = (
    *(0, -1, 1, 2, 3, 255, 2**15, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**64, 10**30, -(10**30)),
    *(0.0, -0.0, 0.5, 1.0, 1e-320, 1e308, math.nan, math.inf, -math.inf, True, False, None),
)


def nasty(rng: random.Random) -> Any:
    """A value that nobody means."""
    kind = rng.random()
    if kind < 0.45:
        return rng.choice(TEXTS)
    if kind < 0.85:
        return rng.choice(NUMBERS)
    return rng.choice(([], {}, [[]], [None] * 50, {"kind": "Conv"}, {"": {}}, [1, "2", None]))


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """With one to four changes: bits, bytes, runs, lengths, huge numbers."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place, size = rng.randrange(len(found) + 1), rng.choice((1, 2, 4, 8, 64, 1024))
        if rng.random() < 0.5:
            place = min(place, rng.choice((8, 32, 128)))  # headers are where it hurts
        match rng.randrange(8):
            case 0 if place < len(found):
                found[place] ^= 1 << rng.randrange(8)
            case 1:
                found[place : place + size] = rng.randbytes(size)
            case 2:
                del found[place:]
            case 3:
                del found[place : place + size]
            case 4:
                found[place:place] = rng.randbytes(size)
            case 5:
                found[place:place] = found[place : place + size]
            case 6:
                number = rng.choice((0, 1, 2**7, 2**15, 2**31 - 1, 2**31, 2**32 - 1))
                found[place : place + 4] = number.to_bytes(4, rng.choice(("big", "little")))
            case _:
                found[place : place + 8] = rng.choice((0, 2**62, 2**63 - 1, 2**64 - 1)).to_bytes(8, "little")
    return bytes(found)


def mutated_json(value: Any, rng: random.Random) -> Any:
    """With one part somewhere in it replaced, removed, added or renamed."""
    value = copy.deepcopy(value)
    node, parents = value, []
    while isinstance(node, dict | list) and node and rng.random() < 0.85:
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        parents.append((node, key))
        node = node[key]
    if not parents:
        return nasty(rng)
    holder, key = parents[-1]
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[str(nasty(rng))[:50]] = holder.pop(key)
        case 2 if isinstance(holder, list):
            holder[key:key] = [holder[key]] * rng.choice((1, 2, 300))
        case _:
            holder[key] = nasty(rng)
    return value


def mutated_text(text: str, rng: random.Random) -> str:
    """With one to three tokens, characters or lines changed."""
    for _ in range(rng.randint(1, 3)):
        tokens = list(re.finditer(r"[A-Za-z_]\w*|\d[\d_.]*|\"[^\"\n]*\"", text))
        match rng.randrange(6):
            case 0 | 1 | 2 if tokens:
                token = rng.choice(tokens)
                other = rng.choice(tokens)[0] if rng.random() < 0.4 else repr(nasty(rng))
                text = text[: token.start()] + other + text[token.end() :]
            case 3:
                lines = text.split("\n")
                del lines[rng.randrange(len(lines))]
                text = "\n".join(lines)
            case 4:
                place = rng.randrange(len(text) + 1)
                text = text[:place] + rng.choice("\0\x1b\"'\\()[]{}:,=*#\n\t é") + text[place:]
            case _:
                place = rng.randrange(len(text) + 1)
                text = text[:place] + text[place + rng.randint(1, 20) :]
    return text


# what is attacked: each takes one mutated input, and gives a result or raises a UserError

COMMANDS = ("search", "noise", "ablate", "report", "export", "retrain", "status", "dashboard", "studies", "trials")


def options(rng: random.Random, folder: Path) -> None:
    """Option values of every command, and the place that they name."""
    parser = importlib.import_module(f"nas.{rng.choice(COMMANDS)}").parser()
    names = [name for action in parser._actions for name in action.option_strings]
    line: list[str] = []
    for _ in range(rng.randint(1, 4)):
        name, value = rng.choice(names), str(nasty(rng))
        line += [f"{name}={value}"] if rng.random() < 0.5 else [name, value]
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            args = parser.parse_args(line)
        except SystemExit as end:
            if end.code != 0:
                raise RuntimeError(f"{line} ends with {end.code}") from end
            return
    name = getattr(args, "study_name", None)
    location = locate("x" if name is None else name, folder, args.storage)
    assert "secret" not in location.public_storage
    if hasattr(args, "device"):
        assert devices(args.device, args.jobs)
    if hasattr(args, "max_params"):
        space_of(args)


def study_names(rng: random.Random, folder: Path) -> None:
    """A name, and where it would be written."""
    name = "".join(rng.choice(TEXTS)[:20] + rng.choice("a'`$;&é🦊 .-") for _ in range(rng.randint(1, 3)))
    location = locate(name, folder, None)
    for path in (location.folder, location.weights_path(0), location.run_weights_path(0)):
        assert path.resolve().is_relative_to(folder.resolve()), path
    assert name.isprintable()
    location.folder.mkdir(parents=True)
    shutil.rmtree(location.folder)


def dataset_names(rng: random.Random, folder: Path) -> None:
    """The name of a data set that is not there."""
    name = rng.choice(("", "~nosuchuser", f"{folder}/nowhere/")) + rng.choice(TEXTS).lstrip("./") + "nowhere"
    read_images(Dataset(name=name, input_shape=(1, 28, 28), data_dir=str(folder)), train=True)


def architectures(rng: random.Random, folder: Path) -> None:
    """The JSON of a candidate, what it costs, and the source of its network."""
    text = to_json(Candidate(architecture=small_architecture(), recipe=Recipe()))
    candidate = from_json(
        mutated_text(text, rng) if rng.random() < 0.3 else json.dumps(mutated_json(json.loads(text), rng))
    )
    assert from_json(to_json(candidate)) == candidate
    assert len(digest(candidate)) == 12
    assert notation(candidate.architecture).isprintable()
    with contextlib.suppress(MapTooSmallError):
        if cost(candidate.architecture).params < 10_000 and len(CARD.classes) == candidate.architecture.num_classes:
            ast.parse(model_source(candidate.architecture, CARD))


@functools.cache
def _weights() -> bytes:
    return safetensors.torch.save(build(small_architecture()).state_dict())


def weights(rng: random.Random, folder: Path) -> None:
    """A safetensors file."""
    with_weights(small_architecture(), mutated_bytes(_weights(), rng))


CARD = ModelCard(
    study="study",
    trial=1,
    dataset="mnist",
    pictures=Pictures(),
    metric=ACCURACY,
    seeds=(1,),
    epochs=3,
    recipe=Recipe(),
    environment={"torch": "2"},
    n_train=5,
    search_accuracy=0.5,
    rerun=None,
    n_val=5,
    test=None,
    judged=None,
    mean=(0.1,),
    std=(0.3,),
    classes=tuple("0123456789"),
)


def _shape(source: str) -> str:
    """A file's syntax without its texts."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(tree)


def names_in_source(rng: random.Random, folder: Path) -> None:
    """Names of classes, studies and data sets in an exported file: literals, and nothing else."""
    classes = tuple(rng.choice(TEXTS)[:300] + rng.choice(TEXTS)[:50] for _ in range(10))
    card = replace(CARD, dataset="my folder", classes=tuple("0123456789"))
    hostile = replace(card, study=rng.choice(TEXTS), dataset=rng.choice(TEXTS) + "/", classes=classes)
    source = model_source(small_architecture(), hostile)
    assert _shape(source) == _shape(model_source(small_architecture(), card))
    assigned = {
        node.targets[0].id: node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert ast.literal_eval(assigned["CLASSES"]) == classes
    assert not set(source) & {"\x1b", "\0", "\a", "\u202e"}


def names_on_the_page(rng: random.Random, folder: Path) -> None:
    """Names of classes in a plot, where Plotly would read tags."""
    classes = [rng.choice(TEXTS)[:100] for _ in range(3)]
    score = Score(loss=1, accuracy=0.5, n=4, mistakes=(Mistake(0, 0, 1), Mistake(1, 2, 1)))
    figure = confusion(score, [2, 1, 1], classes)
    assert not any("<" in name for name in figure.layout.xaxis.ticktext)


def spaces(rng: random.Random, folder: Path) -> None:
    """The text of a space's file; what it proposes, and what is said of that."""
    path = folder / f"space{rng.getrandbits(64):016x}.py"
    path.write_text(mutated_text(DIGITS, rng), encoding="utf-8", errors="surrogatepass")
    try:
        space, drawn = load_space(str(path)), random.Random(0)
        for _ in range(10):
            space.check(space.decode(space.draw(drawn)))
    finally:
        path.unlink()


@functools.cache
def _idx(folder: Path) -> Path:
    raw = folder / "idx" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    labels = np.tile(np.arange(10, dtype=np.uint8), 6)
    images = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
    for part in ("train", "t10k"):
        for name, values in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
            (raw / name).write_bytes(header + values.tobytes())
    return raw


def idx_files(rng: random.Random, folder: Path) -> None:
    """The files of Fashion-MNIST; a large one is mostly a hole."""
    raw = _idx(folder)
    path = raw / rng.choice(("train-images-idx3-ubyte", "train-labels-idx1-ubyte"))
    whole = path.read_bytes()
    path.write_bytes(mutated_bytes(whole, rng))
    if rng.random() < 0.05:
        os.truncate(path, 400 << 20)
    try:
        pool = read_images(
            Dataset(name="fashion_mnist", input_shape=(1, 28, 28), data_dir=str(raw.parents[1])), train=True
        )
        assert pool.images.images.shape[1:] == (1, 28, 28)
        assert int(pool.images.labels.max()) < len(pool.classes)
    finally:
        path.write_bytes(whole)


@functools.cache
def _mnist(folder: Path) -> Path:
    copied = folder / "mnist"
    copied.mkdir()
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (copied / name).write_bytes((files("nas.datasets.mnist") / name).read_bytes())
    return copied


def embedded_files(rng: random.Random, folder: Path) -> None:
    """The gzipped files of MNIST."""
    path = _mnist(folder) / rng.choice(("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"))
    whole = path.read_bytes()
    path.write_bytes(mutated_bytes(whole, rng))
    try:
        load_mnist(_mnist(folder), "t10k")
    finally:
        path.write_bytes(whole)


@functools.cache
def _images(folder: Path) -> tuple[Path, tuple[bytes, ...]]:
    """Two classes of eight images, and odd images in many formats."""
    root = folder / "images"
    drawn = np.random.default_rng(0).integers(0, 256, (16, 12, 10, 3), dtype=np.uint8)
    for i, pixels in enumerate(drawn):
        path = root / "ab"[i // 8] / f"{i % 8}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    odd: list[bytes] = []
    one, other = Image.fromarray(pixels), Image.fromarray(pixels[::-1].copy())
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
    for image, form, more in (
        *((one, form, {}) for form in ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP", "GIF", "ICO", "TGA", "EPS")),
        *((one.convert(mode), "PNG", {}) for mode in ("L", "LA", "P", "1", "RGBA")),
        *((one.convert("CMYK"), form, {}) for form in ("JPEG", "TIFF")),
        *((deep, form, {}) for form in ("PNG", "TIFF")),
        *((one, form, {"save_all": True, "append_images": [other]}) for form in ("GIF", "PNG", "WEBP", "TIFF")),
    ):
        file = io.BytesIO()
        image.save(file, form, **more)
        odd.append(file.getvalue())
    return root, tuple(odd)


def image_folders(rng: random.Random, folder: Path) -> None:
    """One file of an image folder, or the folder itself."""
    root, odd = _images(folder)
    path = root / "a" / "3.png"
    whole = path.read_bytes()
    links = [root / "a" / name for name in ("x", "y")]
    added = root / rng.choice(("c", "a\nb", "\x1b[31m", "it's", "..x", "é", "c" * 200, "\udc80"))
    try:
        match rng.randrange(11):
            case 0:
                path.unlink()
                path.symlink_to(rng.choice(("/dev/zero", "/nowhere", ".", "3.png")))
            case 1:
                path.unlink()
                os.mkfifo(path)
            case 2:
                added.mkdir()
            case 3:
                shutil.copytree(root / "b", added)
            case 4:
                for link in links:
                    link.symlink_to(rng.choice((".", "..", "../b")))
            case _:
                path.write_bytes(mutated_bytes(rng.choice(odd), rng) if rng.random() < 0.8 else rng.choice(odd))
        shape = rng.choice(((1, 8, 8), (3, 8, 8), (2, 8, 8)))
        pool = read_images(Dataset(name=str(root), input_shape=shape, data_dir=str(folder)), train=True)
        assert pool.images.images.shape[1:] == shape
        assert all(name.isprintable() for name in pool.classes)
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
        for link in links:
            link.unlink(missing_ok=True)
        if added.exists():
            shutil.rmtree(added)


def tables(rng: random.Random, folder: Path) -> None:
    """A table of files, with splits and groups or without."""
    root, _ = _images(folder)
    names = [f"{name}/{i}.png" for name in "ab" for i in range(8)]
    columns = rng.choice((["path", "label"], ["file", "class", "group"], ["path", "label", "split", "group"]))
    splits = [("train", "val", "test", "train")[i % 4] for i in range(16)]
    groups = [rng.choice(("", f"g{i // 4}")) for i in range(16)]
    more = [{"split": splits, "group": groups}[column] for column in columns[2:]]
    rows = [[name, name[0], *(cells[i] for cells in more)] for i, name in enumerate(names)]
    lines = [columns, *rows]
    for _ in range(rng.randrange(3)):
        line = rng.choice(lines)
        line[rng.randrange(len(line))] = rng.choice((*TEXTS, "val", "a/0.png", "7", "../a/1.png"))
    delimiter = rng.choice(",;\t")
    content = "\n".join(delimiter.join(line) for line in lines).encode("utf-8", "surrogateescape")
    file = root / "labels.csv"
    try:
        file.write_bytes(mutated_bytes(content, rng) if rng.random() < 0.3 else content)
        shape = rng.choice(((1, 8, 8), (3, 8, 8)))
        pool = read_images(Dataset(name=str(file), input_shape=shape, data_dir=str(folder)), train=True)
        assert pool.images.images.shape[1:] == shape
    finally:
        file.unlink()


def _score(images: Images) -> Score:
    """Of somebody who takes the first test image for another digit."""
    label = int(images.labels[0])
    return Score(loss=0.1, accuracy=1 - 1 / len(images), n=len(images), mistakes=(Mistake(0, label, (label + 1) % 10),))


@functools.cache
def _study(folder: Path) -> StudyLocation:
    """A finished search of made-up trainings in a file, with final models, noise and an ablation."""
    dataset = Dataset(name=str(make_task(folder, images=200) / "digits"), input_shape=(1, 28, 28), data_dir=str(folder))
    space, location = small_space(dataset), locate("study", folder / "results", None)
    command = this_command("python -m nas.search --trials 4", ["cpu"], {"trials": 4})
    with writing(location, settings(space, seed=0, sampler="random", pruner="none"), command) as study:
        sampler = FeasibleSampler(make_sampler("random", space, 0), space, 0, seen=digests(records(study)))
        study.pruner = NopPruner()
        plan = _plan(dataset, space, trials=4)
        list(train_all(Search(study, location, records(study), plan, sampler), plan))
        baseline = small_architecture(9, 9)
        remember_task(study, replace(space, target=0.9, baseline=baseline))
        trials, test = records(study), TestSet(dataset).images
        winner, other = ranked(trials)[:2]
        remember_choice(study, Choice(winner=winner.number, finalists=(winner.number, other.number), seeds=2))
        wanted = [
            *runs_of([winner, other], "finalist", fresh_seeds("finalist", 2, 0)),
            *final_runs(winner, replace(winner.candidate, architecture=baseline), 2, 0),
            *runs_of([winner], "noise", fresh_seeds("noise", 2, 0)),
            *ablation_runs(winner, ["dropout"], space.constraints, 2, 0),
        ]
        list(train_all(Runs(study, location, (), wanted, plan, judge=lambda *_: _score(test), paces={}), plan))
        assert winner_of(read_history(study)) is not None
    return location


def _told(study: optuna.Study, location: StudyLocation) -> History:
    """All that the program reads of a study."""
    history = read_history(study)
    dataset = dataset_of(history, location, str(location.folder))
    assert as_csv(trial_rows(history.trials))
    assert as_csv(run_rows(history.runs))
    told = [text_of(status(history, location))]
    told += [
        f"{record.title}: {record.notation}; {'; '.join(differences(record.environment, {}))}"  # as nas.retrain does
        for record in history.trainings
    ]
    for trial in history.trials:
        assert trial_note(study, location, trial)
    for record in history.runs:
        assert run_note(study, record)
    ablation_csv(ablations(history, load_training(dataset).evaluation))
    if (winner := winner_of(history)) is not None:
        told.append(summary(history, winner, load_training(dataset)))
        ast.parse(model_source(winner.record.candidate.architecture, winner_card(location, winner, dataset)))
    assert all(line.isprintable() for text in told for line in text.split("\n"))
    return history


def _mutated_study(rng: random.Random, folder: Path) -> tuple[optuna.Study, StudyLocation]:
    """With something else among what it keeps of a trial, of a run or of itself."""
    location = _study(folder)
    storage = optuna.storages.InMemoryStorage()
    known = _known(location)
    spoiled = rng.choices(range(len(known)), [1 + len(stored.trials) for stored in known])[0]
    for place, stored in enumerate(known):
        study = new_study(stored.name, storage)
        which = rng.randrange(len(stored.trials) + 1) if place == spoiled else None
        own = mutated_json(stored.attributes, rng) if which == len(stored.trials) else stored.attributes
        if isinstance(own, dict) and all(isinstance(own.get(part, {}), dict) for part in ("user", "system")):
            for name, value in own.get("user", {}).items():
                study.set_user_attr(name, value)
            for name, value in own.get("system", {}).items():
                storage.set_study_system_attr(id_of(study), name, value)
        for i, trial in enumerate(stored.trials):
            kept = {"user": trial.user_attrs, "system": trial.system_attrs}
            kept = mutated_json(kept, rng) if i == which else kept
            if isinstance(kept, dict) and all(isinstance(kept.get(part, {}), dict) for part in ("user", "system")):
                spoilt = copy.copy(trial)
                spoilt.user_attrs, spoilt.system_attrs = kept.get("user", {}), kept.get("system", {})
                if i == which and rng.random() < 0.5:  # as if it were still being trained
                    spoilt.state, spoilt.values, spoilt.datetime_complete = TrialState.RUNNING, None, None
                study.add_trial(spoilt)
    return StoredStudy(known[0].name, storage), replace(location, folder=folder / "nowhere")


@dataclass(frozen=True, slots=True)
class _Stored:
    """What a database holds of one study."""

    name: str
    trials: list[optuna.trial.FrozenTrial]
    attributes: dict[str, dict[str, Any]]  # "user" and "system"


@functools.cache
def _known(location: StudyLocation) -> tuple[_Stored, ...]:
    study = open_study(location)
    both = (study, final_study(study))
    return tuple(
        _Stored(
            name=one.study_name,
            trials=one.get_trials(),
            attributes={
                "user": one.user_attrs,
                "system": storage_of(one).get_study_system_attrs(id_of(one)),
            },
        )
        for one in both
    )


def stored_values(rng: random.Random, folder: Path) -> None:
    """What a study keeps of its trials, its runs and of itself; all but the page says so."""
    _told(*_mutated_study(rng, folder))


def resumed_studies(rng: random.Random, folder: Path) -> None:
    """The same, and what goes on with it: trials, and final runs."""
    study, location = _mutated_study(rng, folder)
    remember(study, this_command("python -m nas.search --trials 5", ["cpu"], {"trials": 5}))
    dataset = dataset_of(read_history(study), location, str(folder))
    space = small_space(dataset)
    study.pruner = make_pruner(DEFAULT_PRUNER, space.recipe.epochs)
    sampler = FeasibleSampler(make_sampler("random", space, 0), space, 0, seen=digests(records(study)))
    plan = _plan(dataset, space, trials=5)
    list(train_all(Search(study, location, records(study), plan, sampler), plan))
    wanted = runs_of(ranked(records(study))[:2], "finalist", fresh_seeds("finalist", 2, 0))
    list(train_all(Runs(study, location, run_records(study), wanted, plan, paces={}), plan))


def _plan(dataset: Dataset, space: SearchSpace, trials: int) -> Plan:
    fleet = LocalFleet(("cpu",), lambda _: Workshop()())
    return Plan(trials=trials, fleet=fleet, dataset=dataset, constraints=space.constraints, seed=0)


def pages(rng: random.Random, folder: Path) -> None:
    """The same, and the page that is drawn of it."""
    study, location = _mutated_study(rng, folder)
    dataset = dataset_of(read_history(study), location, str(folder))
    drawn = page(_told(study, location), location, dataset, TestSet(dataset), running=False)
    assert "<script>alert" not in drawn
    assert drawn.count("</html>") == 1


def databases(rng: random.Random, folder: Path) -> None:
    """The bytes of a database."""
    location = _study(folder)
    path = folder / "damaged.db"
    path.write_bytes(mutated_bytes((location.folder / "study.db").read_bytes(), rng))
    before = path.read_bytes()
    damaged = locate("study", folder / "results", f"sqlite:///{path}")
    try:
        study = open_study(damaged)
        _told(study, damaged)
    except UserError as error:
        if "is damaged" in str(error):
            assert path.read_bytes() == before, "a damaged database is left as it is"
        raise
    finally:
        for file in folder.glob("damaged.db*"):
            file.unlink()


Target = Callable[[random.Random, Path], None]
SHARES: dict[Target, int] = {  # of a thousand inputs; by what they cost
    options: 140,
    study_names: 20,
    dataset_names: 10,
    architectures: 160,
    weights: 170,
    names_in_source: 60,
    names_on_the_page: 8,
    spaces: 90,
    idx_files: 140,
    embedded_files: 10,
    image_folders: 100,
    tables: 40,
    stored_values: 30,
    resumed_studies: 10,
    pages: 2,
    databases: 10,
}


class Watch:
    """Sees every file that Python makes or opens for writing, and remembers those outside a folder."""

    def __init__(self, folder: Path) -> None:
        self.strays: list[str] = []
        self._inside = folder.resolve()
        self._on = True
        sys.addaudithook(self._see)

    def stop(self) -> None:
        """A hook stays for good; this one sees nothing any more."""
        self._on = False

    def _see(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._on:
            return
        written: Any = None
        match event:
            case "open" if isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                written = args[0]
            case "os.mkdir" | "sqlite3.connect":
                written = args[0]
            case "os.rename" | "os.link" | "os.symlink":
                written = args[1]
        if isinstance(written, str | bytes | os.PathLike):
            path = Path(os.fsdecode(written)).absolute()
            if not Path(os.path.normpath(path)).is_relative_to(self._inside) and path != Path(os.devnull):
                self.strays.append(f"{event} {path}"[:300])


def printed(error: UserError) -> str:
    """What a command prints of it."""

    def command() -> int:
        raise error

    with contextlib.redirect_stderr(io.StringIO()) as told, contextlib.suppress(SystemExit):
        run(command)
    return told.getvalue()


@dataclass
class Tally:
    """What became of the inputs, by what they attacked."""

    results: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "none")  # seconds, and which
    memory: int = 0  # bytes added to the peak


def inputs_of(count: int, seed: int) -> Iterator[tuple[Target, random.Random, str]]:
    """The targets in turn, each with randomness of its own."""
    turn = [target for target, share in SHARES.items() for _ in range(share)]
    for i in range(count):
        target = turn[i * 387 % len(turn)]
        name = f"{seed}/{target.__name__}/{i}"
        yield target, random.Random(name), name


def _too_long(signum: int, frame: object) -> None:
    raise TimeoutError(f"no end after {SECONDS:g} s of computing, or {WAITED:g} s")


def attack(count: int, seed: int, folder: Path) -> Tally:
    """So many mutated inputs; what is wrong stands among the crashes, with what draws it again."""
    sys.dont_write_bytecode = True
    os.environ.pop("OPTUNA_STORAGE", None)
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, _too_long)
    tally, inside = Tally(), folder / "inside"
    inside.mkdir()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(inside / "torchinductor")  # torch makes a folder whenever it likes
    watch, peak = Watch(inside), 0
    for i, (target, rng, name) in enumerate(inputs_of(count, seed)):
        began, computed = time.monotonic(), time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WAITED)
        try:
            target(rng, inside)
            tally.results[target.__name__] += 1
        except UserError as error:
            tally.refusals[target.__name__] += 1
            line = printed(error)
            if not re.fullmatch(r"error: [^\n]{10,20000}\n", line) or not line[:-1].isprintable() or "secret" in line:
                tally.crashes.append(f"{name}: not one line to print: {line[:200]!r}")
        except Exception as error:
            tally.crashes.append(f"{name}: {type(error).__name__}: {error}"[:400])
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
        seconds, waited = time.process_time() - computed, time.monotonic() - began
        tally.slowest = max(tally.slowest, (seconds, name))
        if seconds > SECONDS or waited > WAITED:
            tally.crashes.append(f"{name}: computed for {seconds:.1f} s of {waited:.1f} s")
        if i == min(count, 1_000) - 1:  # every kind has been there, and what it imports
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tally.memory = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak)
    if tally.memory > MOST_MEMORY:
        tally.crashes.append(f"the peak of memory rose by {tally.memory >> 20} MiB")
    watch.stop()
    tally.crashes += [f"outside the folder: {stray}" for stray in watch.strays]
    forget()
    return tally


def table(tally: Tally) -> Table:
    """For a person to read."""
    shown = Table("what was mutated", "inputs", "results", "one sentence")
    for target in SHARES:
        name = target.__name__
        results, refusals = tally.results[name], tally.refusals[name]
        shown.add_row(name.replace("_", " "), f"{results + refusals:,}", f"{results:,}", f"{refusals:,}")
    shown.add_section()
    results, refusals = tally.results.total(), tally.refusals.total()
    shown.add_row("all", f"{results + refusals + len(tally.crashes):,}", f"{results:,}", f"{refusals:,}")
    return shown


def main() -> int:
    """The command; its exit status: 1 when something crashed."""
    asked = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    asked.add_argument("--inputs", type=int, default=100_000, help="how many (default: 100000)")
    asked.add_argument("--seed", type=int, default=0, help="of the mutations (default: 0)")
    args = asked.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # such as those of the compiler about a mutated space
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nas-mutations-") as folder:
        tally = attack(args.inputs, args.seed, Path(folder))
    Console().print(table(tally))
    for crash in tally.crashes:
        print(f"crash: {crash}", file=sys.stderr)
    seconds, slowest = tally.slowest
    print(
        f"{len(tally.crashes)} crashes; the slowest took {seconds:.2f} s ({slowest}), the peak of memory rose by "
        f"{tally.memory >> 20} MiB; {time.monotonic() - began:.0f} s, seed {args.seed}"
    )
    return 1 if tally.crashes else 0


if __name__ == "__main__":
    sys.exit(main())
