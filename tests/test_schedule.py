from __future__ import annotations

import math

import pytest
import torch
from gaussian import SCHEDULES, double
from torch import Tensor

from facegen.diffusion.discrete import PURE_NOISE, Cosine, Discrete, Linear, Quadratic, ScaledLinear, Sigmoid
from facegen.diffusion.schedule import EDM, ENDLESS, KARRAS_TOP, Flow, Schedule
from facegen.errors import UserError

DISCRETE = {"linear": Linear, "scaled_linear": ScaledLinear, "cosine": Cosine, "quadratic": Quadratic, "sigmoid": Sigmoid}
every_schedule = pytest.mark.parametrize("name", SCHEDULES)
every_discrete = pytest.mark.parametrize("name", DISCRETE)


def inside(schedule: Schedule, count: int = 501) -> Tensor:
    return torch.linspace(schedule.first, schedule.last, count, dtype=torch.float64)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Linear(beta_scaling="none"), {"beta_schedule": "linear"}),
        (Linear(200, beta_scaling="none"), {"beta_schedule": "linear"}),
        (ScaledLinear(beta_scaling="none"), {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
        (Quadratic(beta_scaling="none"), {"beta_schedule": "scaled_linear"}),
        (Cosine(), {"beta_schedule": "squaredcos_cap_v2"}),
        (Cosine(200), {"beta_schedule": "squaredcos_cap_v2"}),
        (Sigmoid(beta_scaling="none"), {"beta_schedule": "sigmoid"}),
    ],
)
def test_betas_are_those_of_diffusers(ours: Discrete, theirs: dict) -> None:
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(num_train_timesteps=ours.length, **theirs)
    torch.testing.assert_close(ours.betas.float(), theirs.betas, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("schedule", "left"),
    [(Linear(200, beta_scaling="none"), 0.36), (Linear(100, beta_scaling="none"), 0.60), (Quadratic(200, beta_scaling="none"), 0.49)],
)
def test_unscaled_betas_leave_the_signal_that_report_4_started_from(schedule: Discrete, left: float) -> None:
    assert schedule.leftover() == pytest.approx(left, abs=0.005)


@every_discrete
@pytest.mark.parametrize("steps", [20, 50, 100, 200, 1000, 4000])
def test_pure_noise_is_reached_at_any_number_of_steps(name: str, steps: int) -> None:
    schedule = DISCRETE[name](steps)
    assert 0 < schedule.leftover() < PURE_NOISE + 1e-9
    assert ((schedule.betas > 0) & (schedule.betas < 1)).all()


@every_discrete
@pytest.mark.parametrize("steps", [20, 200, 1000])
def test_zero_snr_leaves_no_signal_and_the_rest_of_the_curve(name: str, steps: int) -> None:
    schedule, scaled = DISCRETE[name](steps, beta_scaling="zero_snr"), DISCRETE[name](steps)
    times = torch.arange(steps, dtype=torch.float64)
    assert schedule.leftover() == 0
    assert schedule.sigma(times[-1]) == 1
    assert schedule.betas[-1] == 1
    torch.testing.assert_close(schedule.betas[0], scaled.betas[0])
    torch.testing.assert_close(schedule.alpha(times), scaled.alpha(times), rtol=0, atol=2 * PURE_NOISE)


@pytest.mark.parametrize("kind", [Linear, Sigmoid])
def test_a_thousand_steps_are_not_scaled(kind: type[Discrete]) -> None:
    torch.testing.assert_close(kind(1000).betas, kind(1000, beta_scaling="none").betas, rtol=0, atol=0)


@every_schedule
def test_the_noise_level_rises_with_time_and_time_of_inverts_it(name: str) -> None:
    schedule = SCHEDULES[name]()
    times = inside(schedule)
    levels = schedule.level(times)
    assert (levels.diff() > 0).all()
    finite = levels.isfinite()
    torch.testing.assert_close(schedule.time_of(levels)[finite], times[finite], rtol=1e-9, atol=1e-9)


@every_schedule
def test_a_level_outside_the_schedule_has_its_nearest_time(name: str) -> None:
    schedule = SCHEDULES[name]()
    assert schedule.time_of(double(0.0, 1e-9, math.inf)).tolist() == [schedule.first, schedule.first, schedule.last]


@every_schedule
def test_float32_times_see_the_schedule_of_float64(name: str) -> None:
    schedule = SCHEDULES[name]()
    times = inside(schedule)
    for coefficient in (schedule.alpha, schedule.sigma):
        torch.testing.assert_close(coefficient(times.float()).double(), coefficient(times.float().double()), rtol=1e-4, atol=1e-7)


@every_discrete
def test_whole_times_are_the_table_of_betas(name: str) -> None:
    schedule = DISCRETE[name](300)
    times, alpha_bar = torch.arange(300, dtype=torch.float64), (1 - schedule.betas).cumprod(0)
    torch.testing.assert_close(schedule.alpha(times) ** 2, alpha_bar, rtol=1e-9, atol=0)
    torch.testing.assert_close(schedule.sigma(times) ** 2, 1 - alpha_bar, rtol=1e-9, atol=0)
    half_way = schedule.level(times[:-1] + 0.5)
    torch.testing.assert_close(half_way**2, schedule.level(times[:-1]) * schedule.level(times[1:]))


