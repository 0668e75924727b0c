"""What a latent diffusion model needs before it can train: its autoencoder, the latents of all images, and how large they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facegen import stages
from facegen.codecs import Latents, digest
from facegen.data.latents import Contents, PackedLatents, open_latents
from facegen.errors import UserError
from facegen.generate import in_groups
from facegen.images import to_float
from facegen.loading import Build, autoencoder_of
from facegen.out_of_memory import of_encoding, out_of_memory
from facegen.pretrained import base_of
from facegen.progress import progress

DEAD = 1e-3  # deviation of a channel of latents that tells no image from another
SCALED = (0.95, 1.05)  # where the deviation of standardised latents has to land
CHECKED = 10_000  # latents that this is checked on
AREA = 2**18  # pixels that the encoder is given at a time: 16 images of 128 px


def furnish(
    model: Any, data: Any, source: Path, stored: dict[str, Any] | None, build: Build, device: torch.device, home: Path
) -> PackedLatents:
    """Gives `model` its autoencoder, from the checkpoint `stored` of its own run or else from `source`, and `data` its latents, which lie
    in `home` or are made now on `device`.

    Raises UserError where there is no such autoencoder, it is another one than the run was trained with, or it is dead.
    """
    codec: Latents = model.codec
    if stored is not None:
        try:
            codec.load(stored["codec"])
        except (KeyError, RuntimeError, TypeError, AttributeError) as error:
            raise UserError(
                f"the newest checkpoint holds no autoencoder that fits ({_first(error)}); delete it, or type another run_dir="
            ) from error
        _refuse_another(codec, source, build)
    else:
        codec.network.load_state_dict(autoencoder_of(source, build).state_dict())
    return use_latents(codec, data, str(source), device, home, measure=stored is None)


def begin_with_pretrained(model: Any, data: Any, stored: dict[str, Any] | None, device: torch.device, home: Path) -> PackedLatents:
    """Gives `model` what it is fine-tuned from, or what the checkpoint `stored` of its own run says of that, and `data` its latents.

    Raises UserError where that cannot be found or read.
    """
    if stored is None:
        model.begin_with(*base_of(model.pretrained))
    else:
        try:
            model.load_rest(stored, base_of)
        except (KeyError, RuntimeError, TypeError, AttributeError) as error:
            raise UserError(
                f"the newest checkpoint is none of this model ({_first(error)}); delete it, or type another run_dir="
            ) from error
    return use_latents(model.codec, data, model.pretrained, device, home, measure=False)


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def use_latents(codec: Latents, data: Any, whose: str, device: torch.device, home: Path, measure: bool) -> PackedLatents:
    """Gives `data` the latents that `codec`, of the autoencoder `whose`, makes of its images and of their sources; out of the cache in
    `home`, or made now on `device`.

    With `measure` the codec is standardised by them, where it has no scale of its own. Raises UserError where the autoencoder is dead.
    """
    with out_of_memory("encoding the images", partial(of_encoding, device.type)):
        packed = encoded(data, codec, device, home)
        sources = encoded(data, codec, device, home, of_sources=True) if data.edit_source.shows else None
    if not (packed.alive >= DEAD).all():
        told = ", ".join(f"{value:.2g}" for value in packed.alive)
        raise UserError(
            f"the autoencoder {whose} is dead: its latents hardly differ between images (standard deviation by channel {told}, allowed "
            f"{DEAD:g} and more); train one longer: python train.py model=autoencoder data=NAME run_dir=NEW"
        )
    if codec.scale is None:
        if measure:
            codec.standardize(torch.from_numpy(packed.mean), torch.from_numpy(packed.deviation))
        require_scaled(codec, packed, data.numbers("train"))
    codec.rest()
    data.use(packed, sources)
    return packed


def _refuse_another(codec: Latents, source: Path, build: Build) -> None:
    """Raises UserError where the autoencoder at `source` is no longer the one that the run was trained with; it may be gone."""
    if not source.exists():
        return
    now, then = digest(autoencoder_of(source, build)), codec.fingerprint()
    if now != then:
        raise UserError(
            f"{stages.OPTION}={source} holds another autoencoder ({now}) than this run was trained with ({then}); give that one back, or "
            "type another run_dir= to start anew"
        )


def encoded(data: Any, codec: Latents, device: torch.device, home: Path, of_sources: bool = False) -> PackedLatents:
    """The latents of all images of `data`, or the means of those of their sources, out of the cache in `home` or made now on `device`."""
    numbers, read = data.numbers("all"), data.sources if of_sources else data.pixels
    sides, parts = 2 if data.flip else 1, 2 if codec.network.spread and not of_sources else 1
    which = f"{data.fingerprint} {data.edit_source}" if of_sources else data.fingerprint
    contents = Contents(which, codec.fingerprint(), len(numbers), [sides, parts, *codec.shape])
    group = max(1, AREA // (codec.image_shape[1] * codec.image_shape[2]))
    with contextlib.ExitStack() as stack:
        advance: Callable[[int], None] | None = None

        def encode(chosen: np.ndarray) -> np.ndarray:
            nonlocal advance
            if advance is None:  # the bar appears where there is something to do
                done = int(np.searchsorted(numbers, chosen[0]))
                advance = stack.enter_context(progress("encoding images", done, len(numbers)))
            images = to_float(torch.from_numpy(np.array(read(chosen))).to(device))
            with torch.inference_mode():
                moments = [
                    in_groups(lambda x: torch.stack(codec.moments(x)[:parts], dim=1), group, side)
                    for side in [images, images.flip(-1)][:sides]
                ]
            advance(len(chosen))
            return torch.stack(moments, dim=1).cpu().numpy()

        return open_latents(home, contents, numbers, data.numbers("train"), encode)


def require_scaled(codec: Latents, packed: PackedLatents, train: np.ndarray) -> None:
    """Raises UserError where the standardised latents of the images `train`, of `CHECKED` of them at most, one drawn of each, are not of
    unit deviation."""
    rows = np.searchsorted(packed.numbers, train[:CHECKED])
    found = torch.from_numpy(packed.latents[rows]).flatten(0, 1)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        drawn = torch.cat([codec.clean({"latent": part}, draw=True) for part in found.split(1024)])
    deviation = drawn.double().std(dim=(0, 2, 3)) / codec.std
    if not ((deviation >= SCALED[0]) & (deviation <= SCALED[1])).all():
        told = ", ".join(f"{value:.3f}" for value in deviation)
        raise UserError(
            f"the latents are not of unit deviation after scaling ({told} by channel, allowed {SCALED[0]} to {SCALED[1]}): the cache "
            f"{packed.folder} or the checkpoint is damaged; delete that folder and type the same command again"
        )
