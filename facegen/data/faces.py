"""The data modules that a configuration can name, and the batch that every model is given.

A batch is a dict: `image` (B, C, H, W) float32 in [-1, 1]; `condition` (B, K) float32 where the data has labels, with the
columns `condition_names`; `source`, like `image`, what it is an edit of, for models that edit; `index` (B,) int64, the image's number in
the data set; in training also `position`, the number of the batch since the run began. A latent model is given `latent` (B, P, d, h, w)
and `source_latent` in place of images (`facegen.data.latents`). Of the columns in one of `condition_groups` an image has one at most, the
other columns are attributes.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

from facegen.data.cache import open_split
from facegen.data.decode import Picture
from facegen.data.digits import open_digits
from facegen.data.drawn import open_drawn
from facegen.data.edit_source import edit_source
from facegen.data.ffhq_aging import FFHQAgingReader, Pruning
from facegen.data.mnist import open_mnist
from facegen.data.module import FaceData
from facegen.data.readers import READERS
from facegen.data.records import Reader
from facegen.types import Fraction, NonNegativeInt, PositiveFloat, PositiveInt, ProperFraction


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
        attributes: the labels to show, by the names of columns and of groups of them; null shows all.
        balance: show the classes of this group, or those with and without this attribute, equally often; true is the only group, a list
            their combinations.
        source: what a model that edits is shown of each image: `noised`, `lowpass`, `masked`, `self` or `none` (`EditSource`).
        source_noise, source_size: of a noised and of a low-passed source.
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
        attributes: list[str | int] | None = None,
        balance: bool | int | str | list[str | int] = False,
        source: Literal["noised", "lowpass", "masked", "self", "none"] | None = None,
        source_noise: PositiveFloat = 0.5,
        source_size: PositiveInt = 8,
    ) -> None:
        reader = self._reader(Picture(resolution, channels, crop))
        opened = partial(open_split, reader, val_fraction, root, cache_dir, on_bad, limit)
        edited = edit_source(f".{type(self).__name__}", source, source_noise, source_size, resolution, crop)
        super().__init__(reader.picture, opened, batch_size, num_workers, seed, flip, attributes, balance, edited)
        self.unlabelled = reader.unlabelled(root)

    def _reader(self, picture: Picture) -> Reader:
        return self.reader(picture)


class CelebA(FaceFiles):
    """CelebA's aligned pictures with 40 attributes and the official split."""

    reader = READERS["CelebA"]


class Ethnicity(FaceFiles):
    """Faces in one folder for each class, such as European, Indian and Oriental; `val_fraction` is held out where no folder val is."""

    reader = READERS["Ethnicity"]


class FFHQ(FaceFiles):
    """FFHQ; the official last 10,000 are held out."""

    reader = READERS["FFHQ"]


class FFHQAging(FaceFiles):
    """FFHQ with the gender, glasses and ten age groups of FFHQ-Aging's table; options as of `FaceFiles`.

    Args:
        prune: leave out doubtful labels, turned heads, hidden eyes and dark glasses, as the authors of the table do.
        age_confidence, gender_confidence, pitch, yaw, both_eyes, one_eye, dark_glasses: how much of that (`ffhq_aging.Pruning`).
    """

    reader = FFHQAgingReader

    def __init__(
        self,
        *,
        prune: bool = True,
        age_confidence: Fraction = 0.6,
        gender_confidence: Fraction = 0.66,
        pitch: PositiveFloat = 30.0,
        yaw: PositiveFloat = 40.0,
        both_eyes: PositiveFloat = 50.0,
        one_eye: PositiveFloat = 90.0,
        dark_glasses: bool = False,
        **others: Any,
    ) -> None:
        self.prune = prune
        self.pruning = Pruning(age_confidence, gender_confidence, pitch, yaw, both_eyes, one_eye, dark_glasses)
        super().__init__(**others)

    def _reader(self, picture: Picture) -> Reader:
        return FFHQAgingReader(picture, self.prune, self.pruning)


class UTKFace(FaceFiles):
    """UTKFace with gender, ten age groups and five races."""

    reader = READERS["UTKFace"]


class Folder(FaceFiles):
    """Any tree of images, without labels."""

    reader = READERS["Folder"]


class Cartoon(FaceData):
    """`size` drawn faces to train on, with all their labels, and `held_out` more to validate with; options as of `FaceFiles`.

    As a `source` of edits there is `paired` as well: the same person at another age.
    """

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
        attributes: list[str | int] | None = None,
        balance: bool | int | str | list[str | int] = False,
        source: Literal["paired", "noised", "lowpass", "masked", "self", "none"] | None = None,
        source_noise: PositiveFloat = 0.5,
        source_size: PositiveInt = 8,
    ) -> None:
        opened = partial(open_drawn, resolution, channels, size, held_out)
        edited = edit_source(".Cartoon", source, source_noise, source_size, resolution)
        super().__init__(Picture(resolution, channels), opened, batch_size, num_workers, seed, flip, attributes, balance, edited)


class MNIST(FaceData):
    """MNIST's digits from their IDX files under `root`, black around them up to `resolution`, and not mirrored.

    Held out are the files of t10k or, without them, `val_fraction` of the digits; the other options are those of `FaceFiles`.
    """

    def __init__(
        self,
        *,
        root: str | None,
        resolution: PositiveInt,
        channels: Literal[1],
        batch_size: PositiveInt,
        seed: int,
        num_workers: NonNegativeInt = 0,
        flip: bool = False,
        val_fraction: ProperFraction = 0.05,
        attributes: list[str | int] | None = None,
        balance: bool | int | str | list[str | int] = False,
    ) -> None:
        opened = partial(open_mnist, root, resolution, val_fraction)
        super().__init__(Picture(resolution, channels), opened, batch_size, num_workers, seed, flip, attributes, balance)


class Digits(FaceData):
    """The 1,797 digits of 8 x 8 pixels that come with scikit-learn, black around them up to `resolution`, and not mirrored.

    `val_fraction` of them are held out; the other options are those of `FaceFiles`.
    """

    def __init__(
        self,
        *,
        resolution: PositiveInt,
        channels: Literal[1],
        batch_size: PositiveInt,
        seed: int,
        num_workers: NonNegativeInt = 0,
        flip: bool = False,
        val_fraction: ProperFraction = 0.1,
        attributes: list[str | int] | None = None,
        balance: bool | int | str | list[str | int] = False,
    ) -> None:
        opened = partial(open_digits, resolution, val_fraction)
        super().__init__(Picture(resolution, channels), opened, batch_size, num_workers, seed, flip, attributes, balance)
