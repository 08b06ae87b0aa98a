"""Training one candidate: a generator of epoch reports, and the evaluation of trained weights.

Every evaluation uses an exponential moving average of the weights. Accuracies are fractions; losses are mean
cross-entropies. The numbers depend on the job and the machine alone: one thread, one seed, data in one order.
"""

import copy
import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.datasets.augmentation import prepare
from nas.datasets.images import TrainingData, load_training
from nas.datasets.split import Images
from nas.network.measure import check_built
from nas.network.module import build
from nas.space.recipe import Recipe
from nas.space.seeds import derive_seed
from nas.training.acceleration import activation_dtype, faster, training_form
from nas.training.environment import environment
from nas.training.job import DivergedError, EpochReport, OutOfMemoryError, TrainingJob
from nas.training.kernels import TORCHS_OWN, kernels
from nas.training.loss import cross_entropy
from nas.training.optimizer import SGD, FlatState, WeightAverage, learning_rate
from nas.training.score import Mistake, Score, pooled

CHUNK = 1024  # images augmented at a time; measured on one core: 1.4 times the images per second of chunks of 64
EVALUATION_BATCH = 250  # images whose losses are summed in one go
FORWARD_BATCH = 125  # of them in memory at a time; measured: as fast as 250, with half the memory
# What torch's RuntimeErrors say when memory runs out; the last is oneDNN's.
NO_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "std::bad_alloc", "could not create a primitive")


