"""What is asked of a model, as it is typed, and what is wrong with that whatever the model: told before anything heavy is imported."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from facegen.types import Fraction, GuidanceWeight
from facegen.wishes import read

Way = Literal["embedding", "prediction", "switch"]
WAYS: tuple[str, ...] = get_args(Way)
EARLY = "early"  # the snapshot that a run keeps of its first eighth


@dataclass(frozen=True)
class Asked:
    """What is asked of a model, and how firmly; the values are those of the command line.

    Args:
        condition: a name, {name: weight}, a list of these where a figure shows several, `none`, or such as text; null is what the data
            shows.
        blend: how several classes become one face: their `embedding` is mixed, their `prediction` is, or they take turns (`switch`).
        guidance: weight of what is asked against what is drawn unasked: 1 is off, 0 unasked, more exaggerates.
        image_guidance: weight of the source of an edit against what is drawn without one: 1 is off, more keeps closer to it.
        guidance_interval: noise levels [lowest, highest] within which it holds; null is all.
        guidance_rescale: share of the way back to the contrast of an unguided image.
        autoguidance: a weaker model to be guided away from, in place of the same one unasked: a checkpoint, a run, or `early`.
        autoguidance_ema: its average, by half-life, or `raw`; null is that of the model itself.

    Raises UserError where the text of a condition cannot be read.
    """

    condition: object = None
    blend: Way = "embedding"
    guidance: GuidanceWeight = 1.0
    image_guidance: GuidanceWeight = 1.0
    guidance_interval: list[float] | None = None
    guidance_rescale: Fraction = 0.0
    autoguidance: str | None = None
    autoguidance_ema: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.condition, str):
            object.__setattr__(self, "condition", read(self.condition))

    def problems(self, sweeps_guidance: bool = False) -> Iterator[str]:
        """Options that say nothing, or contradict each other, a line each; a figure may sweep the guidance by itself."""
        for name in () if sweeps_guidance else ("guidance_interval", "guidance_rescale", "autoguidance"):
            if self.guidance == 1 and getattr(self, name):
                yield f"{name} changes nothing at guidance=1; type guidance=2"
        if sweeps_guidance and self.guidance != 1:
            yield f"guidance={self.guidance:g}: figure=guidance shows the weights of guidances=[...]; leave guidance out"
        if self.autoguidance == "":
            yield "autoguidance must be a checkpoint, a run, or early; got nothing; type autoguidance=early, or leave it out"
        if self.autoguidance_ema and not self.autoguidance:
            yield "autoguidance_ema is the average of the model named by autoguidance=; type autoguidance=CKPT"
        ends = self.guidance_interval
        if ends is not None and (len(ends) != 2 or not 0 <= ends[0] < ends[1] or math.isnan(ends[1])):
            yield f"guidance_interval must be two noise levels, the lower first; got {ends}; type guidance_interval=[0.3,3]"

    def weaker(self) -> str | None:
        """The checkpoint or run that autoguidance names, where it names one."""
        return None if self.autoguidance in (None, EARLY) else self.autoguidance
