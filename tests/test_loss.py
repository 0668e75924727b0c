from __future__ import annotations

import pytest
import torch
from gaussian import MEAN, SCHEDULES, STD, Ideal, double
from torch import Tensor, nn
from torch.nn import functional as F

from facegen.diffusion.denoiser import PREDICTIONS, Denoiser
from facegen.diffusion.discrete import Cosine, Linear
from facegen.diffusion.loss import WEIGHTINGS, clean_loss, diffusion_loss
from facegen.diffusion.schedule import EDM, Flow
from facegen.diffusion.times import LogNormalTimes, StratifiedTimes, UniformTimes
from facegen.errors import UserError


class Affine(nn.Module):
    """A network of two numbers, which remembers its input: enough to be the best denoiser of Gaussian data at one noise level."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.offset = (nn.Parameter(double(value)) for value in (0.7, 0.1))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        self.asked = x, condition
        return self.slope * x + self.offset


def images(count: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def times(schedule: Linear, count: int = 6) -> Tensor:
    return torch.linspace(schedule.first, schedule.last - 1, count, dtype=torch.float64).round()


@pytest.mark.parametrize(
    ("prediction", "weighting", "weight"),
    [
        ("noise", "min_snr", lambda snr: snr.clamp(max=5) / snr),
        ("v", "min_snr", lambda snr: snr.clamp(max=5) / (snr + 1)),
        ("image", "min_snr", lambda snr: snr.clamp(max=5)),
        ("noise", "p2", lambda snr: 1 / (1 + snr)),  # Choi et al. 2022, eq. 8
        ("edm", "uniform", lambda snr: torch.ones_like(snr)),
        ("edm", "edm", lambda snr: torch.ones_like(snr)),
        ("noise", "uniform", lambda snr: torch.ones_like(snr)),
    ],
)
@pytest.mark.parametrize("schedule", [Linear(), Cosine(200)], ids=["linear", "cosine"])
def test_weightings_are_the_formulas_of_their_papers(schedule: Linear, prediction: str, weighting: str, weight) -> None:
    denoiser, x_0, eps, t = Denoiser(Affine(), schedule, prediction), images(), images(seed=1), times(schedule)
    losses = diffusion_loss(denoiser, x_0, eps, t, weighting=weighting)
    plain = diffusion_loss(denoiser, x_0, eps, t)
    torch.testing.assert_close(losses, plain * weight((schedule.alpha(t) / schedule.sigma(t)) ** 2))


def test_edm_weighting_of_the_edm_prediction_is_one_on_its_own_schedule() -> None:
    denoiser, t = Denoiser(Affine(), EDM()), double(0.002, 0.1, 1, 10, 80, 40)
    weighted, plain = (diffusion_loss(denoiser, images(), images(seed=1), t, weighting=name) for name in ("edm", "uniform"))
    torch.testing.assert_close(weighted, plain)


@pytest.mark.parametrize("weighting", [name for name, weight in WEIGHTINGS.items() if weight])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_weighting_means_the_same_error_of_the_image_whatever_is_predicted(prediction: str, weighting: str) -> None:
    schedule, x_0, eps = Linear(), images(), images(seed=1)
    denoiser, t = Denoiser(Affine(), schedule, prediction), times(schedule)
    alpha, sigma = denoiser.coefficients(t, x_0)
    squared = (denoiser(alpha * x_0 + sigma * eps, t) - x_0).square().flatten(1).mean(1)
    losses = diffusion_loss(denoiser, x_0, eps, t, weighting=weighting)
    torch.testing.assert_close(losses, squared * WEIGHTINGS[weighting]((alpha / sigma).flatten() ** 2))


@pytest.mark.parametrize(("error", "theirs"), [("mse", F.mse_loss), ("l1", F.l1_loss), ("huber", F.huber_loss)])
def test_errors_are_those_of_torch(error: str, theirs) -> None:
    network, schedule, x_0, eps = Affine(), Linear(), images(), images(seed=1)
    t = times(schedule)
    losses = diffusion_loss(Denoiser(network, schedule), x_0, eps, t, error=error)
    raw = network(network.asked[0], t)
    torch.testing.assert_close(losses.mean(), theirs(raw, eps))


def test_perturbation_changes_what_is_seen_and_not_what_is_wanted() -> None:
    network, schedule, x_0, eps, extra = Affine(), Linear(), images(), images(seed=1), 0.1 * images(seed=2)
    denoiser, t = Denoiser(network, schedule), times(schedule)
    losses = diffusion_loss(denoiser, x_0, eps, t, perturbation=extra)
    alpha, sigma = denoiser.coefficients(t, x_0)
    seen = network.asked[0]
    torch.testing.assert_close(seen, alpha * x_0 + sigma * (eps + extra))
    torch.testing.assert_close(losses, (network(seen, t) - eps).square().flatten(1).mean(1))


def test_the_network_is_told_the_condition() -> None:
    network, condition = Affine(), torch.eye(6)
    diffusion_loss(Denoiser(network, Linear()), images(), images(seed=1), times(Linear()), told=(condition,))
    assert network.asked[1] is condition


def balanced(mean: float = 0.0, std: float = 1.0) -> tuple[Tensor, Tensor]:
    """Four pixels and their noise with exactly the moments of independent Gaussians, (4, 1, 1, 1) each."""
    x_0, eps = double(1, 1, -1, -1), double(1, -1, 1, -1)
    return (mean + std * x_0).reshape(4, 1, 1, 1), eps.reshape(4, 1, 1, 1)


@pytest.mark.parametrize("weighting", ["uniform", "edm"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("level", [0.1, 1.0, 10.0])
def test_training_ends_at_the_best_denoiser_there_is(prediction: str, weighting: str, level: float) -> None:
    schedule, (x_0, eps) = Linear(), balanced(MEAN, STD)
    denoiser, t = Denoiser(Affine(), schedule, prediction).double(), schedule.time_of(double(level)).expand(4)
    optimizer = torch.optim.LBFGS(denoiser.parameters(), max_iter=100, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = diffusion_loss(denoiser, x_0, eps, t, weighting=weighting).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    x_t = torch.linspace(-2, 2, 4, dtype=torch.float64).reshape(4, 1, 1, 1)
    torch.testing.assert_close(denoiser(x_t, t), Ideal(schedule)(x_t, t), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("level", [0.05, 0.5, 5.0])
def test_the_clean_loss_is_one_where_nothing_but_the_scale_of_the_data_is_known(name: str, level: float) -> None:
    class BestLinear(nn.Module):
        def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
            return torch.zeros_like(x)  # what is left of the edm prediction is the best linear guess for data of its own scale

    schedule, (x_0, eps) = SCHEDULES[name](), balanced(std=0.5)
    t = schedule.time_of(double(level)).expand(4)
    assert clean_loss(Denoiser(BestLinear(), schedule, "edm"), x_0, eps, t).mean().item() == pytest.approx(1)


@pytest.mark.parametrize("schedule", [Linear(), EDM(), Flow()])
def test_stratified_times_are_one_from_each_part(schedule: Linear) -> None:
    u = torch.rand(100, generator=torch.Generator().manual_seed(0))
    t = StratifiedTimes()(schedule, u)
    edges = schedule.at(torch.arange(101) / 100)
    assert ((t >= edges[:-1]) & (t <= edges[1:])).all()
    assert (t != StratifiedTimes()(schedule, u.flip(0))).any()


def test_times_never_leave_the_schedule() -> None:
    ends = torch.tensor([0.0, 1 - 2**-24] * 4)
    for schedule in (Linear(), Cosine(50), EDM(), Flow()):
        for rule in (UniformTimes(), StratifiedTimes(), LogNormalTimes(), LogNormalTimes(0, 3)):
            t = rule(schedule, ends)
            assert (t >= schedule.first).all()
            assert (t <= torch.tensor(schedule.last)).all()


@pytest.mark.parametrize("schedule", [Linear(), EDM(), Flow()])
def test_log_normal_times_have_the_quantiles_of_the_normal_distribution(schedule: Linear) -> None:
    t = LogNormalTimes(-0.8, 1.1)(schedule, double(0.5, 0.841344746, 0.158655254, 0.977249868))
    torch.testing.assert_close(schedule.level(t).log(), double(-0.8, -0.8 + 1.1, -0.8 - 1.1, -0.8 + 2.2), rtol=1e-6, atol=1e-6)


def test_a_log_normal_without_width_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.times\.std must be above 0; got 0"):
        LogNormalTimes(std=0)
