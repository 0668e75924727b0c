"""A packed data set: its pixels in one memory-mapped file, its labels and splits beside it."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from facegen.data.columns import NO_LABELS, Columns
from facegen.data.decode import FILTER, Picture
from facegen.data.pack import Outcome
from facegen.data.records import HELD_OUT, TRAIN, Reader, Records

_SPOT_CHECKS = 64


@dataclass
class PackedImages:
    """A packed data set of N images: read by memory map.

    `split` (N,) is the official one or None; where there is none `draw` (N,) in [0, 1) decides, a digest of the file's bytes,
    so that copies fall on one side. `good` (N,) is false for images that could not be decoded, `left_out` counts these and
    those without a label, `stops` the problems that need `on_bad=skip`. `fingerprint` depends on the files' bytes, the labels,
    the crop and the filter, and not on the machine.
    """

    folder: Path
    condition_names: tuple[str, ...]
    condition_groups: Mapping[str, tuple[str, ...]]
    fingerprint: str
    labels: np.ndarray | None
    split: np.ndarray | None
    draw: np.ndarray
    good: np.ndarray
    sums: np.ndarray
    left_out: int
    stops: int
    block = 1
    filter = FILTER

    @cached_property
    def images(self) -> np.memmap:
        """The pixels (N, C, H, W) uint8, a read-only memory map."""
        return np.load(self.folder / "images.npy", mmap_mode="r")

    def __getstate__(self) -> dict[str, Any]:
        """Without the memory map, which another process opens for itself."""
        return {key: value for key, value in self.__dict__.items() if key != "images"}

    def indices(self, split: int, val_fraction: float) -> np.ndarray:
        """The numbers of the good images of a split; without an official one `val_fraction` of the images is held out."""
        chosen = np.where(self.draw < val_fraction, HELD_OUT, TRAIN) if self.split is None else self.split
        return np.flatnonzero(self.good & (chosen == split))

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The images (B, C, H, W) uint8 and conditions (B, K) float32 (None without labels) of `indices` (B,)."""
        return self.images[indices], self.conditions(indices)

    def conditions(self, indices: np.ndarray) -> np.ndarray | None:
        """The conditions (B, K) float32 of `indices` (B,), None without labels."""
        return None if self.labels is None else self.labels[indices]


def load_packed(folder: Path, reader: Reader) -> PackedImages | None:
    """What `write_records` and `pack` left in `folder`, or None where that is not there whole."""
    try:
        with np.load(folder / "records.npz") as stored:  # a zip archive: every member is read against its CRC
            columns = {key: stored[key] for key in stored.files}
        scalars = {key: columns.pop(key).item() for key in ("fingerprint", "left_out", "stops")}
        labels, split = columns.pop("labels", None), columns.pop("split", None)
        known = Columns(reader.condition_names, reader.condition_groups) if labels is not None else NO_LABELS
        known = _columns(columns.pop("columns").item()) if "columns" in columns else known
        packed = PackedImages(folder, *known, labels=labels, split=split, **scalars, **columns)
        _check_pixels(packed, reader.picture)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return packed


def _columns(text: str) -> Columns:
    names, groups = json.loads(text)
    return Columns(tuple(names), {group: tuple(members) for group, members in groups.items()})


def _check_pixels(packed: PackedImages, picture: Picture) -> None:
    images, count = packed.images, len(packed.good)
    shape = (count, picture.channels, picture.resolution, picture.resolution)
    size = (packed.folder / "images.npy").stat().st_size
    if images.shape != shape or images.dtype != np.uint8 or size != images.offset + images.nbytes:
        raise ValueError(f"images.npy has {size} bytes of shape {images.shape}, not {shape}")
    for row in np.linspace(0, count - 1, min(count, _SPOT_CHECKS)).astype(int):
        if packed.good[row] and zlib.crc32(images[row].data) != packed.sums[row]:
            raise ValueError(f"image {row} has another check sum")


def write_records(folder: Path, reader: Reader, records: Records, outcome: Outcome, left_out: int) -> None:
    """Everything but the pixels, into `folder`."""
    draw = outcome.digests[:, :8].copy().view("<u8").ravel() / 2.0**64
    columns = {"draw": draw, "good": outcome.good, "sums": outcome.sums}
    optional = {"labels": records.labels, "split": records.split}
    columns |= {key: column for key, column in optional.items() if column is not None}
    identity = hashlib.blake2b(repr((reader.name, reader.version, asdict(reader.picture), FILTER)).encode(), digest_size=16)
    for part in (outcome.digests, columns.get("labels"), columns.get("split", columns["draw"])):
        identity.update(b"" if part is None else part.tobytes())
    if records.columns:  # what the reader does not say: the same labels under other names are another data set
        columns["columns"] = np.array(json.dumps(records.columns))
        identity.update(columns["columns"].item().encode())
    stops = sum(problem.effect == "stop" for problem in records.problems + outcome.problems)
    np.savez(folder / "records.npz", fingerprint=identity.hexdigest(), left_out=left_out, stops=stops, **columns)