@every_discrete
@pytest.mark.parametrize("scaling", ["none", "steps", "zero_snr"])
def test_discrete_schedules_preserve_variance(name: str, scaling: str) -> None:
    schedule = DISCRETE[name](200, beta_scaling=scaling)
    times = inside(schedule, 1001)
    torch.testing.assert_close(schedule.alpha(times) ** 2 + schedule.sigma(times) ** 2, torch.ones_like(times), rtol=0, atol=1e-12)


def test_edm_adds_noise_to_an_untouched_image() -> None:
    schedule, t = EDM(), double(0.002, 0.5, 80.0)
    assert schedule.alpha(t).tolist() == [1, 1, 1]
    assert schedule.sigma(t).tolist() == schedule.level(t).tolist() == t.tolist()
    assert schedule.prior_std() == 80
    assert schedule.leftover() == 1 / 80
    torch.testing.assert_close(schedule.embedding(t), 1000 * t.log() / 4)  # c_noise, a thousandfold
    torch.testing.assert_close(schedule.at(double(0, 0.5, 1)), double(0.002, 0.4, 80.0))


def test_flow_is_the_straight_line_from_image_to_noise() -> None:
    schedule, t = Flow(), double(0.001, 0.25, 0.5, 1.0)
    torch.testing.assert_close(schedule.alpha(t), 1 - t)
    torch.testing.assert_close(schedule.sigma(t), t)
    assert schedule.leftover() == 0
    assert schedule.level(double(0.5, 1.0)).tolist() == [1, math.inf]
    assert schedule.grid(4).tolist() == [1, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("steps", [20, 200, 1000, 1025, 4000])
def test_training_times_are_all_the_steps_equally_often(steps: int) -> None:
    u = (torch.arange(3 * steps) + 0.5) / (3 * steps)
    assert Linear(steps).at(u).long().bincount().tolist() == [3] * steps
    assert Linear(steps).at(torch.tensor([1 - 2**-24, 1.0])).tolist() == [steps - 1, steps - 1]


@every_discrete
@pytest.mark.parametrize("steps", [37, 200])
def test_a_walk_of_any_length_visits_descending_trained_times(name: str, steps: int) -> None:
    schedule = DISCRETE[name](steps)
    for count in range(1, steps + 1):
        grid = schedule.grid(count)
        assert len(grid) == count
        assert grid[0] == schedule.last
        assert grid[-1] >= schedule.first
        assert (grid.diff() < 0).all()
        assert (grid == grid.round()).all()


@pytest.mark.parametrize("steps", [1, 3, 7, 30, 64, 150])
def test_a_walk_visits_the_trailing_timesteps_of_diffusers(steps: int) -> None:
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(num_train_timesteps=200, timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    assert Linear(200).grid(steps).tolist() == theirs.timesteps.tolist()


@every_schedule
@pytest.mark.parametrize("steps", [1, 2, 5, 18, 100])
def test_a_karras_walk_descends_from_the_last_time_and_ends_near_the_first(name: str, steps: int) -> None:
    schedule = SCHEDULES[name]()
    grid = schedule.karras(steps)
    assert len(grid) == steps
    assert grid[0] == pytest.approx(schedule.last)
    assert (grid.diff() < 0).all()
    assert grid[-1] >= schedule.first
    if steps > 2:
        assert schedule.level(grid[-1]).item() == pytest.approx(max(2e-3, schedule.level(double(schedule.first)).item()))


@every_discrete
@pytest.mark.parametrize("steps", [20, 50, 100])
def test_a_karras_walk_descends_on_short_schedules_without_signal(name: str, steps: int) -> None:
    assert (DISCRETE[name](steps, beta_scaling="zero_snr").karras(18).diff() < 0).all()


def test_karras_levels_are_those_of_the_paper() -> None:
    levels = EDM().level(EDM().karras(18, rho=7))
    wanted = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    torch.testing.assert_close(levels, double(*wanted))


@pytest.mark.parametrize("name", ["cosine", "linear_zero_snr", "flow"])
def test_one_karras_step_leads_from_an_endless_level_to_a_finite_one(name: str) -> None:
    levels = SCHEDULES[name]().level(SCHEDULES[name]().karras(18))
    assert levels[0] > ENDLESS
    assert levels[1].item() == pytest.approx(KARRAS_TOP)


@pytest.mark.parametrize("steps", [0, 201, -5])
def test_more_steps_than_the_schedule_has_are_refused(steps: int) -> None:
    with pytest.raises(UserError, match=rf"sampler\.steps must be 1 to 200.*got {steps}; type sampler.steps=50"):
        Linear(200).grid(steps)


@every_discrete
@pytest.mark.parametrize("scaling", ["none", "steps", "zero_snr"])
def test_a_schedule_of_one_step_is_refused(name: str, scaling: str) -> None:
    with pytest.raises(UserError, match=r"scheduler\.steps must be at least 2; got 1"):
        DISCRETE[name](1, beta_scaling=scaling)


def test_an_edm_schedule_upside_down_is_refused() -> None:
    with pytest.raises(UserError, match=r"scheduler\.sigma_min must be below"):
        EDM(sigma_min=2, sigma_max=1)
