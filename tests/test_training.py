"""One run: what it leaves behind, what it measures, how it ends."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import configure, tiny

from facegen import images
from facegen.checkpoint import header, read, steps
from facegen.duration import seconds
from facegen.errors import UserError
from facegen.experiment import load, sample, train
from facegen.families.ddpm import DDPM
from facegen.families.optimization import Adam


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("[a run], {it's: odd} = näme")
    assert train(tiny(run_dir, "ema.halflives=[50,500]")).steps == 10
    return run_dir


def test_a_run_leaves_its_checkpoints_previews_metrics_and_curve(finished: Path) -> None:
    assert [p.name for p in steps(finished)] == ["step-00000009.ckpt", "step-00000010.ckpt"]
    assert [p.name for p in sorted((finished / "previews").iterdir())] == ["step-00000005.png", "step-00000010.png"]
    assert (finished / "loss.png").stat().st_size > 0
    rows = list(csv.DictReader((finished / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows] == list(range(10))
    assert all(math.isfinite(float(row["train/loss"])) for row in rows)
    assert [row["step"] for row in rows if row["val/loss"]] == ["3", "7"]


def test_a_checkpoint_is_plain_and_says_everything(finished: Path) -> None:
    stored = read(finished)
    head = header(stored, finished)
    assert head.family == "ddpm"
    assert head.config["model"]["network"]["widths"] == [16, 16]
    assert head.data["resolution"] == 16
    assert set(stored["ema"]) == {"50", "500"}
    assert not any("ema" in name for name in stored["state_dict"])


def test_a_checkpoint_alone_is_enough_to_sample(finished: Path, tmp_path: Path) -> None:
    alone = tmp_path / "moved.ckpt"
    alone.write_bytes(steps(finished)[-1].read_bytes())
    result = sample(configure("sample", f"ckpt={alone}", "n=3", f"out={tmp_path / 'out'}"))
    assert result.drawn == 3
    assert images.read_png(tmp_path / "out" / "000000.png").shape == (3, 16, 16)


def test_previews_show_what_sample_draws(finished: Path, tmp_path: Path) -> None:
    sample(configure("sample", f"ckpt={finished}", "n=2", f"out={tmp_path}"))
    previewed = images.split_grid(finished / "previews" / "step-00000010.png")
    for seed in (0, 1):
        difference = images.read_png(tmp_path / f"{seed:06d}.png").astype(int) - previewed[seed]
        assert abs(difference).max() <= 1


def test_sampling_uses_the_averages_and_can_choose_among_them(finished: Path) -> None:
    stored = read(finished)
    for asked, expected in ((None, stored["ema"]["50"]), ("500", stored["ema"]["500"])):
        weights = dict(load(str(finished), asked).denoiser.named_parameters())
        assert all(torch.equal(weights[name.removeprefix("denoiser.")], mean) for name, mean in expected.items())
    raw = dict(load(str(finished), "raw").denoiser.named_parameters())
    assert all(
        torch.equal(raw[n.removeprefix("denoiser.")], v) for n, v in stored["state_dict"].items() if n.removeprefix("denoiser.") in raw
    )


def test_a_finished_run_draws_what_is_missing_of_its_last_pictures(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    preview, curve = finished / "previews" / "step-00000010.png", finished / "loss.png"
    drawn, command = preview.read_bytes(), ("ema.halflives=[50,500]",)
    assert train(tiny(finished, *command)).steps == 10
    assert "missing" not in capfd.readouterr().err
    preview.unlink()
    curve.unlink()
    train(tiny(finished, *command, "preview.count=0"))
    assert not preview.exists()
    assert curve.stat().st_size > 0
    train(tiny(finished, *command))
    assert preview.read_bytes() == drawn
    assert [line for line in capfd.readouterr().err.splitlines() if "missing" in line] == [
        f"{curve} was missing and is drawn now",
        f"{preview} was missing and is drawn now",
    ]


def test_another_configuration_is_refused_with_the_keys_that_differ(finished: Path) -> None:
    with pytest.raises(UserError, match=r"optimizer.lr: 0.0002 -> 0.5"):
        train(tiny(finished, "ema.halflives=[50,500]", "optimizer.lr=0.5"))


def test_a_gradient_that_is_no_number_is_dropped_and_the_third_in_a_row_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    honest = DDPM.training_step

    def poisoned(self: DDPM, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        return honest(self, batch, batch_idx) * (float("nan") if batch["position"] in (1, 4, 5, 6) else 1.0)

    monkeypatch.setattr(DDPM, "training_step", poisoned)
    with pytest.raises(
        UserError, match=r"at step 6, batch 6, images \d+, \d+, \d+, \d+: 3 such steps in a row; the last checkpoint is good"
    ):
        train(tiny(tmp_path))
    assert "update dropped (1 of 3" in capfd.readouterr().out
    stored = read(steps(tmp_path)[-1])
    assert all(torch.isfinite(v).all() for v in [*stored["state_dict"].values(), *stored["ema"]["10000"].values()])


def test_a_bad_gradient_names_all_the_batches_that_were_accumulated_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    honest = DDPM.training_step

    def poisoned(self: DDPM, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        return honest(self, batch, batch_idx) * (float("nan") if batch["position"] == 4 else 1.0)

    monkeypatch.setattr(DDPM, "training_step", poisoned)
    train(tiny(tmp_path, "trainer.accumulate=3", "trainer.max_steps=3"))
    dropped = [line for line in capfd.readouterr().out.splitlines() if "update dropped" in line]
    assert len(dropped) == 1
    assert re.match(r"the gradient is nan at step 1, batch 3, 4, 5, images (\d+, ){11}\d+: update dropped", dropped[0])


def test_the_time_budget_ends_a_run_and_counts_over_its_sessions(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = train(tiny(tmp_path, "trainer.max_steps=1000000", "trainer.max_time=0.3"))
    assert 0 < result.steps < 1_000_000
    again = train(tiny(tmp_path, "trainer.max_steps=1000000", "trainer.max_time=0.3"))
    assert "is finished" in capfd.readouterr().err
    assert (again.checkpoint, again.steps) == (result.checkpoint, result.steps)


@pytest.mark.parametrize(
    ("written", "meant"), [("90", 90), (2.5, 2.5), ("8m", 480), ("1h30m", 5400), ("00:08:00", 480), ("01:00:00:01", 86401)]
)
def test_durations_mean_what_people_write(written: str | float, meant: float) -> None:
    assert seconds(written, "trainer.max_time") == meant


@pytest.mark.parametrize("written", ["soon", "-3", "0", "5x", ""])
def test_what_is_no_duration_is_refused(written: str) -> None:
    with pytest.raises(UserError, match=r"trainer.max_time must be a time above 0"):
        seconds(written, "trainer.max_time")


def test_the_learning_rate_warms_up_holds_and_decays() -> None:
    adam = Adam(lr=1.0, warmup=10, decay="cosine", decay_start=0.5)
    assert adam.rate(0, 0.0, 0) == pytest.approx(0.1)
    assert adam.rate(9, 0.1, 0) == adam.rate(500, 0.5, 0) == 1.0
    assert adam.rate(750, 0.75, 0) == pytest.approx(0.5)
    assert adam.rate(1000, 1.0, 0) == pytest.approx(0.0)
    assert Adam(lr=1.0, decay="linear", decay_start=0.6).rate(0, 0.8, 0) == pytest.approx(0.5)


def test_report_4_lowers_its_rate_after_a_hundred_epochs() -> None:
    adam = Adam(lr=1e-5, decay="steps", milestones=[100])
    assert [adam.rate(1, 0.1, epoch) for epoch in (0, 99, 100, 149)] == pytest.approx([1e-5, 1e-5, 1e-6, 1e-6])


def test_the_held_out_loss_does_not_depend_on_how_it_is_batched(tmp_path: Path) -> None:
    found = []
    for batch_size, batches in ((4, 4), (8, 2)):
        run_dir = tmp_path / str(batch_size)
        options = (
            f"data.batch_size={batch_size}",
            f"trainer.validate_batches={batches}",
            "trainer.validate_every=1",
            "trainer.max_steps=1",
        )
        found.append(train(tiny(run_dir, *options, "optimizer.lr=1e-30")).metrics["val/loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
