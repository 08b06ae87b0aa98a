"""The usual way to train: one process, a DataLoader, torchvision's transforms image by image, a plain loop.

The recipe is the search's: the same batches, schedule and ranges of augmentation. It leaves out what few people write:
averaged weights. The loader works in the same process (`num_workers=0`), whose other work uses all cores.
"""

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from nas.datasets.images import TrainingData, load_training
from nas.datasets.split import Images
from nas.network.module import build
from nas.space.recipe import Augmentation
from nas.training.job import TrainingJob
from nas.training.optimizer import learning_rate
from nas.training.score import Score

Batches: TypeAlias = DataLoader[tuple[Tensor, int]]


class PerSample(Dataset[tuple[Tensor, int]]):
    """Images handed out one by one, each transformed on its own, as torchvision's data sets do."""

    def __init__(self, images: Images, transform: transforms.Compose) -> None:
        self._pixels, self._labels, self._transform = images.images.squeeze(1).numpy(), images.labels, transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._pixels[index])), int(self._labels[index])


def augmenting(augmentation: Augmentation, size: int) -> transforms.RandomAffine:
    """The ranges of `nas.datasets.augmentation.augment`. On PIL images: measured, 17 times as fast as on tensors."""
    shift, shear = augmentation.shift / size, math.degrees(math.atan(augmentation.shear))
    return transforms.RandomAffine(
        augmentation.rotation,
        translate=(shift, shift),
        scale=(1 - augmentation.scale, 1 + augmentation.scale),
        shear=(-shear, shear),
        interpolation=transforms.InterpolationMode.BILINEAR,
    )


def loaders(data: TrainingData, batch_size: int, augmentation: Augmentation) -> tuple[Batches, Batches]:
    """Batches of the training images, shuffled and augmented, and of the validation images."""
    to_input = [transforms.ToTensor(), transforms.Normalize(data.mean, data.std)]
    augmented = transforms.Compose([augmenting(augmentation, data.train.images.shape[-1]), *to_input])
    return (
        DataLoader(PerSample(data.train, augmented), batch_size, shuffle=True, drop_last=True),
        DataLoader(PerSample(data.validation, transforms.Compose(to_input)), batch_size=1000),
    )


class UsualTraining:
    """A network on its way in the usual way."""

    def __init__(self, job: TrainingJob) -> None:
        torch.manual_seed(job.seed)
        self.recipe = job.candidate.recipe
        data = load_training(job.dataset)
        self.batches, self._validation = loaders(data, self.recipe.batch_size, self.recipe.augmentation)
        self.network = build(job.candidate.architecture)
        kernels = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": kernels, "weight_decay": self.recipe.weight_decay},
            {"params": others},
        ]
        self._optimizer = torch.optim.SGD(groups, momentum=self.recipe.momentum, nesterov=True)
        self._steps = self.recipe.epochs * len(self.batches)
        self._step = 0

    def step(self, images: Tensor, labels: Tensor) -> None:
        """One optimizer step."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self._step, self._steps)
        loss = F.cross_entropy(self.network(images), labels)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        self._optimizer.step()
        self._step += 1

    @torch.no_grad()
    def evaluate(self) -> Score:
        """The score of the weights on the validation images."""
        self.network.eval()
        loss, correct, n = 0.0, 0, 0
        for images, labels in self._validation:
            scores = self.network(images)
            loss += float(F.cross_entropy(scores, labels, reduction="sum"))
            correct += int((scores.argmax(1) == labels).sum())
            n += len(labels)
        self.network.train()
        return Score(loss=loss / n, accuracy=correct / n, n=n)

    def epochs(self) -> Iterator[Score]:
        """Train from the first epoch to the last; the score after each."""
        for _ in range(self.recipe.epochs):
            for images, labels in self.batches:
                self.step(images, labels)
            yield self.evaluate()
