from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from gaussian import MEAN, SCHEDULES, STD, Ideal, double, flow_error, moments
from torch import Tensor

from facegen.diffusion.denoiser import Clipped
from facegen.diffusion.discrete import Cosine, Discrete, Linear
from facegen.diffusion.sampler import DDIM, DDPM, DPMpp2M, Heun, Sampler
from facegen.diffusion.schedule import EDM, Schedule

ODE = {"ddim": DDIM, "dpmpp_2m": DPMpp2M, "heun": Heun}
SDE: dict[str, Callable[[int], Sampler]] = {
    "ddpm": DDPM,
    "ddim_eta_half": lambda n: DDIM(n, eta=0.5),
    "ddim_eta_1": lambda n: DDIM(n, eta=1.0),
}
every_schedule = pytest.mark.parametrize("name", SCHEDULES)


class Smooth:
    """A denoiser that is neither linear nor Gaussian, and leaves [-1, 1]."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        wave = torch.sin(t / self.schedule.last * 5).reshape(-1, 1, 1, 1)
        return 1.4 * torch.tanh(0.8 * x_t + 0.3 * x_t.roll(1, -1) + wave) + 0.1 * wave


def noises(*shape: int, seed: int = 0) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(
    ("sampler", "order", "name"),
    [("ddim", 1, "edm"), ("ddim", 1, "flow"), ("dpmpp_2m", 2, "edm"), *(("heun", 2, name) for name in SCHEDULES)],
)
def test_the_distance_from_the_exact_flow_falls_with_the_order_of_the_sampler(sampler: str, order: int, name: str) -> None:
    errors = [flow_error(ODE[sampler](steps), SCHEDULES[name]()) for steps in (40, 80, 160)]
    assert errors[-1] < (0.02 if order == 1 else 0.001)
    for coarse, fine in itertools.pairwise(errors):
        assert 0.85 * 2**order < coarse / fine < 1.25 * 2**order


@every_schedule
@pytest.mark.parametrize("sampler", [*ODE, *SDE])
def test_the_data_are_drawn_that_the_denoiser_knows(sampler: str, name: str) -> None:
    schedule, kind = SCHEDULES[name](), (ODE | SDE)[sampler]
    (_, few), (mean, std) = (moments(kind(steps), Ideal(schedule)) for steps in (20, 160))
    assert mean == pytest.approx(MEAN, abs=0.002)
    assert std == pytest.approx(STD, abs=0.01 if sampler in ("dpmpp_2m", "heun") else 0.035)
    assert abs(std - STD) < abs(few - STD) / 3


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("sampler", [*ODE, *SDE])
@every_schedule
def test_very_short_walks_are_finite(sampler: str, name: str, steps: int) -> None:
    assert all(map(math.isfinite, moments((ODE | SDE)[sampler](steps), Ideal(SCHEDULES[name]()))))


def test_a_walk_of_one_step_is_the_denoisers_answer_to_pure_noise() -> None:
    x, schedule = next(noises(2, 1, 3, 3)), Cosine()
    for sampler in (DDPM(1), DDIM(1), DPMpp2M(1), Heun(1)):
        assert sampler(Smooth(schedule), x).equal(Smooth(schedule)(x, double(999, 999)))


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), EDM()])
def test_ddim_with_all_its_noise_is_ddpm(schedule: Schedule) -> None:
    x, noise, same = next(noises(2, 1, 3, 3)) * schedule.prior_std(), noises(2, 1, 3, 3, seed=1), noises(2, 1, 3, 3, seed=1)
    theirs = DDPM(30)(Smooth(schedule), x, lambda: next(noise))
    torch.testing.assert_close(DDIM(30, eta=1.0)(Smooth(schedule), x, lambda: next(same)), theirs)


@pytest.mark.parametrize(("sampler", "calls"), [(DDPM(30), 30), (DDIM(30), 30), (DPMpp2M(30), 30), (Heun(30), 59)])
def test_the_network_is_asked_as_often_as_is_said(sampler: Sampler, calls: int) -> None:
    denoiser = Ideal(Linear())
    sampler(denoiser, torch.zeros(1, 1, 1, 1), lambda: torch.zeros(1, 1, 1, 1))
    assert denoiser.calls == calls


@pytest.mark.parametrize("sampler", [DDPM(20), DDIM(20), DPMpp2M(20), Heun(20)])
def test_a_watcher_sees_every_step_and_the_image_at_its_end(sampler: Sampler) -> None:
    seen, schedule, x = [], Linear(), next(noises(2, 1, 2, 2))
    image = sampler(Ideal(schedule), x, lambda: torch.zeros_like(x), lambda *step: seen.append(step))
    times = sampler.times(schedule)
    assert [i for i, _, _ in seen] == list(range(20))
    assert seen[0][1] is x
    assert seen[-1][2] is image
    for i, x_t, x_0 in seen:
        torch.testing.assert_close(x_0, Ideal(schedule)(x_t, times[i].expand(2)))


@pytest.mark.parametrize("sampler", [DDPM(10), DDIM(10, eta=0.5), DPMpp2M(10), Heun(10)])
def test_an_image_does_not_depend_on_those_beside_it(sampler: Sampler) -> None:
    x, noise = next(noises(4, 1, 3, 3)), [fresh for fresh, _ in zip(noises(4, 1, 3, 3, seed=1), range(10), strict=False)]
    together, alone = iter(noise), iter(noise)
    images = sampler(Smooth(Linear()), x, lambda: next(together))
    torch.testing.assert_close(images[2:3], sampler(Smooth(Linear()), x[2:3], lambda: next(alone)[2:3]))


def test_a_sampler_that_needs_noise_says_so() -> None:
    with pytest.raises(ValueError, match="give it draw"):
        DDPM(2)(Ideal(Linear()), torch.zeros(1, 1, 1, 1))


# Trajectories of diffusers, from the same denoiser, the same betas and the same noise.

RESPACED = [(Linear(), 1000), (Linear(), 50), (Cosine(), 1000), (Cosine(), 50), (Linear(200), 200), (Linear(200), 25), (Cosine(200), 40)]
respaced = pytest.mark.parametrize(("schedule", "steps"), RESPACED, ids=[f"{type(s).__name__}-{s.length}-{n}" for s, n in RESPACED])
clipped = pytest.mark.parametrize("clip", [False, True], ids=["free", "clipped"])


def in_double(kind: type, schedule: Discrete, steps: int, **options) -> object:
    """A scheduler of diffusers that computes in float64: in float32 its own rounding is what one would measure."""
    scheduler = kind(trained_betas=schedule.betas.tolist(), num_train_timesteps=schedule.length, timestep_spacing="trailing", **options)
    scheduler.betas, scheduler.one = schedule.betas, double(1)[0]
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    scheduler.final_alpha_cumprod = scheduler.one
    scheduler.set_timesteps(steps)
    return scheduler


def their_walk(scheduler, denoiser, x: Tensor, **options) -> list[Tensor]:
    """The images of a scheduler's walk, one after each step."""
    images = []
    for t in scheduler.timesteps:
        alpha_bar = scheduler.alphas_cumprod[t]
        eps = (x - alpha_bar.sqrt() * denoiser(x, t.expand(len(x)).double())) / (1 - alpha_bar).sqrt()
        x = scheduler.step(eps, t, x, **options).prev_sample
        images.append(x)
    return images


