"""Writing files whole or not at all, and telling the person at the terminal when that fails."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import time

from nas.errors import UserError

PARTIAL = ".partial"
UNABLE = (errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOTSUP)  # to open or flush a folder: Windows, CIFS, FUSE
STALE_SECONDS = 3600.0  # after which nobody can still be writing a file


def write_whole(path: Path, content: bytes | str) -> None:
    """Write beside the path, flush to the disk and rename, so that no reader ever sees half a file.

    Raises:
        OSError: the folder cannot be written; what stood at the path is unchanged.
    """
    _write_beside(path, content)
    for folder in _folders_of(path):
        _keep_names(folder)


def _write_beside(path: Path, content: bytes | str) -> None:
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL, delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _folders_of(path: Path) -> tuple[Path, Path]:
    """The folder of a file, and the folder that holds it, which has a new entry if the first is new."""
    return path.parent, path.parent.parent


def _keep_names(folder: Path) -> None:
    """Flush the list of a folder's files to the disk, where the system can do that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in UNABLE:
            raise


class Writer:
    """Writes whole files in the background, several at a time, because the disk is slower than this program."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None  # only while it writes: idle threads delay the end
        self._writing: list[Future[None]] = []
        self._folders: set[Path] = set()

    def write(self, path: Path, content: bytes | str) -> None:
        """Begin to write a file, as `write_whole` does."""
        self._threads = self._threads or ThreadPoolExecutor(max_workers=8)
        self._writing.append(self._threads.submit(_write_beside, path, content))
        self._folders.update(_folders_of(path))

    def finish(self) -> None:
        """Wait until all files are written; raise the first error."""
        threads, self._threads = self._threads, None
        writing, self._writing = self._writing, []
        folders, self._folders = self._folders, set()
        if threads is not None:
            threads.shutdown()
        for future in writing:
            future.result()
        for folder in folders:
            _keep_names(folder)


def remove_partial(folder: Path) -> None:
    """Remove what killed programs left half written below a folder, an hour ago or earlier."""
    for path in list(folder.rglob(f".*{PARTIAL}")):
        if time() - path.stat().st_mtime < STALE_SECONDS:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def reason_of(error: BaseException) -> str:
    """What went wrong, in a few words of one line."""
    cause = error
    while cause.__cause__ is not None and not _is_traceback(cause.__cause__):
        cause = cause.__cause__
    return cause.strerror if isinstance(cause, OSError) and cause.strerror else " ".join(str(cause).split())


def _is_traceback(error: BaseException) -> bool:
    """Whether the error only brings a traceback from another process as text, as concurrent.futures does."""
    return type(error).__name__ == "_RemoteTraceback"


@contextmanager
def writable(what: str, way_out: str) -> Iterator[None]:
    """Turn the error of a file or folder that cannot be written into a UserError."""
    try:
        yield
    except ConnectionError:  # for example, the reader of the output has closed it
        raise
    except OSError as error:
        if error.__cause__ is not None:  # something else has failed, such as a training in another process
            raise
        raise UserError(f"{what} cannot be written ({reason_of(error)}); {way_out}") from error
