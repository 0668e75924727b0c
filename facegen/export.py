"""A fine-tuned Stable Diffusion as a folder that diffusers' `StableDiffusionInstructPix2PixPipeline.from_pretrained` runs.

    python -m facegen.export RUN_OR_FILE OUT [--ema HALFLIFE]

Adapters are merged into the weights that they adapt. Edits by the folder are those of `sampler=ddim` at the same steps and weights.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from facegen.cli import Parser, fail
from facegen.durable import refuse_occupied
from facegen.errors import UserError

PIPELINE = "StableDiffusionInstructPix2PixPipeline"


def export(ckpt: str | Path, out: str | Path, ema: str | None = None) -> Path:
    """Writes the model of `ckpt` (a file or a run), with averaged weights, into the folder `out`, and returns that.

    Raises UserError where it is no InstructPix2Pix, or `out` is not empty or cannot be written.
    """
    from facegen.experiment import load

    out = Path(out).expanduser()
    refuse_occupied(out)
    loaded = load(str(ckpt), ema)
    if loaded.provenance["family"] != "instruct_pix2pix":
        family = loaded.provenance["family"]
        raise UserError(f"{loaded.path} is model={family}; only model=instruct_pix2pix is a pipeline of diffusers; give one of that")
    network, codec, text = loaded.denoiser.network, loaded.codec, loaded.text
    unet, vae = _merged(network), _scaled(codec)
    parts: dict[str, Any] = {"unet": unet, "vae": vae, "text_encoder": text.model, "tokenizer": text.tokenizer}
    parts["scheduler"] = _scheduler(loaded.config["scheduler"], loaded.config["model"]["prediction"])
    try:
        for name, part in parts.items():
            part.save_pretrained(out / name)
        (out / "model_index.json").write_text(json.dumps(_index(parts), indent=2))
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); give another folder") from error
    return out


def _merged(network: Any) -> Any:
    """The UNet with its adapters, where it has some, added to its weights."""
    if network.lora:
        network.unet.fuse_lora()
        network.unet.unload_lora()
    return network.unet


def _scaled(codec: Any) -> Any:
    """The autoencoder, which says the scale of its latents."""
    vae = codec.network.model
    vae.register_to_config(scaling_factor=codec.scale)
    return vae


def _scheduler(schedule: dict[str, Any], prediction: str) -> Any:
    """The scheduler that walks as our DDIM does."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    betas = {"beta_start": schedule["beta_start"], "beta_end": schedule["beta_end"], "beta_schedule": "scaled_linear"}
    betas["prediction_type"] = {"noise": "epsilon", "v": "v_prediction", "image": "sample"}[prediction]
    walk: dict[str, Any] = {"timestep_spacing": "trailing", "set_alpha_to_one": True, "clip_sample": False}
    return DDIMScheduler(num_train_timesteps=schedule["steps"], **betas, **walk)


def _index(parts: dict[str, Any]) -> dict[str, Any]:
    """What diffusers reads first: which class each part is of."""
    kinds = {name: [type(part).__module__.partition(".")[0], type(part).__name__] for name, part in parts.items()}
    nothing = {"safety_checker": [None, None], "feature_extractor": [None, None], "image_encoder": [None, None]}
    return {"_class_name": PIPELINE, "requires_safety_checker": False, **kinds, **nothing}


def main(arguments: list[str]) -> int:
    """The exit code: 0 where the folder is written, 2 where it cannot be."""
    parser = Parser("python -m facegen.export", __doc__, "RUN_OR_FILE OUT")
    parser.add_argument("ckpt", help="a checkpoint of model=instruct_pix2pix, or its run")
    parser.add_argument("out", help="a new folder")
    parser.add_argument("--ema", help="half-life of the average, or raw; by default the run's first")
    options = parser.parse_args(arguments)
    try:
        print(export(options.ckpt, options.out, options.ema))
    except UserError as error:
        return fail(*error.lines)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
