"""A trained candidate as a source file that a person could have written, and its weights; proven before they appear.

python -m nas.export --study-name S --trial N writes those of any trial.

In a fresh interpreter the written file is imported and the weights are loaded strictly; its costs are held against the
description and the limits, and its class scores for eight fixed images must equal those of the trained network to the
last bit. Then the file must pass its own check, run as a script.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TypeVar, cast

import optuna
import safetensors.torch
import torch
from torch import Tensor, nn

from nas.architecture import Architecture, Shape
from nas.constraints import Constraints
from nas.data import load_training, normalize
from nas.errors import UserError
from nas.files import PARTIAL, writable, write_whole
from nas.finalists import Winner
from nas.model_source import ModelCard, model_source
from nas.network import check_built, with_weights
from nas.options import DONE, Parser, add_data_dir, add_location, existing_location, natural, run
from nas.readers import Dataset
from nas.score import Score
from nas.spread import spread
from nas.storage import StudyLocation, open_study, read_weights
from nas.study import TrialRecord, constraints_of, records, scores_on_test
from nas.trials import dataset_of
from nas.workers import LocalProcess

MODEL, WEIGHTS = "model.py", "weights.safetensors"
PROCESSES = 3  # tried for a proof
PROOF_SECONDS = 60.0  # for what takes three

Proof = TypeVar("Proof")


class ExportError(Exception):
    """The files would not be the trained network within its limits; the message says what differs."""


def export(folder: Path, architecture: Architecture, weights: bytes, card: ModelCard, constraints: Constraints) -> None:
    """Write model.py and weights.safetensors into `folder`, each whole, and neither unless the proof succeeds.

    `weights` are the safetensors bytes of the state of `nas.network.build(architecture)`.

    Raises:
        UserError: the weights do not fit.
        ExportError: a limit is broken, or the written files are not the trained network.
    """
    expected = _trained_scores(architecture, weights, card)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", suffix=PARTIAL) as name:
        draft = Path(name)
        (draft / MODEL).write_text(model_source(architecture, card), encoding="utf-8", newline="\n")
        (draft / WEIGHTS).write_bytes(weights)
        if _in_fresh_process(_written_scores, draft, architecture, constraints, card.recipe.epochs) != expected:
            raise ExportError(f"{MODEL} gives other class scores than the trained network for the same images, or NaN")
        if complaint := _in_fresh_process(_own_check, draft):
            raise ExportError(f"{MODEL} does not pass its own check: {complaint}")
        folder.mkdir(exist_ok=True)
        for file in (WEIGHTS, MODEL):
            write_whole(folder / file, (draft / file).read_bytes())


def _in_fresh_process(prove: Callable[..., Proof], *args: object) -> Proof:
    """What a function answers there; a process that dies or hangs, which says nothing of the file, is replaced."""
    for _ in range(PROCESSES):
        process = LocalProcess()
        try:
            return process.submit(prove, *args).result(PROOF_SECONDS)
        except (BrokenExecutor, TimeoutError) as error:
            lost = error
        except Exception as error:  # whatever the written file raises is what the proof is there to find
            raise ExportError(f"{MODEL} fails in a fresh interpreter: {_one_line(str(error))}") from error
        finally:
            process.stop()
    raise UserError(
        f"{MODEL} cannot be proven: {PROCESSES} processes died or hung over it; if memory ran out, close other "
        "programs, and give the same command again"
    ) from lost


def _trained_scores(architecture: Architecture, weights: bytes, card: ModelCard) -> list[list[float]]:
    network = with_weights(architecture, weights)
    return _scores(network, lambda images: normalize(images, card.mean, card.std), architecture.input_shape)


def _written_scores(folder: Path, architecture: Architecture, limits: Constraints, epochs: int) -> list[list[float]]:
    """In a fresh interpreter: the class scores of the written files, after their costs were checked."""
    model = ModuleType("exported_model")
    SourceFileLoader(model.__name__, str(folder / MODEL)).exec_module(model)
    network = model.Net()
    network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
    check_built(network, architecture, limits, epochs)
    return _scores(network, model.preprocess, architecture.input_shape)


def _scores(network: nn.Module, preprocess: Callable[[Tensor], Tensor], shape: Shape) -> list[list[float]]:
    """Class scores of eight fixed images, on one thread: several may add in another order. (8, num_classes), exact."""
    images = torch.randint(256, (8, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return cast(list[list[float]], network.eval()(preprocess(images)).tolist())
    finally:
        torch.set_num_threads(threads)


def _own_check(folder: Path) -> str:
    """What the file, run as a script, complains of."""
    script = subprocess.run([sys.executable, MODEL], cwd=folder, capture_output=True, text=True, check=False)
    if script.returncode < 0:
        raise BrokenExecutor(f"a signal has ended it: {-script.returncode}")
    return _one_line(script.stderr) if script.returncode else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())


def export_trial(
    study: optuna.Study, location: StudyLocation, trial: TrialRecord, dataset: Dataset, folder: Path
) -> None:
    """Write a trial's source file and weights, proven; with its test score where the test images were read for it.

    Raises:
        UserError: the trial has no weights.
        ExportError: as `export` does.
    """
    card = trial_card(location, trial, dataset, scores_on_test(study).get(trial.number))
    weights = read_weights(location.weights_path(trial.number), trial.title)
    export(folder, trial.candidate.architecture, weights, card, constraints_of(study))


def export_winner(study: optuna.Study, location: StudyLocation, winner: Winner, dataset: Dataset, folder: Path) -> None:
    """Write the winner's source file and the weights of the first of its final models, or its own without any.

    Raises:
        UserError, ExportError: as `export_trial` does.
    """
    trial = winner.record
    if not winner.models:
        export_trial(study, location, trial, dataset, folder)
        return
    first = winner.models[0]
    weights = read_weights(location.run_weights_path(first.number), first.title)
    card = winner_card(location, winner, dataset)
    export(folder, trial.candidate.architecture, weights, card, constraints_of(study))


def winner_card(location: StudyLocation, winner: Winner, dataset: Dataset) -> ModelCard:
    """What the winner's file says about itself."""
    card, data = trial_card(location, winner.record, dataset, winner.judged), load_training(dataset, hold_out=False)
    if not winner.models:
        return card
    return replace(
        card,
        seeds=tuple(model.seed for model in winner.models),
        environment=winner.environment,
        n_train=len(data.train),
        rerun=winner.rerun,
        test=winner.test,
        mean=data.mean,
        std=data.std,
    )


