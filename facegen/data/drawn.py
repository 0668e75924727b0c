"""Cartoon faces drawn when they are first asked for."""

from __future__ import annotations

import hashlib
from typing import ClassVar

import numpy as np

from facegen.ages import AGE_GROUPS, FIRST_AGES
from facegen.data.cartoon import CONDITION_NAMES, GROUPS, Parameters, conditions, parameters, render, with_age
from facegen.data.cartoon.population import OLDEST_DRAWN
from facegen.seeding import uniform

_SEED = 0  # of the population: the data set is the same whatever the seed of a run
_LUMA = np.array([299, 587, 114])  # ITU-R 601, in thousandths


class DrawnImages:
    """The first faces of one cartoon population, drawn in blocks and kept.

    Drawing one face at a time would take ten times as long, and drawing all of them beforehand would keep a run waiting.
    """

    block = 64
    filter = "none, drawn at its size"
    condition_names = CONDITION_NAMES
    condition_groups: ClassVar[dict[str, tuple[str, ...]]] = {"age": AGE_GROUPS, "group": GROUPS}

    def __init__(self, resolution: int, channels: int) -> None:
        self.resolution, self.channels = resolution, channels
        self._blocks: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def fingerprint(self) -> str:
        """Depends on the pixels and labels of the first faces: it changes when the drawing does."""
        digest = hashlib.blake2b(repr((self.resolution, self.channels)).encode(), digest_size=16)
        for part in self.read(np.arange(8)):
            digest.update(part.tobytes())
        return digest.hexdigest()

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The images (B, C, H, W) uint8 and conditions (B, K) float32 of `indices` (B,)."""
        numbers, places = np.divmod(indices, self.block)
        images = np.empty((len(indices), self.channels, self.resolution, self.resolution), np.uint8)
        labels = np.empty((len(indices), len(self.condition_names)), np.float32)
        for number in set(numbers.tolist()):  # few: the order of training keeps blocks together
            here = numbers == number
            drawn, known = self._block(number)
            images[here], labels[here] = drawn[places[here]], known[places[here]]
        return images, labels

    def conditions(self, indices: np.ndarray) -> np.ndarray:
        """The conditions (B, K) float32 of `indices` (B,); nothing is drawn."""
        return conditions(parameters(_SEED, indices))

    def aged(self, indices: np.ndarray, years: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The people `indices` (B,), dressed and posed the same, at the age of `years` (B,), as `read` gives them."""
        people = with_age(parameters(_SEED, indices), years)
        return self._painted(people), conditions(people)

    def younger_or_older(self, indices: np.ndarray) -> np.ndarray:
        """The people `indices` (B,) at another age, of any age group equally often: (B, C, H, W) uint8."""
        first, end = np.array(FIRST_AGES), np.append(FIRST_AGES[1:], OLDEST_DRAWN + 1)
        group = (uniform(indices, "another age group") * len(first)).astype(int)
        years = first[group] + (uniform(indices, "another age") * (end - first)[group]).astype(int)
        return self.aged(indices, years)[0]

    def _painted(self, people: Parameters) -> np.ndarray:
        """The pictures (B, C, H, W) uint8 of people."""
        images = render(people, self.resolution)
        if self.channels == 1:
            images = ((np.einsum("bchw,c->bhw", images.astype(int), _LUMA) + 500) // 1000).astype(np.uint8)[:, None]
        return images

    def _block(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        if number not in self._blocks:
            people = parameters(_SEED, number * self.block + np.arange(self.block))
            self._blocks[number] = self._painted(people), conditions(people)
        return self._blocks[number]


def open_drawn(resolution: int, channels: int, size: int, held_out: int) -> tuple[DrawnImages, np.ndarray, np.ndarray]:
    """The faces, the numbers of the first `size` to train on and of the next `held_out`."""
    return DrawnImages(resolution, channels), np.arange(size), size + np.arange(held_out)
