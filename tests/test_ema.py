"""Averaged weights: the right ones, in the right proportion, and never left in the wrong place."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from facegen.callbacks.ema import EMA, key
from facegen.errors import UserError


class Model(LightningModule):
    averaged = "denoiser"

    def __init__(self) -> None:
        super().__init__()
        self.denoiser = nn.Linear(2, 2)
        self.denoiser.bias.requires_grad_(False)
        self.other = nn.Linear(2, 2)


class FakeTrainer:
    world_size = 1
    global_step = 0


def started(*halflives: float, rampup: float = 0.05) -> tuple[EMA, Model, Any]:
    ema, model, trainer = EMA(list(halflives), rampup), Model(), FakeTrainer()
    ema.on_train_start(trainer, model)  # type: ignore[arg-type]
    return ema, model, trainer


def train_step(ema: EMA, model: Model, trainer: Any, value: float, images: int = 8, steps: bool = True) -> None:
    with torch.no_grad():
        model.denoiser.weight.fill_(value)
    trainer.global_step += steps
    ema.on_train_batch_end(trainer, model, None, {"index": torch.zeros(images, 1)}, 0)


def test_the_influence_of_an_image_halves_over_one_half_life() -> None:
    ema, model, trainer = started(80.0, rampup=0.999)
    ema.images = 10**9
    train_step(ema, model, trainer, 0.0)
    start = ema.averages["80"]["denoiser.weight"].clone()
    for _ in range(10):
        train_step(ema, model, trainer, 0.0)
    assert torch.allclose(ema.averages["80"]["denoiser.weight"], start / 2, atol=1e-6)


def test_warm_up_forgets_the_first_weights() -> None:
    ema, model, trainer = started(1e6)
    for value in (100.0, 1.0, 1.0, 1.0):
        train_step(ema, model, trainer, value)
    assert torch.allclose(ema.averages["1000000"]["denoiser.weight"], torch.ones(2, 2), atol=0.01)


def test_several_lengths_are_kept_at_once_and_longer_ones_lag_more() -> None:
    ema, model, trainer = started(50.0, 5000.0)
    for _ in range(100):
        train_step(ema, model, trainer, 0.0, images=1000)
    for _ in range(20):
        train_step(ema, model, trainer, 1.0)
    short, long = (ema.averages[k]["denoiser.weight"].mean() for k in ("50", "5000"))
    assert 0.8 < short < 1
    assert long < 0.1


def test_only_trainable_weights_of_the_denoiser_are_averaged() -> None:
    ema, _, _ = started(50.0)
    assert list(ema.averages["50"]) == ["denoiser.weight"]


def test_accumulated_batches_count_as_one_step_of_all_their_images() -> None:
    together, model, trainer = started(64.0, rampup=0.999)
    apart, other, ticker = started(64.0, rampup=0.999)
    with torch.no_grad():
        for tensors in (together.averages["64"], apart.averages["64"]):
            tensors["denoiser.weight"].fill_(3.0)
    train_step(together, model, trainer, 1.0, images=8, steps=False)
    train_step(together, model, trainer, 1.0, images=8)
    train_step(apart, other, ticker, 1.0, images=16)
    assert together.images == apart.images == 16
    assert torch.equal(together.averages["64"]["denoiser.weight"], apart.averages["64"]["denoiser.weight"])


def test_applied_puts_the_raw_weights_back_even_after_an_error() -> None:
    ema, model, trainer = started(50.0)
    train_step(ema, model, trainer, 1.0)
    train_step(ema, model, trainer, 5.0)
    average = ema.averages["50"]["denoiser.weight"].clone()
    seen = torch.empty(0)
    with contextlib.suppress(ZeroDivisionError), ema.applied(model):
        seen = model.denoiser.weight.detach().clone()
        _ = 1 / 0
    assert torch.equal(seen, average)
    assert torch.equal(model.denoiser.weight, torch.full((2, 2), 5.0))
    assert torch.equal(ema.averages["50"]["denoiser.weight"], average)


@pytest.mark.parametrize("halflives", [[], [0.0], [5.0, 5.0]])
def test_half_lives_must_be_different_numbers_above_zero(halflives: list[float]) -> None:
    with pytest.raises(UserError, match=r"ema\.halflives must be"):
        EMA(halflives)


def test_a_half_life_is_named_without_an_exponent() -> None:
    assert [key(h) for h in (1200, 2500.5, 5e5, 2e6)] == ["1200", "2500.5", "500000", "2000000"]
