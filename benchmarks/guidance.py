"""What guidance costs: seconds of a guided walk over those of the same walk unguided, and of one guided in half of its steps.

    python benchmarks/guidance.py unet_1m --resolution 32
    python benchmarks/guidance.py unet_1m --edits

With --edits the network is shown a source as well, and guided by both weights. Each round draws the same images in every way, in
turn; the median of the rounds' ratios is told with its range.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import torch
from networks import PRESETS, build

from facegen.codecs import Pixels
from facegen.diffusion.denoiser import Denoiser
from facegen.diffusion.guidance import Guidance, Told
from facegen.diffusion.sampler import DDIM, Heun, Sampler
from facegen.diffusion.schedule import EDM
from facegen.generate import generate
from facegen.networks.conditioned import Conditioned

CLASSES = 45  # as many as the cartoon faces have labels


def ways(sampler: Sampler, weak: Denoiser, edits: bool) -> dict[str, Guidance]:
    """What is measured, the unguided walk first; the interval holds the middle half of the walk's levels."""
    if edits:
        return {
            "unguided": Guidance(),
            "guidance=2": Guidance(weight=2),
            "guidance=2 image_guidance=1.5": Guidance(weight=2, image_weight=1.5),
        }
    levels = EDM().level(sampler.times(EDM())).tolist()
    quarter = len(levels) // 4
    half = (levels[quarter + len(levels) // 2 - 1] * 0.999, levels[quarter] * 1.001)
    return {
        "unguided": Guidance(),
        "guidance=2": Guidance(weight=2),
        "the same, in half of the steps": Guidance(weight=2, interval=half),
        "autoguidance by a model of the same size": Guidance(weight=2, weak=weak),
    }


def seconds(denoiser: Denoiser, sampler: Sampler, guidance: Guidance, n: int, resolution: int, edits: bool) -> float:
    """Of a walk of `n` images."""
    told = Told.plainly(torch.eye(CLASSES)[torch.arange(n) % CLASSES])
    if edits:
        told = replace(told, source=torch.zeros(n, 3, resolution, resolution))
    start = time.perf_counter()
    for _ in generate(denoiser, Pixels(resolution, 3), sampler, range(n), batch_size=n, told=told, guidance=guidance):
        pass
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", nargs="?", default="unet_1m", choices=sorted(path.stem for path in PRESETS.glob("*.yaml")))
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--n", type=int, default=64, help="images of a walk")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--edits", action="store_true", help="a network that is shown a source")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    def denoiser() -> Denoiser:
        network = build(options.preset, options.resolution, injection="embedding", **({"edits": True} if options.edits else {}))
        return Denoiser(Conditioned(network, CLASSES, network.injected), EDM()).to(options.device).eval().requires_grad_(False)

    strong, weak = denoiser(), denoiser()
    print(f"{options.preset}, {options.resolution} px, {options.n} images, {options.device}, {options.threads} threads\n")
    print("| walk | guided how | ratio of seconds (range) |\n|---|---|--:|")
    for sampler in (Heun(18), DDIM(20)):
        found: dict[str, list[float]] = {}
        for turn in range(options.rounds + 1):
            measured = ways(sampler, weak, options.edits).items()
            taken = {name: seconds(strong, sampler, how, options.n, options.resolution, options.edits) for name, how in measured}
            for name, value in taken.items() if turn else ():  # the first round warms up
                found.setdefault(name, []).append(value / taken["unguided"])
        for name, ratios in found.items():
            range_told = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"| {type(sampler).__name__}, {sampler.steps} steps | {name} | {range_told} |", flush=True)


if __name__ == "__main__":
    main()
