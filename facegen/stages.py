"""A latent diffusion model has two stages: what the configuration of each says, worked out before anything heavy is imported.

The first stage is a run like any other, in `RUN/autoencoder`: its configuration is that of the command, overlaid with what
`stage1` says. The second takes the size of its latents from the autoencoder that it is given or that is to be trained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from facegen import schema
from facegen.checkpoint import check_targets, header, latest, read
from facegen.errors import UserError

LATENT, TOLD = "facegen.families.latent.LatentDiffusion", "facegen.families.latent.ConditionalLatentDiffusion"
KL, VQ = (f"facegen.networks.autoencoder.{kind}Autoencoder" for kind in ("KL", "VQ"))
AUTOENCODERS = (KL, VQ)
FIRST = "autoencoder"  # the folder of the first stage in the run
EDM_STD = 0.5  # the deviation of the data that EDM is written for
OPTION = "model.autoencoder"


def is_latent(config: Mapping[str, Any]) -> bool:
    """Whether the configuration is of a model in latents."""
    return (config.get("model") or {}).get("_target_") in (LATENT, TOLD)


def settled(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with all that follows from the autoencoder: the codec, the size and the channels of the network.

    Raises UserError where there is no autoencoder, or none that it could be.
    """
    if not is_latent(config):
        if config.get("stage1") is not None:
            raise UserError("stage1 is of models with two stages; leave it out, or type model=ldm")
        return {key: value for key, value in config.items() if key != "stage1"}
    model = dict(config["model"])
    given = model.get("autoencoder")
    network = dict(described(str(given))) if given else _to_be_trained(config.get("stage1") or {})
    if model["network"].get("_target_", "") in AUTOENCODERS:
        raise UserError("model.network is an autoencoder, which is of the first stage; type stage1/model/network=NAME")
    if model.pop("condition", False):
        model["_target_"] = TOLD
        model["injection"] = model.get("injection") or "embedding"
        model["network"] = {**model["network"], "injection": model["injection"]}
    resolution = config["data"]["resolution"]
    factor = _factor(network, resolution)
    is_edm = config["scheduler"]["_target_"].endswith(".EDM") and model.get("prediction") in (None, "edm")
    std = EDM_STD if is_edm or model.get("prediction") == "edm" else 1.0
    model["codec"] = {"_target_": "facegen.codecs.Latents", "network": network, "resolution": resolution, "std": std}
    model["network"] = {**model["network"], "resolution": resolution // factor, "channels": network["latent_channels"]}
    rest = {key: value for key, value in config.items() if key != "stage1" or not given}
    return {**rest, "model": model}


def _to_be_trained(stage: Mapping[str, Any]) -> dict[str, Any]:
    """The network of the first stage; raises UserError where it is none that could be an autoencoder."""
    network = (stage.get("model") or {}).get("network") or {}
    if network.get("_target_") not in AUTOENCODERS:
        raise UserError("stage1.model.network is no autoencoder; type stage1/model/network=f4d3")
    if problems := list(schema.check(network, "stage1.model.network")):
        raise UserError(*problems)
    return dict(network)


def _factor(network: dict[str, Any], resolution: int) -> int:
    factor = network.get("patch", 1) * 2 ** (len(network.get("widths") or [1]) - 1)
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


def in_stage1(line: str, stage: Mapping[str, Any]) -> str:
    """What is wrong with the first stage, in the words of the command that configures both: `stage` is what it overlays."""
    line = f"stage1.{line}" if line.startswith("data.") and "data" in stage else line
    groups = "|".join(group for group in stage if group != "data")  # elsewhere in a line data is that of another command
    return re.sub(rf"(?<![\w./])({groups})([./])", r"stage1\2\1\2", line)


def described(source: str) -> dict[str, Any]:
    """The network of the autoencoder that `source` means, as a configuration node.

    Raises UserError, with the command that trains one, where there is none.
    """
    path = Path(source)
    if (path / "config.json").is_file():
        return _of_diffusers(path)
    if (path / FIRST / "config.yaml").is_file():
        path = path / FIRST
    if path.is_dir() and (path / "config.yaml").is_file():
        latest(path, OPTION)
        model = (yaml.safe_load((path / "config.yaml").read_text()) or {}).get("model", {})
    else:
        try:
            file = latest(source, OPTION)
        except UserError as error:
            raise UserError(*(_with_way_out(line, source) for line in error.lines)) from error
        model = header(read(file, mmap=True), file).config.get("model", {})
        check_targets(model, schema.TARGETS)
    if model.get("_target_") != "facegen.families.autoencoder.Autoencoder":
        raise UserError(_with_way_out(f"{OPTION}={source} is no autoencoder", source))
    return dict(schema.modernised(model["network"]))


def _with_way_out(line: str, source: str) -> str:
    head = line.partition("; type ")[0].partition(": train first")[0]
    return f"{head}; train one: python train.py model=autoencoder data=NAME run_dir={source}, or leave {OPTION} out to train both stages"


def _of_diffusers(folder: Path) -> dict[str, Any]:
    """The options of a folder of diffusers' `AutoencoderKL` as those of ours."""
    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if problems := list(_foreign(found)):
        raise UserError(*(f"{OPTION}={folder}: {problem}; give a folder of an AutoencoderKL" for problem in problems))
    return {
        "_target_": KL,
        "channels": found["in_channels"],
        "widths": list(found["block_out_channels"]),
        "latent_channels": found["latent_channels"],
        "layers": found["layers_per_block"],
        "groups": found["norm_num_groups"],
        "attention": found.get("mid_block_add_attention", True),
        "quant_conv": found.get("use_quant_conv", True),
    }


def _foreign(found: dict[str, Any]) -> Iterator[str]:
    """What `KLAutoencoder` has no option for."""
    if found.get("_class_name") != "AutoencoderKL":
        yield f"it holds a {found.get('_class_name')}"
        return
    blocks = {*found.get("down_block_types", []), *found.get("up_block_types", [])}
    if others := blocks - {"DownEncoderBlock2D", "UpDecoderBlock2D"}:
        yield f"it has blocks of another kind, {', '.join(sorted(others))}"
    if found.get("act_fn", "silu") != "silu":
        yield f"it has another activation, {found['act_fn']}"
    if found.get("use_quant_conv", True) != found.get("use_post_quant_conv", True) or found["in_channels"] != found["out_channels"]:
        yield "its halves are unlike"
