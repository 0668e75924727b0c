"""What a figure of conditions shows, thought through before anything is drawn: who draws what, from which seeds, told what."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facegen.asking import Asker, Blend
from facegen.diffusion.guidance import Told
from facegen.errors import UserError, nearest
from facegen.guiding import never_unasked, told_one
from facegen.studio import Studio
from facegen.wishes import NONE, spelled

Panel = tuple[Studio, Sequence[int], Told | None]  # who draws, from which seeds, what is told


@dataclass(frozen=True)
class Picture:
    """A figure that is thought through and not yet drawn.

    `panels` are drawn one after the other, `order` are their images as `save` wants them, where that is not as they were drawn.
    """

    panels: Sequence[Panel]
    save: Callable[[np.ndarray, Path, Mapping[str, str]], Any]
    facts: dict[str, str]
    order: np.ndarray | None = None

    def draw(self, out: Path) -> Path:
        """Writes the figure into the folder `out`, named after itself."""
        name, count = self.facts["figure"], len(self.panels)
        titles = [f"{name} {i + 1}/{count}" if count > 1 else name for i in range(count)]
        tiles = np.concatenate([_drawn(*panel, title) for panel, title in zip(self.panels, titles, strict=True)])
        self.save(tiles if self.order is None else tiles[self.order.ravel()], out / f"{name}.png", self.facts)
        return out / f"{name}.png"


@dataclass(frozen=True)
class Scene:
    """What a figure is to show: `seeds`, drawn by `studio`, of a `group` of classes (None: the first) or at the weights `guidances`."""

    figure: str
    studio: Studio
    seeds: Sequence[int]
    group: str | None = None
    guidances: Sequence[float] | None = None

    @property
    def condition(self) -> object:
        """As it was typed."""
        return self.studio.direction.asked.condition

    @property
    def asker(self) -> Asker:
        """Raises UserError where the model cannot be told anything."""
        if asker := self.studio.direction.asker:
            return asker
        model = self.studio.loaded
        family = model.provenance["family"]
        wanted = f"sample one that can be told: python train.py {told_one(family)} data=NAME"
        raise UserError(f"figure={self.figure}: {model.path} is model={family}, which is told nothing; {wanted}")

    def given(self) -> dict[str, object]:
        """The condition that holds for the whole figure, as {name: weight}."""
        if self.condition == NONE:
            raise UserError(f"figure={self.figure} tells the model something, condition={NONE} nothing; leave it out")
        if isinstance(self.condition, Mapping):
            return {str(name): weight for name, weight in self.condition.items()}
        return {} if self.condition is None else {str(self.condition): 1}

    def listed(self, least: int, most: float = math.inf) -> list[tuple[str, Blend]]:
        """The conditions of a list, as they are typed and as blends; raises UserError where there are not `least` to `most`."""
        values = self.condition
        if not isinstance(values, list) or not least <= len(values) <= most or any(isinstance(value, list) for value in values):
            labels = self.asker.labels
            groups = [columns for columns in labels.groups.values() if len(columns) >= least]
            names = [labels.names[i] for i in next(iter(groups), range(len(labels.names)))[:least]]
            way_out = f"condition={_list([*names, 'null'][:least])}" if len(names) + 1 >= least else "figure=classes"
            wanted = f"a list of {_count(least, most)} conditions"
            raise UserError(f"figure={self.figure} wants {wanted}; got condition={_shown(values)}; type {way_out}")
        if NONE in values:
            self.refuse_unasked("leave none out")
        return [(_label(value), self.asker.blend(value)) for value in values]

    def refuse_unasked(self, way_out: str) -> None:
        """Raises UserError where the model never drew without being told what."""
        if why := never_unasked(self.studio.loaded):
            raise UserError(f"figure={self.figure}: {why}; {way_out}")

    def classes(self, least: int, most: float = math.inf) -> tuple[str, list[tuple[str, Blend]]]:
        """The conditions of a list or, where there is none, the classes of the group; with what they are together.

        By default this is the first group that has as many classes as are wanted.
        """
        if isinstance(self.condition, list):
            if self.group:
                raise UserError(f"group={self.group} and condition={spelled(self.condition)}: one of them is shown; leave the other out")
            return "condition", self.listed(least, most)
        labels, given = self.asker.labels, self.given()
        if not labels.groups:
            raise UserError(f"figure={self.figure} shows classes, the model was told attributes alone; type figure=attributes")
        fitting = [group for group, columns in labels.groups.items() if least <= len(columns) <= most]
        group = self.group or next(iter([*fitting, *labels.groups]))
        if group not in labels.groups:
            allowed, typed = ", ".join(labels.groups), next(iter(labels.groups))
            raise UserError(f"group must be one of {allowed}; got {group}{nearest(group, labels.groups)}; type group={typed}")
        names = [labels.names[i] for i in labels.groups[group]]
        if group not in fitting:
            way_out = f"name them: condition={_list(names[:least])}"
            if len(names) < least:
                way_out = f"type figure={'blends' if len(names) > 1 else 'classes'} group={group}"
            raise UserError(f"figure={self.figure} wants {_count(least, most)} classes; {group} has {len(names)}; {way_out}")
        if taken := [name for name in names if name in given]:
            raise UserError(f"condition={taken[0]}: figure={self.figure} shows each {group} in its turn; leave it out of condition=")
        return group, [(name, self.asker.blend({**given, name: 1})) for name in names]

    def panel(self, blends: Sequence[Blend], seeds: Sequence[int], like: Sequence[Blend] | None = None, **changes: Any) -> Panel:
        """The images of `seeds` that are asked for `blends` (`Asker.told`), where the studio is asked with `changes`."""
        studio = self.studio.but(**changes) if changes else self.studio
        return studio, seeds, studio.direction.blends(blends, seeds, like)

    def about(self, rows: Sequence[str], **more: str) -> dict[str, str]:
        """What is to be said beside the picture."""
        seeds = {"seeds": f"{self.seeds[0]}..{self.seeds[-1]}"}
        blend = {"blend": self.studio.direction.asked.blend}
        return {**self.studio.facts, **blend, "figure": self.figure, **seeds, "rows": "; ".join(rows), **more}


def _drawn(studio: Studio, seeds: Sequence[int], told: Told | None, title: str) -> np.ndarray:
    """The images (N,C,H,W) uint8 of `seeds`; those that are to be the same are drawn once."""
    if told is None:
        return studio.draw(seeds, title)
    rows = zip(seeds, told.conditions, told.shares, strict=True)
    keys = [(seed, conditions.numpy().tobytes(), part.numpy().tobytes()) for seed, conditions, part in rows]
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    first = [keys.index(key) for key in places]
    faces = studio.draw([seeds[i] for i in first], title, told=told[first])
    return faces[[places[key] for key in keys]]


def _shown(condition: object) -> str:
    return "null" if condition is None else spelled(condition)


def _label(condition: object) -> str:
    return "as in the data" if condition is None else spelled(condition)


def _list(names: Sequence[str]) -> str:
    return f"[{','.join(names)}]"


def _count(least: int, most: float) -> str:
    return f"{least}" if least == most else f"{least} or more" if math.isinf(most) else f"{least} to {most}"
