"""The data modules that a configuration can name, and the batch that every model is given.

A batch is a dict: `image` (B, C, H, W) float32 in [-1, 1]; `condition` (B, K) float32 where the data has labels, with the
columns `condition_names`; `index` (B,) int64, the image's number in the data set; in training also `position`, the number of
the batch since the run began. Of the columns in one of `condition_groups` an image has one at most, the other columns are attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from facegen.data.cache import open_split
from facegen.data.decode import Picture
from facegen.data.drawn import open_drawn
from facegen.data.loading import Batches, HeldOut, Stream, loader
from facegen.data.readers import READERS
from facegen.data.records import Reader
from facegen.errors import UserError
from facegen.images import to_float
from facegen.types import NonNegativeInt, PositiveInt, ProperFraction

Open = Callable[[], tuple[Any, np.ndarray, np.ndarray]]  # a Source, the numbers to train on and those held out


class FaceData(LightningDataModule):
    """Faces in batches of `batch_size` over all devices, in an endless keyed order that continues where a checkpoint left it.

    `prepare` opens the data and raises UserError for whatever the user can mend; after it `num_train`, `num_val`,
    `condition_names`, `condition_groups` and `fingerprint` are known. `consumed` counts the batches trained on.
    """

    condition_names: tuple[str, ...]
    condition_groups: dict[str, tuple[str, ...]]
    fingerprint: str
    unlabelled = ""  # why there are no condition names, and what to type where they are needed

    def __init__(self, picture: Picture, opened: Open, batch_size: int, num_workers: int, seed: int, flip: bool) -> None:
        super().__init__()
        self.picture, self.resolution, self.channels = picture, picture.resolution, picture.channels
        self.batch_size, self.num_workers, self.seed, self.flip = batch_size, num_workers, seed, flip
        self.consumed = 0
        self._open = opened
        self._source: Any = None

    def prepare(self) -> None:
        """Opens the data, once; packs it first where no cache has it."""
        if self._source is not None:
            return
        source, self._train, self._held_out = self._open()
        if self.num_train < self.batch_size:
            raise UserError(
                f"data.batch_size={self.batch_size} is more than the {self.num_train} images to train on; "
                f"type data.batch_size={max(1, self.num_train)} or less"
            )
        self.condition_names, self.condition_groups, self.fingerprint = source.condition_names, source.condition_groups, source.fingerprint
        self._source = source

    def prepare_data(self) -> None:
        """One process of a machine packs the data, the others wait."""
        self.prepare()

    def setup(self, stage: str) -> None:
        """Every process opens the data."""
        self.prepare()

    @property
    def num_train(self) -> int:
        """How many images there are to train on."""
        return len(self._train)

    @property
    def num_val(self) -> int:
        """How many images are held out."""
        return len(self._held_out)

    def numbers(self, split: str) -> np.ndarray:
        """The images (N,) of `train` (what a model is trained on), of `held_out`, or of `all`, in the order of the data set."""
        self.prepare()
        both = np.union1d(self._train, self._held_out)
        return {"train": self._train, "held_out": self._held_out, "all": both}[split]

    def pixels(self, numbers: np.ndarray) -> np.ndarray:
        """The images (B, C, H, W) uint8 of `numbers` (B,), not mirrored."""
        return self._source.read(numbers)[0]

    def facts(self) -> dict[str, Any]:
        """What a checkpoint and a table of results say of the data: plain values, no paths."""
        return {
            "name": type(self).__name__,
            "fingerprint": self.fingerprint,
            "resolution": self.resolution,
            "channels": self.channels,
            "crop": self.picture.crop,
            "filter": self._source.filter,
            "num_train": self.num_train,
            "num_val": self.num_val,
            "condition_names": list(self.condition_names),
            "condition_groups": {name: list(columns) for name, columns in self.condition_groups.items()},
        }

    def _rank(self) -> tuple[int, int]:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if self.batch_size % world:
            raise UserError(
                f"data.batch_size={self.batch_size} is shared by {world} devices and must be a multiple of {world}; "
                f"type data.batch_size={-(-self.batch_size // world) * world}"
            )
        return rank, world

    def train_dataloader(self) -> DataLoader:
        """The endless training batches, from number `consumed` on."""
        self.prepare()
        stream = Stream(self._train, self.batch_size, self.seed, self._source.block, *self._rank(), self.consumed)
        return loader(Batches(self._source, self.seed, self.flip), stream, self.num_workers)

    def val_dataloader(self) -> DataLoader:
        """The held-out images once, in order."""
        self.prepare()
        return loader(Batches(self._source, self.seed, False), HeldOut(self._held_out, self.batch_size, *self._rank()), 0)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Images become float32 in [-1, 1] where they are used; a training batch counts as consumed."""
        if "position" in batch:
            self.consumed = batch["position"] + 1
        return {**batch, "image": to_float(batch["image"])}

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, and of what."""
        return {"consumed": self.consumed, "fingerprint": self.fingerprint, "batch_size": self.batch_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues after the batches consumed; raises UserError where the data is not the same."""
        self.prepare()
        if state_dict["fingerprint"] != self.fingerprint:
            raise UserError(
                "data.root: the images or labels there are not those that this run was trained on (fingerprint "
                f"{self.fingerprint}, then {state_dict['fingerprint']}); give those back, or type another run_dir= to start anew"
            )
        if state_dict["batch_size"] != self.batch_size:
            raise UserError(
                f"data.batch_size={self.batch_size} was {state_dict['batch_size']} when this run was saved; "
                f"type data.batch_size={state_dict['batch_size']}"
            )
        self.consumed = state_dict["consumed"]


