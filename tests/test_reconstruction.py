"""What an autoencoder run shows of itself: numbers on held-out images, a picture of them, and nothing of it touches the training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import equal
from runs import configure, tiny_probe
from test_autoencoder import OPTIONS

from facegen import checkpoint, images
from facegen.callbacks.reconstruction import Likeness
from facegen.experiment import build, evaluate, train
from facegen.families.autoencoder import Autoencoder
from facegen.figures.curves import read_metrics
from facegen.loading import load_autoencoder

FAST = ("optimizer.lr=0.01", "optimizer.warmup=0", "model.disc_start=4", "trainer.validate_batches=16")


def noise(count: int, channels: int = 3, size: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


def trained(run_dir: Path, *overrides: str) -> Path:
    train(configure("train", *OPTIONS, *FAST, f"run_dir={run_dir}", *overrides))
    return run_dir


def test_the_preview_shows_held_out_images_as_the_averaged_weights_give_them_back(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    assert sorted(path.name for path in (run / "previews").iterdir()) == ["step-00000005.png", "step-00000010.png"]
    tiles = images.split_grid(run / "previews" / "step-00000010.png").reshape(2, 3, 3, 16, 16)
    data = opened(run)
    assert np.array_equal(tiles[:, 0], data.pixels(data.numbers("held_out")[:2]))
    averaged, raw = (by_hand(run, tiles[:, 0], ema) for ema in (None, "raw"))
    assert np.abs(tiles[:, 1].astype(int) - averaged).max() <= 1
    assert np.abs(tiles[:, 1].astype(int) - raw).max() > 1


def opened(run: Path) -> Any:
    data = build(load_autoencoder(run, build).config["data"])
    data.prepare()
    return data


def by_hand(run: Path, given: np.ndarray, ema: str | None) -> np.ndarray:
    """What the checkpoint of a run makes of images, as integers."""
    model = load_autoencoder(run, build, ema).model
    return images.to_uint8(model.reconstruct(images.to_float(torch.from_numpy(given)))).numpy().astype(int)


def test_where_nothing_is_held_out_training_images_are_shown(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "data.held_out=0", "trainer.max_steps=2")
    (preview,) = (run / "previews").iterdir()
    data = opened(run)
    assert np.array_equal(images.split_grid(preview)[::3], data.pixels(data.numbers("train")[:2]))
    assert "val/psnr" not in read_metrics(run / "metrics.csv")


def test_a_preview_that_a_finished_run_lacks_is_drawn_again(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    preview = run / "previews" / "step-00000010.png"
    before = images.split_grid(preview)
    preview.unlink()
    trained(run)
    assert np.array_equal(images.split_grid(preview), before)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("reconstruction") / "probe"
    train(tiny_probe(run, "data.size=200", "data.held_out=60"))
    return run


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights by torchvision's names."""
    from torchvision.models import alexnet

    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save({f"features.{name}": value for name, value in alexnet(weights=None).features.state_dict().items()}, path)
    return path


