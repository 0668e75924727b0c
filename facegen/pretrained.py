"""Stable Diffusion as it is published: where its folder is, what it is made of, and which weights these are. Without torch.

FOLDER/  model_index.json  unet/  vae/  text_encoder/  tokenizer/     (each with a config.json and *.safetensors)
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from facegen import stages
from facegen.edits import INSTRUCT
from facegen.errors import UserError

OPTION = "model.pretrained"
UNET, TEXT = "facegen.networks.stable.StableUNet", "facegen.text.Text"
# Stable Diffusion was trained on this schedule and knows no other (Rombach et al. 2022).
SCHEDULER = {
    "_target_": "facegen.diffusion.discrete.ScaledLinear",
    "steps": 1000,
    "beta_start": 8.5e-4,
    "beta_end": 0.012,
    "beta_scaling": "none",
}
DEFAULT = "facegen.diffusion.schedule.EDM"  # what a configuration has where nobody chooses
LEARNING_RATE = 5e-5  # report 1, and diffusers' own training script
PATIENCE = 4.0  # seconds for a sign of life from the hub
WEIGHTS = ("unet", "vae", "text_encoder")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_FILES = ["model_index.json", "*/config.json", "*/scheduler_config.json", "tokenizer/*"]
_WANTED = [f"{part}/{name}.safetensors" for part in WEIGHTS for name in ("model", "diffusion_pytorch_model")]
TINY = "python -m facegen.tiny_stable_diffusion FOLDER makes a tiny one to try with"


def settled(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of model=instruct_pix2pix with all that follows from what it is fine-tuned from; any other as it is.

    A run that has begun knows its own parts: what it began with may be gone. Raises UserError where there is no Stable Diffusion.
    """
    model = config.get("model") or {}
    if model.get("_target_") != INSTRUCT:
        return config
    if (chosen := config["scheduler"].get("_target_", "")) not in (DEFAULT, SCHEDULER["_target_"]):
        name = str(chosen).rpartition(".")[2]
        raise UserError(f"scheduler is {name}: Stable Diffusion has the schedule that it was trained on; leave scheduler out")
    parts = _of_begun(config) or described(located(model.get("pretrained")))
    length = parts["text_encoder"].get("max_position_embeddings", 77)
    network = {**(model.get("network") or {}), "_target_": UNET, "architecture": parts["unet"], "length": length}
    resolution = config["data"].get("resolution")
    factor = 2 ** (len(parts["vae"]["widths"]) - 1)
    if isinstance(resolution, int) and resolution % (smallest := factor * 2 ** (len(parts["unet"]["block_out_channels"]) - 1)):
        raise UserError(f"data.resolution must be divisible by {smallest}, by which {OPTION} shrinks an image; got {resolution}")
    codec = {"_target_": "facegen.codecs.Latents", "network": parts["vae"], "resolution": resolution, "scale": parts["scale"]}
    text = {"_target_": TEXT, "architecture": parts["text_encoder"]}
    optimizer = {"lr": LEARNING_RATE, **(config.get("optimizer") or {})}
    scheduler = dict(SCHEDULER)
    made = {"network": network, "codec": codec, "text": text, "schedule": scheduler, "optimizer": optimizer}
    model = {**model, **made, "prediction": model.get("prediction") or parts["prediction"]}
    return {**config, "model": model, "scheduler": scheduler, "optimizer": optimizer}


def _of_begun(config: dict[str, Any]) -> dict[str, Any] | None:
    stored = stages.begun(config)
    try:
        model = (stored or {})["model"]
        codec = model["codec"]
        parts = {"unet": model["network"]["architecture"], "text_encoder": model["text"]["architecture"]}
        return {**parts, "vae": codec["network"], "scale": codec["scale"], "prediction": model.get("prediction")}
    except (KeyError, TypeError):
        return None


def located(source: str | None, weights: bool = False) -> Path:
    """The folder that `source` means: a folder, or a name on the hub, with its `weights` or without.

    What the hub's cache has is taken from there; else it is downloaded. Raises UserError where there is neither, within `PATIENCE`.
    """
    if not source:
        raise UserError(f"{OPTION} is required; type {OPTION}=CompVis/stable-diffusion-v1-4, or {OPTION}=FOLDER; {TINY}")
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(source):
        raise UserError(f"{OPTION}={source} is no folder, and no name on the hub; type {OPTION}=FOLDER; {TINY}")
    wanted = [*_FILES, *(_WANTED if weights else [])]
    return _cached(source, wanted, weights) or _downloaded(source, wanted)