def our_walk(sampler: Sampler, denoiser, x: Tensor, draw: Callable[[], Tensor] | None = None) -> list[Tensor]:
    images = []
    last = sampler(denoiser, x, draw, lambda i, x_t, x_0: images.append(x_t))
    return [*images[1:], last]


def assert_same_walk(ours: list[Tensor], theirs: list[Tensor], atol: float) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=atol)


def noise_like_theirs(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Lets a scheduler draw the noise of `noises(..., seed=1)`."""
    noise = noises(2, 1, 3, 3, seed=1)
    monkeypatch.setattr(f"diffusers.schedulers.{module}.randn_tensor", lambda *_, **__: next(noise))


@respaced
@clipped
def test_ddpm_walks_as_in_diffusers(monkeypatch: pytest.MonkeyPatch, schedule: Discrete, steps: int, clip: bool) -> None:
    from diffusers import DDPMScheduler

    x, noise, denoiser = next(noises(2, 1, 3, 3)), noises(2, 1, 3, 3, seed=1), Smooth(schedule)
    ours = our_walk(DDPM(steps), Clipped(denoiser) if clip else denoiser, x, lambda: next(noise))
    noise_like_theirs(monkeypatch, "scheduling_ddpm")
    assert_same_walk(ours, their_walk(in_double(DDPMScheduler, schedule, steps, clip_sample=clip), denoiser, x), 1e-9)


@respaced
@clipped
@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_ddim_walks_as_in_diffusers(monkeypatch: pytest.MonkeyPatch, schedule: Discrete, steps: int, clip: bool, eta: float) -> None:
    from diffusers import DDIMScheduler

    x, noise, denoiser = next(noises(2, 1, 3, 3)), noises(2, 1, 3, 3, seed=1), Smooth(schedule)
    ours = our_walk(DDIM(steps, eta), Clipped(denoiser) if clip else denoiser, x, lambda: next(noise))
    noise_like_theirs(monkeypatch, "scheduling_ddim")
    theirs = in_double(DDIMScheduler, schedule, steps, clip_sample=clip)
    assert_same_walk(ours, their_walk(theirs, denoiser, x, eta=eta, use_clipped_model_output=clip), 1e-9)


@respaced
def test_dpmpp_2m_walks_as_in_diffusers(schedule: Discrete, steps: int) -> None:
    from diffusers import DPMSolverMultistepScheduler

    x, denoiser = next(noises(2, 1, 3, 3)), Smooth(schedule)
    theirs = in_double(DPMSolverMultistepScheduler, schedule, steps, solver_type="midpoint")
    theirs.sigmas = torch.cat([schedule.level(theirs.timesteps.double()), double(0)])  # float32 otherwise
    assert_same_walk(our_walk(DPMpp2M(steps), denoiser, x), their_walk(theirs, denoiser, x), 1e-5)  # it casts images to float32
