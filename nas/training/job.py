"""What is to be trained, and what each epoch gives, as values that need no torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from nas.datasets.dataset import Dataset
from nas.network.limits import Constraints
from nas.space.candidate import Candidate


class DivergedError(Exception):
    """A loss is not finite any more."""


class OutOfMemoryError(Exception):
    """The device, or this process, has no memory left for a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """All that decides a training; `hold_out=False` trains on the validation images, too."""

    candidate: Candidate
    constraints: Constraints
    dataset: Dataset
    seed: int
    hold_out: bool = True
    micro_batches: int = 1  # parts that a batch is cut into to save memory; their gradients add up
    device: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """One epoch, counted from 1; `weights` are the averaged weights after it, as safetensors bytes."""

    epoch: int
    train_loss: float
    val_loss: float | None  # None, like val_accuracy, if no images are held out
    val_accuracy: float | None
    seconds: float
    environment: Mapping[str, str]  # see nas.training.environment
    weights: bytes
