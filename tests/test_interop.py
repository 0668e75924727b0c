from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from gaussian import MEAN, SCHEDULES, STD, Ideal, double, moments
from torch import Tensor

from facegen.diffusion.denoiser import Clipped
from facegen.diffusion.discrete import Linear
from facegen.diffusion.sampler import DDIM, DDPM, DPMpp2M
from facegen.diffusion.schedule import EDM, Schedule
from facegen.errors import UserError
from facegen.interop import DiffusersSampler

SHIPPED = [
    path
    for path in sorted(Path(__file__).parent.parent.glob("conf/sampler/*.yaml"))
    if yaml.safe_load(path.read_text())["_target_"] == "facegen.interop.DiffusersSampler"
]
# The scheduler, and how far from the data's its standard deviation may be after 50 steps.
SCHEDULERS = {
    "DDIMScheduler": 0.05,
    "DDIMParallelScheduler": 0.05,
    "DDPMScheduler": 0.07,
    "DDPMParallelScheduler": 0.07,
    "DEISMultistepScheduler": 0.01,
    "DPMSolverMultistepScheduler": 0.01,
    "DPMSolverSinglestepScheduler": 0.04,
    "EulerAncestralDiscreteScheduler": 0.07,
    "EulerDiscreteScheduler": 0.05,
    "HeunDiscreteScheduler": 0.01,
    "KDPM2AncestralDiscreteScheduler": 0.01,
    "KDPM2DiscreteScheduler": 0.01,
    "LMSDiscreteScheduler": 0.005,
    "PNDMScheduler": 0.005,
    "SASolverScheduler": 0.02,
    "TCDScheduler": 0.08,
    "UniPCMultistepScheduler": 0.01,
}
EVERYWHERE = [
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
]
STOCHASTIC = ["DDPMScheduler", "EulerAncestralDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "LCMScheduler", "TCDScheduler"]


class Smooth:
    """A denoiser that is neither linear nor Gaussian, and leaves [-1, 1]."""

    schedule = Linear()

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        return 1.4 * torch.tanh(0.8 * x_t + 0.3 * x_t.roll(1, -1) + torch.sin(t / 200).reshape(-1, 1, 1, 1))


def noises(count: int = 2, seed: int = 0) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(count, 1, 3, 3, generator=generator)


@pytest.mark.parametrize(
    ("scheduler", "name"),
    [(scheduler, name) for scheduler in SCHEDULERS for name in (SCHEDULES if scheduler in EVERYWHERE else ("linear", "edm"))],
)
def test_every_scheduler_draws_the_data(scheduler: str, name: str) -> None:
    schedule = SCHEDULES[name]()
    mean, std = moments(DiffusersSampler(scheduler, 50), Ideal(schedule))
    last_guess = STD**2 / math.hypot(STD, schedule.level(schedule.grid(50)[-1]).item())  # which ends the walk, from a level above 0
    assert mean == pytest.approx(MEAN, abs=0.003)
    assert last_guess - SCHEDULERS[scheduler] < std < STD + SCHEDULERS[scheduler]


ROUNDING = ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler", "EulerDiscreteScheduler"]


class Listening(Ideal):
    """The ideal denoiser, which notes the noise levels it is asked about."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule)
        self.levels: list[float] = []

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.levels.append(self.schedule.level(t[0].double()).item())
        return super().__call__(x_t, t)


@pytest.mark.parametrize("scheduler", ROUNDING)
def test_levels_between_the_times_of_a_schedule_are_asked_for_exactly(scheduler: str) -> None:
    denoiser = Listening(Linear(100))
    mean, _ = moments(DiffusersSampler(scheduler, 50, {"use_karras_sigmas": True}), denoiser)
    top, bottom = denoiser.schedule.level(double(99)).item() ** (1 / 7), denoiser.levels[-1] ** (1 / 7)
    assert denoiser.levels == pytest.approx([(top + i / 49 * (bottom - top)) ** 7 for i in range(50)], rel=1e-3)
    assert mean == pytest.approx(MEAN, abs=0.003)


@pytest.mark.parametrize("scheduler", ROUNDING)
def test_a_walk_begins_at_the_first_of_two_timesteps_that_are_rounded_alike(scheduler: str) -> None:
    denoiser = Listening(Linear(200))
    DiffusersSampler(scheduler, 200, {"use_karras_sigmas": True})(denoiser, next(noises()))
    assert denoiser.levels[0] == pytest.approx(denoiser.schedule.level(double(199)).item(), rel=1e-3)
    assert len(set(denoiser.levels)) == 200


@pytest.mark.parametrize("scheduler", [*SCHEDULERS, "LCMScheduler"])
def test_a_walk_ends_at_the_clean_image(scheduler: str) -> None:
    known = next(noises(seed=3))

    class Certain:
        schedule = Linear()

        def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
            return known

    noise = noises(seed=1)
    image = DiffusersSampler(scheduler, 50)(Certain(), next(noises()), lambda: next(noise))
    stops_short = scheduler in ("DEISMultistepScheduler", "SASolverScheduler", "TCDScheduler")  # at the schedule's first level, 0.01
    torch.testing.assert_close(image, known, rtol=0, atol=0.03 if stops_short else 1e-3)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (DDPM(50), DiffusersSampler("DDPMScheduler", 50)),
        (DDIM(50), DiffusersSampler("DDIMScheduler", 50)),
        (DDIM(50, eta=0.5), DiffusersSampler("DDIMScheduler", 50, {"eta": 0.5})),
        (DDIM(50), DiffusersSampler("EulerDiscreteScheduler", 50)),
        (DDPM(50), DiffusersSampler("EulerAncestralDiscreteScheduler", 50)),
        (DPMpp2M(50), DiffusersSampler("DPMSolverMultistepScheduler", 50)),
    ],
    ids=["ddpm", "ddim", "ddim_eta", "euler_is_ddim", "euler_ancestral_is_ddpm", "dpmpp_2m"],
)
def test_a_sampler_of_ours_and_its_namesake_walk_alike(ours, theirs) -> None:
    x, first, second = next(noises()), noises(seed=1), noises(seed=1)
    image = ours(Smooth(), x, lambda: next(first))
    torch.testing.assert_close(theirs(Smooth(), x, lambda: next(second)), image, rtol=0, atol=1e-4)


@pytest.mark.parametrize("scheduler", STOCHASTIC)
def test_an_image_does_not_depend_on_those_beside_it(scheduler: str) -> None:
    sampler, x, noise = DiffusersSampler(scheduler, 10), next(noises(4)), noises(4, seed=1)
    drawn = [next(noise) for _ in range(20)]
    together, alone, other = iter(drawn), iter(drawn), noises(1, seed=2)
    images = sampler(Smooth(), x, lambda: next(together))
    torch.testing.assert_close(images[2:3], sampler(Smooth(), x[2:3], lambda: next(alone)[2:3]))
    assert (images[2:3] - sampler(Smooth(), x[2:3], lambda: next(other))).abs().max() > 0.01


@pytest.mark.parametrize("scheduler", STOCHASTIC)
def test_all_noise_is_asked_for_and_none_taken_from_torch(scheduler: str) -> None:
    sampler, before = DiffusersSampler(scheduler, 4), torch.get_rng_state()
    sampler(Smooth(), next(noises()), lambda: torch.zeros(2, 1, 3, 3))
    assert torch.get_rng_state().equal(before)
    assert torch.randn(2).any()  # and torch draws again as it did
    with pytest.raises(ValueError, match="give it draw"):
        sampler(Smooth(), next(noises()))


@pytest.mark.parametrize("scheduler", ["PNDMScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "UniPCMultistepScheduler"])
def test_a_watcher_sees_as_many_steps_as_were_asked_for(scheduler: str) -> None:
    seen = []
    for schedule in (Linear(), EDM()):
        x = next(noises()) * schedule.prior_std()
        DiffusersSampler(scheduler, 12)(Ideal(schedule), x, watch=lambda *step: seen.append(step))
        assert [i for i, _, _ in seen] == list(range(12))
        assert 0.5 < seen[0][1].std() < 2
        torch.testing.assert_close(seen[0][1], x / schedule.prior_std(), rtol=0, atol=1e-4)
        seen.clear()


def test_a_clipped_denoiser_draws_within_its_limit() -> None:
    images = DiffusersSampler("UniPCMultistepScheduler", 10)(Clipped(Ideal(EDM()), 0.2), 80 * next(noises()))
    assert images.abs().max() <= 0.2 + 1e-5


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_every_shipped_choice_of_a_scheduler_exists(path: Path) -> None:
    options = yaml.safe_load(path.read_text())
    del options["_target_"]
    assert DiffusersSampler(**options).steps == 50


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ("DDIMSheduler", r"must be a scheduler class of diffusers; got DDIMSheduler \(did you mean 'DDIMScheduler'\?\)"),
        ("UNet2DModel", "must be a scheduler class of diffusers"),
        ("__import__", "must be a scheduler class of diffusers"),
        ("FlowMatchEulerDiscreteScheduler", "does not walk by betas.*UniPCMultistepScheduler"),
        ("EDMEulerScheduler", "does not walk by betas"),
        ("IPNDMScheduler", "does not walk by betas"),
        ("ScoreSdeVeScheduler", "does not walk by betas"),
        ("RePaintScheduler", "does not walk by betas"),
        ("DPMSolverSDEScheduler", "does not walk by betas|needs a package"),
        ("DDIMInverseScheduler", "walks from image to noise"),
        ("CogVideoXDDIMScheduler", "leaves the schedule that the model knows"),
    ],
)
def test_a_scheduler_that_cannot_work_is_refused_at_once(scheduler: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DiffusersSampler(scheduler)


@pytest.mark.parametrize(
    ("scheduler", "options", "message"),
    [
        (
            "DDIMScheduler",
            {"etta": 0.5},
            r"sampler\.options\.etta is not an option of DDIMScheduler \(did you mean 'eta'\?\); it has: .*eta",
        ),
        ("DDIMScheduler", {"trained_betas": [0.1]}, "trained_betas is not an option"),
        ("DDIMScheduler", {"generator": 1}, "generator is not an option"),
        ("DDIMScheduler", {"rescale_betas_zero_snr": True}, "leaves the schedule that the model knows"),
        ("UniPCMultistepScheduler", {"use_flow_sigmas": True}, "leaves the schedule that the model knows"),
        ("DDIMScheduler", {"timestep_spacing": "sideways"}, "do not suit DDIMScheduler, which says: sideways"),
        ("DEISMultistepScheduler", {"algorithm_type": "magic"}, "do not suit DEISMultistepScheduler, which says: magic"),
    ],
)
def test_an_option_that_cannot_work_is_refused_at_once(scheduler: str, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        DiffusersSampler(scheduler, options=options)
    assert "\n" not in str(caught.value)


def test_numbers_of_steps_that_cannot_be_walked_are_refused() -> None:
    with pytest.raises(UserError, match=r"sampler\.steps=60 do not suit LCMScheduler"):
        DiffusersSampler("LCMScheduler", 60)
    with pytest.raises(UserError, match=r"sampler\.steps=61 leads LMSDiscreteScheduler below time 0; type sampler\.steps=50"):
        DiffusersSampler("LMSDiscreteScheduler", 61)
    with pytest.raises(UserError, match=r"sampler\.steps must be 1 to 200"):
        DiffusersSampler("LMSDiscreteScheduler", 250)(Ideal(Linear(200)), next(noises()))


def test_diffusers_is_imported_when_a_scheduler_is_named_and_not_before() -> None:
    check = "import sys, facegen.interop; print('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.strip() == "False"
