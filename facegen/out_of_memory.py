"""Too little memory: one line that says what to lower, in place of the allocator's page."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from facegen.checkpoint import steps
from facegen.errors import UserError
from facegen.stages import in_stage1
from facegen.types import SMALLEST_TILE

# What torch says where the memory of a CPU or a graphics card is at its end, beside the exceptions that are made for it.
SAID = re.compile(r"can't allocate memory|out of memory|_ALLOC_FAILED", re.IGNORECASE)
AMOUNT = re.compile(r"allocate ([\d.]+ (?:bytes|[KMGTPE]iB))")
PREVIEW = ("callbacks", "preview.py")  # where it is no step that has failed
NOTHING_LESS = "; nothing less can be asked for: free some memory and type the same command again"

Way = tuple[str, str]  # a setting as it is now, and what to type to make do with less


@contextmanager
def out_of_memory(doing: str, ways: Callable[[BaseException], Iterable[Way]]) -> Iterator[None]:
    """Turns a lack of memory while `doing` something into a UserError that names the `ways` out of it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or SAID.search(str(error))):
            raise
        found = list(ways(error))
        now, typed = ", ".join(now for now, _ in found), ", or ".join(typed for _, typed in found)
        asked = AMOUNT.search(str(error))
        what = f"out of memory while {doing}{f' ({_readable(asked[1])} more were asked for)' if asked else ''}"
        raise UserError(f"{what}: {now}; type {typed}" if found else f"{what}{NOTHING_LESS}") from error


def of_training(config: Mapping[str, Any], is_first: bool, error: BaseException) -> Iterator[Way]:
    """What makes a training step smaller; `is_first`: `config` is of the first of two stages, and is typed behind `stage1`."""
    has_begun = bool(steps(Path(config["run_dir"])))
    if any(Path(frame.filename).parts[-2:] == PREVIEW for frame in traceback.extract_tb(error.__traceback__)):
        ways, anew = [(f"preview.count is {config['preview']['count']}", "preview.count=0")], ""
    else:
        ways, anew = [*_smaller_steps(config)], " run_dir=NEW" * has_begun  # a run keeps its settings
    for now, typed in ways:
        yield (in_stage1(now, config), in_stage1(typed, config) + anew) if is_first else (now, typed + anew)
    if has_begun:
        yield "the last checkpoint is good", "the same command again when more memory is free"


def _smaller_steps(config: Mapping[str, Any]) -> Iterator[Way]:
    trainer, network, batch = config["trainer"], config["model"]["network"], config["data"]["batch_size"]
    devices, accumulate = trainer["devices"] * trainer["nodes"], trainer["accumulate"]
    parts = [part for part in range(devices, batch // 2 + 1, devices) if batch % part == 0]
    if parts:  # as many images an optimizer step as before
        less = f"data.batch_size={parts[-1]} trainer.accumulate={accumulate * batch // parts[-1]}"
        yield f"data.batch_size is {batch}, trainer.accumulate {accumulate}", less
    if network.get("gradient_checkpointing") is False:
        yield "model.network.gradient_checkpointing is false", "model.network.gradient_checkpointing=true"
    yield f"model.network.widths is {network.get('widths')}", "a smaller model/network=NAME"


def of_encoding(device: str, error: BaseException) -> Iterator[Way]:
    """What makes room for the encoder, which is given as many pixels at a time whatever is typed."""
    if device != "cpu":
        yield f"the encoder is on {device}", "trainer.accelerator=cpu until all are encoded, which is kept"
    yield "it is as large as its autoencoder", "a smaller model.autoencoder=RUN, or stage1.model.network.widths=[...]"


def of_drawing(batch_size: int, group: int, side: int, tile: int | None, device: str, error: BaseException) -> Iterator[Way]:
    """What makes drawing smaller.

    A network is always given a `group` of images, of which `batch_size` makes one or more; `side` is that of the latents, 0 in pixels.
    """
    if batch_size > group:
        yield f"batch_size is {batch_size}", f"batch_size={max(group, batch_size // 2)}"
    if (whole := min(side, tile or side)) > SMALLEST_TILE:
        now = f"tile is {'null' if tile is None else tile} for latents of {side}x{side}"
        yield now, f"tile={max(SMALLEST_TILE, whole // 2)}"
    if device != "cpu":
        yield f"device is {device}", "device=cpu"


def of_measuring(count: int, drawn: bool, device: str, error: BaseException) -> Iterator[Way]:
    """What makes measuring smaller, beside the drawing of `count` images: all that is measured of them is held at once."""
    if drawn:
        yield f"n is {count}", f"n={max(1, count // 2)}"
    if device != "cpu":
        yield f"device is {device}", "device=cpu"


def _readable(amount: str) -> str:
    """`137438953472 bytes` as `128 GiB`; what has a larger unit already keeps it."""
    size, unit = amount.split()
    if unit != "bytes":
        return f"{float(size):g} {unit}"
    return f"{int(size) / 2**30:.3g} GiB" if int(size) >= 2**30 else f"{int(size) / 2**20:.3g} MiB"
