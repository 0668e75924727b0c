"""The checkpoint format: written so that no crash costs the last good file, read as somebody else's input."""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facegen.durable import replacing
from facegen.errors import UserError, nearest

SCHEMA = 1
_STEP_FILE = re.compile(r"step-\d+\.ckpt")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
# What may stand beside `_target_` of the keys that Hydra interprets; `_args_` may not: a config names its arguments.
_INSTANTIATE_OPTIONS: dict[str, tuple[object, ...]] = {
    "_partial_": (True, False),
    "_recursive_": (True, False),
    "_convert_": ("none", "partial", "object", "all"),
}


@dataclass(frozen=True)
class Header:
    """What a checkpoint says about itself: family, resolved config and facts of its data, all plain values."""

    family: str
    config: dict[str, Any]
    data: dict[str, Any]

    def pack(self) -> dict[str, Any]:
        """The entry for `checkpoint["facegen"]`; the inverse of `header`."""
        config = json.dumps(self.config)
        return {"family": self.family, "schema": SCHEMA, "config": config, "data": self.data}


def header(checkpoint: dict[str, Any], source: str | os.PathLike[str], expect_family: str | None = None) -> Header:
    """The header of a checkpoint that was read from `source`.

    Raises UserError where there is none, where its schema is another one, or where it is not of `expect_family`.
    """
    packed: Any = checkpoint.get("facegen")
    try:
        schema, config = packed["schema"], json.loads(packed["config"])
        found = Header(family=str(packed["family"]), config=dict(config), data=dict(packed["data"]))
    except (TypeError, KeyError, ValueError, RecursionError) as error:
        raise UserError(f"{source} is not a facegen checkpoint: it has no valid header") from error
    if schema != SCHEMA:
        raise UserError(f"{source} has checkpoint schema {schema}, this facegen reads {SCHEMA}: use the one that wrote it")
    if expect_family not in (None, found.family):
        raise UserError(f"{source} is a checkpoint of model={found.family}; give one of model={expect_family}")
    return found


