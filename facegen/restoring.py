"""The model that a checkpoint file holds: checked, built from the file's own configuration, and given its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from facegen import checkpoint, schema
from facegen.callbacks.ema import key
from facegen.errors import UserError
from facegen.pretrained import base_of
from facegen.types import NonNegativeInt, PositiveInt

Build = Callable[..., Any]
FACTS: dict[str, Any] = {
    "condition_names": list[str],
    "condition_groups": dict[str, list[str]],
    "condition_examples": list[list[NonNegativeInt]],
    "resolution": PositiveInt,
    "channels": Literal[1, 3],
    "fingerprint": str,
}


@dataclass
class Restored:
    """The model of a family with the weights asked for, its file and what the file says."""

    model: Any
    path: Path
    header: checkpoint.Header
    step: str
    ema: str


def restore(path: Path, build: Build, ema: str | None, family: str | None = None) -> Restored:
    """The model of the checkpoint `path`, of a `family` or of any, with averaged weights (half-life `ema`, the first by default).

    Raises UserError where the file is damaged, of another schema or family, or its configuration names anything but facegen's own
    classes; nothing is imported before that is known.
    """
    stored = checkpoint.read(path)
    head = checkpoint.header(stored, path, expect_family=family)
    checkpoint.check_targets(head.config, schema.TARGETS)
    head = replace(head, config=schema.modernised(head.config))
    problems = list(schema.check(head.config.get("model", {}), "model"))
    if problems:
        raise UserError(*(f"{path}: {line}" for line in problems))
    model = build(head.config["model"], **facts_of(head, schema.facts_asked(head.config["model"]), path))
    if getattr(model, "family", None) != head.family:
        raise UserError(
            f"{path} says it is of model={head.family}, but its configuration is of another: use a checkpoint that train.py wrote"
        )
    halflife = _halflife(ema, head.config, stored.get("ema", {}), path)
    try:
        if model.draws:
            model.load_rest(stored, partial(_base, path))
        model.load_state_dict(stored["state_dict"], strict=True)
        model.load_state_dict(stored["ema"][halflife] if halflife else {}, strict=False)
    except (KeyError, RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} does not hold the weights that its configuration asks for ({reason}): use another checkpoint") from error
    model.eval().requires_grad_(False)
    return Restored(model, path, head, str(stored.get("global_step", "unknown")), halflife or "raw")


def _base(path: Path, source: str) -> tuple[Path, str]:
    """What the adapters in `path` were trained from; raises UserError where it is no longer where it was."""
    try:
        return base_of(source)
    except UserError as error:
        what = f"{path} holds adapters of the Stable Diffusion at {source}, which cannot be read there"
        raise UserError(f"{what} ({error.lines[0].partition('; ')[0]}); put it back") from error


def facts_of(head: checkpoint.Header, names: Iterable[str], path: Path) -> dict[str, Any]:
    """What a checkpoint says of its data under `names`; raises UserError where it does not, or says what cannot be."""
    facts = {}
    for name in names:
        try:
            facts[name] = TypeAdapter(FACTS[name]).validate_python(head.data[name], strict=True)
        except (KeyError, ValidationError) as error:
            raise UserError(f"{path} does not say the {name} of its data: use another checkpoint") from error
    return facts


def _halflife(asked: str | None, config: dict[str, Any], averages: dict[str, Any], path: Path) -> str | None:
    if asked == "raw" or not averages:
        return None
    wanted = key(config["ema"]["halflives"][0]) if asked is None else str(asked)
    if wanted not in averages:
        raise UserError(f"ema={wanted} is not in {path}; allowed: {', '.join(averages)}, raw; type ema={next(iter(averages))}")
    return wanted
