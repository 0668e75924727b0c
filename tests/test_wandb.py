"""Weights & Biases, offline: a run is one curve, whole, in the run's directory, and nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import in_child, tiny

import facegen.families.ddpm
import facegen.networks.unet
import facegen.training  # noqa: F401 (imported before the forks, which then start warm)
from facegen import images
from facegen.errors import UserError
from facegen.experiment import train


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith(("WANDB_", "XDG_"))]:
        monkeypatch.delenv(name)


def records(path: Path) -> Iterator[bytes]:
    """The records of a .wandb file: a LevelDB log of 32 KiB blocks after 7 bytes of header."""
    data, at, record = path.read_bytes(), 7, b""
    while at < len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def sessions(run_dir: Path) -> list[list[dict[str, Any]]]:
    """The logged rows of each session of a run, oldest first."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for path in sorted(run_dir.glob("wandb/offline-run-*/*.wandb")):
        parsed = [Record.FromString(record) for record in records(path)]
        histories = [p.history for p in parsed if p.WhichOneof("record_type") == "history"]
        found.append([{"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in h.item} for h in histories])
    return found


def ids(run_dir: Path) -> list[str]:
    return [folder.name.rpartition("-")[2] for folder in sorted(run_dir.glob("wandb/offline-run-*"))]


def left_behind(pids: Path) -> list[str]:
    """The command lines of wandb's service processes that were started by the processes listed in `pids`."""
    mine = {line.encode() for line in pids.read_text().split()}
    commands = [p.read_bytes().split(b"\0") for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    return [str(c) for c in commands if c[0].endswith(b"wandb-core") and mine & set(c)]


def run(run_dir: Path, *overrides: str, **kill: Any) -> int:
    def task() -> Any:
        with (run_dir.parent / "pids").open("a") as file:
            file.write(f"{os.getpid()}\n")
        return train(tiny(run_dir, "logger.wandb=offline", *overrides))

    return in_child(task, **kill)


def test_a_stopped_and_continued_run_is_one_curve_with_every_loss_and_preview(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    saved = run_dir / "checkpoints" / "step-00000003.ckpt"
    assert run(run_dir, "trainer.max_steps=10", "preview.every=1", kill_when=saved.exists, with_signal=signal.SIGTERM) in (0, 143)
    assert run(run_dir, "trainer.max_steps=20") == 0
    assert len(set(ids(run_dir))) == 1
    assert len(ids(run_dir)) == 2
    first, second = sessions(run_dir)
    logged = [row["_step"] for row in (*first, *second)]
    assert logged == sorted(set(logged))
    losses = [row["_step"] for row in (*first, *second) if "train/loss" in row]
    assert len(set(range(20)) - set(losses)) <= 1  # a run that is stopped does not log the step at which it stops
    assert {row["_step"] for row in second if "val/loss" in row} >= {11, 15, 19}
    pictures = {row["preview/caption"]: row["preview/path"] for row in second if "preview/path" in row}
    assert {"step 15", "step 20"} <= set(pictures)
    assert second[-1]["_step"] == 19
    assert "train/loss" in second[-1]  # the picture and the numbers of one step survive together
    [shown] = run_dir.glob(f"wandb/offline-run-*/files/{pictures['step 20']}")
    picture = images.read_png(shown)
    assert picture.dtype == np.uint8
    assert picture.max() > 100
    assert np.array_equal(picture, images.read_png(run_dir / "previews" / "step-00000020.png"))
    assert not (tmp_path / "home").exists()  # everything lies in the run's directory
    assert left_behind(tmp_path / "pids") == []


def test_a_killed_run_leaves_no_process_and_sigterm_ends_it_within_seconds(tmp_path: Path) -> None:
    run_dir, endless = tmp_path / "run", ("trainer.max_steps=1000000", "preview.count=0")
    saved = run_dir / "checkpoints"
    assert run(run_dir, *endless, kill_when=(saved / "step-00000003.ckpt").exists) == -signal.SIGKILL
    sent: list[float] = []

    def due() -> bool:
        if any(path.name > "step-00000020.ckpt" for path in saved.glob("step-*.ckpt")):
            sent.append(time.monotonic())
        return bool(sent)

    assert run(run_dir, *endless, kill_when=due, with_signal=signal.SIGTERM) == 143
    assert time.monotonic() - sent[0] < 10
    deadline = time.monotonic() + 10
    while left_behind(tmp_path / "pids") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left_behind(tmp_path / "pids") == []
    assert len(set(ids(run_dir))) == 1


def test_what_a_kill_has_cut_short_does_not_stand_in_the_way_of_a_sync(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert run(run_dir, "trainer.max_steps=2") == 0
    [log] = run_dir.glob("wandb/offline-run-*/*.wandb")
    whole = [len(record) for record in records(log)]
    os.truncate(log, log.stat().st_size - 3)
    empty = run_dir / "wandb" / f"offline-run-20260101_000000-{ids(run_dir)[0]}" / log.name
    empty.parent.mkdir()
    empty.write_bytes(log.read_bytes()[:7])
    assert run(run_dir, "trainer.max_steps=4") == 0
    assert [len(record) for record in records(log)] == whole[:-1]
    assert [row["_step"] for rows in sessions(run_dir) for row in rows] == [0, 1, 2, 3]
    assert not empty.parent.exists()
    assert len(set(ids(run_dir))) == 1


def test_two_runs_of_one_process_are_two_curves(tmp_path: Path) -> None:
    def task() -> None:
        for name in ("a", "b"):
            train(tiny(tmp_path / name, "logger.wandb=offline", "trainer.max_steps=2"))

    assert in_child(task) == 0
    assert [len(sessions(tmp_path / name)) for name in ("a", "b")] == [1, 1]
    assert ids(tmp_path / "a") != ids(tmp_path / "b")
    assert [row["_step"] for name in ("a", "b") for row in sessions(tmp_path / name)[0]] == [0, 1, 0, 1]


def test_online_without_an_account_is_one_line_that_says_what_to_type(tmp_path: Path) -> None:
    def task() -> None:
        with pytest.raises(UserError, match=r"logger.wandb=online: .*; type logger.wandb=offline") as caught:
            train(tiny(tmp_path / "run", "logger.wandb=online"))
        assert len(str(caught.value).splitlines()) == 1

    assert in_child(task) == 0
