"""An image is a function of the model, the sampler and its own seed, and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from facegen import generate as module
from facegen.codecs import Codec, Pixels
from facegen.diffusion.denoiser import Clipped, Denoiser
from facegen.diffusion.discrete import Cosine, Linear
from facegen.diffusion.sampler import DDIM, DDPM, DPMpp2M, Heun, Sampler
from facegen.diffusion.schedule import EDM, Schedule
from facegen.errors import UserError
from facegen.generate import Between, Seed, generate, slerp
from facegen.images import to_uint8
from facegen.seeding import torch_generator

CODEC = Pixels(resolution=16, channels=3)


class Net(nn.Module):
    """A convolution, a linear layer over channels and one over time, which round differently at another batch size, and a steep
    activation, which makes that seen in bytes."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.mix = nn.Conv2d(channels, 24, 3, padding=1), nn.Conv2d(24, 24, 1)
        self.time, self.last, self.drop = nn.Linear(1, 24), nn.Conv2d(24, channels, 3, padding=1), nn.Dropout(0.5)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator) / max(1, weight[0].numel()) ** 0.5
        self.sizes: list[int] = []

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        self.sizes.append(len(x))
        time = self.time(t[:, None] / 1000)[:, :, None, None]
        return self.last(self.drop(torch.tanh(30 * (self.mix(self.first(x)) + time))))


def model(schedule: Schedule | None = None, channels: int = 3) -> Denoiser:
    return Denoiser(Net(channels), schedule or Cosine(100))


def drawn(denoiser: Denoiser, sampler: Sampler, seeds: Sequence[Seed], codec: Codec = CODEC, **options: object) -> dict[Seed, Tensor]:
    found = {}
    for chosen, images in generate(denoiser, codec, sampler, seeds, **options):
        found.update(zip(chosen, images, strict=True))
    return found


WALKS = [(Cosine(100), DDIM(4)), (Linear(100), DDPM(5)), (Cosine(100), DPMpp2M(4)), (EDM(), Heun(3))]


@pytest.mark.parametrize(("schedule", "sampler"), WALKS, ids=lambda part: type(part).__name__)
def test_image_i_does_not_depend_on_batch_size_order_or_companions(schedule: Schedule, sampler: Sampler) -> None:
    denoiser, seeds = model(schedule), list(range(70))
    together = drawn(denoiser, sampler, seeds, batch_size=64)
    assert len({image.numpy().tobytes() for image in together.values()}) == len(seeds)
    for batch_size, some in ((1, [3]), (3, [69, 5, 0]), (8, list(range(40))), (1000, seeds[::-1])):
        for seed, image in drawn(denoiser, sampler, some, batch_size=batch_size).items():
            assert torch.equal(image, together[seed]), (batch_size, seed)


