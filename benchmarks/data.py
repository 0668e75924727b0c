"""How fast images come to the training step, and how fast photographs are packed.

    python benchmarks/data.py FOLDER_OF_JPEGS [--images 20000] [--resolutions 32 64]

Loading: batches of 64 as float32 in [-1, 1], from the packed cache against torchvision's ImageFolder and a DataLoader with one
worker on the same files. Packing: files to a finished cache against nothing but Pillow's decoder on the same files, both on all
cores and with the start of their processes, in images per second of processor time so that other work on the machine does not
count; the two take turns and the best of each is shown.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

BATCH_SIZE = 64
ROUNDS = 3


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each loading measurement")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[32, 64])
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        paths = sorted(path for path in options.root.rglob("*.jpg"))[: options.images]
        root = Path(scratch, "data", "faces")
        root.mkdir(parents=True)
        for path in paths:  # links to the same files for both, in the one folder per class that ImageFolder wants
            os.link(path, root / path.name) if root.stat().st_dev == path.stat().st_dev else os.symlink(path, root / path.name)
        for resolution in options.resolutions:
            rows.append((f"packing, {resolution} px", *packing(root, resolution, scratch)))
            rows.append((f"loading, {resolution} px", *loading(root, resolution, scratch, options.seconds)))
    print("| images/s | facegen | baseline | ratio |\n|---|---:|---:|---:|")
    for name, ours, theirs in rows:
        print(f"| {name} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.2f} |")


def packing(root: Path, resolution: int, scratch: str) -> tuple[float, float]:
    """Images per second from files to a finished cache, and through the decoder alone."""
    from facegen.data.cache import open_packed
    from facegen.data.decode import Picture
    from facegen.data.folder import FolderReader

    reader = FolderReader(Picture(resolution, 3, "center"))
    paths = [str(path) for path in root.iterdir()]
    ours, theirs = [], []
    for turn in range(ROUNDS):
        start = processor_time()
        open_packed(reader, str(root), f"{scratch}/cache-{resolution}-{turn}")
        ours.append(len(paths) / (processor_time() - start))
        start = processor_time()
        with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=multiprocessing.get_context("spawn")) as pool:
            list(pool.map(decode_only, [paths[i : i + 128] for i in range(0, len(paths), 128)]))
        theirs.append(len(paths) / (processor_time() - start))
    return max(ours), max(theirs)


def processor_time() -> float:
    """Seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def decode_only(paths: list[str]) -> None:
    """What the decoder itself costs."""
    for path in paths:
        with Image.open(path) as image:
            image.load()


def loading(root: Path, resolution: int, scratch: str, seconds: float) -> tuple[float, float]:
    """Images per second into the training step, from the packed cache and from ImageFolder."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    from facegen.data.faces import Folder

    cache = f"{scratch}/cache-{resolution}-0"
    picture = {"root": str(root), "resolution": resolution, "channels": 3, "crop": "center"}
    data = Folder(**picture, batch_size=BATCH_SIZE, seed=0, cache_dir=cache, val_fraction=0.0)
    ours = (data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader())
    scale = v2.Compose([v2.Resize(resolution), v2.CenterCrop(resolution), v2.RandomHorizontalFlip(), *to_float(v2)])
    files = DataLoader(ImageFolder(str(root.parent), scale), BATCH_SIZE, shuffle=True, num_workers=1, persistent_workers=True)
    return rate(ours, seconds), rate(files, seconds)


def to_float(v2: Any) -> list[Any]:
    """torchvision's way from a PIL image to float32 in [-1, 1]."""
    import torch

    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]


def rate(batches: Iterable[Any], seconds: float) -> float:
    """Images per second after the first batch."""
    count, iterator = 0, iter(batches)
    next(iterator)
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        next(iterator)
        count += BATCH_SIZE
    return count / elapsed


if __name__ == "__main__":
    main()
