"""Prompts as Stable Diffusion reads them: CLIP's tokens and the last states of its text encoder (Radford et al. 2021)."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facegen.errors import UserError


class Text:
    """A tokenizer and a text encoder, frozen: no module of a model, so that it is neither trained nor averaged, and rests on the CPU.

    Args:
        architecture: what `CLIPTextModel` is made from, as its config.json has it: it follows from model.pretrained.
    """

    def __init__(self, *, architecture: dict[str, Any]) -> None:
        from transformers import CLIPTextConfig, CLIPTextModel

        self.model: Any = CLIPTextModel(CLIPTextConfig(**architecture)).eval().requires_grad_(False)
        self.tokenizer: Any = None
        self._known: dict[str, Tensor] = {}

    def begin_with(self, folder: Path) -> None:
        """Takes over the text encoder and the tokenizer in `folder`, of a whole Stable Diffusion."""
        from transformers import CLIPTextModel

        theirs = CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True, use_safetensors=True)
        self._take(theirs.state_dict(), folder / "tokenizer")

    def _take(self, weights: Mapping[str, Tensor], tokenizer: Path) -> None:
        from transformers import CLIPTokenizer

        self.model.load_state_dict(weights, strict=True)
        self.tokenizer = CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True)
        self._known = {}

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:
        """The embeddings (B,T,D) float32 on the CPU of `prompts`; each is worked out once. What is longer than T tokens is cut off."""
        if new := [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]:
            length = self.tokenizer.model_max_length
            tokens = self.tokenizer(new, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            for prompt, ids in zip(new, tokens.input_ids, strict=True):  # one by one: what a batch rounds depends on its size
                self._known[prompt] = self.model(ids[None])[0][0].float()
        return torch.stack([self._known[prompt] for prompt in prompts])

    def state(self) -> dict[str, Any]:
        """All that a checkpoint keeps of it: the weights, and the files of the tokenizer as text."""
        with tempfile.TemporaryDirectory() as folder:
            self.tokenizer.save_pretrained(folder)
            files = {path.name: path.read_text(encoding="utf-8") for path in sorted(Path(folder).iterdir())}
        return {"weights": self.model.state_dict(), "tokenizer": files}

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` said; raises what `load_state_dict` and a dict raise where it is another's."""
        files = {str(name): str(text) for name, text in state["tokenizer"].items()}
        if any(Path(name).name != name or not name.endswith((".json", ".txt")) for name in files):
            raise UserError("the tokenizer of the checkpoint has files of strange names; use another checkpoint")
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                Path(folder, name).write_text(text, encoding="utf-8")
            self._take(state["weights"], Path(folder))
