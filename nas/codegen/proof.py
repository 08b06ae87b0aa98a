"""The proof of exported files: in a fresh interpreter they are the trained network, within its limits.

The written weights are loaded strictly into the written network. Its costs must keep the limits, and its class scores
for eight fixed images must equal those of the trained network to the last bit.
"""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TypeVar, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from nas.codegen.card import ModelCard
from nas.datasets.augmentation import normalize
from nas.errors import UserError
from nas.network.architecture import Architecture
from nas.network.layers import Shape
from nas.network.limits import Constraints
from nas.network.measure import check_built
from nas.network.module import with_weights
from nas.system.processes import LocalProcess

MODEL, WEIGHTS = "model.py", "weights.safetensors"
PROCESSES = 3  # started for one proof before it is given up
PROOF_SECONDS = 60.0  # after which a process counts as hung; a proof takes three seconds
Answer = TypeVar("Answer")


class ExportError(Exception):
    """The files would not be the trained network within its limits; the message says what differs."""


def prove(folder: Path, architecture: Architecture, weights: bytes, card: ModelCard, constraints: Constraints) -> None:
    """Prove the files in `folder`, and that the source file passes its own check as a script.

    Raises:
        UserError: the weights do not fit, or no process lasts until a proof is done.
        ExportError: a limit is broken, or the written files are not the trained network.
    """
    expected = _trained_scores(architecture, weights, card)
    if in_fresh_process(_written_scores, folder, architecture, constraints, card.recipe.epochs) != expected:
        raise ExportError(f"{MODEL} gives other class scores than the trained network for the same images, or NaN")
    if complaint := in_fresh_process(_own_check, folder):
        raise ExportError(f"{MODEL} does not pass its own check: {complaint}")


def in_fresh_process(function: Callable[..., Answer], *args: object) -> Answer:
    """What the function returns in a new process. One that dies or hangs is replaced: it says nothing of the file."""
    for _ in range(PROCESSES):
        process = LocalProcess()
        try:
            return process.submit(function, *args).result(PROOF_SECONDS)
        except (BrokenExecutor, TimeoutError) as error:
            lost = error
        except Exception as error:  # whatever the written file raises: the proof is there to find it
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
    """Check the costs of the written network, then give its class scores; runs in a fresh interpreter."""
    model = ModuleType("exported_model")
    SourceFileLoader(model.__name__, str(folder / MODEL)).exec_module(model)
    network = model.Net()
    network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
    check_built(network, architecture, limits, epochs)
    return _scores(network, model.preprocess, architecture.input_shape)


def _scores(network: nn.Module, preprocess: Callable[[Tensor], Tensor], shape: Shape) -> list[list[float]]:
    """Class scores (8, num_classes) of eight fixed images. One thread computes them: several add in any order."""
    images = torch.randint(256, (8, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return cast(list[list[float]], network.eval()(preprocess(images)).tolist())
    finally:
        torch.set_num_threads(threads)


def _own_check(folder: Path) -> str:
    """Run the file as a script; its complaint, or nothing."""
    script = subprocess.run([sys.executable, MODEL], cwd=folder, capture_output=True, text=True, check=False)
    if script.returncode < 0:
        raise BrokenExecutor(f"a signal has ended it: {-script.returncode}")
    return _one_line(script.stderr) if script.returncode else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
