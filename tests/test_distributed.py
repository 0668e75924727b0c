"""Two processes are one run: the same batches, one voice, and stopped in any way they end where unstopped ones end."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runs import TINY, in_child, tiny
from test_resume import assert_same_state, final

import facegen.families.ddpm
import facegen.networks.unet
import facegen.training  # noqa: F401 (imported before the forks, which then start warm)
from facegen.checkpoint import steps
from facegen.errors import UserError
from facegen.experiment import train
from facegen.families.ddpm import DDPM

ROOT = Path(__file__).parent.parent
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "ema.halflives=[50,500]", "optimizer.decay=cosine", "optimizer.warmup=4")


@pytest.fixture(scope="module", autouse=True)
def _recorded() -> Iterator[None]:
    """Every training step adds a line to `record-RANK` in the run's directory."""
    honest = DDPM.training_step

    def recorded(self: DDPM, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        loss = honest(self, batch, batch_idx)
        weights = sum(float(p.detach().double().sum()) for p in self.parameters())
        line = {"position": batch["position"], "index": batch["index"].tolist(), "drawn": torch.rand(1).item(), "weights": weights}
        line["loss"] = loss.item()
        with Path(self.trainer.default_root_dir, f"record-{self.global_rank}").open("a") as file:
            file.write(f"{json.dumps(line)}\n")
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DDPM, "training_step", recorded)
        yield


def record(run_dir: Path, rank: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / f"record-{rank}").read_text().splitlines()]