def trial_card(location: StudyLocation, trial: TrialRecord, dataset: Dataset, score: Score | None) -> ModelCard:
    """What the file of a trial, as the search has trained it, says about itself; `score` is on the test images."""
    assert trial.val_accuracy is not None
    data = load_training(dataset)
    return ModelCard(
        study=location.name,
        trial=trial.number,
        dataset=dataset.name,
        seeds=(trial.seed,),
        epochs=trial.epochs,
        recipe=trial.candidate.recipe,
        environment=trial.environment,
        n_train=len(data.train),
        search_accuracy=trial.val_accuracy,
        rerun=None,
        n_val=len(data.validation),
        test=spread([score.accuracy]) if score else None,
        judged=score,
        mean=data.mean,
        std=data.std,
        classes=data.classes,
    )


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = Parser(
        prog="python -m nas.export",
        description="Write any trial of a study as model.py and weights.safetensors, as it was after its last epoch.",
    )
    options.add_argument("--study-name", metavar="NAME", default="mnist", help="the study (default: mnist)")
    options.add_argument("--trial", metavar="N", type=natural, required=True, help="number of the trial")
    options.add_argument("--folder", metavar="DIR", type=Path, help="where to (default: DIR/NAME/trials/N)")
    add_location(options)
    add_data_dir(options)
    return options


def main() -> int:
    """The command; its exit status."""
    args = parser().parse_args()
    location = existing_location(args)
    study = open_study(location)
    trial = next((record for record in records(study) if record.number == args.trial), None)
    if trial is None or trial.val_accuracy is None:
        trained = [record.number for record in records(study) if record.val_accuracy is not None]
        held = f"{min(trained)} to {max(trained)}" if trained else "none"
        raise UserError(f"--trial {args.trial}: study {location.name!r} has no such trained trial; it has {held}")
    dataset = dataset_of(study, args.data_dir)
    folder = args.folder or location.folder / "trials" / str(trial.number)
    with writable(f"folder {folder}", "give another --folder"):
        folder.mkdir(parents=True, exist_ok=True)
        export_trial(study, location, trial, dataset, folder)
    print(f"written: {folder / MODEL}, {folder / WEIGHTS}")
    return DONE


if __name__ == "__main__":
    run(main)
