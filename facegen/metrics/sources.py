"""Where the images of an evaluation come from: a folder, a split of a data set, a model that draws them or one that gives them back."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from facegen.data.decode import DECODING, BadImage, Picture, decode
from facegen.data.records import is_image, list_files
from facegen.durable import sha256
from facegen.errors import UserError
from facegen.generate import group_of, in_groups
from facegen.images import to_float, to_uint8
from facegen.progress import progress
from facegen.studio import Studio

if TYPE_CHECKING:
    from facegen.loading import LoadedAutoencoder

BATCH = 64
ALL = slice(None)
GREY = ("1", "L", "LA", "I;16", "I;16B", "I;16L")  # Pillow's modes of one colour


class FolderImages:
    """Every image under a folder, in the order of their names, at the size they have.

    `option` is how the folder was given. Raises UserError where there is none, where it holds no image, where images differ in size
    or are not square: nothing is resized here, because a resize would be part of the number.
    """

    def __init__(self, folder: str | Path, option: str) -> None:
        self.folder, self.option = Path(folder).expanduser(), option
        if not self.folder.is_dir():
            raise UserError(f"{option}={folder} is no folder; it must hold images of one size; type {option}=FOLDER")
        files = sorted(file.path for file in list_files(self.folder) if is_image(file))
        if not files:
            raise UserError(f"{option}={folder} holds no images (jpg, jpeg, png, webp, bmp, tif); type {option}=FOLDER")
        self.names, self.count, self.title = files, len(files), f"{option} images"
        self.resolution, self.channels = self._shape()

    def _shape(self) -> tuple[int, int]:
        """The side and the channels that all images share, from their headers; one colour image makes 3 channels."""
        first, channels = None, 1
        for name in self.names:
            if not (self.folder / name).is_file():  # a pipe would be waited for
                raise self._bad(name, "is no file")
            try:
                with Image.open(self.folder / name) as image:
                    size, mode = image.size, image.mode
            except (OSError, SyntaxError, ValueError) as error:
                raise self._bad(name, "is no readable image") from error
            first = first or (size, name)
            if size != first[0]:
                sizes = f"{first[1]} has {_shown(first[0])} pixels, {name} {_shown(size)}"
                raise UserError(f"{self.option}={self.folder} holds images of mixed sizes: {sizes}; {_resize()}")
            channels = channels if mode in GREY else 3
        side, height = first[0] if first else (0, 0)
        if side != height:
            raise UserError(f"{self.option}={self.folder} holds images of {side} x {height} pixels; they must be square; {_resize()}")
        return side, channels

    def _bad(self, name: str, what: str) -> UserError:
        return UserError(f"{self.option}={self.folder}: {name} {what}; mend or remove it and type the same command again")

    @property
    def identity(self) -> dict[str, object]:
        """The names and bytes of the files, as one SHA-256."""
        shape = {"count": self.count, "resolution": self.resolution, "channels": self.channels}
        return {"source": "folder", "sha256": self._sha256, **shape, "decoding": DECODING}

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256()
        for name in self.names:
            data = (self.folder / name).read_bytes()
            digest.update(f"{name}\0{len(data)}\0".encode("utf-8", "surrogateescape"))
            digest.update(data)
        return digest.hexdigest()

    def pixels(self, places: np.ndarray | slice = ALL) -> np.ndarray:
        """The images (N,C,H,W) uint8 at `places` (N,), by default all at once."""
        picture = Picture(self.resolution, self.channels)
        return np.stack([self._decoded(self.names[place], picture) for place in np.arange(self.count)[places]])

    def batches(self, numbers: Sequence[int], kept: int) -> Iterator[np.ndarray]:
        """The images of `numbers`, decoded; raises UserError for one that is damaged."""
        picture = Picture(self.resolution, self.channels)
        with progress(self.title, kept, kept + len(numbers)) as advance:
            for start in range(0, len(numbers), BATCH):
                chosen = numbers[start : start + BATCH]
                yield np.stack([self._decoded(self.names[number], picture) for number in chosen])
                advance(len(chosen))

    def _decoded(self, name: str, picture: Picture) -> np.ndarray:
        try:
            return decode((self.folder / name).read_bytes(), picture)
        except BadImage as error:
            raise self._bad(name, str(error)) from error


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _resize() -> str:
    return "type data=folder data.root=FOLDER data.resolution=N to have them cropped and resized"


class DataImages:
    """The images of one split of a prepared data module, unmirrored: `train`, `held_out` or `all`; the first `limit` of them, or all.

    `options` are those of the data module that its images depend on, for the protocol.
    """

    def __init__(self, data: Any, split: str, limit: int | None = None, options: Mapping[str, object] | None = None) -> None:
        self._data = data
        self.numbers = data.numbers(split)[:limit]
        self.count, self.title = len(self.numbers), "real images"
        self.resolution, self.channels = data.resolution, data.channels
        facts = {key: data.facts()[key] for key in ("name", "fingerprint", "resolution", "channels", "crop", "filter")}
        which = hashlib.sha256(self.numbers.astype("<i8").tobytes()).hexdigest()[:16]
        self.identity: dict[str, object] = {"source": "data", **facts, **(options or {}), "decoding": DECODING}
        self.identity |= {"split": split, "numbers": which, "count": self.count}

    def pixels(self, places: np.ndarray | slice = ALL) -> np.ndarray:
        """The images (N,C,H,W) uint8 at `places` (N,), by default all at once."""
        return self._data.pixels(self.numbers[places])

    @property
    def names(self) -> list[str]:
        """What the data says of its images."""
        return list(self._data.condition_names)

    def aged(self, places: np.ndarray, years: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """The people of the images at `places` (N,) at the age of `years` (N,), as images (N,C,H,W) uint8 and labels (N,K) of `names`; None
        where nobody knows."""
        return self._data.aged(self.numbers[places], years)

    def unlabelled(self, names: Sequence[str]) -> list[str]:
        """The problem of images that have none of the labels `names`, or not all."""
        known = self.names
        unknown = [name for name in names if name not in known]
        has = f"has no label {unknown[0]}" if unknown and known else "has no labels"
        data = type(self._data).__name__
        return [f"condition looks at labelled images, the data ({data}) {has}; leave data out, or type data=NAME"] if unknown else []

    def labels(self, names: Sequence[str]) -> np.ndarray:
        """What the data says of the images under `names`, all of them known (`unlabelled`), (N,K) float32."""
        known = self.names
        return self._data.conditions(self.numbers)[:, [known.index(name) for name in names]]

    def batches(self, numbers: Sequence[int], kept: int) -> Iterator[np.ndarray]:
        """The images of `numbers`."""
        with progress(self.title, kept, kept + len(numbers)) as advance:
            for start in range(0, len(numbers), BATCH):
                chosen = np.asarray(numbers[start : start + BATCH])
                yield self._data.pixels(self.numbers[chosen])
                advance(len(chosen))


class Generated:
    """The images that a model draws from `count` seeds, `first` and those after it."""

    def __init__(self, studio: Studio, first: int, count: int) -> None:
        self.studio, self.first, self.count = studio, first, count
        self.title = f"{studio.loaded.path.stem} images"
        self.channels, self.resolution = studio.loaded.codec.image_shape[0], studio.loaded.codec.image_shape[-1]

    @property
    def identity(self) -> dict[str, object]:
        """The model, the way it draws, and the seeds."""
        return {"source": "generated", **self.studio.facts, "first_seed": self.first, "threads": torch.get_num_threads()}

    def batches(self, numbers: Sequence[int], kept: int) -> Iterator[np.ndarray]:
        """The images of seeds `first + number`."""
        seeds = [self.first + number for number in numbers]
        return (drawn for _, drawn in self.studio.batches(seeds, self.title, kept=kept))


class Reconstructed:
    """What an autoencoder, computing on `device`, makes of the images of another source: one for each, in their order."""

    def __init__(self, loaded: LoadedAutoencoder, of: FolderImages | DataImages, device: str) -> None:
        self.loaded, self.device = loaded, torch.device(device)
        self.sha256 = sha256(loaded.path)
        self.count, self.title = of.count, f"{loaded.path.stem} images"
        self.channels, self.resolution = loaded.image_shape[0], loaded.image_shape[-1]
        self._of = copy.copy(of)
        self._of.title = self.title

    @property
    def identity(self) -> dict[str, object]:
        """The autoencoder and the images that it was given."""
        computed = {"torch": torch.__version__, "device": str(self.device), "threads": torch.get_num_threads()}
        return {"source": "reconstructed", **self.loaded.provenance, "sha256": self.sha256, **computed, "of": self._of.identity}

    def batches(self, numbers: Sequence[int], kept: int) -> Iterator[np.ndarray]:
        """What becomes of the images of `numbers`."""
        model = self.loaded.model.to(self.device)
        return (reconstructed(model.reconstruct, images, self.device) for images in self._of.batches(numbers, kept))


def reconstructed(reconstruct: Callable[[Tensor], Tensor], images: np.ndarray, device: torch.device) -> np.ndarray:
    """What `reconstruct` makes of `images` (N,C,H,W) uint8, like them; it maps floats in [-1, 1] on `device` to such.

    An image's reconstruction depends on that image alone (`in_groups`). Raises UserError where it is no number.
    """

    def given_back(part: Tensor) -> Tensor:
        return reconstruct(to_float(part.to(device))).float().cpu()

    with torch.no_grad():
        found = in_groups(given_back, group_of(images.shape, device), torch.from_numpy(images))
    if not torch.isfinite(found).all():
        raise UserError("the autoencoder gives NaN: its weights are spoilt; give an earlier checkpoint")
    return to_uint8(found).numpy()
