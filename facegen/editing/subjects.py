"""Whom a scorecard of edits asks to become older or younger, and what a probe reads in them."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from facegen.ages import AGE_GROUPS, middle, years
from facegen.editing.editor import Wish
from facegen.metrics.probe import ProbeExtractor
from facegen.metrics.sources import DataImages
from facegen.seeding import uniform
from facegen.studio import Loaded

OLDEST_TRUE, MALE = 99, "Male"  # years of the oldest people that the true pictures show


def told_ages(loaded: Loaded) -> list[str]:
    """The age groups that a model can be asked for."""
    names = AGE_GROUPS if loaded.text is not None else loaded.labels.names if loaded.labels is not None else ()
    return [name for name in AGE_GROUPS if name in names]


def age_group(probe: ProbeExtractor) -> str | None:
    """The group of a probe that is one of ages, where it has one."""
    return next((group for group, names in probe.groups.items() if set(names) <= set(AGE_GROUPS)), None)


class AgeReader:
    """What `probe`, which reads ages, says of people: `groups` are the age groups that count, `others` what it reads beside ages and what
    does not follow from them."""

    def __init__(self, probe: ProbeExtractor, told: list[str]) -> None:
        ages = probe.groups[str(age_group(probe))]
        self.probe, self.groups = probe, [name for name in ages if name in told]
        self.middles = np.array([middle(name) for name in self.groups])
        self.others = [name for name in probe.names if name not in ages and name != "Young"]

    def ages(self, logits: np.ndarray) -> np.ndarray:
        """What is read (N,G) of the age groups, as probabilities: a softmax over them."""
        chosen = logits[:, self._columns(self.groups)].astype(np.float64)
        powers = np.exp(chosen - chosen.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def rest(self, logits: np.ndarray) -> np.ndarray:
        """What is read of `others` (N,K), 0 or 1: an attribute by its sign, the likeliest class of a group."""
        said = (logits > 0).astype(np.float32)
        for names in self.probe.groups.values():
            columns = self._columns(names)
            said[:, columns] = np.eye(len(columns), dtype=np.float32)[logits[:, columns].argmax(axis=1)]
        return said[:, self._columns(self.others)]

    def _columns(self, names: list[str]) -> list[int]:
        return [self.probe.names.index(name) for name in names]


class Subjects:
    """Some of the `real` images, `count` at most, each with an age group to become, out of `groups`.

    Nobody is asked for their own; every step up or down comes equally often.
    """

    def __init__(self, real: DataImages, groups: list[str], count: int) -> None:
        self.real, self.groups = real, groups
        self.places = np.sort(np.argsort(uniform(real.numbers, "edited"), kind="stable")[:count])
        self.numbers = real.numbers[self.places]

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def photographs(self) -> np.ndarray:
        """Their pictures (N,C,H,W) uint8."""
        return self.real.pixels(self.places)

    @cached_property
    def own(self) -> np.ndarray:
        """The number of the age group that each is of (N,), -1 where that is none of those asked for."""
        known = self.labels(self.groups)
        return np.where(known.max(axis=1) > 0, known.argmax(axis=1), -1)

    @cached_property
    def asked(self) -> np.ndarray:
        """The number of the age group that each is to become (N,)."""
        steps = 1 + np.arange(len(self)) % max(1, len(self.groups) - 1)
        return (self.own + steps) % len(self.groups)

    def labels(self, names: list[str]) -> np.ndarray:
        """What the data says of them (N,K), 0 of what it has no name for."""
        known = [name in self.real.names for name in names]
        found = np.zeros((len(self), len(names)), np.float32)
        found[:, known] = self.real.labels([name for name in names if name in self.real.names])[self.places]
        return found

    def wishes(self, loaded: Loaded) -> list[Wish]:
        """What a model is asked to make of each: the age group, and their own gender where both know one."""
        genders: list[str | None] = [None] * len(self)
        if MALE in self.real.names and (loaded.labels is None or MALE in loaded.labels.names):
            genders = ["male" if male else "female" for male in self.labels([MALE])[:, 0] > 0.5]
        return [Wish(self.groups[asked], gender) for asked, gender in zip(self.asked, genders, strict=True)]

    @property
    def years(self) -> np.ndarray:
        """The first, the middle and the last age of each group (G,3), so far as anybody is so old."""
        ends = [(first, min(last, OLDEST_TRUE)) for first, last in map(years, self.groups)]
        return np.array([(first, (first + last) // 2, last) for first, last in ends])

    @cached_property
    def true(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The same people at the middle of the age group asked for, as `DataImages.aged` gives them, where the data can draw them."""
        return self.real.aged(self.places, self.years[self.asked, 1])

    def truth(self, names: list[str]) -> np.ndarray | None:
        """What is true of them at the age asked for under `names` (N,K); None where that is not known of all."""
        if self.true is None or not set(names) <= set(self.real.names):
            return None
        return self.true[1][:, [self.real.names.index(name) for name in names]]

    def at_all_ages(self) -> np.ndarray:
        """Their true pictures (N,3G,C,H,W) uint8 at all of `years`, of data that can draw them."""
        found = [self.real.aged(self.places, np.full(len(self), age)) for ages in self.years for age in ages]
        return np.stack([one[0] for one in found if one is not None], axis=1)
