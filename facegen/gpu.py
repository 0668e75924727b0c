"""That this machine has no GPU, where it can be told without torch, whose import takes seconds."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
from pathlib import Path

DEV = Path("/dev")
# What a driver puts there: NVIDIA's, that of NVIDIA's Tegra boards, AMD's, and Windows' for Linux guests.
NODES = ("nvidia*", "nvhost*", "nvgpu*", "nvmap", "kfd", "dxg")
KNOWN_BUILDS = re.compile(r"[\d.]+(\+(cpu|cu\d+|rocm[\d.]+))?")  # of torch; others may be for devices that nobody here knows of


def no_gpu() -> str | None:
    """Why torch finds no GPU here, or None where it may find one: in any doubt torch is to be asked.

    A driver may make its nodes in /dev only at first use, so that without them there must be no driver to load either.
    """
    version = _torch_version()
    if sys.platform != "linux" or not KNOWN_BUILDS.fullmatch(version.get("__version__", "?")) or os.environ.get("LD_PRELOAD"):
        return None
    if "cuda" in version and "hip" in version and version["cuda"] == version["hip"] == "None":
        return f"torch {version['__version__']} is built for CPUs only"
    nodes = {pattern for pattern in NODES if any(DEV.glob(pattern))}
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") and not nodes & {"kfd", "dxg"}:
        return f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']} hides every GPU"
    return None if nodes or _has_driver() else "there is no GPU on this machine, neither a device nor a driver"


def _torch_version() -> dict[str, str]:
    """The assignments in torch's version.py as text; nothing is imported."""
    found = importlib.util.find_spec("torch")
    path = Path(found.origin).with_name("version.py") if found and found.origin else None
    text = path.read_text(encoding="utf-8") if path and path.is_file() else ""
    return {name: value.strip("'\"") for name, value in re.findall(r"^(\w+)(?:: [^=]+)? = (\S+)$", text, flags=re.MULTILINE)}


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")  # as torch looks for it
    except OSError:
        return False
    return True
