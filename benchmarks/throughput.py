"""Training images per second on all cores of this machine: the workers of a search against the usual way.

Pairs alternate, so that whatever else the machine does meets both. The usual way trains in float32, the workers with
activations in bfloat16 where the CPU has AVX512-BF16. Two bounds are measured beside them: the rate of torch's own
product of two 1024 x 1024 matrices, in float32 (sgemm) and in the precision of the activations, and the least time of a
step of each network (see `benchmarks.roofline`).
"""

import argparse
import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from statistics import fmean, median
from typing import TypeVar

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.networks import NETWORKS, job
from benchmarks.roofline import LeastTime, least_time
from benchmarks.usual import UsualTraining
from nas.cli.options import positive, positive_seconds
from nas.cli.terminal import run
from nas.network.cost import cost
from nas.system.processes import process_pool
from nas.training.acceleration import activation_dtype
from nas.training.job import TrainingJob
from nas.training.kernels import kernels
from nas.training.loss import cross_entropy
from nas.training.training import CHUNK, Training
from nas.workers.local import devices

SIZE = 1024
T = TypeVar("T")


class _Process:
    """A measuring process keeps its training between measurements."""

    of: tuple[type, TrainingJob] | None = None
    training: Training | UsualTraining
    batches: Iterator[tuple[Tensor, Tensor]]


def images_per_second(kind: type[Training | UsualTraining], job: TrainingJob, seconds: float) -> float:
    """Train for so long, or for one chunk of augmented images if that takes longer."""
    if _Process.of != (kind, job):
        _Process.of, _Process.training = (kind, job), kind(job)
        _Process.batches = itertools.chain.from_iterable(_epoch(_Process.training) for _ in itertools.count())
    steps_per_chunk = CHUNK // _Process.training.recipe.batch_size
    images, started = 0, time.perf_counter()
    while images == 0 or time.perf_counter() - started < seconds:
        for pixels, labels in itertools.islice(_Process.batches, steps_per_chunk):
            _Process.training.step(pixels, labels)
            images += len(labels)
    return images / (time.perf_counter() - started)


def _epoch(training: Training | UsualTraining) -> Iterator[tuple[Tensor, Tensor]]:
    return training.batches() if isinstance(training, Training) else iter(training.batches)


def matrix_products(seconds: float, dtype: torch.dtype) -> float:
    """GFLOP/s with the threads of this process."""
    a, b, product = torch.randn(3, SIZE, SIZE).to(dtype)
    products, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        torch.mm(a, b, out=product)
        products += 1
    return products * 2 * SIZE**3 / passed / 1e9


def flops_per_image(name: str) -> int:
    """Of a training step: two a MAC forward, four backward, where the first layer needs no gradient of its input."""
    price = cost(NETWORKS[name])
    assert price.rows[0].kind == "conv"
    return 6 * price.macs - 2 * price.rows[0].macs


