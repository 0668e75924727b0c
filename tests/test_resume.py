"""A run that is stopped, in whatever way, and typed again ends bit for bit where one ends that was never stopped."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import in_child, tiny

import facegen.families.ddpm
import facegen.networks.unet
import facegen.sampling
import facegen.training  # noqa: F401 (imported before the forks, which then start warm)
from facegen.checkpoint import read, steps


def final(run_dir: Path) -> dict[str, Any]:
    return read(steps(run_dir)[-1])


def flat(node: Any, path: str = "") -> dict[str, Any]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else None
    if items is None:
        return {path: node}
    return {k: v for key, value in items for k, v in flat(value, f"{path}/{key}").items()}


def assert_same_state(a: dict[str, Any], b: dict[str, Any]) -> None:
    for part in ("state_dict", "ema", "optimizer_states", "global_step"):
        left, right = flat(a[part]), flat(b[part])
        assert left.keys() == right.keys()
        differing = [
            name
            for name in left
            if not (torch.equal(left[name], right[name]) if torch.is_tensor(left[name]) else left[name] == right[name])
        ]
        assert differing == [], part
    key = next(k for k in a if k.endswith(("Cartoon", "FFHQ")))
    assert a[key]["consumed"] == b[key]["consumed"]


def run(run_dir: Path, *overrides: str, **kill: Any) -> int:
    def task() -> Any:
        from facegen.experiment import train

        return train(tiny(run_dir, "ema.halflives=[50,500]", "optimizer.decay=cosine", "optimizer.warmup=4", *overrides))

    return in_child(task, **kill)


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run_dir = tmp_path_factory.mktemp("never stopped")
    assert run(run_dir) == 0
    return final(run_dir)


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_runs_end_where_an_unstopped_one_ends(tmp_path: Path, never_stopped: dict[str, Any], workers: int) -> None:
    for step in (3, 6):
        saved = tmp_path / "checkpoints" / f"step-{step:08d}.ckpt"
        assert run(tmp_path, f"data.num_workers={workers}", kill_when=saved.exists) == -signal.SIGKILL
    assert run(tmp_path, f"data.num_workers={workers}") == 0
    assert_same_state(final(tmp_path), never_stopped)


def test_a_run_killed_at_any_instant_continues(tmp_path: Path, never_stopped: dict[str, Any]) -> None:
    for delay in (0.05, 0.4, 0.9, 1.3):
        due = time.monotonic() + delay
        run(tmp_path, kill_when=lambda due=due: time.monotonic() > due)
    assert run(tmp_path) == 0
    assert_same_state(final(tmp_path), never_stopped)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_says_how_to_continue_and_sets_the_exit_code(
    tmp_path: Path, never_stopped: dict[str, Any], sent: int, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "checkpoints" / "step-00000003.ckpt"
    assert run(tmp_path, "trainer.max_steps=100000", kill_when=saved.exists, with_signal=sent) == code
    assert "to continue type: " in capfd.readouterr().err
    stopped_at = final(tmp_path)["global_step"]
    assert 3 <= stopped_at < 100000
    if stopped_at < 10:
        assert run(tmp_path) == 0
        # the learning rate of the first session was that of a longer run, so only the position can be compared
        assert final(tmp_path)["global_step"] == never_stopped["global_step"]


def test_accumulated_gradients_are_never_cut_in_two(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run(whole, "trainer.accumulate=3", "trainer.max_steps=6") == 0
    saved = stopped / "checkpoints" / "step-00000003.ckpt"
    assert run(stopped, "trainer.accumulate=3", "trainer.max_steps=6", kill_when=saved.exists) == -signal.SIGKILL
    assert run(stopped, "trainer.accumulate=3", "trainer.max_steps=6") == 0
    assert_same_state(final(stopped), final(whole))


def test_a_finished_run_is_left_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "trainer.max_steps=3") == 0
    before = steps(tmp_path)[-1].stat().st_mtime_ns
    assert run(tmp_path, "trainer.max_steps=3") == 0
    assert "is finished" in capfd.readouterr().err
    assert steps(tmp_path)[-1].stat().st_mtime_ns == before


def test_metrics_of_a_continued_run_have_no_gap_and_no_double(tmp_path: Path) -> None:
    saved = tmp_path / "checkpoints" / "step-00000006.ckpt"
    run(tmp_path, kill_when=saved.exists)
    assert run(tmp_path) == 0
    import csv

    with (tmp_path / "metrics.csv").open() as handle:
        logged = [int(row["step"]) for row in csv.DictReader(handle) if row["train/loss"]]
    assert logged == sorted(set(logged))
    assert set(range(10)) - set(logged) <= {5}  # the kill may fall between a checkpoint and the row of its last step
