"""A trained network to be used: its weights, its preprocessing, its classes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas.datasets.augmentation import normalize
from nas.datasets.memory import as_pixels
from nas.network.architecture import Architecture
from nas.network.module import with_weights


class TrainedNetwork(nn.Module):
    """A network in evaluation mode; `forward` takes normalised images (N, C, H, W) and gives scores (N, classes).

    Raises:
        UserError: the weights do not fit.
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: bytes,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        classes: Sequence[str],
    ) -> None:
        super().__init__()
        self.network = with_weights(architecture, weights)
        self.input_shape, self.mean, self.std, self.classes = architecture.input_shape, mean, std, tuple(classes)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network(images)
        return scores

    def preprocess(self, images: Any) -> Tensor:
        """Normalised float32 (N, C, H, W) from images as `nas.search(data=...)` takes them.

        Raises:
            UserError: another shape or range.
        """
        pixels = as_pixels(images, "images", self.input_shape)
        return normalize(pixels.to(next(self.parameters()).device), self.mean, self.std)

    @torch.inference_mode()
    def predict(self, images: Any) -> Tensor:
        """The class of each image as its index in `classes`, int64 (N,)."""
        return self.forward(self.preprocess(images)).argmax(1)

    @torch.inference_mode()
    def probabilities(self, images: Any) -> Tensor:
        """How likely each image is of each class, (N, classes): the softmax of the scores."""
        return self.forward(self.preprocess(images)).softmax(1)
