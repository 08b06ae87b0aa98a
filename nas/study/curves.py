"""A learning curve: the numbers of each epoch of a training, as a study keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.optuna_internals.attributes import expected

LONGEST = 1e9  # seconds that a training may take: 30 years


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """The numbers of one epoch, counted from 1; `dataclasses.asdict` gives what a study stores.

    Without held out images there is no validation loss and no validation accuracy.
    """

    epoch: int
    train_loss: float | None = None  # None, as the seconds: it was lost
    val_loss: float | None
    val_accuracy: float | None
    seconds: float | None = None


def read_curve(stored: Any, epochs: int) -> tuple[Epoch, ...]:
    """The curve of a training of at most so many epochs.

    Raises:
        TypeError, LookupError, ValueError: it is none.
    """
    curve = expected(stored, list)
    if [epoch["epoch"] for epoch in curve] != list(range(1, len(curve) + 1)) or len(curve) > epochs:
        raise ValueError(f"epochs {[epoch['epoch'] for epoch in curve]} of {epochs}")
    return tuple(_read_epoch(epoch) for epoch in curve)


def _read_epoch(stored: Mapping[str, Any]) -> Epoch:
    return Epoch(
        epoch=stored["epoch"],
        train_loss=_read_loss(stored.get("train_loss")),
        val_loss=_read_loss(stored["val_loss"]),
        val_accuracy=_read_accuracy(stored["val_accuracy"]),
        seconds=read_seconds(stored.get("seconds")),
    )


def _read_loss(stored: Any) -> float | None:
    loss = expected(stored, float, int, type(None))
    if loss is not None and loss < 0:  # NaN is a loss, too
        raise ValueError(f"loss {loss}")
    return loss


def _read_accuracy(stored: Any) -> float | None:
    accuracy = expected(stored, float, int, type(None))
    if accuracy is not None and not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy {accuracy}")
    return accuracy


def read_seconds(stored: Any) -> float | None:
    """The time that a training took.

    Raises:
        TypeError, ValueError: it is none.
    """
    seconds = expected(stored, float, int, type(None))
    if seconds is not None and not 0 <= seconds < LONGEST:
        raise ValueError(f"{seconds} seconds")
    return seconds
