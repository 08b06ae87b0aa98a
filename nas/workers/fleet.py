"""The workers that a person asks for: processes of this machine, or actors of a Ray cluster."""

from collections.abc import Callable
from dataclasses import dataclass

from nas.errors import UserError, require_seconds, require_whole
from nas.training.job import TrainingJob
from nas.workers.local import LocalFleet, devices
from nas.workers.protocol import Fleet
from nas.workers.ray_address import reach


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """Who trains: at most `jobs` workers on `device`, of this machine or of the Ray cluster at the address `ray`.

    Raises:
        UserError: a value outside its range.
    """

    device: str = "auto"
    jobs: int | None = None
    ray: str | None = None
    jobs_per_gpu: int | None = None
    epoch_timeout: float | None = None  # seconds, after which a worker is taken for hung; None: a generous guess

    def __post_init__(self) -> None:
        for name in ("jobs", "jobs_per_gpu"):
            if getattr(self, name) is not None:
                require_whole("workers", name, getattr(self, name), 1)
        require_seconds("workers", "epoch_timeout", self.epoch_timeout)


def make_fleet(workers: Workers, typical: Callable[[], TrainingJob]) -> Fleet:
    """The fleet that is asked for; `typical` is a training that takes as much memory as any will.

    Raises:
        UserError: an unknown device, one that is not there, or no Ray cluster.
    """
    if workers.ray is None:
        if workers.jobs_per_gpu is not None:
            raise UserError(
                "--jobs-per-gpu is for --ray; give --jobs, which are shared out among the GPUs of this machine"
            )
        return LocalFleet(devices(workers.device, workers.jobs))
    reach(workers.ray)
    try:
        from nas.workers.ray_fleet import RayFleet
    except ImportError as error:
        raise UserError(
            f"--ray needs Ray, which is not installed ({error}); install it with: pip install -e '.[ray]'"
        ) from error
    return RayFleet(workers.ray, workers.device, workers.jobs, workers.jobs_per_gpu, typical)
