"""Does the model copy? The training images nearest to each generated one, in pixels and in features, beside those of unseen photographs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from facegen.images import write_whole
from facegen.metrics.manifold import nearest

SHOWN = 5  # neighbours kept of each image


@dataclass(frozen=True)
class Nearest:
    """Distances (N, k) of N images to their k nearest training images and the places (N, k) of these, nearest first.

    `unseen` (M,) are the distances of held-out images to their nearest training image, empty where nothing is held out.
    """

    distances: np.ndarray
    places: np.ndarray
    unseen: np.ndarray

    @property
    def ratio(self) -> float | None:
        """The median distance over that of held-out images: well below 1 where images are copies, None without held-out images."""
        return float(np.median(self.distances[:, 0]) / np.median(self.unseen)) if len(self.unseen) else None


@dataclass(frozen=True)
class Neighbours:
    """What lies nearest to each generated image: in root-mean-square grey levels and in features; `compared` says among what."""

    pixels: Nearest
    features: Nearest
    compared: Mapping[str, object] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """In features; the plain median distance where no images are held out to compare with."""
        ratio = self.features.ratio
        return float(np.median(self.features.distances[:, 0])) if ratio is None else ratio

    def summary(self) -> dict[str, Any]:
        """Medians and the least distance in both spaces, and the images that lie nearest to a training image."""
        found: dict[str, Any] = {}
        for name, near in (("pixels", self.pixels), ("features", self.features)):
            first = near.distances[:, 0]
            found[name] = {"ratio": near.ratio, "median": float(np.median(first)), "least": float(first.min())}
            found[name] |= {"median_held_out": float(np.median(near.unseen))} if len(near.unseen) else {}
            found[name]["nearest_images"] = np.argsort(first, kind="stable")[:10].tolist()
        return found


def save_listing(path: Path, neighbours: Neighbours, first: int, names: Sequence[object]) -> Path:
    """Writes a row for each image (from number `first` on) and neighbour; `names` are what the training images are called."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["image", "space", "rank", "training_image", "distance"])
    for space, near in (("features", neighbours.features), ("pixels", neighbours.pixels)):
        for image, (places, distances) in enumerate(zip(near.places.tolist(), near.distances.tolist(), strict=True), first):
            for rank, (place, distance) in enumerate(zip(places, distances, strict=True), 1):
                table.writerow([image, space, rank, names[place], f"{distance:.6g}"])
    write_whole(path, text.getvalue().encode("utf-8", "surrogateescape"))
    return path


def in_features(fake: np.ndarray, train: np.ndarray, unseen: np.ndarray) -> Nearest:
    """Of features (N,D) among those of training images (T,D), and of held-out images (M,D)."""
    distances, places = nearest(fake, train, min(SHOWN, len(train)))
    held = nearest(unseen, train, 1)[0][:, 0] if len(unseen) else np.empty(0)
    return Nearest(distances, places, held)


def in_pixels(fake: np.ndarray, train: np.ndarray, unseen: np.ndarray, mirrored: bool) -> Nearest:
    """Of images (N,C,H,W) uint8 among training images, in root-mean-square grey levels; `mirrored`: training saw them mirrored too."""
    distances, places = _closest(fake, train, min(SHOWN, len(train)), mirrored)
    held = _closest(unseen, train, 1, mirrored)[0][:, 0] if len(unseen) else np.empty(0)
    return Nearest(distances, places, held)


def _closest(images: np.ndarray, train: np.ndarray, k: int, mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
    flat = train.reshape(len(train), -1)
    distances, places = nearest(images.reshape(len(images), -1), flat, k)
    if mirrored:
        turned = nearest(images[..., ::-1].reshape(len(images), -1), flat, k)
        distances, places = (np.concatenate(both, axis=1) for both in zip((distances, places), turned, strict=True))
        distances, places = _nearest_once(distances, places, k)
    return distances / np.sqrt(flat.shape[1]), places


def _nearest_once(distances: np.ndarray, places: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of each row (N, 2k) in which a place may stand twice: its smaller distance counts."""
    order = np.argsort(distances, axis=1, kind="stable")
    chosen = np.empty((len(order), k), dtype=int)
    for row, (ranked, where) in enumerate(zip(order, places, strict=True)):
        _, first = np.unique(where[ranked], return_index=True)
        chosen[row] = ranked[np.sort(first)[:k]]
    return np.take_along_axis(distances, chosen, 1), np.take_along_axis(places, chosen, 1)
