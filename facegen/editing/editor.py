"""A trained model that turns photographs into edits of them: what it is told and shown, and where its walk begins."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from facegen.ages import Age
from facegen.asking import Asker
from facegen.data.edit_source import EditSource
from facegen.diffusion.guidance import Guidance, Guided, Told
from facegen.diffusion.inversion import invert
from facegen.diffusion.sampler import DDIM
from facegen.errors import UserError
from facegen.generate import Begin, Grouped, group_of, in_groups
from facegen.images import to_float
from facegen.prompts import prompt
from facegen.studio import Loaded, Studio

Method = Literal["edit", "sdedit", "invert"]
STRENGTH = {"edit": 1.0, "sdedit": 0.6, "invert": 1.0}  # of the walk, where nobody says how much
GENDER = {"male": 1.0, "female": 0.0}


@dataclass(frozen=True)
class Wish:
    """What a photograph is to become: an age group, perhaps of a gender, or what a model's own names and weights say (`condition`).

    `prompt` is what a model that reads text is told where that is not the prompt for age and gender.
    """

    age: str | None = None
    gender: str | None = None
    condition: object = None
    prompt: str | None = None


def edits(loaded: Loaded) -> bool:
    """Whether the model was trained to edit what it is shown."""
    return loaded.provenance["family"] in ("pix2pix", "instruct_pix2pix") and EditSource.of(loaded.config["data"]).shows


class Editor:
    """Edits by the model of `studio`.

    Args:
        method: `edit` shows the photograph to a model that edits, `sdedit` adds noise to it, `invert` finds its noise; None is `edit` where
            the model can, else `sdedit`.
        strength: how much of the walk sdedit and invert go.
        degrade: show the photograph as the sources of training were made.
        negative: what a model that reads text is guided away from.

    Raises UserError where the model cannot edit so.
    """

    def __init__(
        self, studio: Studio, method: Method | None = None, strength: float | None = None, degrade: bool = True, negative: str | None = None
    ) -> None:
        self.studio, self.loaded = studio, studio.loaded
        self.method: Method = method or ("edit" if edits(self.loaded) else "sdedit")
        if self.method == "edit" and not edits(self.loaded):
            what = f"{self.loaded.path} is model={self.loaded.provenance['family']} and was not trained to edit what it is shown"
            raise UserError(f"method=edit: {what}; type method=sdedit, or method=invert")
        if self.method == "invert" and type(studio.sampler) is not DDIM:
            raise UserError("method=invert goes the way of sampler=ddim back; type sampler=ddim")
        if negative and self.text is None:
            raise UserError(f"negative_prompt={negative}: {self.loaded.path} reads no text; leave it out")
        self.negative = negative
        self.strength = STRENGTH[self.method] if strength is None else strength
        self.start = 0 if self.method == "edit" else studio.sampler.start_for(self.strength)
        if self.start:
            studio.sampler.entry(self.loaded.denoiser.schedule, self.start)  # a walk that cannot begin there is told before it does
        self.source = EditSource.of(self.loaded.config["data"]) if degrade else EditSource("self")

    def but(self, **changes: Any) -> Editor:
        """The same, asked otherwise: `changes` are fields of `facegen.asked.Asked`."""
        other = copy.copy(self)
        other.studio = self.studio.but(**changes)
        return other

    @property
    def text(self) -> Any:
        """What turns prompts into conditions, where the model reads text."""
        return self.loaded.text

    @property
    def facts(self) -> dict[str, str]:
        """What is said of the edit beside a picture."""
        how = {"edit": {"source": str(self.source.kind)}}.get(self.method, {"strength": f"{self.strength:g}"})
        return {**self.studio.facts, "method": self.method, **how, **({"negative_prompt": self.negative} if self.negative else {})}

    def told(self, photographs: np.ndarray, wishes: Sequence[Wish], numbers: np.ndarray | None = None) -> Told | None:
        """What is told and shown for `photographs` (N,C,H,W) uint8 and their `wishes`; None for a model that can be told nothing.

        `numbers` are those of the photographs in a data set, which key the noise of a noised source; None keys it by their pixels.
        """
        source = self._shown(photographs, numbers) if self.method == "edit" else None
        if self.text is not None:
            conditions = self.text.embed([wish.prompt or prompt(wish.gender, str(wish.age)) for wish in wishes])
            nothing = self.text.embed([self.negative])[0] if self.negative else None
            return Told(conditions[:, None], torch.ones(len(wishes), 1), source, nothing)
        if (asker := self.studio.direction.asker) is None:
            return None
        return Told(torch.stack([condition(asker, wish) for wish in wishes])[:, None], torch.ones(len(wishes), 1), source)

    def begin(self, photographs: np.ndarray, wishes: Sequence[Wish]) -> Begin | None:
        """What the walk begins with, where that is not noise."""
        if self.method == "edit":
            return None
        encoded = self._encoded(photographs)
        if self.method == "sdedit":
            return Begin(encoded, self.start)
        return Begin(self._inverted(encoded, wishes), self.start, noised=True)

    def _shown(self, photographs: np.ndarray, numbers: np.ndarray | None) -> Tensor:
        indices = np.array([zlib.crc32(one.tobytes()) for one in photographs]) if numbers is None else numbers
        return self._encoded(self.source(photographs, indices), self.loaded.encode_source)

    def _encoded(self, photographs: np.ndarray, encode: Any = None) -> Tensor:
        codec, images = self.loaded.codec, to_float(torch.from_numpy(photographs)).to(self.studio.device)
        with torch.inference_mode():
            return in_groups(encode or codec.encode, 1, images).cpu()

    def _inverted(self, encoded: Tensor, wishes: Sequence[Wish]) -> Tensor:
        """The noise (N, *shape) that the walk would have drawn the photographs from, told the opposite of what they are to become."""
        device, asker, told = self.studio.device, self.studio.direction.asker, None
        if self.text is not None:
            told = Told.plainly(self.text.embed([""] * len(wishes)))
        elif asker is not None:
            told = Told.plainly(torch.stack([condition(asker, wish, opposite=True) for wish in wishes]))
        denoiser = Grouped(self.loaded.denoiser.to(device), group_of(self.loaded.codec.shape, device))
        guided = Guided(denoiser, told and told.to(torch.device(device)), Guidance(), encoded.new_zeros(0))
        assert isinstance(self.studio.sampler, DDIM), "others are refused before"
        with torch.no_grad():
            return invert(guided, encoded.to(device), self.studio.sampler, until=self.start).cpu()

    def draw(self, photographs: np.ndarray, wishes: Sequence[Wish], seeds: Sequence[int], title: str = "edits") -> np.ndarray:
        """The edits (N,C,H,W) uint8 of `photographs` (N,C,H,W) uint8, each by its wish and its seed."""
        return self.studio.draw(seeds, title, told=self.told(photographs, wishes), begin=self.begin(photographs, wishes))


def wished(age: Age | None, gender: str | None, value: object, text: str | None) -> Wish:
    """The wish for an age, or for a condition."""
    return Wish(age.group if age else None, gender, value, text)


def condition(asker: Asker, wish: Wish, opposite: bool = False) -> Tensor:
    """What a model is told (K,) for a wish: what is asked for, and in all other columns what is usual for that in training.

    With `opposite` every attribute asked for is turned over, and the class asked for makes room for the other classes alike: it is what
    the photograph may be taken for before the edit. Raises UserError where the model was told no such thing.
    """
    blend = asker.blend(_named(asker, wish))
    told = torch.zeros(len(asker.labels.names))
    for share, part in blend:
        if part is None:
            return torch.full_like(told, torch.nan)
        told += share * asker.usually(_turned(asker, part) if opposite else part)
    return told


def _turned(asker: Asker, wish: dict[str, float]) -> dict[str, float]:
    turned = {name: 1 - weight for name, weight in wish.items() if name not in asker.group_of}
    for group in {asker.group_of[name] for name in wish if name in asker.group_of}:
        names = [asker.labels.names[i] for i in asker.labels.groups[group]]
        others = [name for name in names if not wish.get(name)] or names
        turned |= {name: 1 / len(others) if name in others else 0.0 for name in names}
    return turned


def _named(asker: Asker, wish: Wish) -> object:
    """The wish in the model's own names; raises UserError where it was told no ages, or no genders."""
    if wish.age is None:
        return wish.condition
    names = asker.labels.names
    if wish.age not in names:
        groups = ", ".join(name for name in names if name[0].isdigit())
        raise UserError(
            f"age: the model was told no age group {wish.age}; " + (f"it knows {groups}" if groups else "type condition={NAME:1}")
        )
    if wish.gender is not None and "Male" not in names:
        raise UserError(f"gender={wish.gender}: the model was told no genders; leave gender out")
    return {wish.age: 1.0, **({} if wish.gender is None else {"Male": GENDER[wish.gender]})}
