"""The colours faces are drawn in, as float32 sRGB in [0, 255]."""

from __future__ import annotations

import numpy as np


def _colours(*codes: str) -> np.ndarray:
    return np.array([[int(code[i : i + 2], 16) for i in (0, 2, 4)] for code in codes], dtype=np.float32)


SKIN = _colours("FFEDE3", "F9D3B4", "EDBB92", "CF9A6C", "A56E49", "784D39")
"""Six tones; the first is the one called pale."""

HAIR = _colours("2B2630", "75472B", "F7DC85", "B8502A")
"""Black, brown, blond and red."""

GRAY_HAIR = _colours("A9ADB8", "E6E8EE")
"""Where grey begins, and thirty years later."""

EYES = _colours("4A2C1A", "2F6FB5", "2E8455", "7A5A22")

# One row for each of GROUPS, two ends that a person's shade mixes.
BACKDROP_TOP = np.stack([_colours("F4A24A", "F08A4B"), _colours("4DB6AC", "5AA9C9"), _colours("9C7BD6", "B57BC9")])
BACKDROP_LOW = np.stack([_colours("E9803A", "DD6A3E"), _colours("2F8F92", "3C84AE"), _colours("7656BC", "9157AE")])
HALO = np.stack([_colours("FBC98A", "F9BC90"), _colours("9ADBD0", "A3D3E6"), _colours("C9B5F0", "DDB8EA")])
CLOTHES = np.stack([_colours("A8382E", "7D3B2A"), _colours("1F4E63", "22406E"), _colours("4B2A82", "6E2A78")])
ACCENT = np.stack([_colours("C9432F", "8F2F3A"), _colours("12687A", "1F4F9C"), _colours("6A2FA8", "A23A97")])

# In the shape (3, 1) of a colour that is the same for everybody.
WHITE, WOOL, INK, MOUTH, ROSE, GOLD, FRAME, STUBBLE, LIPSTICK, EYESHADOW = _colours(
    "FFFFFF", "F2F0EC", "2A2028", "6E1F28", "F0707A", "F7C948", "26242E", "4A4A58", "D4213D", "8A4FC0"
)[:, :, None]
