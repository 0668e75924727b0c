"""The real images that an evaluation measures against, and those that the nearest neighbours are looked for among."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from facegen import schema
from facegen.errors import UserError
from facegen.loading import Loaded, LoadedAutoencoder
from facegen.metrics.features import Collected, Extractor, Source, collect
from facegen.metrics.neighbours import Neighbours, in_features, in_pixels
from facegen.metrics.sources import DataImages, FolderImages
from facegen.ranks import rank_and_world
from facegen.request import Request

Build = Callable[..., Any]
SPLIT = ("val_fraction", "limit", "size", "held_out")  # options of data modules that decide which images are held out


class Reference:
    """The real side: one set of images (`source`), extracted once for every model that is measured against it.

    `held_out` are the images that no model was trained on, None where there are none.
    `mirrored`: the models were trained on mirrored images too, so a copy may be a mirrored one. `options` are those of the data module.
    """

    def __init__(self, home: Path, source: FolderImages | DataImages, data: Any = None, options: Mapping[str, Any] | None = None) -> None:
        self.home, self.source, self._options = home, source, options or {}
        self.mirrored = bool(data is not None and data.flip)
        self._train = source if data is None else DataImages(data, "train")
        self.held_out = None if data is None or not data.num_val else DataImages(data, "held_out")
        self._collected: dict[tuple[int, tuple[str, ...]], Collected] = {}

    def collect(self, extractors: Mapping[str, Extractor]) -> Collected:
        """What `extractors` say of the real images."""
        return self.of(self.source, extractors)

    def neighbours(self, pixels: np.ndarray, features: np.ndarray, space: str, extractor: Extractor) -> Neighbours:
        """The training images nearest to generated images (N,C,H,W) uint8 with features (N,D)."""
        train, unseen = self._features(self._train, space, extractor), self._features(self.held_out, space, extractor)
        unseen_pixels = pixels[:0] if self.held_out is None else self.held_out.pixels()
        return Neighbours(
            in_pixels(pixels, self._train.pixels(), unseen_pixels, self.mirrored),
            in_features(features, train, features[:0] if self.held_out is None else unseen),
            {"training_images": self._train.count, "held_out": len(unseen_pixels), "mirrored": self.mirrored},
        )

    @property
    def name(self) -> str:
        """What the real images are called in a file: the folder, or the data set and its split."""
        source = self.source
        return source.folder.resolve().name if isinstance(source, FolderImages) else f"{source.identity['name']} {source.identity['split']}"

    def another(self, fingerprint: str) -> bool:
        """Whether what has this `fingerprint` is another data set than this one."""
        return fingerprint != self.source.identity.get("fingerprint")

    def split_otherwise(self, options: Mapping[str, Any]) -> list[str]:
        """The options that decide which images are held out and that differ from `options`, those of a data module of the same images."""
        return [key for key in SPLIT if options.get(key) != self._options.get(key)]

    @property
    def training_names(self) -> Sequence[object]:
        """What the training images are called: their numbers in the data set, or the names of their files."""
        return self._train.names if isinstance(self._train, FolderImages) else self._train.numbers.tolist()

    def training_images(self, places: np.ndarray) -> np.ndarray:
        """The training images (N,C,H,W) uint8 at `places` (N,)."""
        return self._train.pixels(places)

    def _features(self, source: Source | None, space: str, extractor: Extractor) -> np.ndarray:
        return np.empty((0, 1)) if source is None else self.of(source, {space: extractor}).rows(space)

    def of(self, source: Source, extractors: Mapping[str, Extractor]) -> Collected:
        """What `extractors` say of the images of `source`."""
        key = id(source), tuple(extractors)
        if key not in self._collected:
            self._collected[key] = collect(self.home, source, extractors, rank_and_world())
        return self._collected[key]


def data_of(asked: dict[str, Any], trained: list[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    """The configuration of the data to measure against: the one asked for, or that of the checkpoints with the options asked for.

    Raises UserError with a line for each problem, and where the checkpoints were trained on different data.
    """
    if "_target_" in asked:
        node = dict(asked)
    else:
        (path, first), *others = trained
        for other, config in others:
            if differing := [key for key in first if key not in FREE and first[key] != config.get(key)]:
                what = f"data.{differing[0]}: {first[differing[0]]} of {path}, {config.get(differing[0])} of {other}"
                raise UserError(f"ckpt: the checkpoints were trained on different data ({what}); type data=NAME or real=FOLDER")
        node = {**first, **asked}
    problems = [*schema.check(node, "data")]
    if problems:
        raise UserError(*problems)
    all_labels = {key: value for key, value in {"attributes": None, "balance": False}.items() if key in node}
    return {**node, **all_labels, "batch_size": 1, "num_workers": 0}  # images are counted, not trained on


FREE = ("_target_", "root", "cache_dir", "batch_size", "num_workers", "seed", "flip", "attributes", "balance")


def open_reference(request: Request, home: Path, loaded: Sequence[Loaded | LoadedAutoencoder], build: Build) -> Reference:
    """The reference that `request` asks for, by default what the checkpoints `loaded` were trained on: of an autoencoder, which knows
    those images, the held-out ones.

    Raises UserError where images of unlike sizes would meet, before the data is packed, and where the split is empty.
    """
    if request.real:
        return Reference(home, FolderImages(request.real, "real"))
    node = data_of(request.data, [(one.path, one.config["data"]) for one in loaded])
    shapes = {one.path.stem: one.image_shape if isinstance(one, LoadedAutoencoder) else one.codec.image_shape for one in loaded}
    real = Shape(node.get("resolution", 0), node.get("channels", 0))
    if problems := [line for name, shape in shapes.items() for line in unlike(name, Shape(shape[-1], shape[0]), real)]:
        raise UserError(*problems)
    data = build(node)
    if not hasattr(data, "numbers"):
        raise UserError(f"data._target_={node['_target_']} is no data module; type data=NAME")
    data.prepare()
    options = {key: value for key, value in node.items() if key not in (*FREE, "_target_", "resolution", "channels", "crop")}
    unseen = request.edits or any(isinstance(one, LoadedAutoencoder) for one in loaded)
    split = request.split or ("held_out" if unseen else "train")
    source = DataImages(data, split, request.real_n, options)
    if not source.count:
        raise UserError(f"split={split}: no image of the data is held out; type split=train, or data=NAME that has some")
    if request.real_n and request.real_n > source.count:
        raise UserError(f"real_n={request.real_n} is more than the {source.count:,} images of split={split}; leave real_n out")
    return Reference(home, source, data, node)


class Shape(NamedTuple):
    """How large images are."""

    resolution: int
    channels: int


class Sized(Protocol):
    """Something that has images of one size."""

    @property
    def resolution(self) -> int: ...
    @property
    def channels(self) -> int: ...


def unlike(name: str, fake: Sized, real: Sized) -> list[str]:
    """The problem of images, those of `name` and the real ones, that differ in size or channels."""
    if (fake.resolution, fake.channels) == (real.resolution, real.channels):
        return []
    sides = f"{name} is {_size(fake)}, the real images are {_size(real)}"
    fitting = f"data.resolution={fake.resolution} data.channels={fake.channels}"
    return [f"{sides}: both must be alike; type data=NAME data.root=FOLDER {fitting} to have them resized"]


def _size(images: Sized) -> str:
    return f"{images.resolution} px with {images.channels} channel{'s' * (images.channels > 1)}"
