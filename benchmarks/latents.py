"""What latents save, and what they cost: training steps, drawing, and the memory of decoding.

    python benchmarks/latents.py [--resolution 128] [--batch 16] [--parts training drawing memory]

All models have a UNet of the same widths, without patches, that attends at its lowest size; only the side of what it sees differs.
Trainings take turns, round by round, and a step is facegen's own: its loss, backward, clipping, fused Adam, average. Images, latents and
weights are random. Decoding is measured in processes of their own, so that the peak of one is not that of another.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from facegen.callbacks.ema import EMA
from facegen.callbacks.guard import Guard
from facegen.codecs import Latents, Pixels
from facegen.diffusion.denoiser import Denoiser
from facegen.diffusion.discrete import ScaledLinear
from facegen.diffusion.sampler import DDIM, DDPM, Sampler
from facegen.diffusion.schedule import EDM
from facegen.families.ddpm import DDPM as Diffusion
from facegen.families.latent import LatentDiffusion
from facegen.families.optimization import Adam
from facegen.generate import generate, group_of
from facegen.memory import keep_freed_memory
from facegen.networks.autoencoder import KLAutoencoder
from facegen.networks.unet import UNet

PRESETS = {"f4d3": (4, 3), "f8d4": (8, 4)}  # how many times smaller than the image, channels
NOTHING = 0  # the tile of a process that decodes nothing


def unet(options: argparse.Namespace, size: int, channels: int) -> UNet:
    """The network for images or latents of `size` x `size`."""
    lowest = size // 2 ** (len(options.widths) - 1)
    shape = {"widths": options.widths, "attention": [lowest], "head_dim": math.gcd(64, options.widths[-1])}
    return UNet(resolution=size, channels=channels, layers=1, groups=math.gcd(8, *options.widths), **shape)


def autoencoder(widths: list[int], preset: str) -> KLAutoencoder:
    """An autoencoder whose latents are those of a preset; its last width is repeated where it has to halve more often."""
    factor, channels = PRESETS[preset]
    stages = int(math.log2(factor)) + 1
    widths = (widths + widths[-1:] * stages)[:stages]
    return KLAutoencoder(channels=3, widths=widths, latent_channels=channels, groups=math.gcd(32, *widths))


def now(device: str) -> float:
    """Seconds, when all that was asked of the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Training:
    """A model in training on one batch: what Lightning and the callbacks do to it in a step, without them."""

    def __init__(self, model: Diffusion, batch: dict[str, Any], options: argparse.Namespace) -> None:
        self.model, self.options = model.to(options.device).train(), options
        self.batch = {name: part.to(options.device) for name, part in batch.items()}
        self.optimizer: Any = model.configure_optimizers()
        self.trainer: Any = SimpleNamespace(global_step=0, world_size=1)
        self.guard, self.ema = Guard(model.optimizer_options.clip), EMA()
        self.ema.on_train_start(self.trainer, model)

    def step(self) -> None:
        with torch.autocast(self.options.device.partition(":")[0], torch.bfloat16, enabled=self.options.bf16):
            loss = self.model.losses(self.batch).mean()
        loss.backward()
        self.guard.on_before_optimizer_step(self.trainer, self.model, self.optimizer)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.trainer.global_step += 1
        self.ema.on_train_batch_end(self.trainer, self.model, None, self.batch, 0)

    def rate(self, seconds: float) -> float:
        """Images per second, over as many steps as fit into `seconds`, or one."""
        start, steps = now(self.options.device), 0
        while steps == 0 or now(self.options.device) - start < seconds:
            self.step()
            steps += 1
        return steps * self.options.batch / (now(self.options.device) - start)


def trainings(options: argparse.Namespace) -> dict[str, Training]:
    """What is measured: in pixels first, then in latents that were encoded before, then with the encoder in every step."""
    side, index = options.resolution, torch.arange(options.batch)
    pixels = {"image": torch.rand(options.batch, 3, side, side) * 2 - 1, "index": index}
    given = {"schedule": EDM(), "optimizer": Adam()}
    model = Diffusion(network=unet(options, side, 3), codec=Pixels(side, 3), **given)
    made = {f"pixels, {side}x{side}x3": Training(model, pixels, options)}
    for preset in PRESETS:
        codec = Latents(autoencoder([32], preset), side, 0.5)  # of which nothing is asked
        channels, size, _ = codec.shape
        model = LatentDiffusion(network=unet(options, size, channels), codec=codec, **given)
        batch = {"latent": torch.rand(options.batch, 2, *codec.shape).half(), "index": index}
        made[f"{preset}, {size}x{size}x{channels}, encoded before"] = Training(model, batch, options)
    for widths in options.autoencoder_widths:
        codec = Latents(autoencoder(widths, "f4d3"), side, 0.5)
        model = LatentDiffusion(network=unet(options, codec.shape[1], codec.shape[0]), codec=codec, **given)
        made[f"f4d3, encoder of widths {spelled(widths)} in every step"] = Training(model, pixels, options)
    return made


def training(options: argparse.Namespace) -> None:
    """Prints images per second of each training, and how many times those of pixels and of cached latents they are."""
    keep_freed_memory()
    made = trainings(options)
    rates: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(options.rounds + 1):  # the first warms up
        for name, one in made.items():
            rate = one.rate(options.seconds if turn else 0.0)
            rates[name] += [rate] * bool(turn)
    base, cached, *_ = rates.values()
    print("| training step on | images/s | times pixels (range) | times f4d3 encoded before (range) |\n|---|---:|---:|---:|")
    for name, found in rates.items():
        print(f"| {name} | {statistics.median(found):.3g} | {ratio(found, base)} | {ratio(found, cached)} |", flush=True)


