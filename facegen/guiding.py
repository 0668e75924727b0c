"""How a loaded model is asked and guided, as it is typed: `condition=`, `blend=`, `guidance=`, `autoguidance=` and what belongs to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from facegen.asked import EARLY, Asked
from facegen.asking import Asker, Blend
from facegen.codecs import Codec
from facegen.diffusion.denoiser import Denoiser, Rescheduled
from facegen.diffusion.guidance import Guidance, Told
from facegen.durable import sha256
from facegen.errors import UserError
from facegen.families.labels import Labels
from facegen.wishes import NONE, spelled


class Model(Protocol):
    """A trained model out of the checkpoint `path`, which says its `config`; `labels` and `examples` where it can be told anything."""

    path: Path
    config: dict[str, Any]
    denoiser: Denoiser
    codec: Codec
    provenance: dict[str, str]
    labels: Labels | None
    examples: Tensor | None
    text: Any

    @property
    def run_dir(self) -> Path | None: ...


@dataclass(frozen=True)
class Direction:
    """What a model is asked for and how it is guided; `facts` say so beside every picture."""

    asker: Asker | None = None
    guidance: Guidance = field(default_factory=Guidance)
    asked: Asked = field(default_factory=Asked)
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def mixed(self) -> bool:
        """Whether the parts of a blend are mixed into one condition."""
        return self.asked.blend == "embedding"

    def told(self, seeds: Sequence[int]) -> Told | None:
        """What the images of `seeds` are told, where the model can be told anything."""
        if self.asker is None:
            return None
        return self.asker.told([self.asker.blend(self.asked.condition)] * len(seeds), seeds, mixed=self.mixed)

    def blends(self, blends: Sequence[Blend], seeds: Sequence[int], like: Sequence[Blend] | None = None) -> Told:
        """What the images of `seeds` are told where each is asked for a blend of its own (`Asker.told`)."""
        assert self.asker is not None, "figures of conditions are refused where a model cannot be told any"
        return self.asker.told(blends, seeds, mixed=self.mixed, like=like)

    def but(self, **changes: Any) -> Direction:
        """The same, asked otherwise: `changes` are fields of `Asked`."""
        asked = replace(self.asked, **changes)
        way = "switch" if asked.blend == "switch" else "compose"
        facts = {**self.facts, **_facts(asked)} if self.asker or asked.autoguidance else {}
        guidance = replace(self.guidance, weight=asked.guidance, image_weight=asked.image_guidance, way=way)
        return replace(self, asked=asked, guidance=guidance, facts=facts)


def direct(model: Model, asked: Asked, load: Callable[[str, str | None], Model]) -> Direction:
    """The direction that `asked` gives `model`; `load` finds the model of autoguidance by checkpoint and average.

    Raises UserError with a line for each thing that this model cannot be asked, or not so.
    """
    asker = Asker(model.labels, model.examples) if model.labels is not None and model.examples is not None else None
    if problems := list(_impossible(model, asked)):
        raise UserError(*problems)
    if asker is not None and not isinstance(asked.condition, list):
        asker.blend(asked.condition)
    weak, facts = _weak(model, asked, load) if asked.autoguidance else (None, {})
    lowest, highest = asked.guidance_interval or (0.0, math.inf)
    guidance = Guidance(interval=(lowest, highest), rescale=asked.guidance_rescale, weak=weak)
    return Direction(asker, guidance, asked, facts).but()


def _impossible(model: Model, asked: Asked) -> Iterator[str]:
    family = model.provenance["family"]
    guided = asked.guidance != 1 and not asked.autoguidance
    if model.text is not None:
        if asked.condition is not None:
            yield f"condition={spelled(asked.condition)}: {model.path} is told in words; type edit=PHOTOGRAPH age=60"
    elif model.labels is None:
        if asked.condition is not None:
            wanted = f"leave it out, or train one that is: python train.py {told_one(family)} data=NAME"
            yield f"condition={spelled(asked.condition)}: {model.path} is model={family}, which is told nothing; {wanted}"
        if guided:
            way_out = "leave it out, or type autoguidance=early"
            yield f"guidance={asked.guidance:g}: {model.path} is model={family}, which has no condition to be guided by; {way_out}"
        return
    if asked.image_guidance != 1:
        yield from _unguided_by_source(model, asked)
    if why := never_unasked(model):
        if guided:
            yield f"guidance={asked.guidance:g}: {why}; type guidance=1, or autoguidance=early"
        if asked.condition == NONE:
            yield f"condition={NONE}: {why}; leave it out"


def told_one(family: str) -> str:
    """What to type for a model of the same kind as `family` that can be told something."""
    return "model=ldm model.condition=true" if family == "ldm" else "model=class_conditional"


def never_unasked(model: Model) -> str:
    """Why `model` cannot draw without being told what, where it cannot; else nothing."""
    options = model.config["model"]
    share = "drop_text" if "drop_text" in options else "drop_condition"
    if options.get(share, 1):
        return ""
    return f"{model.path} was trained with model.{share}=0 and has never drawn without being told what"


def _unguided_by_source(model: Model, asked: Asked) -> Iterator[str]:
    """Why image_guidance= can do nothing, where it cannot."""
    told, options = f"image_guidance={asked.image_guidance:g}", model.config["model"]
    if "drop_both" not in options or model.config["data"].get("source") in (None, "none"):
        yield f"{told}: {model.path} is model={model.provenance['family']} and is shown no source to be guided by; type image_guidance=1"
    elif not options["drop_both"]:
        yield f"{told}: {model.path} was trained with model.drop_both=0 and has never drawn without its source; type image_guidance=1"
    elif asked.autoguidance:
        yield f"{told}: autoguidance takes the place of the model that is shown nothing; type image_guidance=1, or leave autoguidance out"


def _weak(model: Model, asked: Asked, load: Callable[[str, str | None], Model]) -> tuple[Any, dict[str, str]]:
    """The weaker model, seen from the schedule of the other, and which file it is: a run has another newest one tomorrow."""
    path, ema = str(asked.autoguidance), asked.autoguidance_ema
    if path == EARLY:
        early = model.run_dir and model.run_dir / "checkpoints" / "early.ckpt"
        if early is None or not early.is_file():
            raise UserError(f"autoguidance=early: {model.path} has no early.ckpt beside it; type autoguidance=CKPT, of a weaker model")
        path = str(early)
    weak = _loaded(path, ema, load)
    if weak.provenance == model.provenance and weak.path.resolve() == model.path.resolve():
        raise UserError(f"autoguidance={path} is the model itself, which leads nowhere; give an earlier one, or type autoguidance_ema=raw")
    if weak.codec.shape != model.codec.shape:
        raise UserError(f"autoguidance={path} draws {weak.codec.shape}, the model {model.codec.shape}: give one of the same size")
    if weak.codec.fingerprint() != model.codec.fingerprint():
        raise UserError(f"autoguidance={path} works in the latents of another autoencoder; give one that was trained with the same")
    if weak.labels is not None and (model.labels is None or weak.labels.names != model.labels.names):
        raise UserError(f"autoguidance={path} is told other classes than the model; give one that was trained on the same data")
    facts = {"autoguidance_sha256": sha256(weak.path)}
    if weak.config["scheduler"] == model.config["scheduler"]:
        return weak.denoiser, facts
    return Rescheduled(weak.denoiser, model.denoiser.schedule), facts


def _loaded(path: str, ema: str | None, load: Callable[[str, str | None], Model]) -> Model:
    """The model at `path`; what is wrong with it is told by the names of the options that it was given by."""
    try:
        return load(path, ema)
    except UserError as error:
        lines = (line.replace("ema=", "autoguidance_ema=").replace("ckpt=", "autoguidance=") for line in error.lines)
        raise UserError(*lines) from error


def _facts(asked: Asked) -> dict[str, str]:
    """What is said of the direction beside a picture."""
    facts = {"condition": "as in the data" if asked.condition is None else spelled(asked.condition), "guidance": f"{asked.guidance:g}"}
    if isinstance(asked.condition, dict | list):
        facts["blend"] = asked.blend
    if asked.image_guidance != 1:
        facts["image_guidance"] = f"{asked.image_guidance:g}"
    optional = ("guidance_interval", "guidance_rescale", "autoguidance", "autoguidance_ema")
    return {**facts, **{name: str(getattr(asked, name)) for name in optional if getattr(asked, name)}}