@pytest.fixture
def found(alexnet: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine has these for AlexNet's weights."""
    monkeypatch.setattr("facegen.callbacks.reconstruction.located", lambda *_, **__: (alexnet, "0" * 64))
    return alexnet


def test_the_numbers_of_a_validation_are_those_of_an_evaluation(tmp_path: Path, found: Path) -> None:
    run = trained(tmp_path / "run", "data.resolution=32", "trainer.max_steps=8", "checkpoint.every=4")
    logged = read_metrics(run / "metrics.csv")
    asked = ("metrics=[psnr,ssim,lpips]", "split=held_out", f"lpips_weights={found}", f"cache_dir={tmp_path}", f"out={tmp_path}")
    for place, step in enumerate((4, 8)):
        ckpt = run / "checkpoints" / f"step-{step:08d}.ckpt"
        (record,) = evaluate(configure("evaluate", f"ckpt={ckpt}", *asked)).records
        for name in ("psnr", "ssim", "lpips"):
            assert logged[f"val/{name}"][1][place] == pytest.approx(record["metrics"][f"{name}@10"]["value"], rel=1e-3), name


def test_what_is_given_back_as_it_was_is_as_near_as_can_be(tmp_path: Path, probe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Autoencoder, "reconstruct", lambda self, images: images)
    run = trained(tmp_path / "run", *monitored(probe), "trainer.max_steps=4")
    logged = {name: values[-1] for name, (_, values) in read_metrics(run / "metrics.csv").items()}
    assert (logged["val/psnr"], logged["val/ssim"]) == (100, 1)
    assert logged["monitor/rfd_probe"] < 1e-6
    assert images.split_grid(run / "previews" / "step-00000004.png")[2::3].max() == 0


def test_weights_that_are_not_here_are_missed_once_and_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("facegen.metrics.weights._downloaded", lambda *_: pytest.fail("something was downloaded"))
    logged = read_metrics(trained(tmp_path / "run", "data.resolution=32") / "metrics.csv")
    assert "".join(capfd.readouterr()).count("val/lpips is left out: the AlexNet weights of LPIPS are not here\n") == 1
    assert len(logged["val/psnr"][0]) == len(logged["val/ssim"][0]) == 2
    assert "val/lpips" not in logged


def test_images_too_small_for_a_metric_are_measured_by_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logged = read_metrics(trained(tmp_path / "run", "data.resolution=8", "model.discriminator=null") / "metrics.csv")
    assert "val/psnr" in logged
    assert not {"val/ssim", "val/lpips"} & set(logged)
    assert "left out" not in "".join(capfd.readouterr())


def test_a_mean_is_over_the_images_of_all_devices() -> None:
    given, made = (images.to_float(torch.from_numpy(noise(7, seed=seed))) for seed in (0, 1))
    shares = [Likeness(), Likeness()]
    logged: dict[str, float] = {}
    model: Any = SimpleNamespace(device=torch.device("cpu"), log=lambda name, value, **_: logged.update({name: float(value)}))
    reduce = lambda *_, **__: sum(share._sums for share in shares)  # noqa: E731
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(reduce=reduce), print=print)
    for share, rows in zip(shares, (slice(0, 2), slice(2, 7)), strict=True):
        share.on_validation_epoch_start(trainer, model)
        share.on_validation_batch_end(trainer, model, {"reconstruction": made[rows]}, {"image": given[rows]}, 0)
    shares[0].on_validation_epoch_end(trainer, model)
    error = ((noise(7).astype(float) - noise(7, seed=1)) ** 2).mean((1, 2, 3))
    assert logged["val/psnr"] == pytest.approx((10 * np.log10(255**2 / error)).mean(), rel=1e-6)


def monitored(probe: Path, *more: str) -> tuple[str, ...]:
    return (f"monitor.probe={probe}", "monitor.every=2", "monitor.images=48", "monitor.seconds=null", "data.held_out=40", *more)


def test_training_does_not_notice(tmp_path: Path, probe: Path, found: Path) -> None:
    size = "data.resolution=32"
    watched = trained(tmp_path / "watched", *monitored(probe, size, "preview.every=1", "trainer.validate_every=2"))
    alone = trained(tmp_path / "alone", size, "data.held_out=40", "preview.count=0", "trainer.validate_every=1000")
    a, b = checkpoint.read(watched), checkpoint.read(alone)
    for part in ("state_dict", "ema", "optimizer_states"):
        assert equal(a[part], b[part]), part


@pytest.mark.parametrize("metric", ["fd_probe", "kid_probe"])
def test_the_monitor_compares_reconstructions_with_what_they_are_of(tmp_path: Path, probe: Path, metric: str) -> None:
    run = trained(tmp_path / "run", *monitored(probe, f"monitor.metric={metric}"))
    steps, values = read_metrics(run / "metrics.csv")[f"monitor/r{metric}"]
    assert steps.tolist() == [1, 3, 5, 7, 9]
    best = run / "checkpoints" / f"best_r{metric}.ckpt"
    assert checkpoint.read(best)["global_step"] == steps[values.argmin()] + 1
    if metric == "fd_probe":
        asked = ("metrics=[rfd_probe]", "split=held_out", f"probe={probe}", f"cache_dir={tmp_path}", f"out={tmp_path}")
        (record,) = evaluate(configure("evaluate", f"ckpt={best}", *asked)).records
        assert values.min() == pytest.approx(record["metrics"]["rfd_probe@40"]["value"], rel=1e-4)


def test_the_monitor_takes_as_many_originals_as_reconstructions(tmp_path: Path, probe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    monkeypatch.setattr("facegen.callbacks.monitor.frechet_distance", lambda a, b: sizes.append((len(a), len(b))) or 1.0)
    trained(tmp_path / "run", *monitored(probe, "monitor.images=20", "trainer.max_steps=2"))
    assert sizes == [(20, 20)]
