"""Figures of what a model is told: classes beside each other, one attribute at a time, blends, and how strongly it is guided."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations

import numpy as np

from facegen import images
from facegen.asked import WAYS
from facegen.asking import between
from facegen.errors import UserError
from facegen.figures.scene import Picture, Scene
from facegen.figures.ternary import save_triangle, shares
from facegen.studio import Studio
from facegen.wishes import NONE, spelled

WEIGHTS = np.linspace(0, 1, 9).tolist()  # of the second of two conditions, column by column
GUIDANCES = [0, 1, 1.5, 2, 3, 5, 8]
SIDE, PAIRED = 6, 5  # faces at a side of a triangle, and classes, of which all pairs are blended, at most
MOST_CLASSES = 24  # rows of figure=classes at most: 300 would make a picture that few programs can show
# Seeds that a figure has room for.
SEEDS = {"classes": 10, "attributes": 4, "strip": 6, "blends": 2, "ternary": 1, "ways": 3, "guidance": 10}
SEVERAL = ("classes", "strip", "blends", "ternary", "ways")  # figures that several conditions may be given
OF_FIGURES = {"group": ("classes", "blends", "ternary"), "guidances": ("guidance",)}  # options that others have no use for


def picture(figure: str, studio: Studio, seeds: Sequence[int], group: str | None, guidances: Sequence[float] | None) -> Picture | None:
    """The figure of that name, ready to be drawn; None where it is no figure of conditions.

    Raises UserError where the options do not go with the figure, or with the model.
    """
    condition = studio.direction.asked.condition
    if isinstance(condition, list) and figure not in SEVERAL:
        raise UserError(f"several conditions are for figure={', '.join(SEVERAL)}; give one; got condition={spelled(condition)}")
    for name, value in {"group": group, "guidances": guidances}.items():
        if value is not None and figure not in OF_FIGURES[name]:
            raise UserError(f"{name} is an option of figure={', '.join(OF_FIGURES[name])}; got figure={figure}; leave {name} out")
    if figure not in PICTURES:
        return None
    return PICTURES[figure](Scene(figure, studio, seeds[: SEEDS[figure]], group, guidances))


def _seed_labels(seeds: Sequence[int]) -> list[str]:
    return [f"seed {seeds[0]}", *map(str, seeds[1:])]


def _weight_labels(ends: tuple[str, str]) -> list[str]:
    """The weights, and above the first and the last what they are of."""
    first, *inner, last = (f"{weight:g}" for weight in WEIGHTS)
    return [f"{ends[0]}\n{first}", *inner, f"{ends[1]}\n{last}"]


def _classes(scene: Scene) -> Picture:
    """A row for each class, at most `MOST_CLASSES`, the same seeds in every row."""
    group, rows = scene.classes(1)
    if left_out := len(rows[MOST_CLASSES:]):
        told = f"figure=classes shows the first {MOST_CLASSES} of {len(rows)}, {left_out} are left out"
        print(f"{told}; condition=[A,B,...] chooses which are shown", file=sys.stderr)
    rows = rows[:MOST_CLASSES]
    names, seeds = [name for name, _ in rows], scene.seeds
    panel = scene.panel([blend for _, blend in rows for _ in seeds], [*seeds] * len(rows))
    save = partial(images.save_grid, columns=len(seeds), row_labels=names, column_labels=_seed_labels(seeds), corner=group)
    return Picture([panel], save, scene.about(names))


def _attributes(scene: Scene) -> Picture:
    """A row for each attribute: every seed without it and with it, and else told the same."""
    asker, seeds, given = scene.asker, scene.seeds, scene.given()
    names = [asker.labels.names[i] for i in asker.labels.attributes]
    if not names:
        raise UserError("figure=attributes switches attributes, the model was told classes alone; type figure=classes")
    blends = [asker.blend({**given, name: weight}) for name in names for _ in seeds for weight in (0, 1)]
    like = [asker.blend(given)] * len(blends)
    panel = scene.panel(blends, [seed for _ in names for seed in seeds for _ in (0, 1)], like)
    heads = [head for seed in seeds for head in (f"seed {seed}\nwithout", "with")]
    save = partial(images.save_grid, columns=len(heads), block=2, row_labels=names, column_labels=heads)
    return Picture([panel], save, scene.about(names))


def _strip(scene: Scene) -> Picture:
    """A row for each seed, from one condition to another."""
    (first, start), (last, end) = scene.listed(2, 2)
    rows = [f"seed {seed}" for seed in scene.seeds]
    blends = [between(start, end, weight) for _ in rows for weight in WEIGHTS]
    panel = scene.panel(blends, _each(scene.seeds), [start] * len(blends))
    save = partial(images.save_grid, columns=len(WEIGHTS), row_labels=rows, column_labels=_weight_labels((first, last)))
    return Picture([panel], save, scene.about(rows))


def _each(seeds: Sequence[int]) -> list[int]:
    """Every seed as often as there are weights."""
    return [seed for seed in seeds for _ in WEIGHTS]


def _blends(scene: Scene) -> Picture:
    """A band for each pair of classes, a row for each seed, from one class to the other."""
    _, rows = scene.classes(2, PAIRED)
    pairs, seeds = list(combinations(rows, 2)), scene.seeds
    blends = [between(start, end, weight) for (_, start), (_, end) in pairs for _ in seeds for weight in WEIGHTS]
    like = [start for (_, start), _ in pairs for _ in _each(seeds)]
    names = [f"{first}, {last}" for (first, _), (last, _) in pairs]
    labels = [f"{name}\nseed {seed}" for name in names for seed in seeds]
    save = partial(
        images.save_grid, columns=len(WEIGHTS), band=len(seeds), row_labels=labels, column_labels=_weight_labels(("first", "second"))
    )
    return Picture([scene.panel(blends, _each(seeds) * len(pairs), like)], save, scene.about(names))


def _ternary(scene: Scene) -> Picture:
    """A triangle between three classes."""
    rows = scene.classes(3, 3)[1]
    names, (top, left, right) = [name for name, _ in rows], [blend for _, blend in rows]
    blends = [between(between(top, left, b / (a + b) if b else 0), right, c) for a, b, c in shares(SIDE)]
    panel = scene.panel(blends, [*scene.seeds] * len(blends), [top] * len(blends))
    return Picture([panel], partial(save_triangle, corners=names), scene.about(names))


def _ways(scene: Scene) -> Picture:
    """A band for each seed, a row for each way of blending, from one condition to another."""
    (first, start), (last, end) = scene.listed(2, 2)
    if NONE in (first, last):
        raise UserError(f"figure=ways mixes the embeddings of conditions, condition={NONE} has none; type figure=strip blend=prediction")
    count = len(scene.seeds)
    blends = [between(start, end, weight) for _ in range(count) for weight in WEIGHTS]
    panels = [scene.panel(blends, _each(scene.seeds), [start] * len(blends), blend=way) for way in WAYS]
    order = np.arange(len(WAYS) * len(blends)).reshape(len(WAYS), count, -1).swapaxes(0, 1)
    rows = [f"{way}\nseed {seed}" for seed in scene.seeds for way in WAYS]
    heads = _weight_labels((first, last))
    save = partial(images.save_grid, columns=len(WEIGHTS), band=len(WAYS), row_labels=rows, column_labels=heads)
    return Picture(panels, save, scene.about(WAYS, blend=", ".join(WAYS)), order)


def _guidance(scene: Scene) -> Picture:
    """A row for each weight of guidance, the same seeds in every row."""
    studio, seeds, weights = scene.studio, scene.seeds, GUIDANCES if scene.guidances is None else scene.guidances
    weak = studio.direction.asked.autoguidance
    if not weights:
        raise UserError("guidances must be weights of guidance; got []; type guidances=[0,1,2,5]")
    if not weak and scene.asker:
        scene.refuse_unasked("type autoguidance=early guidance=2")
    told = studio.direction.told(seeds)
    notes = {"0": " (weaker)" if weak else " (unasked)", "1": " (off)"}
    rows = [weight + notes.get(weight, "") for weight in (f"{weight:g}" for weight in weights)]
    panels = [(studio.but(guidance=weight), seeds, told) for weight in weights]
    save = partial(images.save_grid, columns=len(seeds), row_labels=rows, column_labels=_seed_labels(seeds), corner="guidance")
    return Picture(panels, save, scene.about(rows, guidance=", ".join(f"{weight:g}" for weight in weights)))


PICTURES: dict[str, Callable[[Scene], Picture]] = {
    "classes": _classes,
    "attributes": _attributes,
    "strip": _strip,
    "blends": _blends,
    "ternary": _ternary,
    "ways": _ways,
    "guidance": _guidance,
}
