"""Annotations that carry their allowed range: read by the configuration check (`facegen.schema`) without importing torch."""

from __future__ import annotations

from math import inf
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

PositiveInt = Annotated[int, Gt(0)]
NonNegativeInt = Annotated[int, Ge(0)]
Threads = Annotated[int, Ge(0), Le(4096)]
PositiveFloat = Annotated[float, Gt(0), Lt(inf)]
NonNegativeFloat = Annotated[float, Ge(0), Lt(inf)]
Fraction = Annotated[float, Ge(0), Le(1)]
ProperFraction = Annotated[float, Ge(0), Lt(1)]
PositiveFraction = Annotated[float, Gt(0), Le(1)]
GuidanceWeight = Annotated[float, Ge(0), Le(1000)]
SMALLEST_TILE = 8  # latent pixels: of less a decoder sees nothing but edges
Tile = Annotated[int, Ge(SMALLEST_TILE)]
