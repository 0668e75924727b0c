"""Keyed randomness: every random number is a function of (seed, purpose, index), never of what was drawn before."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def mix(*key: int | str) -> int:
    """A 63-bit integer that depends on every part of `key` and on nothing else."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def torch_generator(*key: int | str) -> torch.Generator:
    """A CPU generator seeded by `key`, so that a draw is the same on every device and in every process."""
    import torch

    return torch.Generator().manual_seed(mix(*key))


def uniform(indices: np.ndarray, *key: int | str) -> np.ndarray:
    """One uniform number in [0, 1) for each of `indices` (any integer shape), by SplitMix64 of the key and the index.

    Vectorised, for per-sample decisions such as flips: the value of one index does not depend on the others.
    """
    import numpy as np

    with np.errstate(over="ignore"):
        z = np.asarray(indices).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(mix(*key))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / float(1 << 53)
