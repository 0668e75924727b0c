"""An image beside its reconstruction and their difference: what is drawn is what was given, and says how near it is."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from stand_in import Run, heads
from test_autoencoder import SMALL
from test_reconstruction import by_hand, noise, trained

from facegen import images
from facegen.codecs import Latents
from facegen.errors import UserError
from facegen.experiment import build
from facegen.figures.reconstruction import AMPLIFIED, beside, difference, plan, save_panel
from facegen.loading import load_autoencoder
from facegen.networks.autoencoder import KLAutoencoder


def test_the_difference_is_absolute_amplified_and_black_where_there_is_none() -> None:
    a, b = noise(3), noise(3, seed=1)
    wanted = np.minimum(255, AMPLIFIED * np.abs(a.astype(int) - b.astype(int)))
    assert np.array_equal(difference(a, b), wanted)
    assert np.array_equal(difference(b, a), wanted)
    assert difference(a, a).max() == 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_a_panel_taken_apart_is_each_image_its_reconstruction_and_their_difference(tmp_path: Path, count: int, channels: int) -> None:
    a, b = noise(count, channels), noise(count, channels, seed=1)
    save_panel(a, b, tmp_path / "a.png", {"step": "3"})
    assert np.array_equal(images.split_grid(tmp_path / "a.png"), np.stack([a, b, difference(a, b)], axis=1).reshape(-1, channels, 16, 16))
    assert images.read_provenance(tmp_path / "a.png")["step"] == "3"


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 16, 64])
def test_a_panel_is_no_tower(tmp_path: Path, count: int, named: bool) -> None:
    labels = ["20.0 dB\nSSIM 0.50"] * count if named else []
    _, height, width = save_panel(noise(count), noise(count, seed=1), tmp_path / "a.png", {}, labels).shape
    assert 0.2 < height / width < 1.8


def test_labels_stand_beside_their_images_and_say_how_near_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 7
    a = np.arange(40, 40 + count, dtype=np.uint8)[:, None, None, None].repeat(3, 1).repeat(16, 2).repeat(16, 3)
    b = a + np.arange(1, 1 + count, dtype=np.uint8)[:, None, None, None] * 10
    labels = beside(a, b)
    for i, label in enumerate(labels):
        assert label.split("\n")[0] == f"{20 * math.log10(255 / (10 * (i + 1))):.1f} dB"
    written = heads(monkeypatch)
    picture = save_panel(a, b, tmp_path / "a.png", {}, labels)
    assert [text for text in written if "dB" in text] == [*labels[::2], *labels[1::2]]  # two blocks: even images, odd ones
    corners = [np.argwhere((picture == 40 + i).all(0))[0].tolist() for i in range(count)]
    assert sorted(range(count), key=lambda i: corners[i]) == [*range(count)]  # row by row
    left, right = {corners[i][1] for i in range(0, count, 2)}, {corners[i][1] for i in range(1, count, 2)}
    assert len(left) == len(right) == 1
    assert left < right or max(left) < min(right)


def test_images_too_small_for_ssim_are_measured_by_psnr_alone() -> None:
    assert beside(noise(1, size=8), noise(1, size=8)) == ["100.0 dB"]


def test_a_figure_of_an_autoencoder_shows_how_near_each_image_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_autoencoder(trained(tmp_path / "run", "trainer.max_steps=2"), build)
    given = noise(3)
    written = heads(monkeypatch)
    path = plan(loaded, given, "cpu", {"images": "held_out 0..2"}).draw(tmp_path / "out")
    assert path == tmp_path / "out" / "reconstruct.png"
    assert [text for text in written if "dB" in text] == beside(given, by_hand(tmp_path / "run", given, None).astype(np.uint8))
    told = images.read_provenance(path)
    assert (told["figure"], told["family"], told["images"], told["step"]) == ("reconstruct", "autoencoder", "held_out 0..2", "2")
    with pytest.raises(UserError, match=r"reconstructs images of \(3, 16, 16\), the ones given are \(3, 8, 8\)"):
        plan(loaded, noise(3, size=8), "cpu", {})


def test_a_figure_of_a_latent_model_shows_what_its_latents_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    codec = Latents(KLAutoencoder(**SMALL), 16)
    codec.standardize(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.5]))
    given = noise(2)
    wanted = images.to_uint8(codec.network.decode(codec.network.moments(images.to_float(torch.from_numpy(given)))[0])).numpy()
    written = heads(monkeypatch)
    plan(Run(tmp_path, codec=codec), given, "cpu", {}).draw(tmp_path)  # type: ignore[arg-type]
    assert [text for text in written if "dB" in text] == beside(given, wanted)


def test_a_model_that_works_in_pixels_has_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"works in pixels; give a checkpoint of model=autoencoder or model=ldm"):
        plan(Run(tmp_path), noise(2, size=8), "cpu", {})  # type: ignore[arg-type]
