"""What evaluate.py is asked for, checked before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from facegen import schema
from facegen.asked import Asked
from facegen.errors import UserError
from facegen.metrics.names import CONDITION, EDIT, METRICS, SCORECARDS, Metric, checked, unknown
from facegen.types import NonNegativeInt, PositiveFraction, PositiveInt, Tile
from facegen.wishes import spelled

OPTIONS, ASKED = "facegen.metrics.measure.Options", "facegen.asked.Asked"
NESTED = {"options": OPTIONS, "asked": ASKED}  # fields of a request that hold the arguments of another class
GROUPS = ("data", "sampler")
DRAWN, SCORED = 10_000, 1_000  # images, where n says nothing else: for a scorecard, which draws more beside them, the second
EDITED = 500  # photographs, for a scorecard of edits
OF_MODELS = {  # what a folder has no use for
    "n": None,
    "seed": 0,
    "ema": None,
    "images": False,
    "tile": None,
    "sampler": {},
    "method": None,
    "strength": None,
    "degrade": True,
    "curve": True,
    **{name: default for name, (_, default) in schema.signature(ASKED).items()},
}


@dataclass(frozen=True)
class Request:
    """One evaluation: `ckpt` or `fake` are measured against `real` or `data`; what the rest means stands in conf/evaluate.yaml.

    `split` None is `held_out` for an autoencoder and for edits, and `train` for all else.
    """

    ckpt: str | list[str] | None
    fake: str | list[str] | None
    real: str | None
    metrics: list[str]
    n: PositiveInt | None
    seed: NonNegativeInt
    split: Literal["train", "held_out", "all"] | None
    real_n: PositiveInt | None
    ema: str | None
    probe: str | None
    inception_weights: str | None
    lpips_weights: str | None
    out: str | None
    images: bool
    batch_size: PositiveInt
    tile: Tile | None
    device: Literal["cpu", "cuda"] | None
    cache_dir: str | None
    method: Literal["edit", "sdedit", "invert"] | None
    strength: PositiveFraction | None
    degrade: bool
    curve: bool
    data: dict[str, Any]
    sampler: dict[str, Any]
    options: dict[str, Any]
    asked: Asked

    @property
    def count(self) -> int:
        """How many images are drawn."""
        if self.edits:
            return self.edited
        only_scored = all(METRICS[name].kind in SCORECARDS for name in self.metrics)
        return self.scored if only_scored else DRAWN if self.n is None else self.n

    @property
    def edits(self) -> bool:
        """Whether photographs are edited."""
        return any(METRICS[name].kind == EDIT for name in self.metrics)

    @property
    def edited(self) -> int:
        """How many photographs are edited, where there are so many."""
        return EDITED if self.n is None else self.n

    @property
    def scored(self) -> int:
        """How many images the scorecard of a conditional model reads its answers from."""
        return SCORED if self.n is None else self.n

    @property
    def of_models(self) -> list[str]:
        """The options that only a model that draws has a use for, so far as they are not as nobody asked for anything."""
        values = {**vars(self), **vars(self.asked)}
        return [name for name, default in OF_MODELS.items() if name != "ema" and values[name] != default]

    @property
    def checkpoints(self) -> list[str]:
        """The checkpoints to be measured."""
        return _listed(self.ckpt)

    @property
    def folders(self) -> list[str]:
        """The folders to be measured."""
        return _listed(self.fake)

    @property
    def chosen(self) -> list[Metric]:
        """The metrics, each in its features."""
        return checked(self.metrics)


def _listed(value: str | list[str] | None) -> list[str]:
    return [] if value is None else value if isinstance(value, list) else [value]


def request_of(config: dict[str, Any]) -> Request:
    """The request that the plain configuration `config` of conf/evaluate.yaml makes; raises UserError with a line for each problem."""
    own = [field.name for field in fields(Request) if field.name not in NESTED]
    wanted = {name: kind for name, (kind, _) in schema.signature("facegen.request.Request").items() if name in own}
    wanted = {name: kind for name, kind in wanted.items() if name not in GROUPS}
    wanted |= {name: kind for target in NESTED.values() for name, (kind, _) in schema.signature(target).items()}
    config = {**config, "metrics": _as_list(config.get("metrics"))}
    for key in ("ema", "autoguidance_ema"):  # a half-life is read as a number
        config[key] = None if config.get(key) is None else str(config[key])
    problems = schema.unknown(config, [*wanted, *GROUPS])
    problems += [line for key, kind in wanted.items() for line in schema.check_value(config, key, kind, key)]
    for group in GROUPS:
        config[group] = config.get(group) or {}
        problems += schema.check(config[group], group) if "_target_" in config[group] else []
    if not problems:
        problems = unknown(config["metrics"]) or _sides(config)
    if problems:
        raise UserError(*problems)
    options, asked = ({name: config[name] for name in schema.signature(target)} for target in NESTED.values())
    request = Request(**{name: config[name] for name in own}, options=options, asked=Asked(**asked))
    if problems := [*request.asked.problems(), *_several(request.asked.condition)]:
        raise UserError(*problems)
    return request


def _several(condition: object) -> Iterator[str]:
    if isinstance(condition, list):
        yield f"condition={spelled(condition)} is several; type one of them, or a blend: 'condition={{A:0.5,B:0.5}}'"


def _as_list(value: Any) -> Any:
    """metrics=fid means metrics=[fid]; whatever else is no list of names is told to be none."""
    if isinstance(value, list):
        return [str(name) for name in value]
    return [] if value is None else [str(value)]


def _sides(config: dict[str, Any]) -> list[str]:
    """Problems of what is measured against what."""
    ckpt, fake, real, data = config["ckpt"], config["fake"], config["real"], config["data"]
    problems = []
    if isinstance(ckpt, str) and "," in ckpt and not os.path.exists(ckpt):
        problems.append(f"ckpt={ckpt}: no such file; several are typed ckpt=[{ckpt}]")
    if not config["metrics"]:
        problems.append("metrics must name at least one metric; got []; type metrics=[fid,is]")
    if not ckpt and not fake:
        problems.append("ckpt is required; type ckpt=RUN_OR_FILE, or fake=FOLDER real=FOLDER to compare folders")
    if ckpt and fake:
        problems.append(f"ckpt={ckpt} and fake={fake}: one of them is measured; leave the other out")
    for name, default in OF_MODELS.items() if fake else ():
        if config[name] != default:
            problems.append(f"{name} is of models that draw, fake={fake} is a folder; leave {name} out")
    if real and data:
        problems.append(f"real={real} and data=...: one of them is measured against; leave the other out")
    needs_real = [name for name in config["metrics"] if not METRICS[name].of_fake and METRICS[name].kind not in SCORECARDS]
    if fake and not ckpt and needs_real and not real and "_target_" not in data:
        problems.append(f"{needs_real[0]} compares fake={fake} with real images; type real=FOLDER, or data=NAME data.root=FOLDER")
    paired = [name for name in config["metrics"] if METRICS[name].paired]
    if paired and not ckpt and not (fake and real):
        problems.append(f"{paired[0]} compares images one by one, by their names; type fake=FOLDER real=FOLDER")
    problems += _scored(config)
    if config["kid_subset_size"] == 1:
        problems.append("kid_subset_size must be at least 2; got 1; type kid_subset_size=1000")
    if config["bootstrap"] == 1:
        problems.append("bootstrap must be 0 (no interval), or 2 and more draws; got 1; type bootstrap=20")
    if any(METRICS[name].kind == "neighbours" for name in config["metrics"]) and config["real_n"]:
        problems.append(f"neighbours looks among all training images; got real_n={config['real_n']}; leave it out")
    return problems


def _scored(config: dict[str, Any]) -> list[str]:
    """Problems of the scorecard of a conditional model, which asks a model for everything in turn and looks at labelled images."""
    kinds = {METRICS[name].kind for name in config["metrics"]}
    problems = list(_edited(config)) if EDIT in kinds else [*_of_edits(config)]
    if CONDITION not in kinds:
        return problems
    others = [name for name in config["metrics"] if METRICS[name].kind not in SCORECARDS]
    if config["fake"]:
        return [f"condition asks a model for what it can be told, fake={config['fake']} is a folder; leave it out of metrics"]
    if config["real"]:
        problems.append(f"condition looks at labelled images, real={config['real']} has no labels; leave real out, or type data=NAME")
    if config["condition"] is not None:
        problems.append("metrics=[condition] asks for every class and attribute in turn; leave condition= out")
    if config["blend"] != "embedding" and not others:
        problems.append("metrics=[condition] tries every way of blending; leave blend= out")
    if config["images"] and not others:
        problems.append("images=true writes the images of other metrics than condition; leave it out, or type metrics=[condition,fd_probe]")
    return problems


def _of_edits(config: dict[str, Any]) -> Iterator[str]:
    for name in ("method", "strength", "degrade", "curve"):
        if config[name] != OF_MODELS[name] and not config["fake"]:
            yield f"{name}={config[name]} is of edits; leave {name} out, or type metrics=[edit]"


def _edited(config: dict[str, Any]) -> Iterator[str]:
    """Problems of the scorecard of edits, which makes its own of photographs of people of known ages."""
    if config["fake"]:
        yield f"edit asks a model for edits, fake={config['fake']} is a folder; leave it out of metrics"
    if config["real"]:
        yield f"edit looks at people of known ages, real={config['real']} has no labels; leave real out, or type data=NAME"
    if config["condition"] is not None:
        yield "metrics=[edit] asks for every age in turn; leave condition= out"
    if len(config["metrics"]) > 1:
        yield "metrics=[edit] edits held-out photographs, other metrics draw faces; measure them by a command of their own"
    if config["strength"] is not None and config["method"] == "edit":
        yield f"strength={config['strength']:g} is of method=sdedit and invert; leave it out, or type method=sdedit"
    for name in ("guidance", "image_guidance"):
        if isinstance(config[name], int | float) and config[name] < 1:
            yield f"{name}={config[name]:g}: below 1 it would lead away from what is asked; type {name}=1 or more"
