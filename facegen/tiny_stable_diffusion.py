"""A tiny Stable Diffusion with random weights, in the layout of the real one: what needs its structure runs in a second without a network.

python -m facegen.tiny_stable_diffusion FOLDER
"""

from __future__ import annotations

import json
import string
import sys
from pathlib import Path
from typing import Any

from facegen.cli import Parser, fail
from facegen.durable import refuse_occupied
from facegen.errors import UserError

WIDTHS, GROUPS, TEXT_SIZE, LATENT = (32, 64), 8, 32, 4
END = "</w>"


def build(folder: str | Path, seed: int = 0) -> Path:
    """Writes unet, vae, text_encoder, tokenizer and scheduler into `folder`, as `StableDiffusionPipeline.save_pretrained` does."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_pndm import PNDMScheduler

    out = Path(folder)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        shape: dict[str, Any] = {"block_out_channels": WIDTHS, "layers_per_block": 1, "norm_num_groups": GROUPS}
        unet: Any = UNet2DConditionModel(
            sample_size=8,
            in_channels=LATENT,
            out_channels=LATENT,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=8,
            cross_attention_dim=TEXT_SIZE,
            **shape,
        )
        halves: dict[str, Any] = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
        vae: Any = AutoencoderKL(latent_channels=LATENT, **halves, **shape)
        text = _text_encoder()
    scheduler: Any = PNDMScheduler(
        num_train_timesteps=1000, beta_start=8.5e-4, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    for name, part in {"unet": unet, "vae": vae, "text_encoder": text, "tokenizer": _tokenizer(), "scheduler": scheduler}.items():
        part.save_pretrained(out / name)
    (out / "model_index.json").write_text(json.dumps(_index(), indent=2))
    return out


def _tokens() -> dict[str, int]:
    signs = [*string.ascii_lowercase, *string.digits, "-", "'", ",", "."]
    names = ["<|startoftext|>", "<|endoftext|>", *signs, *(sign + END for sign in signs)]
    return {name: number for number, name in enumerate(names)}


def _tokenizer() -> Any:
    """One token for each sign: any prompt can be spelled."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocab=_tokens(), merges=[], model_max_length=77)


def _text_encoder() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    tokens = _tokens()
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=TEXT_SIZE,
        intermediate_size=2 * TEXT_SIZE,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=TEXT_SIZE,
        bos_token_id=tokens["<|startoftext|>"],
        eos_token_id=tokens["<|endoftext|>"],
        pad_token_id=tokens["<|endoftext|>"],
    )
    return CLIPTextModel(config)


def _index() -> dict[str, Any]:
    """What diffusers' pipelines read first: which class each part is of."""
    ours = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "scheduler": "PNDMScheduler"}
    theirs = {"text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer"}
    parts = {
        **{name: ["diffusers", kind] for name, kind in ours.items()},
        **{name: ["transformers", kind] for name, kind in theirs.items()},
    }
    nothing = {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    return {"_class_name": "StableDiffusionPipeline", **parts, **nothing}


def main(arguments: list[str]) -> int:
    """The exit code: 0 where the folder is written, 2 where it cannot be."""
    parser = Parser("python -m facegen.tiny_stable_diffusion", __doc__, "FOLDER")
    parser.add_argument("folder", help="where to; model.pretrained=FOLDER then trains from it")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        refuse_occupied(Path(options.folder).expanduser())
        print(build(Path(options.folder).expanduser(), options.seed))
    except UserError as error:
        return fail(*error.lines)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
