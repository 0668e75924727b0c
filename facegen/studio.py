"""A trained model at work: what it draws, behind a progress bar, and what is to be said about it beside every picture."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from facegen.codecs import Latents
from facegen.diffusion.guidance import Told
from facegen.diffusion.sampler import Sampler, Watch
from facegen.durable import sha256
from facegen.errors import UserError
from facegen.generate import AnySeed, Begin, Between, Seed, generate, group_of
from facegen.guiding import Direction, Model
from facegen.out_of_memory import Way, of_drawing, out_of_memory
from facegen.progress import progress

UNDIRECTED = Direction()


class Loaded(Model, Protocol):
    """A trained model ready to draw; `checkpoints` are those of its run, oldest first, and `reload` is the same model at one of them."""

    @property
    def checkpoints(self) -> list[Path]: ...

    def reload(self, path: Path) -> Loaded: ...


class Studio:
    """A loaded model with the sampler it draws by, what it is asked for, and `facts`, the provenance that all their pictures share."""

    def __init__(self, loaded: Loaded, sampler: Sampler, batch_size: int, device: str, direction: Direction = UNDIRECTED) -> None:
        self.loaded, self.sampler, self.batch_size, self.device, self.direction = loaded, sampler, batch_size, device, direction
        self.facts = {
            **loaded.provenance,
            "sha256": sha256(loaded.path),
            "schedule": type(loaded.denoiser.schedule).__name__,
            "prediction": type(loaded.denoiser.prediction).__name__,
            "sampler": describe(sampler),
            "torch": torch.__version__,
            "device": device,
            **direction.facts,
            **({"tile": str(tile)} if (tile := tile_of(loaded)) else {}),  # whole decoding is not told: older pictures do not tell of it
        }
        self._check_interval()

    def _check_interval(self) -> None:
        """Raises UserError where guidance is confined to noise levels that the walk does not visit."""
        (lowest, highest), schedule = self.direction.guidance.interval, self.loaded.denoiser.schedule
        levels = schedule.level(self.sampler.times(schedule))
        if not ((levels >= lowest) & (levels <= highest)).any():
            walked = f"its {self.sampler.steps} steps go from {levels[0]:.3g} to {levels[-1]:.3g}"
            raise UserError(f"guidance_interval=[{lowest:g},{highest:g}] holds none of the walk's noise levels; {walked}")

    def batches(
        self,
        seeds: Sequence[AnySeed],
        title: str,
        watch: Watch | None = None,
        kept: int = 0,
        told: Told | None = None,
        begin: Begin | None = None,
    ) -> Iterator[tuple[list[AnySeed], np.ndarray]]:
        """The images (B,C,H,W) uint8 of `seeds`, some at a time, behind a progress bar that counts the `kept` ones as done.

        They are asked for what `told` says or, by default, for what the direction does, and begin with noise or with what `begin` says.
        Raises UserError where memory does not suffice.
        """
        with out_of_memory("drawing", self._smaller):
            yield from self._drawn(seeds, title, watch, kept, told, begin)

    def _smaller(self, error: BaseException) -> Iterator[Way]:
        """What to ask for where memory did not suffice."""
        codec = self.loaded.codec
        group, side = group_of(codec.shape, self.device), max(codec.shape[1:]) if isinstance(codec, Latents) else 0
        return of_drawing(self.batch_size, group, side, tile_of(self.loaded), self.device, error)

    def _drawn(
        self, seeds: Sequence[AnySeed], title: str, watch: Watch | None, kept: int, told: Told | None, begin: Begin | None
    ) -> Iterator[tuple[list[AnySeed], np.ndarray]]:
        denoiser, steps = self.loaded.denoiser.to(self.device), self.sampler.steps - (begin.start if begin else 0)
        guidance = self.direction.guidance
        if isinstance(guidance.weak, torch.nn.Module):
            guidance.weak.to(self.device)
        if told is None:
            told = self.direction.told([seed.first if isinstance(seed, Between) else seed for seed in seeds])
        with progress(title, kept, kept + len(seeds), steps) as advance:

            def each_step(i: int, x_t: Tensor, x_0: Tensor) -> None:
                advance(len(x_t))
                if watch is not None:
                    watch(i, x_t, x_0)

            codec, sampler = self.loaded.codec, self.sampler
            how = {"batch_size": self.batch_size, "watch": each_step, "told": told, "guidance": guidance, "begin": begin}
            for chosen, drawn in generate(denoiser, codec, sampler, seeds, **how):
                yield chosen, drawn.numpy()

    def draw(
        self, seeds: Sequence[Seed], title: str, watch: Watch | None = None, told: Told | None = None, begin: Begin | None = None
    ) -> np.ndarray:
        """The images (N,C,H,W) uint8 of `seeds`, all at once."""
        return np.concatenate([drawn for _, drawn in self.batches(seeds, title, watch, told=told, begin=begin)])

    def but(self, **changes: Any) -> Studio:
        """The same, asked otherwise: `changes` are fields of `facegen.asked.Asked`."""
        other = copy.copy(self)  # not made anew: that would read the checkpoint again for its hash
        other.direction = self.direction.but(**changes)
        other.facts = {**self.facts, **other.direction.facts}
        return other

    @property
    def step(self) -> int:
        """The optimizer steps that the model has seen."""
        return int(self.loaded.provenance["step"])

    def at(self, checkpoint: Path) -> Studio:
        """The same at another checkpoint of the run."""
        loaded = self.loaded.reload(checkpoint)
        in_tiles(loaded, tile_of(self.loaded))
        return Studio(loaded, self.sampler, self.batch_size, self.device, self.direction)


def tile_of(loaded: Model) -> int | None:
    """The side, in latent pixels, of the tiles that the latents of `loaded` are decoded in; None where they are decoded whole."""
    return loaded.codec.tile if isinstance(loaded.codec, Latents) else None


def in_tiles(loaded: Model, tile: int | None) -> None:
    """Has the latents of `loaded` decoded in such tiles from now on; raises UserError where it works in pixels."""
    if isinstance(loaded.codec, Latents):
        loaded.codec.tile = tile
    elif tile is not None:
        raise UserError(f"tile={tile} is of models that work in latents, {loaded.path} works in pixels; leave tile out")


def device_of(asked: str | None) -> str:
    """Where to draw: as asked, or the graphics card where there is one; raises UserError where there is none."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no graphics card on this machine; type device=cpu")
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


def prepare(folder: Path, size: int = 0, option: str = "out") -> None:
    """Makes the folder given as `option`; refuses one that cannot be written, or has no room for `size` bytes, before any drawing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{option}={folder} cannot be written ({error.strerror}): choose another with {option}=") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{option}={folder} is read-only: choose another with {option}=")
    if (free := shutil.disk_usage(folder).free) < size:
        raise UserError(
            f"disk nearly full: {option}={folder} has {free / 1e6:.0f} MB free of {size / 1e6:.0f} MB; free some or set {option}="
        )


def describe(sampler: Sampler) -> str:
    """The sampler with all its options, such as `DDIM(steps=50, eta=0.0)`."""
    options = (f"{key}={getattr(value, '__name__', value)}" for key, value in sorted(vars(sampler).items()))
    return f"{type(sampler).__name__}({', '.join(options)})"
