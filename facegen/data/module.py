"""What all data modules have in common: see `facegen.data.faces` for the batch that they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from facegen.data.columns import Columns, balanced_by, choose
from facegen.data.decode import Picture
from facegen.data.edit_source import PAIRED, EditSource
from facegen.data.latents import LatentBatches, PackedLatents
from facegen.data.loading import Batches, HeldOut, Stream, loader
from facegen.data.selection import Selected, balanced
from facegen.errors import UserError
from facegen.images import to_float
from facegen.seeding import uniform

Open = Callable[[], tuple[Any, np.ndarray, np.ndarray]]  # a Source, the numbers to train on and those held out
_EXAMPLES = 512
NO_SOURCE = EditSource()


class FaceData(LightningDataModule):
    """Faces in batches of `batch_size` over all devices, in an endless keyed order that continues where a checkpoint left it.

    `prepare` opens the data and raises UserError for whatever the user can mend; after it `num_train`, `num_val`, `epoch_length`,
    `condition_names`, `condition_groups` and `fingerprint` are known. `consumed` counts the batches trained on.
    """

    condition_names: tuple[str, ...]
    condition_groups: Mapping[str, tuple[str, ...]]
    fingerprint: str
    unlabelled = ""  # why there are no condition names, and what to type where they are needed

    def __init__(
        self,
        picture: Picture,
        opened: Open,
        batch_size: int,
        num_workers: int,
        seed: int,
        flip: bool,
        attributes: Sequence[str | int] | None = None,
        balance: bool | int | str | list[str | int] = False,
        edit_source: EditSource = NO_SOURCE,
    ) -> None:
        super().__init__()
        self.picture, self.resolution, self.channels = picture, picture.resolution, picture.channels
        self.batch_size, self.num_workers, self.seed, self.flip = batch_size, num_workers, seed, flip
        self.attributes, self.balance, self.edit_source = attributes, balance, edit_source
        self.consumed = 0
        self.latents: PackedLatents | None = None
        self.source_latents: PackedLatents | None = None
        self._open = opened
        self._source: Any = None
        self._people: Any = None

    def prepare(self) -> None:
        """Opens the data, once; packs it first where no cache has it."""
        if self._source is not None:
            return
        source, self._train, self._held_out = self._open()
        self._people = source if hasattr(source, "aged") else None  # whom one can see at another age
        if self.num_train < self.batch_size:
            raise UserError(
                f"data.batch_size={self.batch_size} is more than the {self.num_train} images to train on; "
                f"type data.batch_size={max(1, self.num_train)} or less"
            )
        chosen = choose(Columns(source.condition_names, source.condition_groups), self.attributes, self.unlabelled)
        source = source if self.attributes is None else Selected(source, chosen)
        by = balanced_by(chosen, self.balance, self.unlabelled)
        self._shown = balanced(self._train, source.conditions(self._train), chosen, by) if by else self._train
        self.condition_names, self.condition_groups, self.fingerprint = *chosen, source.fingerprint
        self._source = source

    def prepare_data(self) -> None:
        """One process of a machine packs the data, the others wait."""
        self.prepare()

    def setup(self, stage: str) -> None:
        """Every process opens the data."""
        self.prepare()

    @property
    def num_train(self) -> int:
        """How many images there are to train on, each counted once."""
        return len(self._train)

    @property
    def num_val(self) -> int:
        """How many images are held out."""
        return len(self._held_out)

    @property
    def epoch_length(self) -> int:
        """How many images an epoch shows: with `balance` some come more than once, and those in no class do not come."""
        return len(self._shown)

    def numbers(self, split: str) -> np.ndarray:
        """The images (N,) of `train` (what there is to train on), of `held_out`, or of `all`, in the order of the data set."""
        self.prepare()
        both = np.union1d(self._train, self._held_out)
        return {"train": self._train, "held_out": self._held_out, "all": both}[split]

    def pixels(self, numbers: np.ndarray) -> np.ndarray:
        """The images (B, C, H, W) uint8 of `numbers` (B,), not mirrored."""
        return self._source.read(numbers)[0]

    def sources(self, numbers: np.ndarray) -> np.ndarray:
        """What the images `numbers` (B,) are edits of, (B, C, H, W) uint8, not mirrored; the images themselves where that is nothing."""
        if self.edit_source.kind == PAIRED:
            return self._people.younger_or_older(numbers)
        return self.edit_source(self.pixels(numbers), numbers)

    def aged(self, numbers: np.ndarray, years: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """The people of the images `numbers` (B,) at the age of `years` (B,), as images (B, C, H, W) uint8 and conditions (B, K) float32 of
        all that the data can say; None where nobody knows."""
        self.prepare()
        return self._people.aged(numbers, years) if self._people is not None else None

    def conditions(self, numbers: np.ndarray) -> np.ndarray | None:
        """The conditions (B, K) float32 of the images `numbers` (B,), None without labels; no image is read for them."""
        self.prepare()
        return self._source.conditions(numbers)

    def use(self, latents: PackedLatents, of_sources: PackedLatents | None = None) -> None:
        """Gives `latents` of the images in its batches from now on, in place of the images, and those of their sources."""
        self.latents, self.source_latents = latents, of_sources

    def facts(self) -> dict[str, Any]:
        """What a checkpoint and a table of results say of the data: plain values, no paths.

        `condition_examples` are the labels of some of the images that an epoch shows: of each the numbers of the columns that are 1.
        """
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
            "condition_examples": self._examples,
        }

    @cached_property
    def _examples(self) -> list[list[int]]:
        if not self.condition_names:
            return []
        order = np.argsort(uniform(np.arange(self.epoch_length), "condition examples"))
        return [np.flatnonzero(row).tolist() for row in self._source.conditions(self._shown[order[:_EXAMPLES]])]

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
        stream = Stream(self._shown, self.batch_size, self.seed, self._source.block, *self._rank(), self.consumed)
        return loader(self._batches(self.flip), stream, self.num_workers)

    def val_dataloader(self) -> DataLoader:
        """The held-out images once, in order."""
        self.prepare()
        return loader(self._batches(False), HeldOut(self._held_out, self.batch_size, *self._rank()), 0)

    def _batches(self, flip: bool) -> Dataset[dict]:
        if self.latents is not None:
            return LatentBatches(self.latents, self._source, self.seed, self.source_latents)
        return Batches(self._source, self.seed, flip, self.sources if self.edit_source.shows else None)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Images become float32 in [-1, 1] where they are used; a training batch counts as consumed."""
        if "position" in batch:
            self.consumed = batch["position"] + 1
        return {**batch, **{name: to_float(batch[name]) for name in ("image", "source") if name in batch}}

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, and of what."""
        told = {"consumed": self.consumed, "fingerprint": self.fingerprint, "batch_size": self.batch_size}
        return {**told, "condition_names": list(self.condition_names)}

    def require_labels(self, before: list[str] | None) -> None:
        """Raises UserError where the labels are not those `before`, when the run was saved; older checkpoints do not say (None)."""
        names = list(self.condition_names)
        if before not in (None, names):
            raise UserError(
                f"data.root: the labels there are [{', '.join(names)}], and were [{', '.join(before)}] when this run was saved; give the "
                "folders of classes their old names again (data.attributes its old value), or type another run_dir= to start anew"
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues after the batches consumed; raises UserError where the data is not the same."""
        self.prepare()
        self.require_labels(state_dict.get("condition_names"))
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