def time_of_step(job: TrainingJob, steps: int) -> dict[str, float]:
    """Milliseconds of a training step by kind of work, each the median of many steps."""
    training = Training(job)
    modules = list(training.forward)
    batches = itertools.chain.from_iterable(training.batches() for _ in itertools.count())
    for images, labels in itertools.islice(batches, CHUNK // training.recipe.batch_size):
        training.step(images, labels)  # to warm up
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(steps):
        spent: dict[str, float] = defaultdict(float)
        last = time.perf_counter()

        def lap(kind: str, spent: dict[str, float] = spent) -> None:
            nonlocal last
            now = time.perf_counter()
            spent[kind] += now - last
            last = now

        x, labels = next(batches)
        lap("augmentation")
        for module, following in zip(modules, [*modules[1:], None], strict=True):
            x = module(x)
            lap(f"{type(module).__name__} forward")
            kind = "loss" if following is None else f"{type(following).__name__} backward"
            x.register_hook(lambda _, kind=kind, lap=lap: lap(kind))
        loss = cross_entropy(x, labels, len(labels), kernels().library)
        lap("loss")
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        lap(f"{type(modules[0]).__name__} backward")
        training.descend()
        lap("SGD and average")
        for kind, duration in spent.items():
            times[kind].append(duration)
    mean = sum(times["augmentation"]) / steps  # a chunk is augmented at its first step
    return {kind: 1e3 * (mean if kind == "augmentation" else median(values)) for kind, values in times.items()}


@dataclass(slots=True)
class Pairs:
    """What alternating measurements of one network gave."""

    ours: list[float] = field(default_factory=list)  # images per second, all workers together
    usual: list[float] = field(default_factory=list)
    products: dict[torch.dtype, list[float]] = field(default_factory=lambda: defaultdict(list))  # GFLOP/s, the same
    least: list[list[LeastTime]] = field(default_factory=list)  # of a step of each worker

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios."""
        return median(ours / usual for ours, usual in zip(self.ours, self.usual, strict=True))

    def share(self, dtype: torch.dtype, name: str) -> float:
        """The share of the rate of matrix products that training reached, median."""
        flops, rates = flops_per_image(name), self.products[dtype]
        return median(ours * flops / 1e9 / rate for ours, rate in zip(self.ours, rates, strict=True))

    def share_of_least(self, batch_size: int) -> float:
        """The least time of a step as a share of what it took, median."""
        steps = (len(least) * batch_size / ours for least, ours in zip(self.least, self.ours, strict=True))
        return median(fmean(of.total for of in least) / step for least, step in zip(self.least, steps, strict=True))


def all_at_once(workers: list[ProcessPoolExecutor], function: Callable[..., T], *args: object) -> list[T]:
    """What each worker measures in the presence of the others."""
    return [future.result() for future in [worker.submit(function, *args) for worker in workers]]


def measure(
    job: TrainingJob, dtypes: Iterable[torch.dtype], pairs: int, seconds: float, workers: list[ProcessPoolExecutor]
) -> Pairs:
    """Alternate between the workers of a search and a process that trains in the usual way; each is first in turn."""
    result = Pairs()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as usual:
        all_at_once(workers, images_per_second, Training, job, 0)  # a chunk to warm up, both
        usual.submit(images_per_second, UsualTraining, job, 0).result()
        for pair in range(pairs):
            if pair % 2:
                result.usual.append(usual.submit(images_per_second, UsualTraining, job, seconds).result())
            for dtype in dtypes:
                result.products[dtype].append(sum(all_at_once(workers, matrix_products, 1.0, dtype)))
            result.ours.append(sum(all_at_once(workers, images_per_second, Training, job, seconds)))
            result.least.append(all_at_once(workers, least_time, job))
            if not pair % 2:
                result.usual.append(usual.submit(images_per_second, UsualTraining, job, seconds).result())
    return result


def precision(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def rates_table(measured: dict[str, Pairs], dtypes: Iterable[torch.dtype]) -> Table:
    count = max(len(pairs.ours) for pairs in measured.values())
    table = Table(title=f"Training images per second: medians of {count} alternating pairs, and of their ratios")
    table.add_column("network")
    for column in ("ours", "usual way", "ratio", "range", "GFLOP/s", *(f"of {precision(dtype)}" for dtype in dtypes)):
        table.add_column(column, justify="right")
    for name, pairs in measured.items():
        ratios = [ours / usual for ours, usual in zip(pairs.ours, pairs.usual, strict=True)]
        table.add_row(
            name,
            f"{median(pairs.ours):,.0f}",
            f"{median(pairs.usual):,.0f}",
            f"{pairs.ratio:.1f}",
            f"{min(ratios):.1f}–{max(ratios):.1f}",
            f"{median(pairs.ours) * flops_per_image(name) / 1e9:.0f}",
            *(f"{pairs.share(dtype, name):.0%}" for dtype in dtypes),
        )
    return table


def roofline_table(measured: dict[str, Pairs]) -> Table:
    table = Table(title="The least time of a step, all workers busy: ms, medians")
    table.add_column("network")
    for column in ("convolutions", "memory traffic", "least", "of the step"):
        table.add_column(column, justify="right")
    for name, pairs in measured.items():
        least = [of for workers in pairs.least for of in workers]
        parts = (median(getattr(of, part) for of in least) for part in ("arithmetic", "traffic", "total"))
        share = pairs.share_of_least(job(name).candidate.recipe.batch_size)
        table.add_row(name, *(f"{1e3 * part:.2f}" for part in parts), f"{share:.0%}")
    return table


def step_table(times: dict[str, dict[str, float]]) -> Table:
    table = Table(title="Where a step's time goes: ms of one worker, the others idle")
    table.add_column("work")
    for name in times:
        table.add_column(name, justify="right")
    kinds = {kind for of_kind in times.values() for kind in of_kind}
    for kind in sorted(kinds, key=lambda kind: -sum(of_kind.get(kind, 0) for of_kind in times.values())):
        table.add_row(kind, *(f"{of_kind[kind]:.2f}" if kind in of_kind else "" for of_kind in times.values()))
    table.add_section()
    table.add_row("sum", *(f"{sum(of_kind.values()):.1f}" for of_kind in times.values()))
    return table


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    options.add_argument("--pairs", type=positive, default=7, help="of each network (default: 7)")
    options.add_argument("--seconds", type=positive_seconds, default=5.0, help="of each measurement (default: 5)")
    options.add_argument("--float32", action="store_true", help="activations in float32 whatever the CPU can do")
    args = options.parse_args()
    own = torch.float32 if args.float32 else activation_dtype(torch.device("cpu"))
    dtypes = tuple(dict.fromkeys((torch.float32, own)))
    console = Console()
    workers = [process_pool(1) for _ in devices("cpu", None)]
    measured = {}
    times = {}
    for name in NETWORKS:
        training = job(name, mixed_precision=not args.float32)
        measured[name] = measure(training, dtypes, args.pairs, args.seconds, workers)
        times[name] = workers[0].submit(time_of_step, training, 48).result()
    console.print(rates_table(measured, dtypes))
    console.print(f"{len(workers)} workers, activations in {precision(own)}; matrix products, GFLOP/s:")
    for dtype in dtypes:
        rates = [rate for pairs in measured.values() for rate in pairs.products[dtype]]
        console.print(f"  {precision(dtype)} {median(rates):.0f} ({min(rates):.0f}–{max(rates):.0f})")
    console.print(roofline_table(measured))
    console.print(step_table(times))
    ratios = ", ".join(f"{pairs.ratio:.1f} × on {name}" for name, pairs in measured.items())
    console.print(f"ours / usual way: {ratios}", soft_wrap=True)
    for worker in workers:
        worker.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
