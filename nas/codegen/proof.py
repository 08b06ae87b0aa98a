"""The proof of an exported file, in a fresh interpreter."""

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
from nas.data.augmentation import normalize
from nas.errors import UserError
from nas.network.architecture import Architecture
from nas.network.layers import Shape
from nas.network.limits import Constraints
from nas.network.measure import check_built
from nas.network.module import with_weights
from nas.system.processes import LocalProcess

MODEL, WEIGHTS = "model.py", "weights.safetensors"
PROCESSES = 3  # tried for a proof
PROOF_SECONDS = 60.0  # for what takes three
Proof = TypeVar("Proof")


class ExportError(Exception):
    """The files would not be the trained network within its limits; the message says what differs."""


def in_fresh_process(prove: Callable[..., Proof], *args: object) -> Proof:
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


def trained_scores(architecture: Architecture, weights: bytes, card: ModelCard) -> list[list[float]]:
    network = with_weights(architecture, weights)
    return _scores(network, lambda images: normalize(images, card.mean, card.std), architecture.input_shape)


def written_scores(folder: Path, architecture: Architecture, limits: Constraints, epochs: int) -> list[list[float]]:
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


def own_check(folder: Path) -> str:
    """What the file, run as a script, complains of."""
    script = subprocess.run([sys.executable, MODEL], cwd=folder, capture_output=True, text=True, check=False)
    if script.returncode < 0:
        raise BrokenExecutor(f"a signal has ended it: {-script.returncode}")
    return _one_line(script.stderr) if script.returncode else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
