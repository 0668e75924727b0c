"""Decoding many image files on all cores, straight into one file of pixels."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from facegen.data.decode import BadImage, Picture, decode
from facegen.data.records import Problem

DIGEST_BYTES = 16
_AT_ONCE = 128


@dataclass
class Outcome:
    """What decoding N files found: the digest of each file's bytes (N, 16) uint8, the CRC-32 of its pixels (N,) uint32,
    which are good (N,) bool, and the problems of the others."""

    digests: np.ndarray
    sums: np.ndarray
    good: np.ndarray
    problems: list[Problem] = field(default_factory=list)


class _Task(NamedTuple):
    root: Path
    picture: Picture
    target: Path | None
    start: int
    paths: list[str]


class _Done(NamedTuple):
    start: int
    digests: list[bytes]
    sums: list[int]
    problems: list[tuple[int, Problem]]


def pack(root: Path, paths: list[str], picture: Picture, target: Path | None = None) -> Outcome:
    """Decode `paths` under `root` on all cores; the pixels go to the rows of the array `target`, a .npy of the right shape.

    Without a target the files are examined only. A bad file's row is black.
    """
    count = len(paths)
    outcome = Outcome(np.zeros((count, DIGEST_BYTES), np.uint8), np.zeros(count, np.uint32), np.ones(count, bool))
    tasks = [_Task(root, picture, target, i, paths[i : i + _AT_ONCE]) for i in range(0, count, _AT_ONCE)]
    found: list[tuple[int, Problem]] = []
    with _progress(count) as advance:
        for done in _everywhere(tasks):
            rows = slice(done.start, done.start + len(done.sums))
            outcome.digests[rows] = np.frombuffer(b"".join(done.digests), np.uint8).reshape(-1, DIGEST_BYTES)
            outcome.sums[rows] = done.sums
            found += done.problems
            advance(len(done.sums))
    found.sort(key=lambda item: item[0])
    outcome.good[[row for row, _ in found]] = False
    outcome.problems = [problem for _, problem in found]
    return outcome


def _everywhere(tasks: list[_Task]) -> Iterable[_Done]:
    if len(tasks) <= 2:  # starting processes takes longer than this
        return map(_work, tasks)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return _in_processes(tasks, min(cores, len(tasks)))


def _in_processes(tasks: list[_Task], workers: int) -> Iterator[_Done]:
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads in the middle of what they do
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_live_with_parent) as pool:
        try:
            with _no_main():
                futures = [pool.submit(_work, task) for task in tasks]
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _no_main() -> Iterator[None]:
    """Processes started within do not run the user's script again, with all that it imports."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _live_with_parent() -> None:
    """Ctrl-C is the parent's to handle, and when the parent is killed this process goes too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _work(task: _Task) -> _Done:
    side = task.picture.resolution
    pixels = np.zeros((len(task.paths), task.picture.channels, side, side), np.uint8)
    done = _Done(task.start, [], [], [])
    for row, path in enumerate(task.paths):
        digest = bytes(DIGEST_BYTES)
        try:
            with open(os.path.join(task.root, path), "rb", buffering=0) as file:
                data = file.read()
            digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
            pixels[row] = decode(data, task.picture)
        except BadImage as error:
            done.problems.append((task.start + row, Problem(error.kind, path, None, str(error))))
        except OSError as error:
            done.problems.append((task.start + row, Problem("corrupt", path, None, error.strerror or str(error))))
        done.digests.append(digest)
        done.sums.append(zlib.crc32(pixels[row]))
    if task.target:
        _write(task.target, task.start, pixels)
    return done


def _write(target: Path, start: int, pixels: np.ndarray) -> None:
    """By a write and not through a memory map, where a full disk would kill the process."""
    offset = np.lib.format.open_memmap(target, mode="r").offset
    with open(target, "r+b") as file:
        file.seek(offset + start * pixels[0].nbytes)
        file.write(pixels.data)


@contextmanager
def _progress(count: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; gives what is to be told of every number of images done."""
    if not sys.stderr.isatty():
        yield lambda number: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("decoding images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=count)
        yield lambda number: bar.advance(task, number)
