"""How long it takes to read image files once, and how much memory: many large photographs, and very many small ones.

Made-up JPEG and PNG files in a temporary folder, read by `nas data` in a process of its own, first as they are and then
from the kept pixels. By default it needs 4 GB of disk and about ten minutes, most of them to write the files.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from nas.cli.options import positive
from nas.cli.terminal import run
from nas.errors import UserError
from nas.system.cores import usable_cores

CLASSES = 10
LARGE, SMALL = (4000, 3000), (28, 28)  # pixels of a photograph of 12 megapixels, and of a small image


def write_photograph(folder: Path, number: int) -> None:
    """A JPEG file of 12 megapixels: smooth shapes and some grain."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 255, (15, 20, 3), dtype=np.uint8))
    grain = rng.integers(0, 24, (LARGE[1] // 4, LARGE[0] // 4, 1), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    pixels = np.asarray(coarse.resize(LARGE, Image.Resampling.BICUBIC)) // 2 + grain
    Image.fromarray(pixels).save(_path(folder, number, "jpg"), quality=85)


def write_small(folder: Path, number: int) -> None:
    """A grey PNG file."""
    pixels = np.random.default_rng(number).integers(0, 255, SMALL[::-1], dtype=np.uint8)
    Image.fromarray(pixels).save(_path(folder, number, "png"))


def _path(folder: Path, number: int, kind: str) -> Path:
    return folder / str(number % CLASSES) / f"{number}.{kind}"


def measured(folder: Path, shape: str) -> tuple[float, float]:
    """Seconds and MiB of a command that reads the folder."""
    command = [sys.executable, "-m", "nas.data", str(folder / "files"), "--shape", shape]
    began = time.perf_counter()
    with subprocess.Popen([*command, "--data-dir", str(folder / "kept")], stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"{' '.join(command)} ended with status {process.returncode}")
    return time.perf_counter() - began, used.ru_maxrss / 1024


def row_of(kind: str, write: Callable[[Path, int], None], count: int, shape: str) -> tuple[str, ...]:
    """Write so many files, and read them twice."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for label in range(CLASSES):
            (folder / "files" / str(label)).mkdir(parents=True)
        with ProcessPoolExecutor(usable_cores()) as pool:
            list(pool.map(partial(write, folder / "files"), range(count), chunksize=64))
        size = sum(path.stat().st_size for path in (folder / "files").rglob("*.*")) / 1e9
        first, memory = measured(folder, shape)
        again, _ = measured(folder, shape)
    return f"{count:,} {kind}", f"{size:.1f} GB", shape, f"{first:.0f} s", f"{memory:,.0f} MiB", f"{again:.1f} s"


def main() -> int:
    """Measure, and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.own_files", description=__doc__)
    options.add_argument("--photographs", type=positive, default=2_000, metavar="N", help="(default: 2000)")
    options.add_argument("--small", type=positive, default=100_000, metavar="N", help="(default: 100000)")
    args = options.parse_args()
    columns = ("files", "on disk", "as", "read first", "most memory", "read again")
    table = Table(*columns, title=f"{usable_cores()} cores")
    table.add_row(*row_of("photographs of 12 megapixels", write_photograph, args.photographs, "3x48x64"))
    table.add_row(*row_of("small images", write_small, args.small, "1x28x28"))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
