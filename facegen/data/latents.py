"""Latents encoded once: one file of float16 beside the packed images, read by memory map; an encoding that was killed goes on.

    CACHE/latents-0123456789abcdef/  latents.bin (N, F, P, d, h, w)   latents.json   sums.npy
    CACHE/latents-0123456789abcdef.encoding/  the same, not yet whole

F is 2 where images are shown mirrored too, P is 2 where the latents are Gaussians: mean, then standard deviation.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from facegen.data.loading import Pick, Source, mirrored
from facegen.data.lock import locked
from facegen.durable import sync
from facegen.errors import UserError

FORMAT = 1
AT_ONCE = 64  # images encoded between two writes: what a kill costs
SPOT_CHECKS = 64
SPARE_BYTES = 16 << 20
DTYPE = np.dtype("<f2")
ELSEWHERE = "type data.cache_dir=FOLDER, or set FACEGEN_CACHE=FOLDER"


@dataclass(frozen=True)
class Contents:
    """What a file of latents holds: of the images `count` of a data set with a `fingerprint`, by the autoencoder with this digest."""

    fingerprint: str
    autoencoder: str
    count: int
    shape: list[int]  # (F, P, d, h, w) of one image

    @property
    def row(self) -> int:
        """Bytes of one image."""
        return int(np.prod(self.shape)) * DTYPE.itemsize


@dataclass(frozen=True)
class PackedLatents:
    """The latents of the images `numbers` (N,), ascending; mean and deviation (d,) of their channels over the training images.

    `alive` (d,) is the deviation of the means alone: what tells one image from another.
    """

    folder: Path
    contents: Contents
    numbers: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    alive: np.ndarray

    @cached_property
    def latents(self) -> np.memmap:
        """(N, F, P, d, h, w), a read-only memory map."""
        return np.memmap(self.folder / "latents.bin", DTYPE, "r", shape=(self.contents.count, *self.contents.shape))

    def __getstate__(self) -> dict[str, Any]:
        """Without the memory map, which another process opens for itself."""
        return {key: value for key, value in self.__dict__.items() if key != "latents"}

    def read(self, indices: np.ndarray, mirrored: np.ndarray | None = None) -> np.ndarray:
        """The latents (B, P, d, h, w) float16 of the images `indices` (B,), of those `mirrored` (B,) bool as they are in a mirror."""
        sides = np.zeros(len(indices), int) if mirrored is None else mirrored.astype(int)
        return self.latents[np.searchsorted(self.numbers, indices), sides]


class LatentBatches(Dataset[dict]):
    """The batch of a `Pick` with `latent` (B, P, d, h, w) float16 in place of images; half of the training samples are mirrored.

    Where there are latents `of_sources`, `source_latent` is what the images are edits of.
    """

    def __init__(self, latents: PackedLatents, source: Source, seed: int, of_sources: PackedLatents | None = None) -> None:
        self.latents, self.source, self.seed, self.of_sources = latents, source, seed, of_sources

    def __getitem__(self, pick: Pick) -> dict[str, torch.Tensor | int]:
        batch: dict[str, torch.Tensor | int] = {"index": torch.from_numpy(pick.indices)}
        turned = None
        if pick.numbers is not None:
            batch["position"] = pick.position
            if self.latents.contents.shape[0] > 1:
                turned = mirrored(pick.numbers, self.seed)
        batch["latent"] = torch.from_numpy(self.latents.read(pick.indices, turned))
        if self.of_sources is not None:
            batch["source_latent"] = torch.from_numpy(self.of_sources.read(pick.indices, turned))
        if (conditions := self.source.conditions(pick.indices)) is not None:
            batch["condition"] = torch.from_numpy(conditions)
        return batch


Encode = Callable[[np.ndarray], np.ndarray]  # images by number (B,) -> (B, F, P, d, h, w)


def open_latents(home: Path, contents: Contents, numbers: np.ndarray, train: np.ndarray, encode: Encode) -> PackedLatents:
    """The latents of `numbers` (N,), those of `train` among them, from the cache in `home`, encoded first where they are missing.

    Raises UserError where the cache holds those of another autoencoder, cannot be written, or there is no room for it.
    """
    digest = hashlib.blake2b(repr((FORMAT, asdict(contents))).encode() + numbers.astype("<i8").tobytes(), digest_size=8)
    folder = home / f"latents-{digest.hexdigest()}"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock"), "encoding the images"):
            return _load(folder, contents, numbers) or _build(folder, contents, numbers, train, encode)
    except OSError as error:
        raise UserError(f"data.cache_dir={home} cannot be used: {error.strerror or error}; {ELSEWHERE}") from error


def _load(folder: Path, contents: Contents, numbers: np.ndarray) -> PackedLatents | None:
    """What `_build` left in `folder`, None where that is not there whole."""
    try:
        stored = json.loads((folder / "latents.json").read_text())
        sums, found = np.load(folder / "sums.npy"), Contents(**stored["contents"])
        measured = [np.array(stored[key], np.float64) for key in ("mean", "deviation", "alive")]
        packed = PackedLatents(folder, found, numbers, *measured)
        if found.autoencoder != contents.autoencoder:
            theirs = f"the latents in {folder} are of another autoencoder ({found.autoencoder}, this one is {contents.autoencoder})"
            raise UserError(f"{theirs}; delete that folder, or {ELSEWHERE}")
        if any(part.shape != (contents.shape[2],) or not np.isfinite(part).all() for part in measured):
            return None
        if found != contents or (folder / "latents.bin").stat().st_size != contents.count * contents.row:
            return None
        rows = np.linspace(0, contents.count - 1, min(contents.count, SPOT_CHECKS)).astype(int)
        return packed if all(zlib.crc32(packed.latents[row].tobytes()) == sums[row] for row in rows) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _build(folder: Path, contents: Contents, numbers: np.ndarray, train: np.ndarray, encode: Encode) -> PackedLatents:
    building = folder.with_suffix(".encoding")
    building.mkdir(exist_ok=True)
    file = building / "latents.bin"
    file.touch()
    need, free = contents.count * contents.row - file.stat().st_size + SPARE_BYTES, shutil.disk_usage(folder.parent).free
    if free < need:
        amounts = f"{need / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB free"
        raise UserError(f"data.cache_dir={folder.parent} has too little room for the latents: {amounts}; {ELSEWHERE}")
    _encode(file, contents, numbers, encode)
    whole = np.memmap(file, DTYPE, "r", shape=(contents.count, *contents.shape))
    mean, deviation, alive = statistics(whole, np.searchsorted(numbers, train))
    np.save(building / "sums.npy", np.array([zlib.crc32(row.tobytes()) for row in whole], np.uint32))
    told = {"contents": asdict(contents), "mean": mean.tolist(), "deviation": deviation.tolist(), "alive": alive.tolist()}
    (building / "latents.json").write_text(json.dumps(told))
    for path in (*building.iterdir(), building):
        sync(path)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(building, folder)
    sync(folder.parent)
    return PackedLatents(folder, contents, numbers, mean, deviation, alive)


def _encode(path: Path, contents: Contents, numbers: np.ndarray, encode: Encode) -> None:
    """Appends to the file what it lacks; the part of an image at its end, which a kill has left, is done again."""
    done = path.stat().st_size // contents.row
    with open(path, "r+b") as file:
        file.truncate(done * contents.row)
        file.seek(done * contents.row)
        for start in range(done, len(numbers), AT_ONCE):
            with np.errstate(over="ignore"):
                encoded = encode(numbers[start : start + AT_ONCE]).astype(DTYPE)
            if not np.isfinite(encoded).all():
                wrong = f"NaN of the images, or numbers beyond {np.finfo(DTYPE).max:g}"
                raise UserError(f"the autoencoder makes {wrong}: its weights are spoilt; give another by model.autoencoder=CKPT")
            file.write(encoded.tobytes())
            file.flush()
        os.fsync(file.fileno())


def statistics(latents: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation and standard deviation of the means alone, each (d,), of the `rows` of latents (N, F, P, d, h, w)."""
    channels = latents.shape[3]
    first, second, spread, count = np.zeros(channels), np.zeros(channels), np.zeros(channels), 0
    for start in range(0, len(rows), 1024):
        part = latents[rows[start : start + 1024]].astype(np.float64)
        means = part[:, :, 0]
        first += means.sum(axis=(0, 1, 3, 4))
        second += (means**2).sum(axis=(0, 1, 3, 4))
        if part.shape[2] > 1:
            spread += (part[:, :, 1] ** 2).sum(axis=(0, 1, 3, 4))
        count += means.size // channels
    mean = first / count
    variance = second / count - mean**2
    return mean, np.sqrt(variance + spread / count), np.sqrt(variance)
