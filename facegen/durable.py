"""Files that are replaced as a whole or not at all, whatever happens meanwhile: a crash, a full disk, an interrupt; and their hash."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from facegen.errors import UserError

_MEGABYTE = 1_000_000
_TEMPORARY = re.compile(r"\..+\.(\d{1,9})\.tmp")


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], size: int = 0) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of `path` once all of it is on the disk; on any failure `path` is untouched.

    One writer at a time in a directory. Raises UserError where the disk has no room for `size` bytes or cannot be
    written.
    """
    path, handled = Path(path), sys.exception()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        _check_space(path.parent, size)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first error is the one to tell; the next writer removes the leftover
            temporary.unlink(missing_ok=True)
        cause = _behind(error, handled)
        if isinstance(cause, OSError):
            raise unwritable(path, cause) from cause
        if cause is not error:
            raise cause from error
        raise


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raises UserError in place of any OSError within: `path` cannot be written."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: str | os.PathLike[str], error: OSError) -> UserError:
    """What to tell of a file of a run that cannot be written."""
    reason = error.strerror or error
    return UserError(f"cannot write {os.fspath(path)}: {reason}; mend that and type the same command again, or choose another run_dir=")


def _behind(error: BaseException, handled: BaseException | None) -> BaseException:
    """What the file raised: torch's archive writer turns it into a RuntimeError about a position.

    `handled` was there before the writing began and is not to blame.
    """
    while isinstance(error, RuntimeError) and error.__context__ not in (None, handled):
        error = error.__context__
    return error


def _check_space(directory: Path, size: int) -> None:
    disk = os.statvfs(directory)
    need, free = size + _MEGABYTE, disk.f_bavail * disk.f_frsize
    if free < need:
        amounts = f"need {need / _MEGABYTE:.0f} MB, {free / _MEGABYTE:.0f} MB free at {directory}"
        raise UserError(f"disk nearly full: {amounts}; free some or set run_dir=")


def _remove_leftovers(directory: Path) -> None:
    """Remove the temporary files of killed writers: their process is gone, or this one has been given its number."""
    for leftover in directory.glob(".*.tmp"):
        match = _TEMPORARY.fullmatch(leftover.name)
        if match and not _is_another_process(int(match[1])):
            leftover.unlink(missing_ok=True)


def _is_another_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()


def sync(path: str | os.PathLike[str]) -> None:
    """Waits until the file or directory `path` is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Of the file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_occupied(folder: Path) -> None:
    """Raises UserError where something lies at `folder` that would be mixed up with what is to be written there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already; give a folder that is new or empty")
