"""What can be said of the options of a data module without opening its data: told before torch is imported."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from facegen.data import digits, mnist
from facegen.data.cartoon import CONDITION_NAMES
from facegen.data.columns import Columns
from facegen.data.decode import Picture
from facegen.data.drawn import DrawnImages
from facegen.data.in_memory import DIGIT, check_side
from facegen.data.readers import READERS
from facegen.data.records import Reader


class Known(NamedTuple):
    """The labels, why there are none, and `look`, which raises UserError where the data is not there."""

    columns: Columns
    unlabelled: str = ""
    look: Callable[[], object] = lambda: None


def _files(kind: type[Reader], *, root: str | Path | None, resolution: int, channels: int, crop: str, **others: object) -> Known:
    reader = kind(Picture(resolution, channels, crop))
    return Known(reader.columns(root), reader.unlabelled(root), lambda: reader.located(root))


def _mnist(*, root: str | Path | None, resolution: int, **others: object) -> Known:
    check_side(resolution, mnist.SIDE)
    return Known(DIGIT, look=lambda: mnist.find(root))


def _digits(*, resolution: int, **others: object) -> Known:
    check_side(resolution, digits.SIDE)
    return Known(DIGIT)


def _cartoon(**others: object) -> Known:
    return Known(Columns(CONDITION_NAMES, DrawnImages.condition_groups))


CHECKS: dict[str, Callable[..., Known]] = {
    **{name: partial(_files, reader) for name, reader in READERS.items()},
    "MNIST": _mnist,
    "Digits": _digits,
    "Cartoon": _cartoon,
}
"""What is known of a data module by its options, by the name of its class; each raises UserError for options that cannot be."""