def drawn_order(labels: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """The places of an epoch's images, as many as there are labels (N,): each once, or every class equally often."""
    if not recipe.balanced_batches:
        return torch.randperm(len(labels), generator=generator)
    classes, drawn = sorted({*labels.tolist()}), list[Tensor]()
    for place, label in enumerate(classes):
        own = (labels == label).nonzero().flatten()
        share = len(labels) * (place + 1) // len(classes) - len(labels) * place // len(classes)
        rounds = -(-share // len(own))
        drawn.append(torch.cat([own[torch.randperm(len(own), generator=generator)] for _ in range(rounds)])[:share])
    return torch.cat(drawn)[torch.randperm(len(labels), generator=generator)]


def shuffled_batches(
    data: TrainingData, recipe: Recipe, generator: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of augmented images (N, C, H, W) and labels (N,); an incomplete last batch is left out."""
    size = min(recipe.batch_size, len(data.train))
    order = drawn_order(data.train.labels, recipe, generator)[: len(data.train) // size * size]
    for chunk in torch.split(order, max(1, CHUNK // size) * size):
        images = data.train.images[chunk].to(device)
        labels = data.train.labels[chunk].to(device)
        inputs = prepare(images, data.mean, data.std, recipe.augmentation, generator)
        yield from zip(torch.split(inputs, size), torch.split(labels, size), strict=True)


@torch.inference_mode()
def evaluate(
    network: nn.Module, images: Images, data: TrainingData, device: torch.device, of_all: Sequence[int] | None = None
) -> Score:
    """Score a network on images that are normalised as the training images are, by the metric of the data.

    Where these are some of more images, `of_all` are those of each class: by them a balanced loss weights images, so
    that the losses of all parts add up.
    """
    was_training = network.training
    network.eval()
    judging = data.judging(images.labels)
    weights = judging.metric.loss_weights(of_all or judging.counts)
    weight = None if weights is None else torch.tensor(weights, device=device)
    loss, mistakes = 0.0, list[Mistake]()
    for part in torch.split(torch.arange(len(images)), EVALUATION_BATCH):
        pixels = torch.split(images.images[part].to(device), FORWARD_BATCH)
        scores = torch.cat([network(prepare(piece, data.mean, data.std)) for piece in pixels])
        labels = images.labels[part].to(device)
        loss += float(F.cross_entropy(scores, labels, weight, reduction="sum"))
        predicted = scores.argmax(1)
        wrong = (predicted != labels).nonzero().flatten().cpu()
        answers = zip(part[wrong].tolist(), labels[wrong].tolist(), predicted[wrong].tolist(), strict=True)
        mistakes += [Mistake(*answer) for answer in answers]
    network.train(was_training)
    missed = Counter(mistake.label for mistake in mistakes)
    return Score(
        loss=loss / len(images) if weights is None else loss,
        accuracy=judging.metric.of(judging.counts, [missed[label] for label in range(len(judging.counts))]),
        n=len(images),
        mistakes=tuple(mistakes),
        counts=judging.counts,
    )


def weights_of(network: nn.Module) -> bytes:
    """The state of a network as safetensors bytes, in the ordinary memory format."""
    state = network.state_dict()
    return safetensors.torch.save(
        {name: v.cpu().clone(memory_format=torch.contiguous_format) for name, v in state.items()}
    )


class Training:
    """A training under way: the `network`, the average of its weights `averaged`, and what moves them.

    `forward` is the network in the form in which it is trained, activations in `dtype`. `judged` is `averaged` in the
    form in which its epochs are judged, in float32. Without `data`, the images are those of the job, and of its folds
    the first.

    Raises:
        LimitBrokenError: the built network breaks a limit.
        UserError: the data set cannot be loaded.
    """

    def __init__(self, job: TrainingJob, data: TrainingData | None = None) -> None:
        self.recipe = job.candidate.recipe
        self.device = torch.device(job.device)
        self.data = data or load_training(job.dataset, hold_out=job.hold_out)
        self.steps_per_epoch = len(self.data.train) // min(self.recipe.batch_size, len(self.data.train))
        torch.manual_seed(job.seed)  # initial weights and dropout
        self._generator = torch.Generator().manual_seed(job.seed)  # order and augmentation
        self.network = build(job.candidate.architecture)
        check_built(self.network, job.candidate.architecture, job.constraints, self.recipe.epochs)
        self.network.to(self.device)
        self.averaged = copy.deepcopy(self.network)
        state = FlatState(self.network)
        self._optimizer = SGD(state, self.recipe)
        self._average = WeightAverage(FlatState(self.averaged), state, self.recipe.ema_decay)
        self.dtype = activation_dtype(self.device) if self.recipe.mixed_precision else torch.float32
        self.kernels = kernels() if self.device.type == "cpu" else TORCHS_OWN
        self.forward = training_form(self.network, self.dtype, self.kernels.library)
        self.judged = self._form_to_judge()
        self._parts = job.micro_batches
        self._step = 0

    def _form_to_judge(self) -> nn.Module:
        """The averaged network in the form in which epochs judge it, in float32."""
        library = self.kernels.library
        return faster(self.averaged) if library is None else training_form(self.averaged, torch.float32, library)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of augmented images and labels."""
        return shuffled_batches(self.data, self.recipe, self._generator, self.device)

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One optimizer step on images (N, C, H, W) and labels (N,); the mean loss, a scalar."""
        total = torch.zeros((), device=self.device)
        for part, answers in zip(images.chunk(self._parts), labels.chunk(self._parts), strict=True):
            loss = cross_entropy(self.forward(part), answers, len(images), self.kernels.library)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
            total += loss.detach()
        self.descend()
        return total

    def descend(self) -> None:
        """Move the weights against their gradients, and the averaged weights towards them."""
        self._optimizer.step(learning_rate(self.recipe, self._step, self.recipe.epochs * self.steps_per_epoch))
        self._average.update()
        self._step += 1

    def epoch(self, number: int) -> tuple[float, Score | None]:
        """Train for an epoch, and judge the averaged weights: the training loss, and no score if nothing is held out.

        Raises:
            DivergedError: the training or validation loss of the epoch is not finite.
        """
        total = sum((self.step(*batch) for batch in self.batches()), torch.zeros((), device=self.device))
        train_loss = float(total) / self.steps_per_epoch
        _require_finite("training", train_loss, number)
        if not len(self.data.validation):
            return train_loss, None
        score = evaluate(self.judged, self.data.validation, self.data, self.device, self.data.of_all)
        _require_finite("validation", score.loss, number)
        return train_loss, score


def trainings_of(job: TrainingJob) -> list[Training]:
    """The training of a job, or with cross-validation those of all folds, each with other initial weights.

    Raises:
        LimitBrokenError: the built network breaks a limit.
        UserError: the data set cannot be loaded.
    """
    folds = load_training(job.dataset, hold_out=job.hold_out).folds
    seeds = [job.seed, *(derive_seed(job.seed, "fold", number) for number in range(1, len(folds)))]
    return [Training(replace(job, seed=seed), fold) for seed, fold in zip(seeds, folds, strict=True)]


def train(job: TrainingJob) -> Iterator[EpochReport]:
    """Train epoch by epoch; whoever asks for the next report decides whether to go on.

    The networks of all folds are trained side by side. Their scores are pooled; the weights are those of the first.

    Raises:
        DivergedError: the training or validation loss of an epoch is not finite.
        OutOfMemoryError: the device or this process has no memory left.
        LimitBrokenError, UserError: as `trainings_of` does.
    """
    try:
        trainings = trainings_of(job)
        first = trainings[0]
        for epoch in range(1, first.recipe.epochs + 1):
            started = time.perf_counter()
            losses, scores = zip(*(training.epoch(epoch) for training in trainings), strict=True)
            score = pooled([score for score in scores if score is not None], first.data.metric, first.data.rounds)
            yield EpochReport(
                epoch=epoch,
                train_loss=fmean(losses),
                val_loss=score.loss if score else None,
                val_accuracy=score.accuracy if score else None,
                seconds=time.perf_counter() - started,
                environment=environment(first.device, first.dtype, first.kernels.said),
                weights=weights_of(first.averaged),
            )
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in NO_MEMORY):
            raise OutOfMemoryError(str(error)) from error
        raise


def _require_finite(kind: str, loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise DivergedError(f"the {kind} loss is {loss} in epoch {epoch}")


def seconds_per_epoch(job: TrainingJob, images: int = CHUNK) -> float:
    """The seconds of an epoch, extrapolated from steps on `images` images and a short evaluation.

    A third as many steps and the same evaluation come first, as a warm-up. Whole chunks are timed because the first
    step of a chunk augments all its images.
    """
    training, *others = trainings_of(job)
    endless = itertools.chain.from_iterable(training.batches() for _ in itertools.count())
    validation = training.data.validation
    part = Images(images=validation.images[:EVALUATION_BATCH], labels=validation.labels[:EVALUATION_BATCH])

    def seconds(steps: int) -> tuple[float, float]:
        started = time.perf_counter()
        float(sum(training.step(*batch) for batch in itertools.islice(endless, steps)))  # waits for the device
        trained = time.perf_counter()
        evaluate(training.judged, part, training.data, training.device)
        return trained - started, time.perf_counter() - trained

    steps = max(1, images // training.recipe.batch_size)
    seconds(max(1, steps // 3))
    step_seconds, evaluation_seconds = seconds(steps)
    one = step_seconds / steps * training.steps_per_epoch + evaluation_seconds / len(part) * len(validation)
    return (1 + len(others)) * one
