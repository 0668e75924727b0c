"""One pass over a set of images: every image is made once, every extractor sees it, and what they say is kept.

    CACHE/features/0123456789abcdef/000003.npz

The folder is named by what the images are and what extracts; each file holds the outputs for `CHUNK` images, so a pass that was
killed goes on where it was, and another metric over the same images needs no new ones.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from facegen.errors import UserError
from facegen.images import write_whole
from facegen.metrics.frechet import Moments
from facegen.metrics.protocol import digest, software
from facegen.ranks import wait_for_all

CHUNK = 256  # images between two files
FORMAT = 2
LABEL = "label"

Outputs = dict[str, np.ndarray]
Identity = Mapping[str, object]


class Source(Protocol):
    """A set of `count` images by number. `identity` says which images they are, whatever the machine; `title` names them on a bar."""

    count: int
    title: str

    @property
    def identity(self) -> Identity: ...

    def batches(self, numbers: Sequence[int], kept: int) -> Iterator[np.ndarray]:
        """The images of `numbers`, in order, some at a time (B,C,H,W) uint8, behind a bar that counts `kept` of them as done."""
        ...


class Extractor(Protocol):
    """Says something of each image, whatever the batch it comes in; `identity` names the network and its weights."""

    @property
    def identity(self) -> Identity: ...

    def __call__(self, images: Tensor) -> Outputs:
        """Outputs (B, ...) of images (B,C,H,W) uint8."""
        ...


class AsTheyAre:
    """Keeps the images themselves, for metrics that look at pixels and for files."""

    @property
    def identity(self) -> Identity:
        return {"name": "pixels"}

    def __call__(self, images: Tensor) -> Outputs:
        return {"pixels": images.numpy()}


def require_uint8(images: Tensor) -> Tensor:
    """`images` where they are bytes; raises UserError where they are not: floats in another range give a wrong number in silence."""
    if images.dtype != torch.uint8:
        raise UserError(f"images must be uint8 in 0..255; got {images.dtype}; convert with facegen.images.to_uint8")
    return images


@dataclass(frozen=True)
class Kept:
    """The files that hold one extractor's outputs for one set of images."""

    folder: Path
    count: int

    @staticmethod
    def of(home: Path, source: Source, extractor: Extractor) -> Kept:
        """Where the outputs of `extractor` for `source` lie under `home`."""
        made_by = (software(), str(getattr(extractor, "device", "cpu")))
        return Kept(home / digest(FORMAT, CHUNK, source.identity, extractor.identity, made_by), source.count)

    def path(self, chunk: int) -> Path:
        return self.folder / f"{chunk:06d}.npz"

    def read(self, chunk: int) -> Outputs | None:
        """The outputs of a chunk; None where they are not there yet, or damaged: then they are made again, which is said.

        The last chunk of fewer images than now is not there yet, of more it is cut.
        """
        path, wanted = self.path(chunk), len(chunk_numbers(chunk, self.count))
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                if str(file[LABEL]) != self._label(chunk):
                    raise ValueError("of another place")
                outputs = {name: file[name][:wanted] for name in file.files if name != LABEL}
        except Exception:  # a file in the wrong place, of the wrong kind or with flipped bits can fail in any way
            print(f"{path} is damaged: made again", file=sys.stderr)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            return None
        return outputs if outputs and all(len(rows) == wanted for rows in outputs.values()) else None

    def _label(self, chunk: int) -> str:
        """What a file says of itself: one that was put in another's place is no answer."""
        return f"{self.folder.name}/{chunk}"

    def write(self, chunk: int, outputs: Outputs) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, **outputs, **{LABEL: np.array(self._label(chunk))})  # pyright: ignore[reportArgumentType] (its stub takes the names for options)
        write_whole(self.path(chunk), buffer.getvalue())


def chunk_numbers(chunk: int, count: int) -> range:
    """The images of a chunk; fewer in the last one."""
    return range(chunk * CHUNK, min((chunk + 1) * CHUNK, count))


