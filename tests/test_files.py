"""Files are written whole or not at all, whatever happens meanwhile."""

import errno
import os
import re
import stat
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from nas.errors import UserError
from nas.system.files import Writer, reason_of, remove_partial, writable, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_whole_replaces_what_was_there_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_whole(path, "one")
    write_whole(path, b"two")
    assert path.read_text() == "two"
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_file_that_cannot_be_written_is_as_it_was(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.txt"
    write_whole(path, "before")

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fails)
    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="No space left on device"):
        write_whole(path, "after")
    assert path.read_text() == "before"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize(("number", "matters"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_folder_that_cannot_be_flushed_matters_only_where_that_can_be_done(
    number: int, matters: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync

    def fails_for_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fails_for_folders)
    with pytest.raises(OSError, match="error") if matters else nullcontext():
        write_whole(tmp_path / "file.txt", "text")
    assert (tmp_path / "file.txt").read_text() == "text"


def test_writer_leaves_files_and_no_thread_that_an_end_would_wait_for(tmp_path: Path) -> None:
    writer, before = Writer(), threading.active_count()
    for folder in (tmp_path / "once", tmp_path / "again"):
        for i in range(20):
            writer.write(folder / str(i), "text")
        writer.finish()
        assert len(names(folder)) == 20
        assert threading.active_count() == before


def test_writer_tells_of_a_file_that_cannot_be_written_and_writes_the_others(tmp_path: Path) -> None:
    writer = Writer()
    (tmp_path / "1").mkdir()
    for i in range(3):
        writer.write(tmp_path / str(i), "text")
    with pytest.raises(IsADirectoryError):
        writer.finish()
    assert [(tmp_path / str(i)).is_file() for i in range(3)] == [True, False, True]
    writer.finish()


def test_folder_in_the_place_of_a_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file.txt").mkdir()
    message = "the table cannot be written (Is a directory); remove it"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"), writable("the table", "remove it"):
        write_whole(tmp_path / "file.txt", "text")
    assert names(tmp_path) == ["file.txt"]


def test_closed_output_is_no_file_that_cannot_be_written() -> None:
    with pytest.raises(BrokenPipeError), writable("the table", "remove it"):
        raise BrokenPipeError(32, "Broken pipe")


def test_remove_partial_takes_what_a_killed_program_left_and_nothing_else(tmp_path: Path) -> None:
    write_whole(tmp_path / "weights" / "00001.safetensors", b"weights")
    (tmp_path / "weights" / ".00002.safetensors.abc123.partial").write_bytes(b"wei")
    (tmp_path / "mine.partial").write_text("a file of the user's")
    (tmp_path / ".young.txt.abc123.partial").write_text("somebody writes it")
    hours_ago = time.time() - 7200
    os.utime(tmp_path / "weights" / ".00002.safetensors.abc123.partial", (hours_ago, hours_ago))
    remove_partial(tmp_path)
    (tmp_path / ".young.txt.abc123.partial").unlink()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["00001.safetensors", "mine.partial", "weights"]


def test_reason_is_the_first_cause_in_one_line() -> None:
    error = RuntimeError("it\nfailed")
    assert reason_of(error) == "it failed"
    error.__cause__ = OSError(28, "No space left on device")
    assert reason_of(error) == "No space left on device"