class Timed(Latents):
    """Latents that add up how long they were decoded."""

    seconds = 0.0

    def decode(self, x: Tensor) -> Tensor:
        start = now(str(x.device))
        images = super().decode(x)
        self.seconds += now(str(x.device)) - start
        return images


def drawing(options: argparse.Namespace) -> None:
    """Prints seconds per image of a short and of a long walk of the same model, with and without their decoding."""
    codec = Timed(autoencoder(options.autoencoder_widths[0], "f4d3"), options.resolution)
    channels, size, _ = codec.shape
    network = unet(options, size, channels)
    denoiser = Denoiser(network, ScaledLinear(1000)).to(options.device).eval().requires_grad_(False)
    group = group_of((size, size), options.device)  # of fewer the rest is made up
    count = math.ceil(options.images / group) * group

    def each(sampler: Sampler) -> tuple[float, float]:
        start, codec.seconds = now(options.device), 0.0
        for _ in generate(denoiser, codec, sampler, range(count), batch_size=count, autocast=torch.bfloat16 if options.bf16 else None):
            pass
        whole = now(options.device) - start
        return whole / count, (whole - codec.seconds) / count

    each(DDIM(2))  # warms up
    rounds = [[each(sampler) for sampler in (DDPM(1000), DDIM(50))] for _ in range(options.drawing_rounds)]
    print(f"\n| drawing {count} images, f4d3 | s per image | its walk alone | times as fast | its walk alone |\n|---|---:|---:|---:|---:|")
    (slow, slow_walk), *_ = sampled = [tuple(zip(*taken, strict=True)) for taken in zip(*rounds, strict=True)]
    for name, (whole, walk) in zip(("DDPM, 1000 steps", "DDIM, 50 steps"), sampled, strict=True):
        middles = f"{statistics.median(whole):.3g} | {statistics.median(walk):.3g}"
        print(f"| {name} | {middles} | {ratio(slow, whole)} | {ratio(slow_walk, walk)} |", flush=True)


def memory(options: argparse.Namespace) -> None:
    """Prints peak memory and seconds of decoding one large latent whole and in tiles."""
    side, widths = options.large, options.autoencoder_widths[0]
    arguments = {"resolution": side, "widths": widths, "threads": options.threads, "device": options.device}
    found = {}
    for tile in (NOTHING, None, *options.tiles):
        command = [sys.executable, __file__, "alone", json.dumps({"tile": tile, **arguments})]
        found[tile] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    before, _ = found.pop(NOTHING)
    what = f"decoding f4d3 of {side} px, widths {spelled(widths)}"
    print(f"\n| {what} | peak memory, MB | of that by decoding, MB | share of the whole's | s |\n|---|---:|---:|---:|---:|")
    for tile, (held, seconds) in found.items():
        name, own = "whole" if tile is None else f"tile={tile}", held - before
        print(f"| {name} | {held:.0f} | {own:.0f} | {own / (found[None][0] - before):.2f} | {seconds:.1f} |")


def decode(resolution: int, widths: list[int], tile: int | None, threads: int, device: str) -> None:
    """Prints the MB that this process has held at most, on a graphics card in tensors, and the seconds of a decoding."""
    torch.set_num_threads(threads)
    codec = Latents(autoencoder(widths, "f4d3"), resolution)
    codec.tile, x = tile, torch.randn(1, *codec.shape, device=device)
    codec.network.to(device)
    start = now(device)
    with torch.inference_mode():
        x = codec.decode(x) if tile != NOTHING else x
    seconds = now(device) - start
    status = Path("/proc/self/status").read_text()  # not ru_maxrss, which begins with what the parent process held
    held = int(status.partition("VmHWM:")[2].split()[0]) * 1024 if device == "cpu" else torch.cuda.max_memory_allocated(device)
    print(json.dumps([held / 1e6, seconds]))


def ratio(above: Iterable[float], below: Iterable[float]) -> str:
    """The median of the ratios of each round, and their range."""
    each = [a / b for a, b in zip(above, below, strict=True)]
    return f"{statistics.median(each):.3g} ({min(each):.3g} to {max(each):.3g})" if each[1:] else f"{each[0]:.3g}"


def spelled(widths: list[int]) -> str:
    """As they are typed."""
    return ",".join(map(str, widths))


def read(widths: str) -> list[int]:
    """What `spelled` has spelled."""
    return [int(width) for width in widths.split(",")]


def main() -> None:
    parts = {part.__name__: part for part in (training, drawing, memory)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--widths", type=read, default=[32, 64, 96], help="of the UNet, such as 32,64,96")
    parser.add_argument("--autoencoder-widths", type=read, nargs="+", default=[[128, 256, 512], [32, 64, 128]])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a training, each time that it has its turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1, help="drawn, rounded up to what a network is given at a time")
    parser.add_argument("--drawing-rounds", type=int, default=2)
    parser.add_argument("--large", type=int, default=512, help="pixels of the image whose decoding is measured")
    parser.add_argument("--tiles", type=int, nargs="*", default=[32, 64], help="latent pixels")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bf16", action="store_true", help="the UNets; autoencoders stay in float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    on = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else torch.backends.cpu.get_cpu_capability()
    precision = "bf16" if options.bf16 else "float32"
    unets = f"UNets of widths {spelled(options.widths)}, batch {options.batch}, {precision}"
    print(f"{unets}, {options.device}, {options.threads} threads, {on}, torch {torch.__version__}\n")
    for name in options.parts:
        parts[name](options)


if __name__ == "__main__":
    if sys.argv[1:2] == ["alone"]:
        decode(**json.loads(sys.argv[2]))
    else:
        main()
