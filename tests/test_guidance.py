"""Guidance against a mixture of Gaussians whose classes are known: what it does can be said in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from facegen.codecs import Pixels
from facegen.diffusion.discrete import Cosine, Linear
from facegen.diffusion.guidance import Guidance, Guided, Told
from facegen.diffusion.sampler import DDIM, Heun, Sampler
from facegen.diffusion.schedule import EDM, Schedule
from facegen.generate import generate

MEANS, STD, PRIOR = torch.tensor([-0.8, 0.0, 0.7], dtype=torch.float64), 0.05, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
NOTHING = torch.full((3,), math.nan, dtype=torch.float64)


class Mixture:
    """E[x_0 | x_t] for pixels that are all of one class k, N(MEANS[k], STD^2): told weights of the classes, or nothing (then PRIOR)."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.asked: list[int] = []

    def __call__(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        assert condition is not None
        self.asked.append(len(x_t))
        weights = torch.where(condition.isnan(), PRIOR, condition)
        alpha, sigma = (self.schedule.alpha(t)[:, None, None], self.schedule.sigma(t)[:, None, None])
        x, means = x_t.flatten(1)[:, None], MEANS[None, :, None]
        variance = alpha**2 * STD**2 + sigma**2
        logs = -((x - alpha * means) ** 2 / variance / 2).sum(dim=2) + weights.clamp(min=1e-30).log()
        each = means + alpha * STD**2 / variance * (x - alpha * means)
        return (logs.softmax(dim=1)[:, :, None] * each).sum(dim=1).reshape(x_t.shape)


def one_hot(*classes: int) -> Tensor:
    return torch.eye(3, dtype=torch.float64)[list(classes)]


def told(*parts: tuple[float, Tensor], count: int = 1) -> Told:
    """Every image is told the same: conditions (K,) with their shares."""
    shares = torch.tensor([share for share, _ in parts], dtype=torch.float64)
    return Told(torch.stack([part for _, part in parts]).expand(count, -1, -1), shares.expand(count, -1))


def noisy(schedule: Schedule, level: float = 1.0, count: int = 4) -> tuple[Tensor, Tensor]:
    t = schedule.time_of(torch.tensor(level, dtype=torch.float64)).expand(count)
    return torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), t


def ask(denoiser: Mixture, parts: Told, guidance: Guidance, x: Tensor, t: Tensor, steps: int = 10) -> Tensor:
    levels = denoiser.schedule.level(DDIM(steps).times(denoiser.schedule))
    return Guided(denoiser, parts, guidance, levels)(x, t)


@pytest.fixture(params=[EDM, Cosine, Linear], ids=lambda kind: kind.__name__)
def mixture(request: pytest.FixtureRequest) -> Mixture:
    return Mixture(request.param())


def test_guidance_1_is_no_guidance_to_the_bit_and_asks_once(mixture: Mixture) -> None:
    x, t = noisy(mixture.schedule)
    plain = mixture(x, t, one_hot(1, 1, 1, 1))
    assert torch.equal(ask(mixture, told((1.0, one_hot(1)[0]), count=4), Guidance(), x, t), plain)
    assert mixture.asked == [4, 4]


def test_guidance_0_is_what_is_drawn_unasked(mixture: Mixture) -> None:
    x, t = noisy(mixture.schedule)
    unasked = mixture(x, t, NOTHING.expand(4, -1))
    assert torch.equal(ask(mixture, told((1.0, one_hot(2)[0]), count=4), Guidance(weight=0), x, t), unasked)


def test_both_halves_are_asked_in_one_call(mixture: Mixture) -> None:
    x, t = noisy(mixture.schedule)
    ask(mixture, told((1.0, one_hot(1)[0]), count=4), Guidance(weight=3), x, t)
    assert mixture.asked == [8]