class Collected:
    """What the extractors said of all images of a source; several processes have each made a part of it."""

    def __init__(self, stores: Mapping[str, Kept], chunks: range, mine: range) -> None:
        self._stores, self._chunks, self._mine = stores, chunks, mine
        self._rows: dict[tuple[str, str], np.ndarray] = {}
        self._moments: dict[str, Moments] = {}

    @property
    def count(self) -> int:
        """How many images there are."""
        return next(iter(self._stores.values())).count

    def rows(self, extractor: str, output: str = "features") -> np.ndarray:
        """An output for every image, (N, ...), in the order of the images."""
        if (extractor, output) not in self._rows:
            self._rows[extractor, output] = self._read(extractor, output, self._chunks)
        return self._rows[extractor, output]

    def moments(self, extractor: str) -> Moments:
        """Of the features of all images, summed over the processes: every one of them has to ask."""
        if extractor not in self._moments:
            moments = Moments.of(self._read(extractor, "features", self._chunks[:1])[:0])  # none, as wide as all others
            for chunk in self._mine:
                moments += Moments.of(self._read(extractor, "features", [chunk]))
            self._moments[extractor] = moments.all_reduced()
        return self._moments[extractor]

    def _read(self, extractor: str, output: str, chunks: Sequence[int]) -> np.ndarray:
        store = self._stores[extractor]
        parts = [store.read(chunk) for chunk in chunks]
        found = [part[output] for part in parts if part is not None]
        if len(found) < len(parts):
            raise UserError(f"{store.folder} lost files while they were read; type the same command again")
        return np.concatenate(found)


def collect(home: Path, source: Source, extractors: Mapping[str, Extractor], part: tuple[int, int] = (0, 1)) -> Collected:
    """What each of `extractors` says of all images of `source`.

    Process `part` = (number, count) of a group makes its share of the chunks and waits for the others; `home` must then be a folder
    that all of them see. Raises UserError where `home` cannot be written.
    """
    stores = {name: Kept.of(home, source, extractor) for name, extractor in extractors.items()}
    chunks = range(-(-source.count // CHUNK))
    mine = chunks[part[0] :: part[1]]
    missing = [chunk for chunk in mine if not all(store.read(chunk) for store in stores.values())]
    if missing:
        done = [chunk for chunk in mine if chunk not in missing]
        _extract(source, missing, sum(len(chunk_numbers(chunk, source.count)) for chunk in done), extractors, stores)
    if part[1] > 1:
        wait_for_all()
    return Collected(stores, chunks, mine)


def _extract(source: Source, chunks: Sequence[int], kept: int, extractors: Mapping[str, Extractor], stores: Mapping[str, Kept]) -> None:
    """Makes the images of `chunks` and files what is said of them, a chunk at a time."""
    numbers = [number for chunk in chunks for number in chunk_numbers(chunk, source.count)]
    waiting = list(chunks)
    said: dict[str, list[Outputs]] = {name: [] for name in extractors}
    have = 0
    for images in source.batches(numbers, kept):
        start = 0
        while start < len(images):
            want = len(chunk_numbers(waiting[0], source.count))
            part = torch.from_numpy(images[start : start + want - have])
            for name, extractor in extractors.items():
                said[name].append(_finite(extractor(part), name))
            have, start = have + len(part), start + len(part)
            if have == want:
                for name, store in stores.items():
                    store.write(waiting[0], {key: np.concatenate([one[key] for one in said[name]]) for key in said[name][0]})
                said, have = {name: [] for name in extractors}, 0
                waiting.pop(0)


def _finite(outputs: Outputs, name: str) -> Outputs:
    if not all(np.isfinite(rows).all() for rows in outputs.values()):
        raise UserError(
            f"the {name} network gives NaN: its weights are spoilt; give another {name}{'=' if name == 'probe' else '_weights='}"
        )
    return outputs
