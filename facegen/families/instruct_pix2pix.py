"""InstructPix2Pix (Brooks et al. 2023): Stable Diffusion, fine-tuned to edit what it is shown as a prompt says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facegen.ages import AGE_GROUPS
from facegen.errors import UserError
from facegen.families.ddpm import Find
from facegen.families.labels import examples_of, usual
from facegen.families.pix2pix import Edits
from facegen.networks.stable import StableUNet
from facegen.prompts import GENDERS, prompt

MALE = "Male"


class InstructPix2Pix(Edits):
    """`Edits` from a pretrained Stable Diffusion, told prompts: `make this {gender} look {age_group} years old` (report 1).

    Its autoencoder (the codec) and its text encoder stay as they are. A checkpoint carries both; one of adapters (`network.lora`) holds
    what was trained alone, and the digest of what it was trained from.

    Args:
        network, text: the UNet and what reads prompts; their architecture follows from `pretrained`.
        pretrained: a folder of diffusers, or a name on the hub.
        condition_names, condition_groups, condition_examples: as of `ClassConditional`; there have to be age groups among them.
        editing: the options of `Edits`.
    """

    family = "instruct_pix2pix"

    def __init__(
        self,
        network: StableUNet,
        text: Any,
        pretrained: str,
        condition_names: list[str],
        condition_groups: dict[str, list[str]],
        condition_examples: list[list[int]],
        **editing: Any,
    ) -> None:
        super().__init__(network=network, **editing)
        self.text, self.pretrained, self.base = text, pretrained, ""
        self._ages = [name for name in condition_names if name in AGE_GROUPS]
        if not self._ages:
            raise UserError("model=instruct_pix2pix is told ages, the data has none; type data=ffhq_aging, or data.attributes=[Male,age]")
        self._age_columns = [condition_names.index(name) for name in self._ages]
        self._male = condition_names.index(MALE) if MALE in condition_names else None
        self.examples = examples_of(condition_examples, len(condition_names))
        self._table: Tensor | None = None  # (genders, ages, T, D)

    @property
    def _told(self) -> Tensor:
        """The embeddings of all prompts of training, of each gender and age, worked out once."""
        if self._table is None:
            genders: Sequence[str | None] = (None,) if self._male is None else GENDERS
            embedded = [self.text.embed([prompt(gender, age) for age in self._ages]) for gender in genders]
            self._table = torch.stack(embedded)
        return self._table

    def _embedded(self, condition: Tensor) -> Tensor:
        """The embeddings (B,T,D) of the prompts for labels (B,K); of one that is in no age group there is none: NaN."""
        table = self._told.to(condition.device)
        ages = condition[:, self._age_columns]
        gender = torch.zeros_like(ages[:, 0]).long() if self._male is None else (condition[:, self._male] < 0.5).long()
        return table[gender, ages.argmax(dim=1)].masked_fill((ages.max(dim=1).values <= 0)[:, None, None], torch.nan)

    def asked(self, batch: dict[str, Any]) -> Tensor:
        """The embeddings (B,T,D) of the prompts for the labels of a batch."""
        return self._embedded(batch["condition"])

    def encode_source(self, images: Tensor) -> Tensor:
        """The latents (B,4,h,w) of source images: the means, which diffusers' pipeline does not scale."""
        return self.codec.moments(images)[0]  # pyright: ignore[reportAttributeAccessIssue]

    def stored_source(self, latents: Tensor) -> Tensor:
        """The means (B,4,h,w) of sources that were encoded before, as they are."""
        return latents[:, 0].float()

    def usual_conditions(self, seeds: Sequence[int]) -> Tensor:
        """The prompts of some training images, embedded (B,T,D)."""
        return self._embedded(usual(self.examples, seeds))

    def begin_with(self, folder: Path, digest: str) -> None:
        """Takes over the Stable Diffusion in `folder`, whose weights have this `digest`; raises UserError where it is not whole."""
        codec: Any = self.codec
        try:
            self.network.begin_with(folder / "unet")  # pyright: ignore[reportCallIssue]
            codec.network.begin_with(folder / "vae")
            self.text.begin_with(folder)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"model.pretrained={folder} cannot be read ({reason}); download it again, or give another folder") from error
        self._settle(digest)

    def _settle(self, digest: str) -> None:
        self.base, self._table = digest, None
        with torch.no_grad():
            self.network.null.copy_(self.text.embed([""])[0])  # pyright: ignore

    def load_rest(self, stored: Mapping[str, Any], find: Find) -> None:
        """Takes over what a checkpoint says beside the weights that were trained: the autoencoder and the text encoder or, where it holds
        adapters alone, what these were trained from, which `find` finds by its name, with its digest."""
        told = stored["instruct_pix2pix"]
        if "text" in told:
            self.codec.load(stored["codec"])
            self.text.load(told["text"])
            self._settle(str(told["base"]))
            return
        folder, digest = find(self.pretrained)
        if digest != told["base"]:
            raise UserError(
                f"model.pretrained={self.pretrained} holds other weights ({digest}) than these adapters were trained on ({told['base']}); "
                "give those back"
            )
        self.begin_with(folder, digest)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.network.lora:
            checkpoint["instruct_pix2pix"] = {"base": self.base}
            return
        super().on_save_checkpoint(checkpoint)
        checkpoint["instruct_pix2pix"] = {"base": self.base, "text": self.text.state()}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """All weights; of adapters what was trained alone."""
        state = super().state_dict(*args, **kwargs)
        kept = self._kept()
        return state if kept is None else {name: tensor for name, tensor in state.items() if name in kept}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As of a module; with `strict`, adapters have to be all there and nothing else."""
        kept = self._kept()
        if kept is None:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        if strict and (other := kept ^ set(state_dict)):
            raise RuntimeError(f"{sorted(other)[0]} is missing, or is no weight of these adapters")
        return super().load_state_dict(state_dict, strict=False, assign=assign)

    def _kept(self) -> set[str] | None:
        """The names of what a checkpoint of adapters holds; None where it holds everything."""
        network: Any = self.network
        return {f"denoiser.network.{name}" for name in (*network.trained, "null")} if network.lora else None
