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
            reason = str(error).splitlines()[0]
            raise UserError(
                f"the newest checkpoint holds no autoencoder that fits ({reason}); delete it, or type another run_dir="
            ) from error
        _refuse_another(codec, source, build)
    else:
        codec.network.load_state_dict(autoencoder_of(source, build).state_dict())
    with out_of_memory("encoding the images", partial(of_encoding, device.type)):
        packed = encoded(data, codec, device, home)
    if not (packed.alive >= DEAD).all():
        told = ", ".join(f"{value:.2g}" for value in packed.alive)
        raise UserError(
            f"the autoencoder {source} is dead: its latents hardly differ between images (standard deviation by channel {told}, allowed "
            f"{DEAD:g} and more); train one longer: python train.py model=autoencoder data=NAME run_dir=NEW"
        )
    if stored is None:
        codec.standardize(torch.from_numpy(packed.mean), torch.from_numpy(packed.deviation))
    require_scaled(codec, packed, data.numbers("train"))
    codec.rest()
    data.use(packed)
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


def encoded(data: Any, codec: Latents, device: torch.device, home: Path) -> PackedLatents:
    """The latents of all images of `data`, out of the cache in `home` or made now on `device`."""
    numbers = data.numbers("all")
    sides, parts = 2 if data.flip else 1, 2 if codec.network.spread else 1
    contents = Contents(data.fingerprint, codec.fingerprint(), len(numbers), [sides, parts, *codec.shape])
    group = max(1, AREA // (codec.image_shape[1] * codec.image_shape[2]))
    with contextlib.ExitStack() as stack:
        advance: Callable[[int], None] | None = None

        def encode(chosen: np.ndarray) -> np.ndarray:
            nonlocal advance
            if advance is None:  # the bar appears where there is something to do
                done = int(np.searchsorted(numbers, chosen[0]))
                advance = stack.enter_context(progress("encoding images", done, len(numbers)))
            images = to_float(torch.from_numpy(np.array(data.pixels(chosen))).to(device))
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
