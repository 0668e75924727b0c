"""The packed cache: a data set decoded once, to one file of uint8 pixels at their final size that is read by memory map.

    CACHE/celeba-0123456789abcdef/  images.npy (N, C, H, W)   records.npz (labels, split, check sums)   bad.csv
    CACHE/celeba-0123456789abcdef.lock

The folder is named by what went into it (files, sizes, times, crop, filter, options), so a changed data set is another cache.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np

from facegen.data.decode import FILTER
from facegen.data.lock import locked, unlocked
from facegen.data.pack import pack
from facegen.data.packed import PackedImages, load_packed, write_records
from facegen.data.records import HELD_OUT, TRAIN, File, Problem, Reader, Records, is_image, keyed_fraction
from facegen.durable import sync
from facegen.errors import UserError

FORMAT = 1
_SPARE_BYTES = 16 << 20


def open_packed(
    reader: Reader,
    root: str | None,
    cache_dir: str | None = None,
    on_bad: Literal["error", "skip"] = "error",
    limit: int | None = None,
) -> PackedImages:
    """The data set at `root` from its cache, which is built first where it is missing, by one process at a time.

    `limit` keeps so many images, chosen by their names. Raises UserError where there is no data set or no room for the
    cache, and with `on_bad=error` where a file is bad; the cache stays, so that `on_bad=skip` need not build it again.
    """
    folder, files = reader.listed(root)
    target = cache_home(cache_dir) / f"{reader.name}-{_key(reader, files, limit)}"
    packed = load_packed(target, reader)
    if packed is None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(target.parent)
            with locked(target.with_suffix(".lock"), f"packing the images of {folder}"):
                packed = load_packed(target, reader) or _build(target, reader, folder, files, limit)
        except OSError as error:
            raise UserError(f"data.cache_dir={target.parent} cannot be used: {error}; type data.cache_dir=FOLDER") from error
    _tell_of_bad(packed, on_bad)
    return packed


def open_split(reader: Reader, val_fraction: float, *storage: Any) -> tuple[PackedImages, np.ndarray, np.ndarray]:
    """What `open_packed` opens from `storage`, with the numbers of the images to train on and of those held out."""
    packed = open_packed(reader, *storage)
    return packed, packed.indices(TRAIN, val_fraction), packed.indices(HELD_OUT, val_fraction)


def cache_home(cache_dir: str | None) -> Path:
    """The folder of all caches: `cache_dir`, else $FACEGEN_CACHE, else ~/.cache/facegen."""
    return Path(cache_dir or os.environ.get("FACEGEN_CACHE") or "~/.cache/facegen").expanduser().absolute()


def _key(reader: Reader, files: list[File], limit: int | None) -> str:
    switches = [(name, getattr(reader, name)) for name in reader.switches]  # nothing, where there are none: a cache keeps its name
    told = (FORMAT, reader.name, reader.version, reader.picture, FILTER, limit, *switches, *reader.settings)
    digest = hashlib.blake2b(repr(told).encode(), digest_size=8)
    digest.update("\n".join(f"{path}|{size}|{mtime}" for path, size, mtime in files).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _build(target: Path, reader: Reader, root: Path, files: list[File], limit: int | None) -> PackedImages:
    if target.exists():
        say(f"the cache {target} is damaged: building it again")
    records = reader.records(root, files)
    if not records.paths:
        raise UserError(f"data.root={root} holds no usable image: {records.problems[0].what}; it must hold {reader.layout}")
    unusable = sum(map(is_image, files)) - len(records.paths)
    records, picture = _limited(records, limit), reader.picture
    shape = (len(records.paths), picture.channels, picture.resolution, picture.resolution)
    need, free = int(np.prod(shape)) + _SPARE_BYTES, shutil.disk_usage(target.parent).free
    if free < need:
        amounts = f"{need / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB free"
        raise UserError(f"data.cache_dir={target.parent} has too little room: {amounts}; type data.cache_dir=FOLDER")
    building = target.with_suffix(".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    say(f"packing {len(records.paths)} images of {root} into {target}")
    np.lib.format.open_memmap(building / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    outcome = pack(root, records.paths, picture, building / "images.npy")
    write_records(building, reader, records, outcome, unusable + int((~outcome.good).sum()))
    write_problems(building / "bad.csv", records.problems + outcome.problems)
    for path in (*building.iterdir(), building):
        sync(path)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(building, target)
    sync(target.parent)
    packed = load_packed(target, reader)
    assert packed is not None, "a cache just written can be read"
    return packed


def _limited(records: Records, limit: int | None) -> Records:
    if limit is None or limit >= len(records.paths):
        return records
    return records.select(np.sort(np.argsort(keyed_fraction("limit", records.paths))[:limit]))


def write_problems(path: str | Path, problems: list[Problem]) -> None:
    """A csv with one problem a line."""
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([Problem._fields, *problems])


def _tell_of_bad(packed: PackedImages, on_bad: Literal["error", "skip"]) -> None:
    listing = packed.folder / "bad.csv"
    if packed.stops and on_bad == "error":
        with open(listing, newline="", encoding="utf-8", errors="surrogateescape") as file:
            bad = [row for row in csv.DictReader(file) if row["effect"] == "stop"]
        some = "; ".join(f"{row['file']}{row['row'] and ':' + row['row']} {row['what']}" for row in bad[:3])
        raise UserError(
            f"{packed.stops} problems in data.root: {some}{' ...' if len(bad) > 3 else ''}; all are in {listing}; mend them "
            "(python -m facegen.data.doctor data=... data.root=... examines them), or type data.on_bad=skip to leave them out"
        )
    if packed.left_out:
        say(f"{packed.left_out} images are left out; {listing} says why")


def _remove_leftovers(home: Path) -> None:
    """Remove what killed builders left behind."""
    for building in home.glob("*.building"):
        with unlocked(building.with_suffix(".lock")) as is_free:
            if is_free:
                shutil.rmtree(building, ignore_errors=True)


def say(line: str) -> None:
    """Prints a line to stderr, in one process of a machine."""
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        print(line, file=sys.stderr, flush=True)