def two_ranks(run_dir: Path, *overrides: str, make: Callable[..., Any] = tiny, **kill: Any) -> int:
    """Trains with two processes of one group and returns the exit code of rank zero; `run_dir/pid-1` holds the other's number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def task() -> Any:
        os.setsid()
        other = os.fork()
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": "0" if other else "1"}
        if other:
            (run_dir / "pid-0").write_text(str(os.getpid()))
            (run_dir / "pid-1").write_text(str(other))
        try:
            return train(make(run_dir, *TWO, *overrides))
        finally:
            if other:
                os.waitpid(other, 0)

    run_dir.mkdir(exist_ok=True)
    return in_child(task, **kill)


def alive(run_dir: Path) -> list[int]:
    """Which of the processes still run; one that only waits to be buried does not."""
    stats = [Path("/proc", (run_dir / f"pid-{rank}").read_text(), "stat") for rank in (0, 1)]
    return [int(s.parent.name) for s in stats if s.exists() and s.read_text().rpartition(")")[2].split()[0] != "Z"]


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("never stopped")
    assert two_ranks(run_dir) == 0
    return run_dir


def test_two_ranks_stopped_in_any_way_end_where_unstopped_ones_end(tmp_path: Path, never_stopped: Path) -> None:
    run_dir = tmp_path / "run"

    def saved(step: int, then_kill: Callable[[], None] | None = None) -> Callable[[], bool]:
        path = run_dir / "checkpoints" / f"step-{step:08d}.ckpt"

        def due() -> bool:
            if path.exists() and then_kill:
                then_kill()
            return path.exists()

        return due

    def pid(rank: int) -> int:
        return int((run_dir / f"pid-{rank}").read_text())

    often = "checkpoint.every=2"
    assert two_ranks(run_dir, often, kill_when=saved(2, lambda: os.killpg(pid(0), signal.SIGKILL))) == -signal.SIGKILL
    # without a launcher rank zero cannot tell what has happened to the other: a traceback
    assert two_ranks(run_dir, often, kill_when=saved(4, lambda: os.kill(pid(1), signal.SIGKILL)), with_signal=0) == 1
    assert alive(run_dir) == []
    assert two_ranks(run_dir, often, kill_when=saved(6), with_signal=signal.SIGTERM) in (143, 0)  # 0: it was done already
    assert alive(run_dir) == []
    assert two_ranks(run_dir) == 0
    assert_same_state(final(run_dir), final(never_stopped))
    rows = [int(row["step"]) for row in csv.DictReader((run_dir / "metrics.csv").open())]
    assert rows == sorted(set(rows))


def test_sigterm_to_rank_zero_stops_both_ranks_on_one_step(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    saved = run_dir / "checkpoints" / "step-00000003.ckpt"
    assert two_ranks(run_dir, "trainer.max_steps=100000", kill_when=saved.exists, with_signal=signal.SIGTERM) == 143
    assert alive(run_dir) == []
    assert len(record(run_dir, 0)) == len(record(run_dir, 1)) == final(run_dir)["global_step"]


def test_ranks_see_the_batches_of_one_process_with_noise_of_their_own_and_the_same_weights(tmp_path: Path, never_stopped: Path) -> None:
    assert in_child(lambda: train(tiny(tmp_path))) == 0
    alone, zero, one = record(tmp_path, 0), record(never_stopped, 0), record(never_stopped, 1)
    assert [row["index"] for row in alone] == [a["index"] + b["index"] for a, b in zip(zero, one, strict=True)]
    assert [row["position"] for row in zero] == [row["position"] for row in one] == list(range(10))
    assert len({row["drawn"] for row in (*zero, *one)}) == 20
    assert [row["weights"] for row in zero] == [row["weights"] for row in one]
    assert len({row["weights"] for row in zero}) == 10


def test_one_of_two_ranks_writes_what_concerns_both(never_stopped: Path) -> None:
    assert [p.name for p in steps(never_stopped)] == ["step-00000009.ckpt", "step-00000010.ckpt"]
    assert [p.name for p in sorted((never_stopped / "previews").iterdir())] == ["step-00000005.png", "step-00000010.png"]
    rows = list(csv.DictReader((never_stopped / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows] == list(range(10))
    assert [row["step"] for row in rows if row["val/loss"]] == ["3", "7"]
    losses = [(a["loss"] + b["loss"]) / 2 for a, b in zip(record(never_stopped, 0), record(never_stopped, 1), strict=True)]
    assert [float(row["train/loss"]) for row in rows] == pytest.approx(losses, rel=1e-5)
    assert [c["images"] for name, c in final(never_stopped)["callbacks"].items() if name.endswith("EMA")] == [40]


def test_the_command_packs_once_tells_an_error_once_and_ends_all_ranks(tmp_path: Path) -> None:
    for i in range(12):
        noise = np.random.default_rng(i).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{i}.png")
    data = ("data=folder", f"data.root={tmp_path}", f"data.cache_dir={tmp_path / 'cache'}", f"run_dir={tmp_path / 'run'}")
    command = [sys.executable, str(ROOT / "train.py"), *TINY, *TWO, *data, "optimizer.lr=1e30"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ended.returncode == 2
    assert [line[:27] for line in ended.stderr.splitlines() if line.startswith("error")] == ["error: the gradient is nan "]
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("packing 12 images") == 1
    assert list(tmp_path.glob("*.log")) == []


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "sent", "code"), [(0, signal.SIGTERM, 143), (0, signal.SIGKILL, -9), (1, signal.SIGKILL, 2)])
def test_no_rank_outlives_the_command(tmp_path: Path, rank: int, sent: int, code: int) -> None:
    command = [sys.executable, "train.py", *TINY, *TWO, f"run_dir={tmp_path}", "trainer.max_steps=1000000", "preview.count=0"]
    with (tmp_path / "said").open("w") as said:
        zero = subprocess.Popen(command, cwd=ROOT, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (tmp_path / "checkpoints" / "step-00000009.ckpt").exists():
        assert zero.poll() is None
        time.sleep(0.02)
    [one] = [int(pid) for pid in Path(f"/proc/{zero.pid}/task/{zero.pid}/children").read_text().split()]
    os.kill((zero.pid, one)[rank], sent)
    assert zero.wait(60) == code
    time.sleep(0.5)
    assert not Path("/proc", str(one), "cmdline").exists() or Path("/proc", str(one), "cmdline").read_bytes() == b""
    told = (tmp_path / "said").read_text()
    assert "Traceback" not in told
    assert {143: "stopped by SIGTERM", 2: "rank 1 was ended by SIGKILL", -9: ""}[code] in told


def test_a_batch_that_cannot_be_shared_is_refused_before_any_process_is_started(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.batch_size must be a multiple of the 2 devices .* type data.batch_size=4"):
        train(tiny(tmp_path, *TWO, "data.batch_size=3"))
