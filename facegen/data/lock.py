"""A lock between processes that the kernel releases when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, purpose: str) -> Iterator[None]:
    """Holds the lock `path`; says whom it waits for where another process has it."""
    with open(path, "a+") as file:
        if not _take(file.fileno()):
            file.seek(0)
            print(f"waiting for process {file.read()}, which is {purpose}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def unlocked(path: Path) -> Iterator[bool]:
    """Whether nobody holds the lock `path`; nobody can take it meanwhile."""
    with open(path, "a") as file:
        yield _take(file.fileno())


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
