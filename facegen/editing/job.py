"""The job behind sample.py edit=PHOTOGRAPH: edits as files, age strips, grids of the two weights of guidance, and comparisons."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from facegen import images
from facegen.ages import Age
from facegen.diffusion.sampler import Sampler
from facegen.editing.editor import Editor, Wish, wished
from facegen.editing.photographs import Photograph, photographs
from facegen.editing.request import PRETRAINED, Request
from facegen.errors import UserError
from facegen.guiding import Direction, direct
from facegen.loading import Loaded, untuned
from facegen.regions import regions
from facegen.sampling import SampleResult, default_out
from facegen.studio import Studio, device_of, in_tiles, prepare
from facegen.types import NonNegativeInt, PositiveInt, Tile
from facegen.wishes import spelled

Find = Callable[[str], Loaded]  # the model of a checkpoint, by its name


@dataclass(frozen=True)
class Plan:
    """What is to be seen: for every photograph and seed an edit for each of `columns`, a label and an editor with a wish.

    `rows` labels the rows that a photograph takes; without labels a photograph is a row. `name` is that of the figure.
    """

    name: Literal["edits", "ages", "guidance", "compare"]
    columns: Sequence[str]
    rows: Sequence[str]
    cells: Sequence[tuple[Editor, Wish]]


def edit_job(
    loaded: Loaded,
    sampler: Sampler,
    direction: Direction,
    request: Request,
    find: Find,
    *,
    n: PositiveInt = 1,
    seed: NonNegativeInt = 0,
    out: str | None = None,
    batch_size: PositiveInt = 64,
    tile: Tile | None = None,
    device: Literal["cpu", "cuda"] | None = None,
) -> SampleResult:
    """Edits photographs into `out`: every edit as a file of its own, and a sheet of them beside the photographs they are of.

    With several ages the sheet is a strip (ages.png), with several weights a grid for each photograph (guidance.png), with a baseline a
    comparison (compare.png), else edits.png.

    Args:
        direction: how the model is guided; its weights are those that `request` asks for first.
        find: finds the model that `request` compares with.
        n: variants of each edit, of the seeds `seed` .. `seed + n - 1`.
        out, batch_size, tile, device: as of `facegen.sampling.sample_job`.

    Raises UserError where a photograph cannot be read, or the model cannot do what is asked.
    """
    in_tiles(loaded, tile)
    studio = Studio(loaded, sampler, batch_size, device_of(device), direction)
    options = request.options
    editor = Editor(studio, options.method, options.strength, options.degrade, options.negative_prompt)
    plan = _plan(editor, request, lambda name: untuned(loaded) if name == PRETRAINED else find(name))
    channels, side, _ = loaded.codec.image_shape
    assert options.edit is not None, "without photographs nothing is edited"
    found = photographs(options.edit, side, channels, options.crop, regions(loaded.config["data"]).face)
    for photograph in found:
        if photograph.note:
            print(f"{photograph.name}: {photograph.note}", file=sys.stderr)
    facts = {**editor.facts, **_asked(request), "crop": str(options.crop)}
    of = ", ".join(map(_told, found))
    folder = Path(out) if out else default_out(loaded, f"{plan.name}-{editor.method}", {**facts, "of": of})
    prepare(folder)
    return _drawn(plan, found, range(seed, seed + n), folder, facts)


def _told(photograph: Photograph) -> str:
    """A photograph by its name and a digest of what the model takes of it."""
    return f"{photograph.name} {hashlib.sha256(photograph.pixels.tobytes()).hexdigest()[:16]}"


def _asked(request: Request) -> dict[str, str]:
    told = {
        "age": ", ".join(age.said for age in request.ages),
        "gender": request.gender or "",
        "prompt": request.options.prompt or "",
        "guidance": ", ".join(f"{weight:g}" for weight in request.weights["guidance"]),
        "image_guidance": ", ".join(f"{weight:g}" for weight in request.weights["image_guidance"]),
        "baseline": request.options.baseline or "",
    }
    return {name: value for name, value in told.items() if value}


def _plan(editor: Editor, request: Request, find: Find) -> Plan:
    value = editor.studio.direction.asked.condition
    ages: list[Age | None] = list(request.ages) or [None]
    if editor.text is not None or editor.method == "edit":
        _refuse_unasked(editor, request, value)
    wishes = [wished(age, request.gender, value, request.options.prompt if age else None) for age in ages]
    heads = [_head(age) if age else spelled(value) if value is not None else "as in the data" for age in ages]
    guidances, image_guidances = request.weights["guidance"], request.weights["image_guidance"]
    if len(guidances) > 1 or len(image_guidances) > 1:
        rows = [f"image\nguidance {weight:g}" for weight in image_guidances] if len(image_guidances) > 1 else []
        columns = [f"guidance {weight:g}" for weight in guidances] if len(guidances) > 1 else [heads[0]]
        weights = [(weight, image_weight) for image_weight in image_guidances for weight in guidances]
        cells = [(editor.but(guidance=weight, image_guidance=image_weight), wishes[0]) for weight, image_weight in weights]
        return Plan("guidance", columns, rows, cells)
    if request.options.baseline is not None:
        other = _baseline(editor, find(request.options.baseline), request)
        return Plan("compare", heads, ["edited", "baseline"], [(one, wish) for one in (editor, other) for wish in wishes])
    return Plan("ages" if len(ages) > 1 else "edits", heads, [], [(editor, wish) for wish in wishes])


def _refuse_unasked(editor: Editor, request: Request, value: object) -> None:
    if not request.ages and value is None:
        raise UserError(
            f"age is required: {editor.loaded.path} edits by age; type age=60, age=[5,20,40,60,80], or prompt='make this face 60'"
        )
    if editor.text is not None and value is not None:
        raise UserError(f"condition={spelled(value)}: {editor.loaded.path} is told in words; type age=60")


def _head(age: Age) -> str:
    return age.group if age.said == age.group else f"{age.said}\n({age.group})"


def _baseline(editor: Editor, loaded: Loaded, request: Request) -> Editor:
    """What the comparison is with: another model, which edits by sdedit."""
    if loaded.codec.image_shape != editor.loaded.codec.image_shape:
        shapes = f"{loaded.codec.image_shape}, the model {editor.loaded.codec.image_shape}"
        raise UserError(f"baseline={request.options.baseline} draws {shapes}: give one of the same size")
    asked = replace(editor.studio.direction.asked, image_guidance=1.0, guidance=editor.studio.direction.asked.guidance)
    studio = Studio(loaded, editor.studio.sampler, editor.studio.batch_size, editor.studio.device, direct(loaded, asked, lambda *_: loaded))
    return Editor(studio, "sdedit", request.options.strength, negative=request.options.negative_prompt)


def _drawn(plan: Plan, found: list[Photograph], seeds: range, out: Path, facts: dict[str, str]) -> SampleResult:
    """Draws all edits, writes them as files and as a sheet."""
    pixels = np.stack([photograph.pixels for photograph in found])
    which, seed_of = np.repeat(np.arange(len(found)), len(seeds)), [*seeds] * len(found)
    about = [{**facts, "photograph": _told(found[i]), "seed": str(s)} for i, s in zip(which, seed_of, strict=True)]
    names = [f"{found[i].name}-{plan.name}-{{:02d}}-{s:06d}.png".format for i, s in zip(which, seed_of, strict=True)]
    sheet, shown = out / f"{plan.name}.png", {**facts, "photographs": ", ".join(map(_told, found)), "seeds": f"{seeds[0]}..{seeds[-1]}"}
    _keep(sheet, shown)
    for place, name in enumerate(names):
        for number, (_, wish) in enumerate(plan.cells):
            _keep(out / name(number), {**about[place], "wish": _spelled(wish)})
    drawn = []
    for number, (editor, wish) in enumerate(plan.cells):
        title = f"{plan.name} {number + 1}/{len(plan.cells)}"
        drawn.append(editor.draw(pixels[which], [wish] * len(which), seed_of, title))
    tiles = np.stack(drawn, axis=1)  # (photographs x seeds, cells, C, H, W)
    for place, row in enumerate(tiles):
        for number, image in enumerate(row):
            images.save_png(image, out / names[place](number), {**about[place], "wish": _spelled(plan.cells[number][1])})
    _save_sheet(plan, found, pixels[which], tiles, [f"seed {s}" for s in seed_of] if len(seeds) > 1 else [], sheet, shown)
    print(sheet)
    return SampleResult(out, [sheet], tiles.shape[0] * tiles.shape[1])


def _spelled(wish: Wish) -> str:
    return wish.prompt or wish.age or (spelled(wish.condition) if wish.condition is not None else "as in the data")


def _keep(path: Path, facts: dict[str, str]) -> None:
    """Raises UserError where another picture than that of `facts` would be overwritten."""
    try:
        there = images.read_provenance(path) if path.exists() else {}
    except UserError:  # spoilt by a power cut or a full disk: drawn again
        return
    for key in {**facts, **there} if there else ():
        if key != images.TILING and there.get(key) != facts.get(key):
            was = f"{key}: {there.get(key, 'not told')} there, {facts.get(key, 'not told')} now"
            raise UserError(f"out={path.parent} holds edits that were drawn otherwise ({path.name}, {was}): choose another with out=")


def _save_sheet(
    plan: Plan, found: list[Photograph], pixels: np.ndarray, tiles: np.ndarray, seeds: list[str], path: Path, facts: dict[str, str]
) -> None:
    """A row for each photograph and seed, or several rows where the plan labels them; the photograph stands first in each."""
    count, columns = max(1, len(plan.rows)), len(plan.columns)
    grid = tiles.reshape(len(tiles), count, columns, *tiles.shape[2:])
    first = np.repeat(pixels[:, None, None], count, axis=1)
    white = np.full_like(first[:, 1:], 255)
    rows = np.concatenate([np.concatenate([first[:, :1], white], axis=1), grid], axis=2)
    names = [photograph.name for photograph in found for _ in range(len(tiles) // len(found))]
    heads = [
        (name if not number and (len(found) > 1 or not row) else "", row) for name in names for number, row in enumerate(plan.rows or [""])
    ]
    labels = [_row(name, seed, row) for (name, row), seed in zip(heads, np.repeat(seeds or [""] * len(names), count), strict=True)]
    save = partial(images.save_grid, columns=columns + 1, band=count if count > 1 else None, row_labels=labels)
    save(rows.reshape(-1, *tiles.shape[2:]), path, facts, column_labels=["photograph", *plan.columns])


def _row(name: str, seed: str, row: str) -> str:
    short = name if len(name) <= 16 else f"{name[:15]}…"
    return "\n".join(filter(None, (short, row, seed)))
