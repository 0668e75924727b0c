from __future__ import annotations

import itertools

import pytest
import torch
from gaussian import SCHEDULES, double
from torch import Tensor, nn

from facegen.diffusion.denoiser import PREDICTIONS, SIGMA_DATA, Clipped, Denoiser, Rescheduled
from facegen.diffusion.discrete import Cosine, Linear
from facegen.diffusion.schedule import EDM, Flow, Schedule
from facegen.errors import UserError

every_prediction = pytest.mark.parametrize("prediction", PREDICTIONS)
every_schedule = pytest.mark.parametrize("name", SCHEDULES)


def random_images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def levels_of(schedule: Schedule, prediction: str, count: int = 7) -> tuple[Tensor, Tensor]:
    """alpha and sigma at some times, without those where the prediction is not defined."""
    t = torch.linspace(schedule.first, schedule.last, count, dtype=torch.float64).reshape(-1, 1, 1, 1)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    defined = (alpha > 0).flatten() | (prediction != "noise")
    return alpha[defined], sigma[defined]


class Recorder(nn.Module):
    """A network that remembers what it was asked and answers with a smooth function of it."""

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        self.asked = x, t, condition
        return torch.tanh(x) + 0.1


@every_prediction
@every_schedule
def test_the_target_stands_for_the_clean_image(name: str, prediction: str) -> None:
    alpha, sigma = levels_of(SCHEDULES[name](), prediction)
    x_0, eps = random_images(len(alpha)), random_images(len(alpha), seed=1)
    raw = PREDICTIONS[prediction].target(x_0, eps, alpha, sigma)
    clean = PREDICTIONS[prediction].clean(alpha * x_0 + sigma * eps, raw, alpha, sigma)
    torch.testing.assert_close(clean, x_0, rtol=0, atol=1e-9)


@every_prediction
@every_schedule
def test_gain_is_how_the_clean_image_follows_the_network(name: str, prediction: str) -> None:
    alpha, sigma = levels_of(SCHEDULES[name](), prediction)
    raw = random_images(len(alpha)).requires_grad_()
    PREDICTIONS[prediction].clean(random_images(len(alpha), seed=1), raw, alpha, sigma).sum().backward()
    gain = PREDICTIONS[prediction].gain(alpha, sigma)
    torch.testing.assert_close(raw.grad.abs(), gain.expand_as(raw))


def test_edm_is_preconditioned_as_in_its_paper() -> None:
    schedule, s, network = EDM(), SIGMA_DATA, Recorder()
    sigma, x = double(0.002, 0.3, 5.0, 80.0), random_images(4)
    clean = Denoiser(network, schedule)(x, sigma)
    level = sigma.reshape(4, 1, 1, 1)
    c_skip, c_out = s**2 / (level**2 + s**2), level * s / (level**2 + s**2).sqrt()
    asked, c_noise, _ = network.asked
    torch.testing.assert_close(asked, x / (level**2 + s**2).sqrt())
    torch.testing.assert_close(c_noise, 1000 * sigma.log() / 4)
    torch.testing.assert_close(clean, c_skip * x + c_out * network(asked, c_noise))


@every_schedule
def test_edm_shows_the_network_unit_variance_and_wants_it_back_on_every_schedule(name: str) -> None:
    schedule, edm = SCHEDULES[name](), PREDICTIONS["edm"]
    alpha, sigma = levels_of(schedule, "edm")
    one, none = torch.ones_like(alpha), torch.zeros_like(alpha)
    scale = edm.scale_input(schedule, none, alpha, sigma)
    input_variance = (scale * alpha * SIGMA_DATA) ** 2 + (scale * sigma) ** 2
    by_image, by_noise = edm.target(one, none, alpha, sigma), edm.target(none, one, alpha, sigma)
    torch.testing.assert_close(input_variance, one)
    torch.testing.assert_close((by_image * SIGMA_DATA) ** 2 + by_noise**2, one)


