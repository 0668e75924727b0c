"""Images per second of the samplers, and what they cost beside the network: everything from seeds to uint8 images.

    python benchmarks/sampling.py unet_1m --resolution 32

The network is timed within each walk, so that a busy machine slows both alike; `overhead` is all the rest of the walk (noise, steps,
grouping, conversion to uint8) as a share of the network's time.
"""

from __future__ import annotations

import argparse
import time

import torch
from networks import PRESETS, build
from torch import Tensor, nn

from facegen.codecs import Pixels
from facegen.diffusion.denoiser import Denoiser
from facegen.diffusion.discrete import Linear
from facegen.diffusion.sampler import DDIM, DDPM, DPMpp2M, Heun, Sampler
from facegen.generate import generate
from facegen.interop import DiffusersSampler

SCHEDULERS = ("UniPCMultistepScheduler", "LMSDiscreteScheduler", "PNDMScheduler", "EulerAncestralDiscreteScheduler")


class Timed(nn.Module):
    """A network that adds up how long it is at work and how often it is asked."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network, self.device = network.to(device), device
        self.reset()

    def reset(self) -> None:
        self.seconds, self.calls = 0.0, 0

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        start = self.now()
        answer = self.network(x, t, condition)
        self.seconds += self.now() - start
        self.calls += 1
        return answer


def samplers(long: bool) -> dict[str, Sampler]:
    """What is measured, by name."""
    ours = {f"{kind.__name__} {steps}": kind(steps) for kind in (DDIM, DPMpp2M, Heun) for steps in (20, 50)}
    theirs = {f"{name} {steps}": DiffusersSampler(name, steps) for name in SCHEDULERS for steps in (20, 50)}
    return ours | theirs | ({"DDPM 1000": DDPM(1000)} if long else {})


def measure(network: Timed, codec: Pixels, sampler: Sampler, n: int, autocast: torch.dtype | None) -> tuple[float, float, int]:
    """Seconds of a walk of `n` images, seconds of them in the network, and its calls."""
    denoiser = Denoiser(network, Linear())
    network.reset()
    start = network.now()
    for _ in generate(denoiser, codec, sampler, range(n), batch_size=n, autocast=autocast):
        pass
    return network.now() - start, network.seconds, network.calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", nargs="?", default="unet_1m", choices=sorted(path.stem for path in PRESETS.glob("*.yaml")))
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--n", type=int, default=64, help="images of a walk; a quarter of them for 1000 steps")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--short", action="store_true", help="leave out the walk of 1000 steps")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = Timed(build(options.preset, options.resolution), torch.device(options.device))
    codec, autocast = Pixels(options.resolution, 3), torch.bfloat16 if options.bf16 else None
    measure(network, codec, DDIM(3), options.n, autocast)  # warms up
    size = sum(p.numel() for p in network.parameters()) / 1e6
    print(f"{options.preset} ({size:.1f} M parameters), {options.resolution} px, {options.device}, {options.threads} threads\n")
    print("| sampler | images | network calls | images/s | network alone, images/s | overhead |\n|---|--:|--:|--:|--:|--:|")
    for name, sampler in samplers(not options.short).items():
        n = options.n // 4 if sampler.steps == 1000 else options.n
        walk, inside, calls = measure(network, codec, sampler, n, autocast)
        row = f"{n} | {calls} | {n / walk:.2f} | {n / inside:.2f} | {100 * (walk - inside) / inside:.1f}%"
        print(f"| {name.replace(' ', ', ')} steps | {row} |", flush=True)


if __name__ == "__main__":
    main()
