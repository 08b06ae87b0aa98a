"""The loss that training descends: the cross-entropy of class scores, in a compiled library one operation."""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.training.kernels import function


class _Scores(ctypes.Structure):
    """`Scores` of `loss.cpp`."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("images", "classes", "batch"))


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, labels: Tensor, batch: int, library: ctypes.CDLL) -> Tensor:
        scores, labels = scores.contiguous(), labels.contiguous()
        gradients, loss = torch.empty_like(scores), torch.empty((), dtype=torch.float32)
        pointers = (tensor.data_ptr() for tensor in (scores, labels, gradients, loss))
        function(library, "loss_float32", 4)(ctypes.byref(_Scores(*scores.shape, batch)), *pointers)
        ctx.save_for_backward(gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (own,) = ctx.saved_tensors
        return own * gradients[0], None, None, None


def cross_entropy(scores: Tensor, labels: Tensor, batch: int, library: ctypes.CDLL | None) -> Tensor:
    """What the mean cross-entropy of a batch owes to some of its images, a scalar.

    The scores (N, classes) are float32, the labels (N,) int64, and `batch` is at least N.
    """
    known = (scores.dtype, labels.dtype, labels.shape) == (torch.float32, torch.int64, scores.shape[:1])
    if library is None or not known:
        return F.cross_entropy(scores, labels) * (len(scores) / batch)
    return _CrossEntropy.apply(scores, labels, batch, library)  # type: ignore[no-any-return]  # torch's stub
