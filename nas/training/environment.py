"""What the numbers of a training depend on besides its job: versions, source, processor, device, precision."""

import functools
import hashlib
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

import nas


def environment(device: torch.device, dtype: torch.dtype, kernels: str) -> dict[str, str]:
    """What a person would need to repeat a training to the last digit.

    `dtype` is that of the activations, `kernels` what `nas.training.kernels` says of itself.
    """
    return {
        "nas": nas.__version__,
        "source": source_digest(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "processor": processor(),
        "device": "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device),
        "precision": str(dtype).removeprefix("torch."),
        "kernels": kernels,
    }


def versions(environment: Mapping[str, str]) -> str:
    """The versions in one line, such as `nas 0.1.0, torch 2.15.0, Python 3.11.7`."""
    names = {"nas": "nas", "torch": "torch", "python": "Python"}
    return ", ".join(f"{shown} {environment[name]}" for name, shown in names.items() if name in environment)


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """What differs between two environments, such as `torch was 2.14.0 and is 2.15.0`."""
    for name in dict.fromkeys([*before, *now]):
        if before.get(name) != now.get(name):
            yield f"{name} was {before.get(name, 'not told')} and is {now.get(name, 'not told')}"


@functools.cache
def source_digest() -> str:
    """A digest of this package's source, which differs between two states with the same version number."""
    folder = Path(nas.__file__).parent
    sources = sorted([*folder.rglob("*.py"), *folder.rglob("cpp/*")])
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


@functools.cache
def processor() -> str:
    """The processor's name where the system tells it, and the instructions that torch uses on it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = next(named, "") or platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"
