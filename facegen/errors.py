"""Errors that the user can mend, and the one place that turns them into a line on stderr and exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend: one line naming the argument, what is allowed, what came and what to type next.

    Several problems found together are raised together, as several lines of one error.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def nearest(word: str, allowed: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the closest of `allowed` to `word`, or an empty string where nothing is close."""
    close = difflib.get_close_matches(str(word), [str(a) for a in allowed], n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
