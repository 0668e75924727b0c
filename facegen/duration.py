"""How people write a length of time."""

from __future__ import annotations

import re

from facegen.errors import UserError

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def seconds(duration: str | float, key: str) -> float:
    """The seconds in `90`, `8m`, `1h30m`, `00:08:00` or `00:00:08:00` (days first); UserError names `key` where there are none."""
    text = str(duration).strip()
    total = 0.0
    if re.fullmatch(r"\d+(\.\d+)?", text):
        total = float(text)
    elif re.fullmatch(r"\d+(:\d+){1,3}", text):
        total = sum(int(part) * unit for part, unit in zip(reversed(text.split(":")), reversed(_UNITS.values()), strict=False))
    elif re.fullmatch(r"(\d+(\.\d+)?[dhms])+", text):
        total = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)([dhms])", text))
    if total <= 0:
        raise UserError(f"{key} must be a time above 0 such as 90, 8m, 1h30m or 00:08:00; got {duration}; type {key}=8m")
    return total