def test_guiding_clean_images_is_guiding_noise_predictions(mixture: Mixture) -> None:
    x, t = noisy(mixture.schedule)
    alpha, sigma = mixture.schedule.alpha(t)[:, None, None, None], mixture.schedule.sigma(t)[:, None, None, None]

    def noise(condition: Tensor) -> Tensor:
        return (x - alpha * mixture(x, t, condition)) / sigma

    unasked, asked = noise(NOTHING.expand(4, -1)), noise(one_hot(2, 2, 2, 2))
    guided = ask(mixture, told((1.0, one_hot(2)[0]), count=4), Guidance(weight=2.5), x, t)
    torch.testing.assert_close((x - alpha * guided) / sigma, unasked + 2.5 * (asked - unasked))


@pytest.mark.parametrize("weight", [1.0, 3.0])
@pytest.mark.parametrize("way", ["compose", "switch"])
def test_a_blend_of_a_class_with_itself_is_the_class(mixture: Mixture, weight: float, way: str) -> None:
    x, t = noisy(mixture.schedule)
    guidance = Guidance(weight=weight, way=way)
    alone = ask(mixture, told((1.0, one_hot(0)[0]), count=4), guidance, x, t)
    blend = ask(mixture, told((0.3, one_hot(0)[0]), (0.7, one_hot(0)[0]), count=4), guidance, x, t)
    torch.testing.assert_close(blend, alone)


def test_predictions_are_composed_by_the_sum_of_their_guidance(mixture: Mixture) -> None:
    x, t = noisy(mixture.schedule)
    unasked = mixture(x, t, NOTHING.expand(4, -1))
    first, second = (mixture(x, t, one_hot(k, k, k, k)) for k in (0, 2))
    blend = ask(mixture, told((0.25, one_hot(0)[0]), (0.75, one_hot(2)[0]), count=4), Guidance(weight=2), x, t)
    torch.testing.assert_close(blend, unasked + 2 * (0.25 * (first - unasked) + 0.75 * (second - unasked)))


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_composing_one_condition_with_weight_1_is_plain_guidance(mixture: Mixture, weight: float) -> None:
    x, t = noisy(mixture.schedule)
    unasked, asked = mixture(x, t, NOTHING.expand(4, -1)), mixture(x, t, one_hot(1, 1, 1, 1))
    padded = ask(mixture, told((1.0, one_hot(1)[0]), (0.0, one_hot(2)[0]), count=4), Guidance(weight=weight), x, t)
    torch.testing.assert_close(padded, unasked + weight * (asked - unasked))
    assert mixture.asked[-1] == 8  # what has no share is not asked


@pytest.mark.parametrize(("share", "early"), [(0.0, 0), (0.3, 3), (0.5, 5), (1.0, 10)])
def test_conditions_take_turns_by_their_share_of_the_steps(mixture: Mixture, share: float, early: int) -> None:
    parts = told((share, one_hot(0)[0]), (1 - share, one_hot(2)[0]), count=4)
    x, _ = noisy(mixture.schedule)
    for step, time in enumerate(DDIM(10).times(mixture.schedule)):
        answer = ask(mixture, parts, Guidance(way="switch"), x, time.expand(4))
        first = 0 if step < early else 2
        assert torch.equal(answer, mixture(x, time.expand(4), one_hot(first, first, first, first)))


def test_outside_its_interval_guidance_is_off_and_costs_nothing(mixture: Mixture) -> None:
    x, t = noisy(mixture.schedule, level=1.0)
    parts = told((1.0, one_hot(1)[0]), count=4)
    inside = ask(mixture, parts, Guidance(weight=3, interval=(0.5, 2.0)), x, t)
    assert torch.equal(inside, ask(mixture, parts, Guidance(weight=3), x, t))
    mixture.asked.clear()
    outside = ask(mixture, parts, Guidance(weight=3, interval=(1.5, 2.0)), x, t)
    assert mixture.asked == [4]
    assert torch.equal(outside, ask(mixture, parts, Guidance(), x, t))


def test_images_at_unlike_levels_are_each_guided_by_their_own(mixture: Mixture) -> None:
    x, _ = noisy(mixture.schedule, count=2)
    t = mixture.schedule.time_of(torch.tensor([0.5, 5.0], dtype=torch.float64))
    parts = told((1.0, one_hot(1)[0]), count=2)
    both = ask(mixture, parts, Guidance(weight=3, interval=(1.0, 10.0)), x, t)
    torch.testing.assert_close(both[:1], ask(mixture, parts[:1], Guidance(), x[:1], t[:1]))
    torch.testing.assert_close(both[1:], ask(mixture, parts[1:], Guidance(weight=3), x[1:], t[1:]))


