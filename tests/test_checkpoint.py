from __future__ import annotations

import errno
import os
import pickle
import random
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from facegen.checkpoint import Header, check_targets, header, latest, latest_valid, read, step_name, steps, write
from facegen.errors import UserError

KILLS = 30


def checkpoint(value: int = 0, size: int = 2000) -> dict:
    shared = torch.full((size,), float(value))
    return {
        "state_dict": {"w": shared, "view": shared[: size // 2]},
        "global_step": value,
        "rates": [1e-4, None, True, "text"],
        "facegen": Header("ddpm", {"model": {"widths": [32, 64]}}, {"resolution": 32}).pack(),
    }


def equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


def message(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


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


def test_every_flipped_bit_is_detected_or_harmless(tmp_path: Path) -> None:
    path, rng = tmp_path / "step-00000001.ckpt", random.Random(0)
    good = checkpoint(5, 200)
    write(good, path)
    data, detected = path.read_bytes(), 0
    for bit in rng.sample(range(len(data) * 8), 1500):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            assert equal(read(path), good), f"bit {bit} changed what was read"
        except UserError:
            detected += 1
    assert detected > 300


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "step-00000002.ckpt"
    write(checkpoint(1), tmp_path / "step-00000001.ckpt")
    write(checkpoint(2), path)
    data = path.read_bytes()
    for length in [0, 1, 100, len(data) // 2, len(data) - 30, len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(UserError) as error:
            read(path)
        assert str(path) in message(error)
        assert "step-00000001.ckpt" in message(error), "the way out is not named"


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("form", ["pickle", "legacy", "zip"])
def test_pickled_code_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    path, marker = tmp_path / "a.ckpt", tmp_path / "marker"
    content = checkpoint() | {"bomb": Bomb(marker)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError) as error:
        read(path)
    assert str(path) in message(error)
    assert not marker.exists()
    torch.load(path, weights_only=False) if form != "pickle" else pickle.loads(path.read_bytes())
    assert marker.exists(), "the bomb is a dud: the test proved nothing"


@pytest.mark.parametrize(
    "url", ["https://example.org/a.ckpt", "hf://model/a.ckpt", "hf:model", "s3:bucket/a", Path("https://example.org/a")]
)
def test_urls_are_refused(url: str | Path) -> None:
    with pytest.raises(UserError) as error:
        read(url)
    assert "only local files" in message(error)


def test_a_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    write(checkpoint(), tmp_path / "faces" / "checkpoints" / step_name(1000))
    with pytest.raises(UserError) as error:
        read(tmp_path / "facse" / "checkpoints" / step_name(1000))
    assert "did you mean 'faces'?" in message(error)
    with pytest.raises(UserError) as error:
        read(tmp_path / "faces" / "checkpoints" / "step-1000.ckpt")
    assert f"did you mean '{step_name(1000)}'?" in message(error)


def test_a_run_directory_means_its_newest_step_by_number(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train first"):
        latest(tmp_path)
    for step in (999_999_999, 100_000_000, 2):
        write(checkpoint(), tmp_path / "checkpoints" / step_name(step))
    write(checkpoint(), tmp_path / "checkpoints" / "step-x.ckpt")
    write(checkpoint(), tmp_path / "checkpoints" / step_name(1_000_000_000))
    newest = tmp_path / "checkpoints" / "step-1000000000.ckpt"
    assert latest(tmp_path) == latest(tmp_path / "checkpoints") == latest(newest) == newest
    assert len(steps(tmp_path)) == 4


def test_damaged_steps_are_passed_over_and_said_so(tmp_path: Path) -> None:
    said: list[str] = []
    assert latest_valid(tmp_path, said.append) is None
    first, second = (tmp_path / "checkpoints" / step_name(step) for step in (1, 2))
    write(checkpoint(1), first)
    write(checkpoint(2), second)
    assert latest_valid(tmp_path, said.append) == second
    assert not said
    second.write_bytes(second.read_bytes()[:-1])
    assert latest_valid(tmp_path, said.append) == first
    assert len(said) == 1
    assert str(second) in said[0]
    first.write_bytes(b"")
    with pytest.raises(UserError, match="run_dir=NEW"):
        latest_valid(tmp_path, said.append)


def test_header_comes_back_and_foreign_ones_are_refused() -> None:
    good = checkpoint()
    assert header(good, "a.ckpt", "ddpm") == Header("ddpm", {"model": {"widths": [32, 64]}}, {"resolution": 32})
    with pytest.raises(UserError, match=r"a.ckpt is a checkpoint of model=ddpm, not of model=ldm"):
        header(good, "a.ckpt", "ldm")
    with pytest.raises(UserError, match="schema 2"):
        header({"facegen": good["facegen"] | {"schema": 2}}, "a.ckpt")
    for bad in [{}, {"facegen": None}, {"facegen": {}}, {"facegen": good["facegen"] | {"config": "{"}}]:
        with pytest.raises(UserError, match="not a facegen checkpoint"):
            header(bad, "a.ckpt")
    with pytest.raises(UserError, match="not a facegen checkpoint"):
        header({"facegen": good["facegen"] | {"config": "[" * 100_000}}, "a.ckpt")


ALLOWED = frozenset({"facegen.networks.unet.UNet", "facegen.diffusion.schedule.Cosine"})


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"_target_": "facegen_foreign.touch", "path": "x"}, ["facegen_foreign.touch", "_target_"]),
        ({"_target_": "facegen.networks.unet"}, ["facegen.networks.unet"]),
        ({"_target_": "facegen.networks.unet.UNet.__init__"}, ["UNet.__init__"]),
        ({"_target_": " facegen.networks.unet.UNet"}, []),
        ({"_target_": ["facegen.networks.unet.UNet"]}, []),
        ({"_target": "facegen_foreign.touch"}, ["did you mean '_target_'?"]),
        ({"_target_:": "facegen_foreign.touch"}, ["did you mean '_target_'?"]),
        ({"target_": "facegen_foreign.touch"}, ["did you mean '_target_'?"]),
        ({"_target_": "facegen.networks.unet.UNet", "_args_": [1]}, ["_args_"]),
        ({"_target_": "facegen.networks.unet.UNet", "_partial_": "yes"}, ["_partial_"]),
        ({"_target_": "facegen.networks.unet.UNet", "width": "${oc.env:HOME}"}, ["width", "interpolation"]),
        ({"width": object()}, ["width"]),
        ({1: 2}, []),
    ],
)
def test_foreign_targets_are_refused_however_deep_and_nothing_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: dict, named: list[str]
) -> None:
    (tmp_path / "facegen_foreign.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')\ndef touch(path): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    with pytest.raises(UserError) as error:
        check_targets({"model": {"blocks": [{"_target_": "facegen.diffusion.schedule.Cosine"}, [1, {"inner": bad}]]}}, ALLOWED)
    assert all(name in message(error) for name in ["model.blocks[1][1].inner.", *named])
    assert set(sys.modules) == before
    assert not (tmp_path / "marker").exists()


def test_a_config_with_allowed_targets_passes() -> None:
    unet = {"_target_": "facegen.networks.unet.UNet", "_partial_": True, "_convert_": "all", "widths": [32, 64], "target": None}
    check_targets({"model": {"network": unet, "rate": 1e-4, "name": "a$b {c}"}, "steps": 10, "on": False}, ALLOWED)
