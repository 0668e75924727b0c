"""What the configuration of a model that edits follows from: worked out before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from facegen import schema
from facegen.errors import UserError

PIX2PIX = "facegen.families.pix2pix.Pix2Pix"
INSTRUCT = "facegen.families.instruct_pix2pix.InstructPix2Pix"
TOLD = ["Male", "age"]  # what an edit is asked for, where data.attributes says nothing else
WITH_AGES = ("FFHQAging", "UTKFace", "Cartoon")


def is_edit(config: Mapping[str, Any]) -> bool:
    """Whether the configuration is of a model that edits."""
    return (config.get("model") or {}).get("_target_") in (PIX2PIX, INSTRUCT)


def settled(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a model that edits with what its data has to say: the source and the labels, where they are not chosen.

    Of drawn people the source is the same one at another age, of photographs one without fine detail. Raises UserError where the data
    knows no ages.
    """
    data = config.get("data") or {}
    if not is_edit(config) or not isinstance(data.get("_target_"), str) or data["_target_"] not in schema.TARGETS:
        return config
    name = data["_target_"].rpartition(".")[2]
    if "source" not in schema.signature(data["_target_"]):
        raise UserError(f"data={name.lower()} has no ages to edit; type data=ffhq_aging, utkface64 or cartoon")
    chosen = {"source": "paired" if name == "Cartoon" else "lowpass", "attributes": TOLD if name in WITH_AGES else None}
    return {**config, "data": {**data, **{key: data.get(key) or value for key, value in chosen.items()}}}


def conflicts(config: dict[str, Any]) -> Iterator[str]:
    """The problems of sources and of what is shown one."""
    model, data = config["model"], config["data"]
    if not is_edit(config):
        if data.get("source") is not None:
            yield f"data.source={data['source']} is of models that edit; leave it out, or type model=pix2pix"
        if (model.get("network") or {}).get("edits"):
            yield "model.network.edits=true is of models that edit; leave it out, or type model=pix2pix"