def test_rescaling_brings_back_the_deviation_of_the_unguided_image(mixture: Mixture) -> None:
    x, t = noisy(mixture.schedule)
    parts = told((1.0, one_hot(1)[0]), count=4)
    plain, guided = (ask(mixture, parts, Guidance(weight=w), x, t) for w in (1.0, 4.0))
    rescaled = ask(mixture, parts, Guidance(weight=4, rescale=1.0), x, t)
    torch.testing.assert_close(rescaled.std((1, 2, 3)), plain.std((1, 2, 3)))
    half = ask(mixture, parts, Guidance(weight=4, rescale=0.5), x, t)
    torch.testing.assert_close(half, (guided + rescaled) / 2)


class Blurred(Mixture):
    """A weaker model: it leans to the middle."""

    def __call__(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return 0.8 * super().__call__(x_t, t, condition)


def test_autoguidance_leads_away_from_the_weaker_model_that_is_told_the_same(mixture: Mixture) -> None:
    x, t = noisy(mixture.schedule)
    parts, weak = told((1.0, one_hot(2)[0]), count=4), Blurred(mixture.schedule)
    strong = mixture(x, t, one_hot(2, 2, 2, 2))
    torch.testing.assert_close(ask(mixture, parts, Guidance(weight=3, weak=weak), x, t), strong + 2 * (strong - 0.8 * strong))
    torch.testing.assert_close(ask(mixture, parts, Guidance(weight=3, weak=mixture), x, t), strong)


def test_autoguidance_needs_no_condition() -> None:
    class Plain:
        schedule = EDM()

        def __init__(self, scale: float) -> None:
            self.scale = scale

        def __call__(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
            assert condition is None
            return self.scale * x_t

    x, t = noisy(EDM())
    guided = Guided(Plain(0.5), None, Guidance(weight=2, weak=Plain(0.4)), torch.tensor([1.0]))(x, t)
    torch.testing.assert_close(guided, 0.6 * x)


def classes(sampler: Sampler, parts: Told, guidance: Guidance, count: int) -> Tensor:
    """How often each class is drawn, (3,)."""
    denoiser, codec = Mixture(EDM()), Pixels(resolution=4, channels=1)
    drawn = torch.cat([images for _, images in generate(denoiser, codec, sampler, range(count), told=parts, guidance=guidance)])
    values = drawn.double().mean((1, 2, 3)) / 127.5 - 1
    return torch.bincount((values[:, None] - MEANS).abs().argmin(dim=1), minlength=3)


def test_classes_are_drawn_in_the_proportions_that_are_asked_for() -> None:
    asked = torch.arange(200) % 10
    wanted = torch.where(asked < 2, 0, torch.where(asked < 5, 1, 2))
    counts = classes(Heun(18), Told.plainly(torch.eye(3, dtype=torch.float64)[wanted]), Guidance(weight=1.5), 200)
    assert counts.tolist() == [40, 60, 100]


def test_unasked_classes_are_drawn_as_often_as_they_occur() -> None:
    counts = classes(Heun(18), Told.plainly(NOTHING.expand(600, -1)), Guidance(), 600)
    assert ((counts / 600 - PRIOR).abs() < 4 * (PRIOR * (1 - PRIOR) / 600).sqrt()).all()


def test_an_image_does_not_depend_on_what_is_asked_of_the_others() -> None:
    denoiser, codec = Mixture(EDM()), Pixels(resolution=4, channels=1)

    def draw(seeds: list[int], conditions: Tensor, **options: object) -> Tensor:
        found = generate(denoiser, codec, Heun(4), seeds, told=Told.plainly(conditions), guidance=Guidance(weight=2), **options)
        return torch.cat([images for _, images in found])

    together = draw([3, 4, 5], one_hot(0, 2, 1), batch_size=2)
    assert torch.equal(together[1:2], draw([4], one_hot(2)))
