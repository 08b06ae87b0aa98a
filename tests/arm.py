"""The compiled kernels on ARM, emulated: python tests/arm.py --calls 200

Every call of random blocks is recorded here and repeated by a program for aarch64 under qemu-user. What it leaves in
memory must be what this processor left, within rounding. It needs a compiler for ARM and the emulator; with Debian's
packages: apt-get install g++-aarch64-linux-gnu qemu-user. Of the speed on ARM it says nothing.
"""

import argparse
import ctypes
import importlib.resources
import random
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from nas.training.fused import NAMES, TAPS, FirstBlock, FusedBlock, fused
from nas.training.kernels import OPTIONS, kernels

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
REPLAY = Path(__file__).parent / "data" / "replay.cpp"
# Largest difference, of the largest value of a buffer: of bfloat16 a few roundings, of others those of their sums.
TOLERANCES = {torch.bfloat16: 2e-2, torch.float32: 1e-4, torch.float64: 1e-9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of the library: what it was given, and what it left in every buffer."""

    name: str
    request: bytes  # as replay.cpp reads it
    left: list[Tensor]
    scratch: int  # which of the buffers is memory to work in, whose layout is the processor's
    tolerance: float


@contextmanager
def recorded() -> Iterator[list[Call]]:
    """The calls that the blocks make meanwhile."""
    calls: list[Call] = []
    usual = FusedBlock.call

    def call(block: FusedBlock, name: str, dtype: torch.dtype, what: ctypes.Structure, *tensors: Tensor | None) -> None:
        named = {
            field[0]: getattr(type(what), field[0]).offset for field in what._fields_ if field[1] is ctypes.c_void_p
        }
        own = [_buffer(block, what, field) for field in named]
        parts = [struct.pack(f"{len(named)}q", *named.values())]
        parts += [struct.pack("q", len(raw := _raw(tensor))) + raw for tensor in (*own, *tensors)]
        head = f"{name}_{NAMES[dtype]} {ctypes.sizeof(what)} {len(named)} {len(own) + len(tensors)}\n".encode()
        request = b"".join((head, bytes(what), *parts))
        usual(block, name, dtype, what, *tensors)
        left = [torch.empty(0) if tensor is None else tensor.detach().clone() for tensor in (*own, *tensors)]
        calls.append(
            Call(
                name=f"{name}_{NAMES[dtype]}",
                request=request,
                left=left,
                scratch=[*named].index("numbers"),
                tolerance=TOLERANCES[dtype],
            )
        )

    with mock.patch.object(FusedBlock, "call", call):
        yield calls


def _buffer(block: FusedBlock, what: ctypes.Structure, name: str) -> Tensor | None:
    """The memory that a pointer of the structure names."""
    address, channels = getattr(what, name), block._norm.num_features
    if address is None:
        return None
    lengths = {"numbers": len(block.numbers), "sums": len(block._sums), "kernels": TAPS * channels}
    dtype = torch.float64 if name == "sums" else block._norm.weight.dtype
    size = lengths.get(name, channels) * dtype.itemsize
    memory = (ctypes.c_char * size).from_address(address)
    return torch.frombuffer(memory, dtype=dtype)


def _raw(tensor: Tensor | None) -> bytes:
    """The bytes as they lie in memory."""
    if tensor is None:
        return b""
    return ctypes.string_at(tensor.data_ptr(), tensor.numel() * tensor.itemsize)


def record(count: int, seed: int) -> list[Call]:
    """The calls of one step of random blocks and of their evaluation, until there are so many."""
    library = kernels().library
    if library is None:
        sys.exit(f"no kernels to compare with: {kernels().said}")
    drawn = random.Random(seed)
    torch.manual_seed(seed)
    with recorded() as calls:
        while len(calls) < count:
            dtype = drawn.choice(list(NAMES))
            number = torch.float32 if dtype == torch.bfloat16 else dtype
            channels, grey, window = drawn.randint(1, 41), drawn.random() < 0.4, drawn.choice((1, 2, 3))
            height, width = drawn.randint(6, 15), drawn.randint(6, 15)
            modules: list[nn.Module] = [nn.BatchNorm2d(channels, dtype=number)]
            modules += drawn.sample([nn.ReLU(), nn.Dropout2d(0.3), *[nn.MaxPool2d(window)] * (window > 1)], 2)
            if grey:
                modules.insert(0, nn.Conv2d(1, channels, 3, padding=drawn.randint(0, 1), dtype=number))
            x = torch.randn(drawn.randint(2, 5), 1 if grey else channels, height, width)
            x = x.to(number if grey else dtype).to(memory_format=torch.channels_last).requires_grad_(not grey)
            block = next(part for part in fused(modules, library, dtype) if isinstance(part, FusedBlock))
            if grey and not isinstance(block, FirstBlock):
                continue
            y = block(x)
            y.backward(torch.randn_like(y))
            with torch.inference_mode():
                block.eval()(x.detach())
    return calls


def replayed(calls: list[Call], folder: Path) -> list[list[Tensor]]:
    """What the same calls leave in memory on ARM."""
    program = folder / "replay"
    cpp = importlib.resources.files("nas.training").joinpath("cpp")
    with importlib.resources.as_file(cpp) as sources:
        options = [option for option in OPTIONS if not option.startswith(("-march", "-mcpu"))]
        parts = [REPLAY, *sorted(sources.glob("*.cpp"))]
        subprocess.run([COMPILER, *options, "-Wall", "-Werror", "-static", *parts, "-o", program], check=True)
    requests = b"".join(call.request for call in calls)
    left = subprocess.run([EMULATOR, program], input=requests, capture_output=True, check=True).stdout
    results, start = [], 0
    for call in calls:
        found = []
        for tensor in call.left:
            raw = left[start : start + tensor.numel() * tensor.itemsize]
            start += len(raw)
            found.append(_like(raw, tensor))
        results.append(found)
    assert start == len(left), "the program has left more or less than was asked for"
    return results


def _like(raw: bytes, tensor: Tensor) -> Tensor:
    """The values of these bytes, which lie in memory as those of the tensor do."""
    if not raw:
        return torch.empty_like(tensor)
    return torch.empty_like(tensor).set_(
        torch.frombuffer(bytearray(raw), dtype=tensor.dtype).untyped_storage(), 0, tensor.shape, tensor.stride()
    )


def main() -> int:
    """The command; its exit status: 1 when a result differs."""
    asked = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    asked.add_argument("--calls", type=int, default=200, help="how many (default: 200)")
    asked.add_argument("--seed", type=int, default=0, help="of the blocks (default: 0)")
    args = asked.parse_args()
    calls = record(args.calls, args.seed)
    with tempfile.TemporaryDirectory(prefix="nas-arm-") as folder:
        results = replayed(calls, Path(folder))
    shown = Table("function", "calls", "bit for bit", "largest difference", "allowed")
    wrong = 0
    for name in sorted({call.name for call in calls}):
        pairs = [(call, result) for call, result in zip(calls, results, strict=True) if call.name == name]
        differences = [largest_difference(call, result) for call, result in pairs]
        allowed = pairs[0][0].tolerance
        wrong += sum(not difference <= allowed for difference in differences)
        row = (len(pairs), differences.count(0.0), f"{max(differences):.1e}", f"{allowed:.0e}")
        shown.add_row(name, *map(str, row))
    Console().print(shown)
    print(f"{len(calls)} calls repeated on ARM, {wrong} of them with another result; seed {args.seed}")
    return 1 if wrong else 0


def largest_difference(call: Call, result: list[Tensor]) -> float:
    """Of all buffers with results."""
    pairs = zip(result, call.left, strict=True)
    return max(_difference(*pair) for place, pair in enumerate(pairs) if place != call.scratch)


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest, as a share of the largest value."""
    if _raw(found) == _raw(expected):  # also where a part is memory that nobody has written yet
        return 0.0
    largest = max(float(expected.double().abs().max()), 1e-30)
    return float((found.double() - expected.double()).abs().max()) / largest


if __name__ == "__main__":
    sys.exit(main())