def write(checkpoint: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Save a dict of plain values and tensors as `path`, durably: see `facegen.durable.replacing`."""
    import torch

    with replacing(path, _tensor_bytes(checkpoint)) as file:
        torch.save(checkpoint, file)


def read(path: str | os.PathLike[str], *, mmap: bool = False) -> dict[str, Any]:
    """The verified content of a checkpoint file (or the newest of a run directory), tensors on the CPU.

    With `mmap` tensors stay in the file until they are used: for reading a part of them, once.
    Raises UserError for a URL, a file that is missing, damaged or no checkpoint, or one that holds code.
    """
    path = latest(path)
    if wrong := damage(path):
        raise UserError(f"{path} {wrong}{_way_out(path)}")
    import torch

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        wrong = "holds more than tensors and plain values: refused, none of it was run"
        raise UserError(f"{path} {wrong}{_way_out(path)}") from error
    except Exception as error:  # a crafted archive can make the unpickler fail in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read ({reason}){_way_out(path)}") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} is not a facegen checkpoint: it holds a {type(checkpoint).__name__}")
    return checkpoint


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, in words that follow its name, or None: each member's CRC is checked."""
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return "is not a facegen checkpoint but an old-style pickle or another kind of file"
            if not zipfile.is_zipfile(file):
                return "is truncated: its end is missing"
            with zipfile.ZipFile(file) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    return "is damaged or not a facegen checkpoint: it is compressed"
                member = archive.testzip()
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except Exception as error:  # a flipped bit can make zipfile fail in any way
        return f"is damaged ({error})"
    return f"is damaged (checksum of {member})" if member else None


def latest(path: str | os.PathLike[str], option: str = "ckpt") -> Path:
    """The checkpoint that `path`, given as `option`, means: a file itself, a run directory its newest step. Raises UserError."""
    text = os.fspath(path)
    if "://" in text or (_URL.match(text) and not os.path.exists(text)):
        raise UserError(f"{option}={text} is a URL: only local files are read; download it and give its path")
    if not text:
        raise UserError(f"{option} is required; type {option}=RUN_OR_FILE")
    path = Path(text)
    if os.path.isdir(path):
        if found := steps(path):
            return found[-1]
        raise UserError(f"{option}={path} has no checkpoints/step-*.ckpt yet: train first with run_dir={path}")
    if not os.path.isfile(path):
        missing = path
        while not os.path.isdir(missing.parent):
            missing = missing.parent
        names = os.listdir(missing.parent) if os.access(missing.parent, os.R_OK) else []
        near = nearest(missing.name, names)
        raise UserError(f"{option}={path}: no file '{missing.name}' in {missing.parent}{near}; type {option}=RUN_OR_FILE")
    return path


def latest_valid(run_dir: str | os.PathLike[str], warn: Callable[[str], None]) -> Path | None:
    """The newest undamaged step of a run directory, None before the first; `warn` is told which ones were passed over.

    Raises UserError where all of them are damaged, so that nobody starts anew on top of them unawares.
    """
    found = steps(run_dir)
    for path in reversed(found):
        if (wrong := damage(path)) is None:
            return path
        warn(f"{path} {wrong}; going back to the one before")
    if found:
        raise UserError(f"run_dir={os.fspath(run_dir)}: no checkpoint in it can be read; start anew with run_dir=NEW")
    return None


def steps(run_dir: str | os.PathLike[str]) -> list[Path]:
    """The step checkpoints of a run directory (or of its `checkpoints` directory itself), oldest first."""
    folder = Path(run_dir, "checkpoints")
    folder = folder if folder.is_dir() else folder.parent
    return sorted((p for p in folder.glob("step-*.ckpt") if _STEP_FILE.fullmatch(p.name)), key=step_of)


def step_name(step: int) -> str:
    """The file name of the checkpoint after `step` optimizer steps."""
    return f"step-{step:08d}.ckpt"


def step_of(path: Path) -> int:
    """The number of optimizer steps in the name of a step checkpoint."""
    return int(path.stem.removeprefix("step-"))


def check_targets(config: object, allowed: Collection[str]) -> None:
    """Refuse a checkpoint's config unless each `_target_` in it is exactly one of `allowed`; nothing is imported.

    Also refused: interpolations, values that JSON does not have, other keys that Hydra interprets, misspelt `_target_`.
    Raises UserError naming the key path.
    """
    stack: list[tuple[str, object]] = [("", config)]
    while stack:
        where, value = stack.pop()
        if isinstance(value, dict):
            for key, item in value.items():
                at = f"{where}.{key}" if where else str(key)
                _check_key(at, key, item, allowed)
                stack.append((at, item))
        elif isinstance(value, list):
            stack.extend((f"{where}[{i}]", item) for i, item in enumerate(value))
        elif isinstance(value, str) and "${" in value:
            raise UserError(f"{where}={value!r} in the checkpoint's config is an interpolation: refused")
        elif not isinstance(value, str | int | float | None):
            raise UserError(f"{where} in the checkpoint's config is a {type(value).__name__}: refused")


def _check_key(at: str, key: object, value: object, allowed: Collection[str]) -> None:
    if key == "_target_":
        if not (isinstance(value, str) and value in allowed):
            raise UserError(f"{at}={value!r} in the checkpoint's config is not a class of facegen: refused, not imported")
    elif key in _INSTANTIATE_OPTIONS:
        if value not in _INSTANTIATE_OPTIONS[str(key)]:
            raise UserError(f"{at}={value!r} in the checkpoint's config: only {_INSTANTIATE_OPTIONS[str(key)]} are allowed")
    elif not isinstance(key, str) or key.startswith("_") or (key != "target" and key.strip("_:").lower() == "target"):
        raise UserError(f"{at} in the checkpoint's config is not a key of facegen{nearest(str(key), ['_target_'])}: refused")


def _way_out(path: Path) -> str:
    others = [other for other in steps(path.parent) if other != path]
    return f"; another one is there: ckpt={others[-1]}" if others else "; copy it again or train anew"


def _tensor_bytes(checkpoint: dict[str, Any]) -> int:
    """Bytes that the tensors in nested containers take on disk: shared storages once, views as their whole storage."""
    import torch

    storages: dict[int, int] = {}
    stack: list[object] = [checkpoint]
    while stack:
        item = stack.pop()
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)
    return sum(storages.values())
