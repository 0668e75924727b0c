"""A trained model out of a checkpoint, which is enough by itself: nothing of the run that made it has to be said again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import facegen
from facegen import checkpoint, schema
from facegen.callbacks.ema import key
from facegen.codecs import Codec
from facegen.diffusion.denoiser import Denoiser
from facegen.errors import UserError

Build = Callable[..., Any]


@dataclass
class Loaded:
    """A model ready to draw: its denoiser with averaged weights, its codec, and where it comes from.

    `provenance` is what is written beside every picture; `checkpoints` are those of the same run, oldest first.
    """

    path: Path
    config: dict[str, Any]
    denoiser: Denoiser
    codec: Codec
    provenance: dict[str, str]
    build: Build
    ema: str | None

    @property
    def run_dir(self) -> Path | None:
        """The run directory that the checkpoint lies in, where it lies in one."""
        return self.path.parent.parent if self.path.parent.name == "checkpoints" else None

    @property
    def checkpoints(self) -> list[Path]:
        """The step checkpoints of the run, oldest first; this one alone where it lies in no run."""
        return checkpoint.steps(self.run_dir) if self.run_dir else [self.path]

    def reload(self, path: Path) -> Loaded:
        """The same model at another checkpoint of its run."""
        return load(path, self.build, self.ema)


def load(ckpt: str | Path, build: Build, ema: str | None = None) -> Loaded:
    """The model of `ckpt`, a file or a run directory; `ema` is a half-life in images, `raw`, or None for the run's first.

    Raises UserError where the file is damaged, of another schema, or its configuration names anything but facegen's own classes;
    nothing is imported before that is known.
    """
    path = checkpoint.latest(ckpt)
    stored = checkpoint.read(path)
    head = checkpoint.header(stored, path)
    checkpoint.check_targets(head.config, schema.TARGETS)
    problems = list(schema.check(head.config.get("model", {}), "model"))
    if problems:
        raise UserError(*(f"{path}: {line}" for line in problems))
    model = build(head.config["model"])
    if getattr(model, "family", None) != head.family:
        raise UserError(
            f"{path} says it is of model={head.family}, but its configuration is of another: use a checkpoint that train.py wrote"
        )
    halflife = _halflife(ema, head.config, stored.get("ema", {}), path)
    try:
        model.load_state_dict(stored["state_dict"], strict=True)
        model.load_state_dict(stored["ema"][halflife] if halflife else {}, strict=False)
    except (KeyError, RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} does not hold the weights that its configuration asks for ({reason}): use another checkpoint") from error
    provenance = {
        "facegen": facegen.__version__,
        "checkpoint": path.name,
        "family": head.family,
        "step": str(stored.get("global_step", "unknown")),
        "ema": halflife or "raw",
        "data": str(head.data.get("fingerprint", "")),
    }
    model.eval().requires_grad_(False)
    return Loaded(path, head.config, model.denoiser, model.codec, provenance, build, ema)


def _halflife(asked: str | None, config: dict[str, Any], averages: dict[str, Any], path: Path) -> str | None:
    if asked == "raw" or not averages:
        return None
    wanted = key(config["ema"]["halflives"][0]) if asked is None else str(asked)
    if wanted not in averages:
        raise UserError(f"ema={wanted} is not in {path}; allowed: {', '.join(averages)}, raw; type ema={next(iter(averages))}")
    return wanted


def sampler_of(loaded: Loaded, asked: dict[str, Any] | None) -> dict[str, Any]:
    """The sampler's configuration: the one asked for, or the run's own with the options asked for.

    Raises UserError with a line for each problem.
    """
    asked = asked or {}
    node = dict(asked) if "_target_" in asked else {**loaded.config["sampler"], **asked}
    problems = list(schema.check(node, "sampler")) or list(schema.beyond_the_schedule(node, loaded.config["scheduler"]))
    if problems:
        raise UserError(*problems)
    return node
