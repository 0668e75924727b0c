"""A trained model out of a checkpoint, which is enough by itself: nothing of the run that made it has to be said again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

import facegen
from facegen import checkpoint, schema, stages
from facegen.codecs import Codec
from facegen.conflicts import beyond_the_schedule
from facegen.diffusion.denoiser import Denoiser
from facegen.durable import sha256
from facegen.errors import UserError
from facegen.families.labels import Labels
from facegen.networks.probe import Classifier
from facegen.pretrained import base_of
from facegen.restoring import Build, Restored, facts_of, restore

OF_PROBE = ("condition_names", "condition_groups", "resolution", "channels", "fingerprint")


@dataclass
class Loaded:
    """A model ready to draw: its denoiser with averaged weights, its codec, and where it comes from.

    `labels` and `examples` (N,K) are what it can be told and what it was told in training, where it can be told anything; `text`
    (`facegen.text`) reads prompts where it is told those. `asked` and `encode_source` are how a model that edits is
    told the labels of a batch and shown sources. `provenance` is what is written beside every picture; `checkpoints` are those of the same
    run, oldest first.
    """

    path: Path
    config: dict[str, Any]
    denoiser: Denoiser
    codec: Codec
    provenance: dict[str, str]
    build: Build
    ema: str | None
    usual_conditions: Callable[[Sequence[int]], Tensor | None]
    labels: Labels | None = None
    examples: Tensor | None = None
    text: Any = None
    asked: Callable[[dict[str, Any]], Tensor] | None = None
    encode_source: Callable[[Tensor], Tensor] | None = None

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


@dataclass
class LoadedProbe:
    """A probe ready to be asked: `probe` maps images to logits, its `features` to features, in evaluation mode, with averaged weights.

    `sha256` is of the file `path`. `data` has what the file says of the data it was trained on: resolution, channels, condition_names,
    condition_groups, fingerprint and more. `ema` is the half-life of the average, or `raw`.
    """

    path: Path
    sha256: str
    config: dict[str, Any]
    data: dict[str, Any]
    probe: Classifier
    ema: str
    step: str


@dataclass
class LoadedAutoencoder:
    """An autoencoder ready to be asked: `model` (`facegen.families.autoencoder`), in evaluation mode, with averaged weights.

    `image_shape` (C,H,W) is of the images it was trained on; `run_dir` and `provenance` are as of `Loaded`.
    """

    path: Path
    run_dir: Path | None
    config: dict[str, Any]
    image_shape: tuple[int, int, int]
    model: Any
    provenance: dict[str, str]


def load(ckpt: str | Path, build: Build, ema: str | None = None) -> Loaded:
    """The model of `ckpt`, a file or a run directory; `ema` is a half-life in images, `raw`, or None for the run's first.

    Raises UserError where the file is damaged, of another schema, or its configuration names anything but facegen's own classes;
    nothing is imported before that is known.
    """
    return _drawing(restore(checkpoint.latest(ckpt), build, ema), build, ema)


def untuned(loaded: Loaded) -> Loaded:
    """What `loaded` was fine-tuned from, which is shown no source; raises UserError where it was trained from scratch, or that is gone."""
    config = loaded.config
    if not (pretrained := config["model"].get("pretrained")):
        family = loaded.provenance["family"]
        raise UserError(f"baseline=pretrained: {loaded.path} is model={family}, trained from scratch; type baseline=CKPT, of another model")
    head = checkpoint.header(checkpoint.read(loaded.path, mmap=True), loaded.path)
    model = loaded.build(config["model"], **facts_of(head, schema.facts_asked(config["model"]), loaded.path))
    model.begin_with(*base_of(pretrained))
    model.eval().requires_grad_(False)
    provenance = {**loaded.provenance, "checkpoint": f"{pretrained}, not tuned", "step": "0", "ema": "raw"}
    return replace(loaded, denoiser=model.denoiser, codec=model.codec, text=model.text, provenance=provenance)


def load_autoencoder(ckpt: str | Path, build: Build, ema: str | None = None) -> LoadedAutoencoder:
    """The autoencoder of `ckpt`; what it may be, `ema` and errors as for `load`, and UserError where it is of another model."""
    return _reconstructing(restore(checkpoint.latest(ckpt), build, ema, family="autoencoder"))


def load_measurable(ckpt: str | Path, build: Build, ema: str | None = None) -> Loaded | LoadedAutoencoder:
    """What `load` or `load_autoencoder` makes of `ckpt`, by what it is a checkpoint of; errors as for them."""
    restored = restore(checkpoint.latest(ckpt), build, ema)
    return _reconstructing(restored) if restored.header.family == "autoencoder" else _drawing(restored, build, ema)


def _drawing(restored: Restored, build: Build, ema: str | None) -> Loaded:
    model, path, head = restored.model, restored.path, restored.header
    if not model.draws:
        wanted = "type figure=reconstruct, or " * (head.family == "autoencoder") + "sample one of a model that draws: ckpt=RUN_OR_FILE"
        raise UserError(f"{path} is a checkpoint of model={head.family}, which draws nothing; {wanted}")
    told = {name: getattr(model, name, None) for name in ("labels", "examples", "text", "asked", "encode_source")}
    own = (head.config, model.denoiser, model.codec, _provenance(restored), build, ema, model.usual_conditions)
    return Loaded(path, *own, **told)


def _reconstructing(restored: Restored) -> LoadedAutoencoder:
    path, head = restored.path, restored.header
    channels, side = facts_of(head, ("channels", "resolution"), path).values()
    run_dir = path.parent.parent if path.parent.name == "checkpoints" else None
    return LoadedAutoencoder(path, run_dir, head.config, (channels, side, side), restored.model, _provenance(restored))


def _provenance(restored: Restored) -> dict[str, str]:
    told = {"checkpoint": restored.path.name, "family": restored.header.family, "step": restored.step, "ema": restored.ema}
    return {"facegen": facegen.__version__, **told, "data": str(restored.header.data.get("fingerprint", ""))}


def load_probe(ckpt: str | Path, build: Build, ema: str | None = None) -> LoadedProbe:
    """The probe of `ckpt`: a file, or a run directory, which means its `checkpoints/best.ckpt` (the lowest held-out loss that was
    measured), or its newest step where nothing was measured.

    `ema` and errors as for `load`, and UserError where the checkpoint is of another model.
    """
    best = Path(ckpt, "checkpoints", "best.ckpt")
    path = checkpoint.latest(best if ckpt and best.is_file() else ckpt, "probe")
    restored = restore(path, build, ema, family="probe")
    head = restored.header
    data = {**head.data, **facts_of(head, OF_PROBE, path)}
    return LoadedProbe(path, sha256(path), head.config, data, restored.model.classifier, restored.ema, restored.step)


def autoencoder_of(source: str | Path, build: Build) -> Any:
    """The autoencoder of a run, of a checkpoint, or of a folder of diffusers' `AutoencoderKL`, with averaged weights.

    Errors as for `load`, and UserError where the checkpoint is of another model or the folder does not hold what its config.json says.
    """
    source = Path(source)
    if not (source / "config.json").is_file():
        first = source / stages.FIRST
        path = checkpoint.latest(first if first.is_dir() else source, stages.OPTION)
        return restore(path, build, None, family="autoencoder").model.autoencoder
    network = build(stages.described(str(source)))
    try:
        network.begin_with(source)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{stages.OPTION}={source} cannot be read ({reason}); give the folder that save_pretrained wrote") from error
    return network.eval().requires_grad_(False)


def sampler_of(loaded: Loaded, asked: dict[str, Any] | None) -> dict[str, Any]:
    """The sampler's configuration: the one asked for, or the run's own with the options asked for.

    Raises UserError with a line for each problem.
    """
    asked = asked or {}
    node = dict(asked) if "_target_" in asked else {**loaded.config["sampler"], **asked}
    problems = list(schema.check(node, "sampler")) or list(beyond_the_schedule(node, loaded.config["scheduler"]))
    if problems:
        raise UserError(*problems)
    return node
