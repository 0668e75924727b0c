"""How fast evaluate.py measures FID, against torch-fidelity's command, and how fast the Fréchet distance is alone.

    python benchmarks/metrics.py FOLDER_OF_IMAGES [--images 2000] [--resolution 64] [--rounds 3] [--inception-weights PATH]

Both commands compare the same two folders of PNGs with the same weights, random ones unless a file is given: they cost the same. They
take turns, round by round, and the ratios are medians over the rounds. Neither finds anything in a cache, neither draws intervals.
The distance alone is that of as many rows of 2048 features against numpy's covariance and scipy's `sqrtm`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from startup import ROOT, offline

TYPES = (".jpg", ".jpeg", ".png")
FEATURES = 2048


@dataclass
class Ended:
    """A command that has come to its end: seconds, seconds of processor time, MB of its largest process, what it said on stdout."""

    seconds: float
    processor: float
    peak: float
    said: str


def run(command: list[str], **environment: str) -> Ended:
    """Runs `command` to its end; its progress stays on stderr."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=offline() | environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        said = process.stdout.read().decode()
    except BaseException:
        process.kill()
        raise
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {process.returncode}:\n{said}")
    return Ended(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6, said)


def torch_fidelity(fake: Path, real: Path, weights: Path) -> tuple[Ended, float]:
    """torch-fidelity's command, and its FID."""
    command = [sys.executable, "-m", "torch_fidelity.fidelity", "--fid", "--cpu", "--json", "--no-cache", "--silent"]
    ended = run([*command, "--input1", str(fake), "--input2", str(real), "--feature-extractor-weights-path", str(weights)])
    return ended, json.loads(ended.said)["frechet_inception_distance"]


def evaluate(fake: Path, real: Path, weights: Path) -> tuple[Ended, float]:
    """evaluate.py, and its number."""
    with tempfile.TemporaryDirectory() as scratch:
        options = ["metrics=[fid]", "bootstrap=0", "infinity=false", "device=cpu", f"inception_weights={weights}", f"out={scratch}/out"]
        ended = run([sys.executable, "evaluate.py", f"fake={fake}", f"real={real}", *options], FACEGEN_CACHE=f"{scratch}/cache")
        (written,) = Path(scratch, "out").glob("*.json")
        (number,) = json.loads(written.read_text())["metrics"].values()
    return ended, number["value"]


def folders(root: Path, images: int, resolution: int, scratch: Path) -> list[Path]:
    """Two folders of so many PNGs each, of alternate images of `root`, cropped to squares."""
    from PIL import Image, ImageOps

    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in TYPES)[: 2 * images]
    if len(paths) < 2 * images:
        raise SystemExit(f"{root} holds {len(paths)} images of the {2 * images} that are needed; type a smaller --images")
    made = [scratch / "fake", scratch / "real"]
    for side, folder in enumerate(made):
        folder.mkdir()
        for number, path in enumerate(paths[side::2]):
            with Image.open(path) as image:
                ImageOps.fit(image.convert("RGB"), (resolution, resolution)).save(folder / f"{number:06d}.png")
    return made


def random_weights(path: Path) -> Path:
    """A file of weights that nobody trained: what the tests use."""
    sys.path.append(str(ROOT / "tests"))
    from inception_weights import random_inception

    return random_inception(path)


def commands(options: argparse.Namespace, scratch: Path) -> None:
    """Prints the commands side by side."""
    fake, real = folders(options.root, options.images, options.resolution, scratch)
    weights = options.inception_weights or random_weights(scratch / "weights.pth")
    rounds: dict[Callable[..., tuple[Ended, float]], list[tuple[Ended, float]]] = {torch_fidelity: [], evaluate: []}
    for turn in range(options.rounds):
        for command in list(rounds) if turn % 2 else reversed(rounds):
            rounds[command].append(command(fake, real, weights))
            ended, value = rounds[command][-1]
            print(f"{command.__name__}: {ended.seconds:.1f} s, FID {value:.6f}", file=sys.stderr, flush=True)
    print(f"FID of {options.images} against {options.images} PNGs of {options.resolution} px\n")
    print("| command | seconds | processor seconds | peak memory, MB | FID |\n|---|---:|---:|---:|---:|")
    for command, ended in rounds.items():
        seconds, processor, peak = (statistics.median(getattr(one, name) for one, _ in ended) for name in ("seconds", "processor", "peak"))
        print(f"| {command.__name__} | {seconds:.1f} | {processor:.1f} | {peak:.0f} | {ended[-1][1]:.6f} |")
    seconds, processor = (ratios(rounds, name) for name in ("seconds", "processor"))
    print(f"\nevaluate.py is {middle(seconds)} as fast, {middle(processor)} by processor time\n")


def ratios(rounds: dict[Callable[..., tuple[Ended, float]], list[tuple[Ended, float]]], name: str) -> list[float]:
    """torch-fidelity's over ours, round by round."""
    return [getattr(theirs, name) / getattr(ours, name) for (theirs, _), (ours, _) in zip(*rounds.values(), strict=True)]


def middle(values: Iterable[float]) -> str:
    """The median, and each value."""
    each = list(values)
    return f"{statistics.median(each):.2f} times ({' '.join(f'{value:.2f}' for value in each)})"


def frechet(rows: int, rounds: int) -> None:
    """Prints what the distance itself costs."""
    from facegen.metrics.frechet import frechet_distance

    random = np.random.default_rng(0)
    mixing = random.standard_normal((FEATURES, FEATURES)) / FEATURES**0.5
    a, b = ((random.standard_normal((rows, FEATURES)) @ mixing + shift).astype(np.float32) for shift in (0.0, 0.05))
    spent: dict[Callable[[np.ndarray, np.ndarray], float], list[float]] = {by_sqrtm: [], frechet_distance: []}
    values = {}
    for _ in range(rounds):
        for distance in spent:
            start = time.perf_counter()
            values[distance] = distance(a, b)
            spent[distance].append(time.perf_counter() - start)
    print(f"| Fréchet distance of {rows} x {FEATURES} features | seconds | value |\n|---|---:|---:|")
    for name, distance in (("numpy's `cov`, scipy's `sqrtm`", by_sqrtm), ("`frechet_distance`", frechet_distance)):
        print(f"| {name} | {statistics.median(spent[distance]):.2f} | {values[distance]:.6f} |")
    each = (theirs / ours for theirs, ours in zip(*spent.values(), strict=True))
    print(f"\n`frechet_distance` is {middle(each)} as fast")


def by_sqrtm(a: np.ndarray, b: np.ndarray) -> float:
    """The distance as its authors compute it (Heusel et al. 2017), in float64."""
    from scipy.linalg import sqrtm

    a, b = a.astype(np.float64), b.astype(np.float64)
    between, first, second = a.mean(0) - b.mean(0), np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return float(between @ between + np.trace(first + second - 2 * sqrtm(first @ second).real))


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what it has started ends with it
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="a folder of twice as many images as are compared")
    parser.add_argument("--images", type=int, default=2000, help="in each folder")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inception-weights", type=lambda path: Path(path).resolve(), help="random weights by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        commands(options, Path(scratch))
    frechet(options.images, options.rounds)


if __name__ == "__main__":
    main()
