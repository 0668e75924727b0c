"""Figures show what was measured and drawn, also where little of it is there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from facegen import images
from facegen.errors import UserError
from facegen.figures import curves
from facegen.figures.compare import compare_runs
from facegen.figures.curves import loss_curve, read_metrics, smooth
from facegen.figures.denoise import evenly

METRICS = """step,train/lr,train/loss,val/loss,val/loss_level_below_0.1,val/loss_level_below_1,val/loss_level_above_1
10,0.001,0.9,,,,
20,0.001,nan,,,,
30,0.001,0.5,0.3,0.5,0.3,
40,,0.4,,,,
50,0.001,0.04
"""


def run_with(tmp_path: Path, metrics: str) -> Path:
    (tmp_path / "metrics.csv").write_text(metrics)
    return tmp_path


def test_a_partial_csv_gives_what_it_has(tmp_path: Path) -> None:
    found = read_metrics(run_with(tmp_path, METRICS) / "metrics.csv")
    assert {name: (steps.tolist(), values.tolist()) for name, (steps, values) in found.items()} == {
        "train/lr": ([10, 20, 30, 50], [0.001] * 4),
        "train/loss": ([10, 30, 40, 50], [0.9, 0.5, 0.4, 0.04]),
        "val/loss": ([30], [0.3]),
        "val/loss_level_below_0.1": ([30], [0.5]),
        "val/loss_level_below_1": ([30], [0.3]),
    }


def drawn_axes(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> list:
    """The finished axes of the loss curve of `run_dir`."""
    finished, finish = [], curves._finish
    monkeypatch.setattr(curves, "_finish", lambda axes, *rest: (finish(axes, *rest), finished.append(axes)))
    loss_curve(run_dir)
    return finished


def test_the_loss_curve_shows_training_and_held_out_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, held_out = drawn_axes(monkeypatch, run_with(tmp_path, METRICS))
    assert images.read_png(tmp_path / "loss.png").shape[0] == 3
    assert [axes.get_title() for axes in (training, held_out)] == ["training", "held-out images"]
    assert [axes.get_xlabel() for axes in (training, held_out)] == ["step", "step"]
    assert training.lines[0].get_ydata().tolist() == [0.9, 0.5, 0.4, 0.04]
    assert [text.get_text() for text in held_out.get_legend().get_texts()] == ["below 0.1", "0.1 to 1", "all"]


def test_the_curve_of_a_classifier_shows_its_right_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = "step,train/loss,val/loss,val/accuracy_age,val/age_error,val/balanced_accuracy\n9,1,0.9,0.1,20,0.5\n19,0.8,0.7,0.6,9,0.8\n"
    _, held_out, answers = drawn_axes(monkeypatch, run_with(tmp_path, metrics))
    assert held_out.get_legend() is None  # there are no noise levels
    assert held_out.lines[0].get_ydata().tolist() == [0.9, 0.7]
    assert [text.get_text() for text in answers.get_legend().get_texts()] == ["age: 0.60", "attributes, balanced: 0.80"]
    assert answers.get_ylim() == (0, 1)


AUTOENCODER = """step,train/loss,train/adversarial,train/discriminator,val/loss,val/psnr,val/ssim,val/lpips,monitor/rfd_probe
9,0.9,,,,,,,
19,0.5,-0.1,1.0,0.6,20.5,0.7,0.3,9
29,0.5,-0.2,0.9,0.5,22.25,0.8,0.25,7
"""


def configured(run_dir: Path, accumulate: int = 1, **model: object) -> Path:
    config = {"model": {"discriminator": {}, "disc_start": 30, **model}, "trainer": {"accumulate": accumulate}}
    (run_dir / "config.yaml").write_text(json.dumps(config))  # which is YAML too
    return run_dir


def test_the_curve_of_an_autoencoder_marks_in_every_panel_where_the_discriminator_comes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panels = drawn_axes(monkeypatch, configured(run_with(tmp_path, AUTOENCODER), accumulate=2))
    titles = ["training", "against each other", "held-out images", "reconstructions of held-out images", "reconstructions"]
    assert [axes.get_title() for axes in panels] == titles
    for axes in panels:
        assert [line.get_xdata() for line in axes.lines if line.get_linestyle() == "--"] == [[15, 15]]
        assert [text.get_text() for text in axes.texts] == ["discriminator"]
    legend = panels[3].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["PSNR: 22.2 dB", "SSIM: 0.800", "LPIPS (lower is nearer): 0.250"]
    assert panels[3].lines[0].get_ydata().tolist() == [20.5, 22.25]
    assert [line.get_ydata().tolist() for line in panels[1].lines[0:4:2]] == [[1.0, 0.9], [-0.1, -0.2]]


@pytest.mark.parametrize(
    "model", [{"disc_start": 30}, {"disc_start": 5, "discriminator": None}, {"disc_start": 5, "disc_weight": 0}, {"disc_start": None}, None]
)
def test_a_discriminator_that_has_not_come_in_is_not_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: dict[str, object] | None
) -> None:
    run_dir = run_with(tmp_path, AUTOENCODER)
    panels = drawn_axes(monkeypatch, run_dir if model is None else configured(run_dir, **model))
    assert len(panels) == 5
    assert not [line for axes in panels for line in axes.lines if line.get_linestyle() == "--"]
    assert not [text for axes in panels for text in axes.texts]


@pytest.mark.parametrize(("last", "scale"), [(0.8, "linear"), (0.001, "log"), (-5.0, "linear")])
def test_a_loss_that_falls_far_is_drawn_on_a_logarithmic_axis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: float, scale: str
) -> None:
    falling = "\n".join(f"{step},{value}" for step, value in enumerate(np.linspace(1, last, 9)))
    (axes,) = drawn_axes(monkeypatch, run_with(tmp_path, f"step,train/loss\n{falling}\n"))
    assert axes.get_yscale() == scale


@pytest.mark.parametrize("metrics", [None, "", "step,train/lr\n1,0.1\n"])
def test_a_run_without_losses_is_an_error(tmp_path: Path, metrics: str | None) -> None:
    if metrics is not None:
        run_with(tmp_path, metrics)
    with pytest.raises(UserError, match=r"metrics\.csv"):
        loss_curve(tmp_path)


def test_smoothing_keeps_what_is_smooth_and_calms_what_is_not() -> None:
    line = np.linspace(5, 1, 200)
    assert smooth(line)[:-10] == pytest.approx(line[:-10])  # no lag, least of all at the start
    noise = np.random.default_rng(0).normal(size=1000)
    assert smooth(noise).std() < noise.std() / 3
    assert smooth(np.array([2.0])).tolist() == [2.0]


def run_at(path: Path, shade: int, steps: tuple[int, ...] = (100, 2000), count: int = 12, resolution: int = 8) -> Path:
    for step in steps:
        tiles = np.full((count, 3, resolution, resolution), shade + step % 7, dtype=np.uint8)
        images.save_grid(tiles, path / "previews" / f"step-{step:08d}.png", {})
    return path


def test_runs_are_compared_by_their_newest_preview_seed_by_seed(tmp_path: Path) -> None:
    runs = [("linear", run_at(tmp_path / "a", 10)), ("cosine", run_at(tmp_path / "b", 50, count=6)), ("none", tmp_path / "c")]
    sheet = compare_runs(runs, tmp_path / "sheet.png")
    tiles = images.split_grid(sheet)
    assert tiles.shape == (2 * 6, 3, 8, 8)
    assert tiles[:6].max() == tiles[:6].min() == 10 + 2000 % 7
    assert tiles[6:].max() == tiles[6:].min() == 50 + 2000 % 7


def test_runs_that_cannot_be_compared_are_an_error(tmp_path: Path) -> None:
    small, large = run_at(tmp_path / "a", 10), run_at(tmp_path / "b", 10, resolution=16)
    with pytest.raises(UserError, match="one size"):
        compare_runs([("small", small), ("large", large)], tmp_path / "sheet.png")
    with pytest.raises(UserError, match="previews"):
        compare_runs([("empty", tmp_path / "c")], tmp_path / "sheet.png")


@pytest.mark.parametrize("count", [1, 2, 9, 10, 18, 1000])
def test_evenly_spaced_numbers_are_different_and_include_both_ends(count: int) -> None:
    found = evenly(count, 9)
    assert len(found) == len(set(found)) == min(count, 9)
    assert (found[0], found[-1]) == (0, count - 1)
    gaps = np.diff(found)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
