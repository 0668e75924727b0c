"""Writing a checkpoint costs the last good one under no circumstances."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from checkpoints import checkpoint, equal, message

from facegen.checkpoint import read, step_name, write
from facegen.errors import UserError

KILLS = 30


@pytest.mark.parametrize("mmap", [False, True])
def test_what_is_written_is_read_and_nothing_else_is_left(tmp_path: Path, mmap: bool) -> None:
    path = tmp_path / "new" / step_name(3)
    write(checkpoint(1), path)
    write(checkpoint(3), path)
    assert equal(read(path, mmap=mmap), checkpoint(3))
    assert os.listdir(path.parent) == ["step-00000003.ckpt"]


def test_sigkill_during_a_save_never_costs_the_last_good_file(tmp_path: Path) -> None:
    path, rng, interrupted = tmp_path / "step-00000001.ckpt", random.Random(0), 0
    write(checkpoint(0, 200_000), path)
    for _ in range(KILLS):
        pid = os.fork()
        if pid == 0:
            try:
                for value in range(10_000):
                    write(checkpoint(value % 7, 200_000), path)
            finally:
                os._exit(1)
        time.sleep(rng.uniform(0.005, 0.04))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        found = read(path)
        assert equal(found, checkpoint(found["global_step"], 200_000))
        interrupted += len(list(tmp_path.glob(f".*.{pid}.tmp")))
    assert interrupted > 0, "no kill fell into a save: the test proved nothing"
    write(checkpoint(1), path)
    assert os.listdir(tmp_path) == [path.name]


def test_temporary_file_of_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    living = tmp_path / f".step-00000001.ckpt.{os.getppid()}.tmp"
    living.touch()
    write(checkpoint(), tmp_path / "step-00000002.ckpt")
    assert living.exists()


def test_too_little_free_space_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "step-00000001.ckpt"
    write(checkpoint(1), path)
    # 10 MB of tensors (the view shares its storage) on a disk with 8 MB free
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=2000, f_frsize=4000))
    with pytest.raises(UserError) as error:
        write(checkpoint(2, 2_500_000), path)
    assert f"disk nearly full: need 11 MB, 8 MB free at {tmp_path}; free some or set run_dir=" in message(error)
    assert equal(read(path), checkpoint(1))
    write(checkpoint(3, 1_000_000), path)
    assert read(path)["global_step"] == 3


class FailingFile:
    """A file that fails for good once `left` bytes are written."""

    def __init__(self, file: object, left: int, error: BaseException) -> None:
        self.file, self.left, self.error = file, left, error

    def __enter__(self) -> FailingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)

    def write(self, data: bytes) -> int:
        self.left -= len(data)
        if self.left < 0:
            raise self.error
        return self.file.write(data)


@pytest.mark.parametrize("left", [0, 3_000, 500_000])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), UserError),
        (PermissionError(errno.EACCES, "Permission denied"), UserError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_failure_in_the_midst_of_writing_keeps_the_last_good_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, raised: type[BaseException], left: int
) -> None:
    path = tmp_path / "step-00000001.ckpt"
    write(checkpoint(1), path)
    monkeypatch.setattr("builtins.open", lambda p, mode, real=open: FailingFile(real(p, mode), left, error))
    with pytest.raises(raised) as caught:
        write(checkpoint(2, 200_000), path)
    monkeypatch.undo()
    if raised is UserError:
        assert str(path) in message(caught)
        assert error.strerror in message(caught)
    assert os.listdir(tmp_path) == [path.name]
    assert equal(read(path), checkpoint(1))


def test_an_error_of_the_caller_is_not_taken_for_one_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="pickle"):
        write({"f": lambda: 0}, tmp_path / "a.ckpt")
    try:
        raise OSError("an older trouble")
    except OSError:
        with pytest.raises(RuntimeError, match="sparse"):
            write({"f": Unwritable()}, tmp_path / "a.ckpt")
    assert os.listdir(tmp_path) == []


class Unwritable:
    def __reduce__(self) -> str:
        raise RuntimeError("sparse")