class FaceFiles(FaceData):
    """Faces in image files: packed once to their final size, then read by memory map.

    Args:
        root: the folder that holds the files, laid out as the subclass says.
        resolution, channels: of the images, in pixels; 3 channels are RGB, 1 is grey.
        batch_size: images in a batch, over all devices.
        seed: root of the order and of the flips.
        crop: which part of a file is the face; each layout has its own choices, which the error names.
        num_workers: processes that read; 0 reads in the training process, which is fastest from the packed cache.
        flip: mirror half of the training images.
        val_fraction: share that is held out where the layout has no official split, in [0, 1).
        on_bad: what a bad file or label does: `error` stops, `skip` leaves it out; both list it in the cache's bad.csv.
        cache_dir: where packed data lies; null is $FACEGEN_CACHE or ~/.cache/facegen.
        limit: keep so many images, chosen by their names; null keeps all.
    """

    reader: ClassVar[type[Reader]]

    def __init__(
        self,
        *,
        root: str | None,
        resolution: PositiveInt,
        channels: Literal[1, 3],
        batch_size: PositiveInt,
        seed: int,
        crop: str = "square",
        num_workers: NonNegativeInt = 0,
        flip: bool = True,
        val_fraction: ProperFraction = 0.05,
        on_bad: Literal["error", "skip"] = "error",
        cache_dir: str | None = None,
        limit: PositiveInt | None = None,
    ) -> None:
        reader = self.reader(Picture(resolution, channels, crop))
        opened = partial(open_split, reader, val_fraction, root, cache_dir, on_bad, limit)
        super().__init__(reader.picture, opened, batch_size, num_workers, seed, flip)
        self.unlabelled = reader.unlabelled(root)


class CelebA(FaceFiles):
    """CelebA's aligned pictures with 40 attributes and the official split."""

    reader = READERS["CelebA"]


class FFHQ(FaceFiles):
    """FFHQ; the official last 10,000 are held out."""

    reader = READERS["FFHQ"]


class UTKFace(FaceFiles):
    """UTKFace with gender, ten age groups and five races."""

    reader = READERS["UTKFace"]


class Folder(FaceFiles):
    """Any tree of images, without labels."""

    reader = READERS["Folder"]


class Cartoon(FaceData):
    """`size` drawn faces to train on, with all their labels, and `held_out` more to validate with."""

    def __init__(
        self,
        *,
        resolution: PositiveInt,
        channels: Literal[1, 3],
        batch_size: PositiveInt,
        seed: int,
        num_workers: NonNegativeInt = 0,
        flip: bool = False,
        size: PositiveInt = 20_000,
        held_out: NonNegativeInt = 1_000,
    ) -> None:
        opened = partial(open_drawn, resolution, channels, size, held_out)
        super().__init__(Picture(resolution, channels), opened, batch_size, num_workers, seed, flip)
