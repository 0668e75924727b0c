"""A latent diffusion model has two stages: what the configuration of each says, worked out before anything heavy is imported.

The first stage is a run like any other, in `RUN/autoencoder`: its configuration is that of the command, overlaid with what
`stage1` says. The second takes the size of its latents from the autoencoder that it is given or that is to be trained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from facegen import schema
from facegen.checkpoint import check_targets, header, latest, read, steps
from facegen.edits import PIX2PIX
from facegen.errors import UserError
from facegen.networks.checks import check_autoencoder, factor_of

LATENT, TOLD = "facegen.families.latent.LatentDiffusion", "facegen.families.latent.ConditionalLatentDiffusion"
KL, VQ = (f"facegen.networks.autoencoder.{kind}Autoencoder" for kind in ("KL", "VQ"))
AUTOENCODERS = (KL, VQ)
FIRST = "autoencoder"  # the folder of the first stage in the run
EDM_STD = 0.5  # the deviation of the data that EDM is written for
OPTION = "model.autoencoder"
SIZES, LARGEST = ("channels", "latent_channels", "layers", "groups", "patch"), 8192  # of somebody else's network


def is_latent(config: Mapping[str, Any]) -> bool:
    """Whether the configuration is of a model in latents."""
    model = config.get("model") or {}
    return model.get("_target_") in (LATENT, TOLD) or (model.get("_target_") == PIX2PIX and bool(model.get("autoencoder")))


def settled(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with all that follows from the autoencoder: the codec, the size and the channels of the network.

    Raises UserError where there is no autoencoder, or none that it could be.
    """
    if not is_latent(config):
        if config.get("stage1") is not None:
            raise UserError("stage1 is of models with two stages; leave it out, or type model=ldm")
        return {key: value for key, value in config.items() if key != "stage1"}
    model = dict(config["model"])
    if not isinstance(model.get("network"), dict):
        raise UserError(f"model.network must be a group; got {model.get('network')}; type model/network=NAME")
    if model["network"].get("_target_", "") in AUTOENCODERS:
        raise UserError("model.network is an autoencoder, which is of the first stage; type stage1/model/network=NAME")
    given = model.get("autoencoder")
    network = _of_begun(config) or (described(str(given)) if given else _to_be_trained(config.get("stage1") or {}))
    if model.pop("condition", False):
        model["_target_"] = TOLD
        model["injection"] = model.get("injection") or "embedding"
        model["network"] = {**model["network"], "injection": model["injection"]}
    resolution, channels = config["data"]["resolution"], config["data"]["channels"]
    if network["channels"] != channels:
        whose = f"{OPTION}={given}" if given else "stage1.model.network"
        raise UserError(f"{whose} is of images with {network['channels']} channels, data.channels is {channels}; both must be alike")
    factor = _factor(network, resolution)
    is_edm = config["scheduler"]["_target_"].endswith(".EDM") and model.get("prediction") in (None, "edm")
    std = EDM_STD if is_edm or model.get("prediction") == "edm" else 1.0
    model["codec"] = {"_target_": "facegen.codecs.Latents", "network": network, "resolution": resolution, "std": std}
    model["network"] = {**model["network"], "resolution": resolution // factor, "channels": network["latent_channels"]}
    rest = {key: value for key, value in config.items() if key != "stage1" or not given}
    return {**rest, "model": model}


def has_begun(config: Mapping[str, Any]) -> bool:
    """Whether the run has a checkpoint of its last stage, which carries all that the first has made."""
    return bool(config.get("run_dir")) and bool(steps(config["run_dir"]))


def begun(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the run has begun with, where it has and can be read."""
    if not has_begun(config):
        return None
    try:
        stored = yaml.safe_load(Path(config["run_dir"], "config.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return stored if isinstance(stored, dict) else None


def _of_begun(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The autoencoder that the run has begun with: where it came from may be gone."""
    try:
        network = schema.modernised((begun(config) or {})["model"]["codec"]["network"])
    except (TypeError, KeyError, AttributeError):
        return None  # another run, or a damaged one: told where it is opened
    return network if network.get("_target_") in AUTOENCODERS and not list(schema.check(network, OPTION)) else None


def _to_be_trained(stage: Mapping[str, Any]) -> dict[str, Any]:
    """The network of the first stage; raises UserError where it is none that could be an autoencoder."""
    network = (stage.get("model") or {}).get("network") or {}
    if network.get("_target_") not in AUTOENCODERS:
        raise UserError("stage1.model.network is no autoencoder; type stage1/model/network=f4d3")
    if problems := list(schema.check(network, "stage1.model.network")):
        raise UserError(*problems)
    return dict(network)


def _factor(network: dict[str, Any], resolution: int) -> int:
    factor = factor_of(network.get("widths") or [1], network.get("patch", 1))
    if resolution % factor:
        raise UserError(indivisible(resolution, factor))
    return factor


def indivisible(resolution: int, factor: int) -> str:
    """The problem of images that an autoencoder cannot shrink by `factor`."""
    below = resolution // factor * factor
    sizes = " or ".join(f"data.resolution={size}" for size in (below, below + factor) if size)
    return f"data.resolution must be divisible by {factor}, by which the autoencoder shrinks an image; got {resolution}; type {sizes}"


def first(config: dict[str, Any]) -> dict[str, Any] | None:
    """The configuration of the first stage, None where there is none to train."""
    stage = config.get("stage1")
    if not is_latent(config) or stage is None:
        return None
    rest = {key: value for key, value in config.items() if key not in ("model", "stage1")}
    return {**_overlaid(rest, stage), "run_dir": config["run_dir"] and str(Path(config["run_dir"], FIRST))}


def _overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: value for key, value in below.items() if key not in above}
    for key, value in above.items():
        under: Any = below.get(key)
        whole = not isinstance(value, Mapping) or "_target_" in value  # a whole group takes the other's place
        both[key] = value if whole or not isinstance(under, Mapping) else _overlaid(under, value)
    return both


def in_stage1(line: str, stage: Collection[str]) -> str:
    """What is wrong with the first stage, in the words of the command that configures both: `stage` is what it overlays, or its groups."""
    own = stage.get("data") if isinstance(stage, Mapping) else None
    if isinstance(own, Mapping) and any(line.startswith((f"data.{key} ", f"data.{key}=")) for key in own):
        line = f"stage1.{line}"
    groups = "|".join(group for group in stage if group != "data")  # elsewhere in a line data is that of another command
    return re.sub(rf"(?<![\w./])({groups})([./])", r"stage1\2\1\2", line)


def described(source: str) -> dict[str, Any]:
    """The network of the autoencoder that `source` means, as a configuration node.

    Raises UserError, with the command that trains one, where there is none.
    """
    path = Path(source)
    if (path / "config.json").is_file():
        return _of_diffusers(path)
    if (path / FIRST).is_dir():
        path = path / FIRST
    try:
        file = latest(path if path.exists() else source, OPTION)
    except UserError as error:
        raise UserError(*(_with_way_out(line, source) for line in error.lines)) from error
    model = header(read(file, mmap=True), file).config.get("model", {})
    if not isinstance(model, dict) or model.get("_target_") != "facegen.families.autoencoder.Autoencoder":
        raise UserError(_with_way_out(f"{OPTION}={source} is no autoencoder", source))
    check_targets(model, schema.TARGETS)
    return _checked(schema.modernised(model).get("network"), source)


def _checked(network: Any, source: str | Path) -> dict[str, Any]:
    """A network that somebody else has described, if it is one that can be built; else raises UserError."""
    if not isinstance(network, dict) or network.get("_target_") not in AUTOENCODERS:
        raise UserError(f"{OPTION}={source} describes no autoencoder of facegen; give another")
    problems = [line.replace("its.", "its ", 1) for line in schema.check(network, "its")]
    if not problems:
        problems = [f"its {name} is {network[name]}, at most {LARGEST} is allowed" for name in SIZES if network[name] > LARGEST]
        problems += [f"its widths reach {max(network['widths'])}, at most {LARGEST} is allowed"] * (
            max(network["widths"], default=0) > LARGEST
        )
    if not problems:
        try:
            check_autoencoder(**{name: value for name, value in network.items() if name != "_target_"})
        except UserError as error:
            problems = [line.partition("; type")[0].replace("model.network.", "its ") for line in error.lines]
    if problems:
        raise UserError(*(f"{OPTION}={source}: {line}; give another autoencoder" for line in problems))
    return network


def _with_way_out(line: str, source: str) -> str:
    head = line.partition("; type ")[0].partition(": train first")[0]
    run_dir = "NEW" if Path(source).exists() or "://" in source else source
    return f"{head}; train one: python train.py model=autoencoder data=NAME run_dir={run_dir}, or leave {OPTION} out to train both stages"


def _of_diffusers(folder: Path) -> dict[str, Any]:
    """The options of a folder of diffusers' `AutoencoderKL` as those of ours."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        problems = list(_foreign(found))
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{OPTION}={folder}: config.json is not one that save_pretrained wrote ({reason}); give another folder") from error
    if problems:
        raise UserError(*(f"{OPTION}={folder}: {problem}; give a folder of an AutoencoderKL" for problem in problems))
    network = {
        "_target_": KL,
        "channels": found["in_channels"],
        "widths": found["block_out_channels"],
        "latent_channels": found["latent_channels"],
        "layers": found["layers_per_block"],
        "groups": found["norm_num_groups"],
        "attention": found.get("mid_block_add_attention", True),
        "quant_conv": found.get("use_quant_conv", True),
    }
    return _checked(network, folder)


def _foreign(found: dict[str, Any]) -> Iterator[str]:
    """What `KLAutoencoder` has no option for."""
    if found["_class_name"] != "AutoencoderKL":
        yield f"it holds a {found['_class_name']}"
        return
    down, up = found["down_block_types"], found["up_block_types"]
    if others := {*map(str, down), *map(str, up)} - {"DownEncoderBlock2D", "UpDecoderBlock2D"}:
        yield f"it has blocks of another kind, {', '.join(sorted(others))}"
    if not len(down) == len(up) == len(found["block_out_channels"]):
        yield "its numbers of blocks and of widths are unlike"
    if found.get("act_fn", "silu") != "silu":
        yield f"it has another activation, {found['act_fn']}"
    if found.get("use_quant_conv", True) != found.get("use_post_quant_conv", True) or found["in_channels"] != found["out_channels"]:
        yield "its halves are unlike"
    for name in ("latent_channels", "layers_per_block", "norm_num_groups"):
        if name not in found:
            yield f"its config.json does not say its {name}"
