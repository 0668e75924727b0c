"""What is typed as a condition, as text and as values: `Indian`, `{European:0.5,Indian:0.5}`, `[A,B]`, `none`. Nothing heavy is imported.

The text is read here and not by Hydra, so that a class may have any name that a folder may.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from facegen.errors import UserError

NONE = "none"  # asks for nothing, which is not the same as asking for no particular thing
_PIECE = re.compile(r"""\\.|'[^']*'|"[^"]*"|\{[^{}]*\}|[^,]""", re.DOTALL)  # of what lies between two commas
_LOOSE = re.compile(r"""\\(.)|["']""", re.DOTALL)


def parts(text: str) -> Iterator[str]:
    """`text` between its commas, but for those in braces, in quotes or after a backslash."""
    piece = ""
    for found in re.finditer(rf"{_PIECE.pattern}|,", text, re.DOTALL):
        if found[0] == ",":
            yield piece.strip()
            piece = ""
        else:
            piece += found[0]
    yield piece.strip()


def read(text: str, option: str = "condition") -> object:
    """The value that is typed as `text`: a name, {name: weight}, a list of these, or None for `null`.

    Raises UserError where a brace holds anything but names with weights.
    """
    text = text.strip()
    if text in ("", "null"):
        return None
    if text.startswith("[") and text.endswith("]"):
        return [read(part, option) for part in parts(text[1:-1])] if text[1:-1].strip() else []
    if text.startswith("{") and text.endswith("}"):
        return _weights(text, option)
    return _bare(text)


def _weights(text: str, option: str) -> dict[str, object]:
    wish: dict[str, object] = {}
    for part in parts(text[1:-1]) if text[1:-1].strip() else ():
        name, colon, weight = part.rpartition(":")
        if not colon or not name.strip():
            raise UserError(f"{option}={text} must give each name a weight; {part or 'nothing'} has none; type '{option}={{A:0.5,B:0.5}}'")
        name = _bare(name.strip())
        if name in wish:
            raise UserError(f"{option}={text} names {name} twice; give it one weight")
        wish[name] = _number(weight.strip())
    return wish


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _bare(name: str) -> str:
    """The name without the quotes and backslashes that keep its commas from being taken for others."""
    return _LOOSE.sub(lambda found: found[1] or "", name)


def spelled(value: object) -> str:
    """A condition as it is typed."""
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}:{_shown(weight)}' for name, weight in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(spelled, value))}]"
    return "null" if value is None else str(value)


def _shown(weight: object) -> str:
    return f"{weight:g}" if isinstance(weight, float) else str(weight)
