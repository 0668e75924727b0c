"""Whole batches in an order that is a function of (seed, position): nothing to remember but how many batches were seen.

Sample number g of a run is image `permutation(N, seed, g // N)[g % N]`; batch p holds the numbers p B ... p B + B - 1, of
which each rank takes its own contiguous part. The same numbers come at any number of workers, ranks and restarts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import count
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from facegen.seeding import uniform


class Source(Protocol):
    """Images by number. `block` of them in a row are best read together."""

    block: int

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The images (B, C, H, W) uint8 and conditions (B, K) float32 (None without labels) of `indices` (B,)."""
        ...

    def conditions(self, indices: np.ndarray) -> np.ndarray | None:
        """The conditions alone; no image is read for them."""
        ...


class Pick(NamedTuple):
    """One rank's part of a batch: the images, their sample numbers (None: held out) and the number of the batch."""

    indices: np.ndarray
    numbers: np.ndarray | None = None
    position: int = 0


@lru_cache(maxsize=2)
def permutation(length: int, seed: int, epoch: int, block: int = 1) -> np.ndarray:
    """The order (N,) of an epoch: shuffled blocks, each shuffled in itself.

    It sorts keyed numbers, so that no library's generator can change it.
    """
    places = np.arange(length)
    within = uniform(places, seed, "epoch", epoch)
    return np.argsort(within) if block == 1 else np.lexsort((within, uniform(places // block, seed, "blocks", epoch)))


class Stream(Sampler[Pick]):
    """The endless training order over the images `indices` (N,), as seen by `rank` of `world`, from batch `start` on."""

    def __init__(self, indices: np.ndarray, batch_size: int, seed: int, block: int, rank: int, world: int, start: int) -> None:
        self.indices, self.batch_size, self.seed, self.block = indices, batch_size, seed, block
        self.rank, self.world, self.start = rank, world, start

    def __iter__(self) -> Iterator[Pick]:
        share = self.batch_size // self.world
        for position in count(self.start):
            numbers = position * self.batch_size + self.rank * share + np.arange(share)
            yield Pick(self.pick(numbers), numbers, position)

    def pick(self, numbers: np.ndarray) -> np.ndarray:
        """The images of sample `numbers` (B,), which may span epochs."""
        length = len(self.indices)
        epochs, places = np.divmod(numbers, length)
        order = np.empty_like(places)
        for epoch in np.unique(epochs):
            order[epochs == epoch] = permutation(length, self.seed, int(epoch), self.block)[places[epochs == epoch]]
        return self.indices[order]


class HeldOut(Sampler[Pick]):
    """The images `indices` once, in order, in batches of at least `batch_size` where there are so many.

    Every rank gets the same number of batches and none is empty: ranks that compute together must not wait in vain.
    """

    def __init__(self, indices: np.ndarray, batch_size: int, rank: int, world: int) -> None:
        batches = np.array_split(indices, max(1, len(indices) // batch_size))
        self.picks = [Pick(np.array_split(batch, world)[rank]) for batch in batches if len(batch) >= world]

    def __iter__(self) -> Iterator[Pick]:
        return iter(self.picks)

    def __len__(self) -> int:
        return len(self.picks)


def mirrored(numbers: np.ndarray, seed: int) -> np.ndarray:
    """Which of the training samples `numbers` (B,) are shown mirrored, (B,) bool: half of them."""
    return uniform(numbers, seed, "flip") < 0.5


class Batches(Dataset[dict]):
    """The batch of a `Pick`, with uint8 images; half of the training samples are mirrored where `flip` is set.

    `sources` makes what the images of some numbers are edits of, (B, C, H, W) uint8, where they are.
    """

    def __init__(self, source: Source, seed: int, flip: bool, sources: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        self.source, self.seed, self.flip, self.sources = source, seed, flip, sources

    def __getitem__(self, pick: Pick) -> dict[str, torch.Tensor | int]:
        images, conditions = self.source.read(pick.indices)
        batch: dict[str, torch.Tensor | int] = {"index": torch.from_numpy(pick.indices)}
        pictures = {"image": images} if self.sources is None else {"image": images, "source": self.sources(pick.indices)}
        if pick.numbers is not None:
            batch["position"] = pick.position
            if self.flip:
                turned = mirrored(pick.numbers, self.seed)
                for picture in pictures.values():
                    picture[turned] = picture[turned, :, :, ::-1]
        batch |= {name: torch.from_numpy(picture) for name, picture in pictures.items()}
        if conditions is not None:
            batch["condition"] = torch.from_numpy(conditions)
        return batch


def loader(batches: Dataset[dict], sampler: Sampler[Pick], num_workers: int) -> DataLoader:
    """A loader of whole batches."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=sampler,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