def test_the_network_sees_groups_of_one_size_whatever_the_batch() -> None:
    denoiser = model()
    for batch_size, seeds in ((1, range(1)), (7, range(70)), (500, range(3))):
        drawn(denoiser, DDIM(2), seeds, batch_size=batch_size)
    assert set(denoiser.network.sizes) == {module.CPU_AREA // 16**2}


def test_batches_are_yielded_in_order_and_no_larger_than_a_round_number_of_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPU_AREA", 4 * 16**2)
    chosen = [seeds for seeds, _ in generate(model(), CODEC, DDIM(1), range(10, 21), batch_size=3)]
    assert chosen == [[10, 11, 12, 13], [14, 15, 16, 17], [18, 19, 20]]


@pytest.mark.parametrize("sampler", [DDPM(6), DDIM(6, eta=0.7)])
def test_the_noise_of_an_image_is_its_own_generators_in_order_of_use(sampler: Sampler) -> None:
    denoiser, seed = model(Linear(100)).eval(), 11
    generator = torch_generator(seed, "sample")

    def draw() -> Tensor:
        return torch.randn(CODEC.shape, generator=generator)[None].expand(64, -1, -1, -1)

    with torch.no_grad():
        oracle = sampler(Clipped(denoiser), draw() * denoiser.schedule.prior_std(), draw)
    assert torch.equal(drawn(denoiser, sampler, [seed])[seed], to_uint8(oracle)[0])


def test_a_walk_starts_at_the_schedules_noise() -> None:
    starts: list[Tensor] = []
    drawn(model(EDM(sigma_max=50.0)), Heun(2), range(20), watch=lambda i, x, x_0: starts.append(x) if i == 0 else None)
    assert starts[0].std().item() == pytest.approx(50, rel=0.02)


@pytest.mark.parametrize("clip", [True, False])
def test_estimates_are_clipped_to_the_codecs_limit_on_request(clip: bool) -> None:
    peaks: list[float] = []
    drawn(model(), DDIM(3), range(2), clip=clip, watch=lambda i, x, x_0: peaks.append(x_0.abs().max().item()))
    assert (max(peaks) <= 1) is clip


def test_watch_sees_every_step_of_the_images_alone() -> None:
    seen: list[tuple[int, int]] = []
    drawn(model(), DDIM(3), range(5), watch=lambda i, x, x_0: seen.append((i, len(x))))
    assert seen == [(0, 5), (1, 5), (2, 5)]


class Doubled:
    """A codec that is none: it sees an image at half its size and with another number of channels."""

    shape, image_shape, limit = (2, 8, 8), (1, 16, 16), None

    def encode(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def decode(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True).repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_an_image_is_what_the_codec_decodes_and_a_codec_without_limit_is_not_clipped() -> None:
    peaks: list[float] = []
    denoiser, codec = model(channels=2), Doubled()
    images = drawn(denoiser, DDIM(3), range(70), codec, watch=lambda i, x, x_0: peaks.append(x_0.abs().max().item()))
    assert max(peaks) > 1
    assert all(image.shape == (1, 16, 16) and image.dtype == torch.uint8 for image in images.values())
    assert all(torch.equal(image[:, ::2], image[:, 1::2]) for image in images.values())
    assert torch.equal(drawn(denoiser, DDIM(3), [69], codec)[69], images[69])


def test_drawing_leaves_no_trace_in_the_model_or_in_shared_generators() -> None:
    denoiser = model().train()
    denoiser.network.first.eval()
    before, state = [m.training for m in denoiser.modules()], torch.get_rng_state()
    first, second = drawn(denoiser, DDPM(3), range(3)), drawn(denoiser, DDPM(3), range(3))
    assert all(torch.equal(first[seed], second[seed]) for seed in first)  # dropout was off
    assert [m.training for m in denoiser.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None for weight in denoiser.parameters())


def test_a_spoilt_model_is_an_error_and_no_black_picture() -> None:
    denoiser = model()
    denoiser.network.last.weight.data[0, 0] = float("nan")
    with pytest.raises(UserError, match="NaN"):
        drawn(denoiser, DDIM(2), [0])


@pytest.mark.parametrize(("schedule", "sampler"), WALKS, ids=lambda part: type(part).__name__)
def test_between_two_seeds_the_ends_are_the_plain_images(schedule: Schedule, sampler: Sampler) -> None:
    denoiser = model(schedule)
    ends, middle = [Between(4, 9, 0.0), Between(4, 9, 1.0)], Between(4, 9, 0.5)
    images = drawn(denoiser, sampler, [4, 9, *ends, middle])
    assert torch.equal(images[4], images[ends[0]])
    assert torch.equal(images[9], images[ends[1]])
    assert len({image.numpy().tobytes() for image in images.values()}) == 3


def test_slerp_keeps_the_length_of_noise_and_ends_exactly() -> None:
    first, second = (torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert torch.equal(slerp(first, second, 0.0), first)
    assert torch.equal(slerp(first, second, 1.0), second)
    for weight in (0.25, 0.5, 0.75):
        assert slerp(first, second, weight).std().item() == pytest.approx(1, abs=0.03)
    unit = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert slerp(*unit, 1 / 3).tolist() == pytest.approx([3**0.5 / 2, 0.5])
    assert torch.equal(slerp(first, first, 0.3), first)
