"""Figures of the first seeds and of latents show what single images show, and a figure that cannot is refused before it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stand_in import Run, heads, job, studio
from torch import Tensor, nn

from facegen import images
from facegen.codecs import Pixels
from facegen.diffusion.discrete import Cosine
from facegen.diffusion.sampler import DDIM, DDPM, DPMpp2M, Heun, Sampler
from facegen.diffusion.schedule import EDM, Flow, Schedule
from facegen.errors import UserError
from facegen.figures import first, latents
from facegen.interop import DiffusersSampler


class Pooled:
    """A codec that sees the mean of four pixels: latents of two channels, of colour images twice as large."""

    shape, image_shape, limit, std = (2, 8, 8), (3, 16, 16), None, 0.5

    def encode(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images[:, :2], 2)

    def decode(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.mean(1, keepdim=True)], dim=1).repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


WRONG: list[tuple[str, dict[str, Any], str]] = [
    (
        "steps",
        {"steps_shown": [10, 101]},
        r"^steps_shown must be at most scheduler\.steps=100; got 101; type steps_shown=\[10,20,50,100\]$",
    ),
    ("steps", {"steps_shown": []}, r"^steps_shown must be numbers of steps; got \[\]; type steps_shown=\[10,20,50,100\]$"),
    ("steps", {"guidances": [1.0]}, "guidances is an option of figure=guidance; got figure=steps"),
    ("first", {"steps_shown": [10]}, "^steps_shown is an option of figure=steps; got figure=first; leave steps_shown out$"),
    ("latents", {}, r"^figure=latents shows the latents of a model that works in them; .*\.ckpt works in pixels; type figure=denoise$"),
]


@pytest.mark.parametrize(("figure", "options", "message"), WRONG)
def test_what_does_not_go_together_is_said_in_one_line_before_anything_is_made(
    run: Run, figure: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        job(run, figure, **options)
    assert len(error.value.lines) == 1
    assert run.net.asked == 0
    assert not (run.run_dir / "samples").exists()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("n", [3, 100])
def test_first_shows_80_seeds_in_order_and_every_pixel_as_a_square(
    tmp_path: Path, channels: int, n: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run", codec=Pixels(8, channels))
    png = job(run, "first", n=n, seed=5).figures[0]
    said = "figure=first shows 80 seeds, more than n=3" if n < 80 else "figure=first shows the first 80 of n=100 seeds"
    assert capsys.readouterr().err.count(said) == 1
    picture, faces = images.read_png(png).copy(), run.plain(range(5, 85), DDIM(3))
    places = [(box, block.scale) for block in first.blocks(8, 8) for box in block.boxes()]
    for face, (box, scale) in zip(faces, places, strict=True):
        assert np.array_equal(picture[:, *box], np.kron(face, np.ones((scale, scale), dtype=np.uint8)))
        picture[:, *box] = images.PAPER
    assert (picture[:, first.TOP :] == images.PAPER).all()
    assert {key: images.read_provenance(png)[key] for key in ("seeds", "large", "small")} == {
        "seeds": "5..84",
        "large": "5..20",
        "small": "21..84",
    }


def test_the_blocks_of_first_are_named_by_their_seeds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    written = heads(monkeypatch)
    job(run, "first")
    assert written == ["seeds 0 to 15", "seeds 16 to 79"]


@pytest.mark.parametrize("size", [8, 28, 32, 64, 128, 200, 256])
def test_the_blocks_of_first_are_equally_high_and_their_faces_lie_apart(size: int) -> None:
    large, small = first.blocks(size, size)
    assert large.scale == 2 * small.scale
    assert large.size == small.size
    covered = np.zeros((first.TOP + large.size[0], small.left + small.size[1]), dtype=int)
    for block in (large, small):
        for box in block.boxes():
            covered[box] += 1
    assert covered.max() == 1
    assert covered.sum() == (16 * large.scale**2 + 64 * small.scale**2) * size**2
    assert covered[-1].any()
    assert covered[:, -1].any()


OWN = [(Cosine(100), DDIM(4)), (Cosine(100), DDIM(4, eta=0.5)), (Cosine(100), DDPM(5)), (EDM(), DPMpp2M(4)), (Flow(), Heun(4))]
FOREIGN = [(Cosine(100), DiffusersSampler(name, 12)) for name in ("UniPCMultistepScheduler", "PNDMScheduler", "DDPMScheduler")]


@pytest.mark.parametrize(("schedule", "sampler"), [*OWN, *FOREIGN])
def test_the_latents_are_what_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: Schedule, sampler: Sampler) -> None:
    monkeypatch.setattr("facegen.generate.CPU_AREA", 2 * 8**2)  # several batches
    run = Run(tmp_path / "run", schedule, Pooled())
    faces, found = latents.with_latents(studio(run, sampler, batch_size=2), range(3, 8))
    assert np.array_equal(faces, run.plain(range(3, 8), sampler))
    assert np.array_equal(images.to_uint8(run.codec.decode(found)).numpy(), faces)
    assert len({latent.numpy().tobytes() for latent in found}) == 5


@pytest.mark.parametrize(("schedule", "sampler"), OWN)
def test_the_last_clean_image_that_is_seen_is_what_is_decoded(tmp_path: Path, schedule: Schedule, sampler: Sampler) -> None:
    run, seen = Run(tmp_path / "run", schedule, Pooled()), {}
    studio(run, sampler).draw(range(4), "seen", lambda i, x_t, x_0: seen.update({i: x_0.clone()}))
    assert torch.equal(seen[sampler.steps - 1], latents.with_latents(studio(run, sampler), range(4))[1])


def test_a_row_of_latents_is_the_image_and_its_channels_in_grey(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", codec=Pooled())
    png = job(run, "latents", n=20, seed=2).figures[0]
    rows = images.split_grid(png).reshape(8, 3, 3, 16, 16)
    assert np.array_equal(rows[:, 0], run.plain(range(2, 10), DDIM(3)))
    found = latents.with_latents(studio(run), range(2, 10))[1].double().numpy() / Pooled.std  # standard deviations
    expected = np.clip((found + 3) / 6 * 255, 0, 255)
    for channel in (0, 1):
        grey = rows[:, 1 + channel]
        assert np.abs(grey[:, :, ::2, ::2] - expected[:, None, channel]).max() <= 0.5 + 1e-3
        assert np.array_equal(grey, np.kron(grey[:, :, ::2, ::2], np.ones((2, 2), dtype=np.uint8)))
    assert images.read_provenance(png)["grey"] == "-3..3 standard deviations"


@pytest.mark.parametrize(("size", "small"), [(16, 8), (16, 5), (7, 7)])
def test_each_pixel_of_a_latent_becomes_a_patch_of_the_image(size: int, small: int) -> None:
    channels = np.arange(2 * small**2, dtype=np.uint8).reshape(1, 2, small, small)
    large = latents.beside(np.zeros((1, 1, size, size), dtype=np.uint8), channels)[0, 1:, 0]
    for channel, found in zip(channels[0], large, strict=True):
        values, counts = np.unique(found, return_counts=True)
        assert values.tolist() == channel.ravel().tolist()
        sides = int(size / small), -(-size // small)
        assert sides[0] ** 2 <= counts.min() <= counts.max() <= sides[1] ** 2
        assert (np.diff(found.astype(int), axis=0) >= 0).all()
        assert (np.diff(found.astype(int), axis=1) >= 0).all()