def _cached(source: str, wanted: list[str], weights: bool) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(source, allow_patterns=wanted, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        return None
    there = [(folder / "model_index.json").is_file(), *(any((folder / part).glob("*.safetensors")) or not weights for part in WEIGHTS)]
    return folder if all(there) else None


def _downloaded(source: str, wanted: list[str]) -> Path:
    from huggingface_hub import constants, snapshot_download

    address = urlparse(constants.ENDPOINT)
    way_out = f"download it where there is a network, and type {OPTION}=FOLDER; {TINY}"
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((str(address.hostname), port), timeout=PATIENCE).close()
        return Path(snapshot_download(source, allow_patterns=wanted))
    except Exception as error:  # every layer between here and the hub fails in its own way
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{OPTION}={source} is not in the hub's cache, and the hub cannot be reached ({reason}); {way_out}") from error


def described(folder: Path) -> dict[str, Any]:
    """The `unet` and the `text_encoder` as their config.json has them, the `vae` as a configuration node, its `scale`, the `prediction`.

    Raises UserError with a line for each problem: no Stable Diffusion 1 or 2, or none that was written whole.
    """
    if not (folder / "model_index.json").is_file():
        raise UserError(f"{OPTION}={folder} is no folder of a diffusers pipeline: it has no model_index.json; give another; {TINY}")
    unet, text, vae = (_config(folder, part) for part in ("unet", "text_encoder", "vae"))
    if problems := list(_foreign(unet, text)):
        raise UserError(
            *(f"{OPTION}={folder}: {problem}; give a Stable Diffusion 1, such as CompVis/stable-diffusion-v1-4" for problem in problems)
        )
    scale = float(vae.get("scaling_factor", 0.18215))
    parts = {"unet": _own(unet), "text_encoder": _own(text), "vae": stages.described(str(folder / "vae")), "scale": scale}
    return {**parts, "prediction": _prediction(folder)}


def _prediction(folder: Path) -> str:
    """What the UNet predicts, by the configuration of its scheduler; noise where that says nothing."""
    try:
        found = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "noise"
    return "v" if isinstance(found, dict) and found.get("prediction_type") == "v_prediction" else "noise"


def _own(found: dict[str, Any]) -> dict[str, Any]:
    """What describes a network, without what its library says of itself and of the machine."""
    return {key: value for key, value in found.items() if not key.startswith("_") and key != "transformers_version"}


def base_of(source: str) -> tuple[Path, str]:
    """The folder that `source` means, with all weights, and their digest; errors as for `located` and `digest`."""
    folder = located(source, weights=True)
    return folder, digest(folder)


def _config(folder: Path, part: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / part / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{OPTION}={folder} lacks {part}/config.json, or it is damaged; download the folder again") from error
    return dict(found)


def _foreign(unet: dict[str, Any], text: dict[str, Any]) -> Iterator[str]:
    if unet.get("_class_name") != "UNet2DConditionModel" or unet.get("out_channels") != 4 or unet.get("addition_embed_type"):
        yield "its unet is none of Stable Diffusion 1 or 2"
    if unet.get("in_channels") not in (4, 8):
        yield f"its unet takes {unet.get('in_channels')} channels, 4 (or 8, of an editor) are allowed"
    if "CLIPTextModel" not in (text.get("architectures") or []):
        yield "its text encoder is no CLIPTextModel"
    elif text.get("hidden_size") != unet.get("cross_attention_dim"):
        yield "its text encoder and its unet do not fit together"


def digest(folder: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the weights in a folder; raises UserError where some are missing."""
    found = hashlib.sha256()
    for part in WEIGHTS:
        files = sorted(path for path in (folder / part).glob("*.safetensors") if path.stem in ("model", "diffusion_pytorch_model"))
        if not files:
            raise UserError(f"{OPTION}={folder} lacks the weights {part}/*.safetensors; download them, or give another folder")
        for path in files:
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:16]
