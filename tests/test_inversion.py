"""Walks that begin in the middle, and walks that are gone backwards, against a denoiser whose answers are known in closed form."""

from __future__ import annotations

import pytest
import torch
from gaussian import MEAN, STD, Ideal
from torch import Tensor

from facegen.codecs import Pixels
from facegen.diffusion.discrete import Cosine, Linear
from facegen.diffusion.inversion import invert
from facegen.diffusion.sampler import DDIM, DDPM, DPMpp2M, Heun, Sampler
from facegen.diffusion.schedule import EDM, Flow, Schedule
from facegen.generate import Begin, generate
from facegen.interop import DiffusersSampler

SCHEDULES = [Linear(), Cosine(), EDM(), Flow()]


def images(count: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * STD + MEAN


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_what_was_inverted_is_drawn_again(schedule: Schedule) -> None:
    denoiser, sampler, x_0 = Ideal(schedule), DDIM(steps=50), images()
    noise = invert(denoiser, x_0, sampler)
    again = sampler(denoiser, noise)
    assert (again - x_0).abs().max() < 0.03


def test_asking_again_brings_the_round_trip_nearer() -> None:
    denoiser, sampler, x_0 = Ideal(Cosine()), DDIM(steps=20), images()
    errors = [float((sampler(denoiser, invert(denoiser, x_0, sampler, refinements=n)) - x_0).abs().max()) for n in (0, 1, 4)]
    assert errors[0] > errors[1] > errors[2]


def test_the_noise_of_the_distribution_s_own_images_is_standard_normal() -> None:
    draw = torch.Generator().manual_seed(0)
    x_0 = MEAN + STD * torch.randn(64, 1, 16, 16, generator=draw, dtype=torch.float64)
    noise = invert(Ideal(Cosine()), x_0, DDIM(steps=100))
    assert abs(float(noise.mean())) < 0.05
    assert float(noise.std()) == pytest.approx(1.0, abs=0.1)


def test_a_walk_may_be_inverted_in_part() -> None:
    denoiser, sampler, x_0 = Ideal(Cosine()), DDIM(steps=40), images()
    halfway = invert(denoiser, x_0, sampler, until=20)
    assert (sampler(denoiser, halfway, start=20) - x_0).abs().max() < 0.02


@pytest.mark.parametrize("sampler", [DDIM(10), DDPM(10), DPMpp2M(10), Heun(10)], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_a_walk_that_begins_in_the_middle_is_the_rest_of_the_whole_one(sampler: Sampler, schedule: Schedule) -> None:
    denoiser, passed = Ideal(schedule), []
    noise = torch.randn(12, 3, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    fresh = iter(noise)
    whole = sampler(denoiser, noise[0] * schedule.prior_std(), lambda: next(fresh), lambda i, x, x_0: passed.append(x))
    if isinstance(sampler, DPMpp2M):  # it remembers its last answer, which a later beginning has not
        assert torch.isfinite(sampler(denoiser, passed[4], start=4)).all()
        return
    rest = iter(noise[4 if isinstance(sampler, DDPM) else 0 :])
    assert torch.equal(sampler(denoiser, passed[4], lambda: next(rest), start=4), whole)


@pytest.mark.parametrize("sampler", [DDIM(10), DiffusersSampler("EulerDiscreteScheduler", steps=10)], ids=["ours", "theirs"])
def test_the_entry_is_the_signal_and_noise_of_the_step(sampler: Sampler) -> None:
    schedule = Linear()
    alpha, sigma = sampler.entry(schedule, 4)
    time = sampler.times(schedule)[4]
    if isinstance(sampler, DDIM):
        assert (alpha, sigma) == (float(schedule.alpha(time)), float(schedule.sigma(time)))
    ratio = float(schedule.level(time))
    assert sigma / alpha == pytest.approx(ratio, rel=1e-3)


@pytest.mark.parametrize(("strength", "start"), [(1.0, 0), (0.6, 4), (0.1, 9), (0.01, 9)])
def test_a_strength_is_the_share_of_the_walk_that_is_gone(strength: float, start: int) -> None:
    assert DDIM(10).start_for(strength) == start


def test_an_image_that_is_walked_on_from_gets_the_noise_of_its_own_seed() -> None:
    denoiser, codec, clean = Ideal(Cosine()), Pixels(4, 1), images().float()
    seeds = [5, 6, 7]
    together = torch.cat([part for _, part in generate(denoiser, codec, DDIM(10), seeds, begin=Begin(clean, 5))])
    for i, seed in enumerate(seeds):
        [(_, alone)] = generate(denoiser, codec, DDIM(10), [seed], begin=Begin(clean[i : i + 1], 5))
        assert torch.equal(alone[0], together[i])


def test_the_weaker_the_nearer_to_the_image_that_was_given() -> None:
    denoiser, codec, clean = Ideal(Cosine()), Pixels(4, 1), images().float().clamp(-1, 1)
    far = []
    for start in (0, 5, 9):
        drawn = torch.cat([part for _, part in generate(denoiser, codec, DDIM(10), [1, 2, 3], begin=Begin(clean, start))])
        far.append(float((drawn.float() / 127.5 - 1 - clean).abs().mean()))
    assert far[0] > far[1] > far[2]
