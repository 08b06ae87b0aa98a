"""The loss of a training: torch's, by a compiled library as well as without one."""

import ctypes

import pytest
import torch
from torch.nn import functional as F

from nas.training.loss import cross_entropy


@pytest.mark.parametrize(("images", "classes"), [(1, 2), (64, 10), (7, 1), (3, 1_000)])
@pytest.mark.parametrize("size", [1e-3, 3.0, 1e4])
def test_it_is_torchs(library: ctypes.CDLL, images: int, classes: int, size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = size * torch.randn(classes, images, generator=generator).t()
    labels = torch.randint(classes, (images,), generator=generator)
    found = []
    for of in (None, library):
        x = scores.clone(memory_format=torch.preserve_format).requires_grad_()
        loss = cross_entropy(x, labels, 2 * images, of)
        found.append((loss.detach(), *torch.autograd.grad(3 * loss, x)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(2 * found[0][0], F.cross_entropy(scores, labels))


def test_a_label_that_is_no_class_is_no_number(library: ctypes.CDLL) -> None:
    for label in (-1, 3):
        assert cross_entropy(torch.zeros(2, 3), torch.tensor([0, label]), 2, library).isnan()


def test_what_the_library_does_not_compute_is_torchs(library: ctypes.CDLL) -> None:
    scores, labels = torch.randn(3, 4, dtype=torch.float64), torch.tensor([0, 1, 3])
    torch.testing.assert_close(cross_entropy(scores, labels, 3, library), F.cross_entropy(scores, labels))
    for wrong in (labels.int(), labels[:2]):
        with pytest.raises((RuntimeError, ValueError)):
            cross_entropy(scores.float(), wrong, 3, library)


def test_scores_that_are_no_numbers_give_a_loss_that_is_none(library: ctypes.CDLL) -> None:
    for wrong in (float("nan"), float("inf")):
        scores = torch.tensor([[0.0, wrong, 1.0]])
        assert cross_entropy(scores, torch.tensor([0]), 1, library).isnan()
