"""Which labels a model is shown, and how often each image: the choices of a user, made over any source of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facegen.data.cache import say
from facegen.data.columns import Columns
from facegen.errors import UserError
from facegen.seeding import uniform


class Selected:
    """A source of which only the columns `chosen` of the condition are shown; its images and its fingerprint stay the whole data set's."""

    def __init__(self, source: Any, chosen: Columns) -> None:
        self.source, self.block, self.filter, self.fingerprint = source, source.block, source.filter, source.fingerprint
        self.condition_names, self.condition_groups = chosen
        self._places = [source.condition_names.index(name) for name in chosen.names]

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The images (B, C, H, W) uint8 and conditions (B, K) float32 of `indices` (B,)."""
        images, conditions = self.source.read(indices)
        return images, conditions[:, self._places]

    def conditions(self, indices: np.ndarray) -> np.ndarray:
        """The conditions (B, K) float32 of `indices` (B,)."""
        return self.source.conditions(indices)[:, self._places]


def balanced(numbers: np.ndarray, conditions: np.ndarray, columns: Columns, by: Sequence[str]) -> np.ndarray:
    """The images `numbers` (N,), with the `conditions` (N, K), so often each that every class of `by` comes equally often: (M,), in order.

    `by` are groups and attributes, which have two classes; the classes of several are their combinations. Each is repeated to the size
    of the largest, by a fixed key; images in none are left out, as are classes without images, which are told. Raises UserError where no
    image is in any.
    """
    told, names, classes = ", ".join(by), [""], np.ones((len(numbers), 1), bool)
    for name in by:
        others, inside = _classes(conditions, columns, name)
        names = [f"{one} {other}".strip() for one in names for other in others]
        classes = (classes[:, :, None] & inside[:, None]).reshape(len(numbers), -1)
    members = [numbers[inside] for inside in classes.T if inside.any()]
    if not members:
        raise UserError(f"data.balance={told}: no image to train on is in a class of {told}; type data.balance=false")
    if absent := [name for name, inside in zip(names, classes.T, strict=True) if not inside.any()]:
        say(f"data.balance={told}: never shown, because no image to train on is in that class: {', '.join(absent)}")
    largest = max(map(len, members))
    # In order: images that are best read together, by a source's blocks, stay together.
    return np.sort(np.concatenate([np.resize(one[np.argsort(uniform(one, "balance", *by))], largest) for one in members]))


def _classes(conditions: np.ndarray, columns: Columns, name: str) -> tuple[Sequence[str], np.ndarray]:
    """The classes of a group or an attribute, and which of the images, with the `conditions` (N, K), are in each (N, classes) bool."""
    inside = conditions[:, [columns.names.index(column) for column in columns.groups.get(name, (name,))]] > 0
    if name in columns.groups:
        return columns.groups[name], inside
    return (name, f"not {name}"), np.concatenate([inside, ~inside], axis=1)
