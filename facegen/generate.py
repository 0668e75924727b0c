"""From seeds to images: the one path by which anything in facegen is drawn."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from facegen.codecs import Codec
from facegen.diffusion.denoiser import CleanImage, Clipped
from facegen.diffusion.guidance import Guidance, Guided, Tellable, Told
from facegen.diffusion.sampler import Sampler, Watch
from facegen.diffusion.schedule import Schedule
from facegen.errors import UserError
from facegen.images import to_uint8
from facegen.seeding import torch_generator

# Values in one channel that a network is given at a time: 16 images of 32 px on a CPU, where more no longer gains speed (and at full
# width loses a third of it to the cache), 256 of them or 16 of 128 px elsewhere, which fits every graphics card.
CPU_AREA, DEVICE_AREA = 2**14, 2**18


@dataclass(frozen=True)
class Between:
    """A seed that lies between two others: all its noise is theirs, spherically interpolated (`weight` 0 is `first`, 1 `second`)."""

    first: int
    second: int
    weight: float


@dataclass(frozen=True)
class Begin:
    """Images (N, *shape), as the denoiser sees them, that are walked on from instead of noise, without the first `start` steps.

    `noised` says that they are already what the walk passes there, as inverted ones are; else noise is added (SDEdit, Meng et al. 2022).
    """

    images: Tensor
    start: int = 0
    noised: bool = False

    def __getitem__(self, rows: slice | list[int]) -> Begin:
        return replace(self, images=self.images[rows])


Seed = int | Between
AnySeed = TypeVar("AnySeed", bound=Seed)
Stream = Callable[[], Tensor]
UNGUIDED = Guidance()
SPOILT = "the model draws NaN: its weights are spoilt; sample an earlier checkpoint with ckpt=FILE"


def generate(
    denoiser: Tellable | CleanImage,
    codec: Codec,
    sampler: Sampler,
    seeds: Sequence[AnySeed],
    *,
    batch_size: int = 64,
    told: Told | None = None,
    guidance: Guidance = UNGUIDED,
    begin: Begin | None = None,
    clip: bool = True,
    autocast: torch.dtype | None = None,
    watch: Watch | None = None,
) -> Iterator[tuple[list[AnySeed], Tensor]]:
    """Draws an image for each of `seeds`: yields them some at a time with their images (B,C,H,W), uint8 on the CPU.

    An image depends on the model, the sampler, the guidance, its own seed and what is told for it, not on the other seeds, their order or
    `batch_size`: its noise comes from a generator of its own on the CPU, and the network always sees groups of one fixed size, because
    matrix products of another size round otherwise. It is the same bit for bit on one machine at one number of threads; another kind of
    device, or number of threads, may round a pixel to its neighbour.

    Args:
        batch_size: how many are walked together and yielded at a time, rounded up to whole groups.
        told: what is asked for, for as many images as there are seeds; None for a model that cannot be told anything.
        guidance: how strongly it is asked for, and by which model.
        begin: what is walked on from, for as many images as there are seeds; None: noise.
        clip: keep every estimate of the clean image within the codec's limit, where it has one.
        autocast: run the network in this lower precision.
        watch: sees each step of each batch, as `Sampler` says.

    Raises UserError where the model draws what is no number.
    """
    device = _device(denoiser)
    group = group_of(codec.shape, device)
    levels = denoiser.schedule.level(sampler.times(denoiser.schedule))
    guidance = replace(guidance, weak=guidance.weak and Grouped(guidance.weak, group))
    precision = torch.autocast(device.type, autocast) if autocast else contextlib.nullcontext()
    together = math.ceil(batch_size / group) * group
    for start in range(0, len(seeds), together):
        rows = slice(start, start + together)
        guided = Guided(Grouped(denoiser, group), told and told[rows].to(device), guidance, levels)
        walker = Clipped(guided, codec.limit) if clip and codec.limit else guided
        with torch.no_grad(), _evaluating(denoiser), precision:
            draw = _draws(seeds[rows], codec.shape, device)
            if begin is None:
                x = sampler(walker, draw() * denoiser.schedule.prior_std(), draw, watch)
            else:
                x = sampler(walker, _begun(begin, rows, sampler, denoiser.schedule, draw), draw, watch, start=begin.start)
            images = in_groups(codec.decode, group_of(codec.image_shape, device), x).float().cpu()
        if not torch.isfinite(images).all():
            raise UserError(SPOILT)
        yield list(seeds[rows]), to_uint8(images)


def _begun(begin: Begin, rows: slice, sampler: Sampler, schedule: Schedule, draw: Stream) -> Tensor:
    """The images of `rows` at the noise level of the step that the walk begins with."""
    noise = draw()
    images = begin.images[rows].to(noise)
    if begin.noised:
        return images
    alpha, sigma = sampler.entry(schedule, begin.start)
    return alpha * images + sigma * noise


class Usual(Protocol):
    """A model that knows what the images of seeds are told where nobody asks for anything."""

    def usual_conditions(self, seeds: Sequence[int]) -> Tensor | None: ...


def usually_told(model: Usual, seeds: Sequence[int]) -> Told | None:
    """What `model` is told where nobody asks for anything; None for one that cannot be told."""
    usual = model.usual_conditions(seeds)
    return None if usual is None else Told.plainly(usual)


def _draws(seeds: Sequence[Seed], shape: tuple[int, ...], device: torch.device) -> Stream:
    """Standard normal noise (B, *shape), new at each call, whose rows depend on their own seeds alone."""
    streams = [_stream(seed, shape) for seed in seeds]
    return lambda: torch.stack([stream() for stream in streams]).to(device)


def _stream(seed: Seed, shape: tuple[int, ...]) -> Stream:
    if isinstance(seed, Between):
        first, second = _stream(seed.first, shape), _stream(seed.second, shape)
        return lambda: slerp(first(), second(), seed.weight)
    generator = torch_generator(seed, "sample")
    return lambda: torch.randn(shape, generator=generator)


def slerp(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """The point at `weight` in [0, 1] of the great circle from `first` to `second`, any shape (Shoemake 1985).

    Noise keeps its length on the way, which a straight line would shorten to 0.7 of it; the ends are exact.
    """
    cosine = float((first * second).sum() / (first.norm() * second.norm()))
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if math.sin(angle) == 0:
        return first
    share_first, share_second = (math.sin(part * angle) / math.sin(angle) for part in (1 - weight, weight))
    return share_first * first + share_second * second


def group_of(shape: tuple[int, ...], device: str | torch.device) -> int:
    """How many images or latents (..., H, W) of this `shape` a network is given at a time on `device`."""
    return max(1, (CPU_AREA if torch.device(device).type == "cpu" else DEVICE_AREA) // (shape[-2] * shape[-1]))


def in_groups(function: Callable[..., Tensor], size: int, *tensors: Tensor) -> Tensor:
    """`function` of tensors (B, ...), called with `size` rows at a time, never fewer: the last are repeats that are thrown away.

    What it says of a row then depends on that row alone: matrix products of another size round otherwise.
    """
    count = len(tensors[0])
    padded = [torch.cat([x, x[-1:].expand(-count % size, *x.shape[1:])]) for x in tensors]
    return torch.cat([function(*rows) for rows in zip(*(x.split(size) for x in padded), strict=True)])[:count]


class Grouped:
    """A denoiser that is asked for `size` images at a time."""

    def __init__(self, denoiser: Tellable | CleanImage, size: int) -> None:
        self.denoiser, self.size, self.schedule = denoiser, size, denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor, *told: Tensor | None) -> Tensor:
        return in_groups(self.denoiser, self.size, x_t, t, *(part for part in told if part is not None))


def _device(denoiser: object) -> torch.device:
    """Where the denoiser's weights are; the CPU for one that has none."""
    weights = denoiser.parameters() if isinstance(denoiser, nn.Module) else iter(())
    return next((weight.device for weight in weights), torch.device("cpu"))


@contextlib.contextmanager
def _evaluating(denoiser: object) -> Iterator[None]:
    """The denoiser in evaluation mode; afterwards each of its modules is again in the mode it was in."""
    training = [module for module in denoiser.modules() if module.training] if isinstance(denoiser, nn.Module) else []
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
