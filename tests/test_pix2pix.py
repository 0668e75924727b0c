"""A model that is shown a source: it adds a source and a way to leave it out to the DDPM family, and two weights of guidance."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import configure, in_child, tiny
from torch import Tensor

from facegen import checkpoint
from facegen.codecs import Pixels
from facegen.diffusion.guidance import Guidance, Guided, Told
from facegen.diffusion.schedule import EDM
from facegen.errors import UserError
from facegen.experiment import train
from facegen.families.ddpm import DDPM
from facegen.families.optimization import Adam
from facegen.families.pix2pix import Edits, Pix2Pix
from facegen.networks.unet import UNet

NETWORK: dict[str, Any] = {"resolution": 8, "channels": 1, "widths": [8], "attention": [], "layers": 1, "groups": 4}
NAMES, GROUPS = ["Male", "3-6", "30-39"], {"age": ["3-6", "30-39"]}
EDITING = ("model=pix2pix", "data=cartoon", "data.size=32", "data.held_out=8", "scheduler=edm")


def model(injection: str = "embedding", **options: Any) -> Pix2Pix:
    torch.manual_seed(0)
    network = UNet(**NETWORK, injection=injection, edits=True)
    core = {"schedule": EDM(), "codec": Pixels(8, 1), "optimizer": Adam()}
    return Pix2Pix(network, NAMES, GROUPS, [[0, 1], [2]], injection, **core, **options)  # pyright: ignore


def batch(count: int = 6, **parts: Tensor) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images, sources = torch.randn(2, count, 1, 8, 8, generator=generator)
    condition = torch.eye(3)[torch.arange(count) % 3]
    return {"image": images, "source": sources, "condition": condition, "index": torch.arange(count), **parts}


def test_editing_overrides_what_is_told_and_nothing_of_the_loss() -> None:
    changed = {name for name in vars(Edits) if name in vars(DDPM) and not name.startswith("__")}
    assert changed == {"told"}


@pytest.mark.parametrize("shares", [(0.05, 0.05, 0.05), (0.3, 0.0, 0.1), (0.0, 0.5, 0.5)])
def test_what_is_dropped_is_dropped_as_often_as_was_asked(shares: tuple[float, float, float]) -> None:
    count = 20_000
    edits = model(drop_text=shares[0], drop_image=shares[1], drop_both=shares[2]).train()
    torch.manual_seed(0)
    many = {"condition": torch.ones(count, 3), "source": torch.ones(count, 1, 1, 1), "index": torch.arange(count)}
    condition, source = edits.told(many)
    untold, unshown = condition.isnan().all(dim=1), source.isnan().flatten(1).all(dim=1)
    assert torch.equal(untold, condition.isnan().any(dim=1)), "a condition is dropped whole"
    found = [(untold & ~unshown).sum(), (~untold & unshown).sum(), (untold & unshown).sum()]
    for share, times in zip(shares, found, strict=True):
        assert abs(int(times) - share * count) <= 3 * math.sqrt(count * share * (1 - share))


def test_nothing_is_dropped_where_the_loss_is_only_measured() -> None:
    condition, source = model().eval().told(batch())
    assert not condition.isnan().any()
    assert not source.isnan().any()


def test_without_a_source_in_the_data_every_image_is_shown_none() -> None:
    given = batch()
    del given["source"]
    _, source = model().eval().told(given)
    assert source.shape == (6, 1, 8, 8)
    assert source.isnan().all()


def test_shares_that_cannot_be_are_told() -> None:
    with pytest.raises(UserError, match=r"^model.drop_text, drop_image and drop_both must add up to at most 1; got 1.5; type model"):
        model(drop_text=0.5, drop_image=0.5, drop_both=0.5)


@pytest.mark.parametrize("injection", ["embedding", "channels"])
def test_the_source_reaches_every_output_and_only_that_of_its_own_row(injection: str) -> None:
    edits = model(injection).eval()
    for parameter in edits.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    given = batch(2)
    source = given["source"].clone().requires_grad_(True)
    x, t = given["image"], torch.full((2,), 1.0)
    answer = edits.denoiser(x, t, given["condition"], source)
    (grad,) = torch.autograd.grad(answer[0].square().sum(), source)
    assert grad[0].abs().sum() > 0
    assert grad[1].abs().sum() == 0


def test_an_image_that_is_shown_nothing_does_not_depend_on_what_others_are_shown() -> None:
    edits, given = model().eval(), batch(2)
    shown = given["source"].clone()
    shown[1] = math.nan
    x, t = given["image"], torch.full((2,), 1.0)
    answer = edits.denoiser(x, t, given["condition"], shown)
    assert not answer.isnan().any()
    torch.testing.assert_close(edits.denoiser(x, t, given["condition"], torch.zeros_like(shown))[1], answer[1], atol=1e-6, rtol=1e-5)


class Sum:
    """A denoiser whose answer says what it was told and shown: a number for each, 0 for nothing."""

    schedule = EDM()

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, x_t: Tensor, t: Tensor, *told: Tensor | None) -> Tensor:
        self.calls.append(len(x_t))
        condition, source = told
        assert condition is not None
        assert source is not None
        return (
            torch.zeros_like(x_t)
            + condition.nan_to_num().sum(1)[:, None, None, None] * 10
            + source.nan_to_num().mean((1, 2, 3), keepdim=True)
        )


@pytest.mark.parametrize(("weight", "image_weight"), [(1.0, 1.0), (2.0, 1.0), (1.0, 1.5), (7.5, 1.5), (3.0, 2.0)])
def test_two_weights_are_those_of_brooks_in_one_call(weight: float, image_weight: float) -> None:
    condition, source = torch.tensor([[1.0], [2.0]]), torch.stack([torch.full((1, 4, 4), 0.5), torch.full((1, 4, 4), 0.25)])
    told = Told(condition[:, None], torch.ones(2, 1), source)
    denoiser = Sum()
    answer = Guided(denoiser, told, Guidance(weight=weight, image_weight=image_weight), torch.zeros(0))(
        torch.zeros(2, 1, 4, 4), torch.ones(2)
    )
    text, image = 10 * condition[:, 0], source.mean((1, 2, 3))
    expected = 0 + image_weight * (image - 0) + weight * (text + image - image)  # u + W_I (e(I) - u) + W (e(T,I) - e(I))
    torch.testing.assert_close(answer.mean((1, 2, 3)), expected)
    assert len(denoiser.calls) == 1
    wanted = 1 + (weight != 1 or image_weight != 1) + (image_weight != 1)
    assert denoiser.calls[0] == 2 * wanted, "only what has a part in the answer is asked"


def test_a_negative_prompt_takes_the_place_of_nothing() -> None:
    source = torch.full((1, 1, 4, 4), 0.5)
    told = Told(torch.tensor([[[1.0]]]), torch.ones(1, 1), source, torch.tensor([0.3]))
    answer = Guided(Sum(), told, Guidance(weight=2.0, image_weight=1.5), torch.zeros(0))(torch.zeros(1, 1, 4, 4), torch.ones(1))
    nothing_shown, nothing, full = 3.0, 3.0 + 0.5, 10.0 + 0.5
    assert answer.mean() == pytest.approx(nothing_shown + 1.5 * (nothing - nothing_shown) + 2 * (full - nothing))


def test_a_run_that_was_killed_and_continued_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny(whole, *EDITING))
    killed = in_child(lambda: train(tiny(parts, *EDITING)), lambda: (parts / "checkpoints" / "step-00000006.ckpt").exists())
    assert killed < 0
    train(tiny(parts, *EDITING))
    a, b = (checkpoint.read(folder) for folder in (whole, parts))
    assert a["state_dict"].keys() == b["state_dict"].keys()
    assert all(torch.equal(a["state_dict"][name], b["state_dict"][name]) for name in a["state_dict"])
    assert all(torch.equal(x, y) for half in a["ema"] for x, y in zip(a["ema"][half].values(), b["ema"][half].values(), strict=True))


def test_a_preview_shows_held_out_images_their_sources_and_five_ages(tmp_path: Path) -> None:
    from facegen.images import split_grid

    train(tiny(tmp_path / "run", *EDITING, "preview.count=8"))
    tiles = split_grid(tmp_path / "run" / "previews" / "step-00000010.png")
    assert len(tiles) == 2 * (2 + 5)


def test_editing_works_in_the_latents_of_an_autoencoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEGEN_CACHE", str(tmp_path / "cache"))
    first = ("model=autoencoder", "model/network=f2d1", "model.network.widths=[8,8]", "model.network.groups=4", "model.perceptual=null")
    small = [*EDITING[1:4], "data.resolution=16", "data.batch_size=4", "trainer.max_steps=2", "trainer.threads=1", "preview.count=2"]
    train(configure("train", *first, *small, "model.discriminator=null", f"run_dir={tmp_path / 'codec'}"))
    result = train(tiny(tmp_path / "run", *EDITING, f"model.autoencoder={tmp_path / 'codec'}"))
    assert result.steps == 10