def test_v_of_a_variance_preserving_schedule_is_that_of_salimans_and_ho() -> None:
    t = double(100, 500).reshape(2, 1, 1, 1)
    alpha, sigma, x, raw = Linear().alpha(t), Linear().sigma(t), random_images(2), random_images(2, seed=1)
    torch.testing.assert_close(PREDICTIONS["v"].clean(x, raw, alpha, sigma), alpha * x - sigma * raw)


@pytest.mark.parametrize("schedule", [Linear(beta_scaling="zero_snr"), Cosine(50, beta_scaling="zero_snr"), Flow()])
def test_noise_cannot_be_predicted_where_no_signal_is_left(schedule: Schedule) -> None:
    with pytest.raises(UserError, match=r"model\.prediction=noise cannot be inverted.*type model.prediction=v"):
        Denoiser(Recorder(), schedule, "noise")
    assert Denoiser(Recorder(), schedule, "v")(random_images(1), double(schedule.last)).isfinite().all()


def test_each_schedule_has_its_usual_prediction() -> None:
    usual = {type(schedule).__name__: Denoiser(Recorder(), schedule).prediction for schedule in (Linear(), EDM(), Flow())}
    assert usual == {"Linear": PREDICTIONS["noise"], "EDM": PREDICTIONS["edm"], "Flow": PREDICTIONS["flow"]}


def test_the_network_is_told_time_and_condition() -> None:
    network, condition = Recorder(), torch.eye(2)
    Denoiser(network, Flow(), "v")(random_images(2), double(0.1, 0.9), condition)
    _, time, told = network.asked
    torch.testing.assert_close(time, double(100, 900))
    assert told is condition


def test_a_network_in_lower_precision_answers_in_the_precision_it_was_asked() -> None:
    class Half(Recorder):
        def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
            return super().forward(x, t).bfloat16()

    assert Denoiser(Half(), EDM()).raw(random_images(1).float(), torch.tensor([1.0])).dtype == torch.float32


@pytest.mark.parametrize(
    ("inner", "outer", "prediction"),
    [
        (inner, outer, prediction)
        for inner, outer in itertools.permutations(["linear", "cosine", "edm", "flow"], 2)
        for prediction in PREDICTIONS
        if (inner, prediction) != ("flow", "noise")
    ],
)
def test_the_same_image_at_the_same_level_is_cleaned_the_same_from_any_schedule(inner: str, outer: str, prediction: str) -> None:
    own, other = SCHEDULES[inner](), SCHEDULES[outer]()
    denoiser = Denoiser(Recorder(), own, prediction)
    level, x_0, eps = double(0.05, 0.5, 2, 40), random_images(4), random_images(4, seed=1)

    def noised(schedule: Schedule) -> tuple[Tensor, Tensor]:
        t = schedule.time_of(level)
        return schedule.alpha(t).reshape(4, 1, 1, 1) * x_0 + schedule.sigma(t).reshape(4, 1, 1, 1) * eps, t

    torch.testing.assert_close(Rescheduled(denoiser, other)(*noised(other)), denoiser(*noised(own)))


@pytest.mark.parametrize("outer", ["linear", "cosine", "linear_zero_snr", "flow"])
def test_noise_beyond_a_schedules_last_level_is_shown_at_that_level(outer: str) -> None:
    network, other, noise = Recorder(), SCHEDULES[outer](), random_images(1)
    Rescheduled(Denoiser(network, EDM()), other)(noise, double(other.last))
    torch.testing.assert_close(network.asked[0], noise * 80 / (80**2 + SIGMA_DATA**2) ** 0.5, rtol=1e-4, atol=0)
    torch.testing.assert_close(network.asked[1], EDM().embedding(double(80)))


def test_clipping_keeps_images_within_the_limit_and_leaves_the_rest() -> None:
    denoiser = Denoiser(Recorder(), Flow(), "image")
    x, t = 3 * random_images(2), double(0.2, 0.7)
    clipped = Clipped(denoiser, 0.5)
    assert clipped.schedule is denoiser.schedule
    torch.testing.assert_close(clipped(x, t), denoiser(x, t).clamp(-0.5, 0.5))
    assert clipped(x, t).abs().max() == 0.5
