"""Small checkpoints for tests, and what an error says in one line."""

from __future__ import annotations

import pytest
import torch

from facegen.checkpoint import Header
from facegen.errors import UserError


def checkpoint(value: int = 0, size: int = 2000) -> dict:
    shared = torch.full((size,), float(value))
    return {
        "state_dict": {"w": shared, "view": shared[: size // 2]},
        "global_step": value,
        "rates": [1e-4, None, True, "text"],
        "facegen": Header("ddpm", {"model": {"widths": [32, 64]}}, {"resolution": 32}).pack(),
    }


def equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


def message(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)
