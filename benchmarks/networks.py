"""What a training step and a forward pass of a network cost, and which settings of the same network are fastest.

    python benchmarks/networks.py unet_1m --batch 8 --resolution 32

The settings take turns, round by round, so that a busy machine slows all of them alike: trust the ratios, of the fastest round of each.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

PRESETS = Path(__file__).parent.parent / "conf" / "model" / "network"


def build(preset: str, resolution: int, **changes: Any) -> nn.Module:
    """The network of a preset with some options changed, with the same weights whatever their layout."""
    data = {"resolution": resolution, "channels": 3}
    node = OmegaConf.create({"data": data, "network": OmegaConf.merge(OmegaConf.load(PRESETS / f"{preset}.yaml"), changes)})
    torch.manual_seed(0)
    return instantiate(node.network, _convert_="all")


def training_step(network: nn.Module, batch: int, resolution: int, bf16: bool) -> Callable[[], None]:
    """One step of Adam on the squared error of random images."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
    x, t = torch.randn(batch, 3, resolution, resolution), 1000 * torch.rand(batch)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            prediction = network(x, t)
        (prediction.float() - x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def forward_pass(network: nn.Module, batch: int, resolution: int, bf16: bool) -> Callable[[], None]:
    """One call of the network as a sampler makes it."""
    network.eval()
    x, t = torch.randn(batch, 3, resolution, resolution), 1000 * torch.rand(batch)

    @torch.inference_mode()
    def call() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            network(x, t)

    return call


def settings(options: argparse.Namespace) -> Iterator[tuple[tuple[str, ...], Callable[[], None]]]:
    """(precision, layout, attention, block) and the function to time; the plain float32 network first."""
    make = forward_pass if options.sampling else training_step
    bf16_here = [False, True] if torch.ops.mkldnn._is_mkldnn_bf16_supported() else [False]  # emulated, it takes minutes
    attentions = [True, False] if options.attention else [True]
    blocks = ["resnet", "convnext"] if options.blocks else [None]
    for block, attention, bf16, channels_last in itertools.product(blocks, attentions, bf16_here, [False, True]):
        changes = {"channels_last": channels_last} | ({} if attention else {"attention": []}) | ({"block": block} if block else {})
        network = build(options.preset, options.resolution, **changes)
        name = ("bf16" if bf16 else "float32", "channels_last" if channels_last else "rows", "yes" if attention else "no")
        yield (*name, block or "preset's"), make(network, options.batch, options.resolution, bf16)


def take_turns(functions: list[Callable[[], None]], rounds: int, calls: int) -> list[float]:
    """The fastest round of each function, in milliseconds a call."""
    best = [float("inf")] * len(functions)
    for _ in range(rounds + 1):  # one more round than asked for: the first includes the choice of kernels
        for i, function in enumerate(functions):
            start = time.perf_counter()
            for _ in range(calls):
                function()
            best[i] = min(best[i], 1000 * (time.perf_counter() - start) / calls)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=sorted(path.stem for path in PRESETS.glob("*.yaml")))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--sampling", action="store_true", help="time forward passes instead of training steps")
    parser.add_argument("--attention", action="store_true", help="also without attention")
    parser.add_argument("--blocks", action="store_true", help="both kinds of block")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--calls", type=int, default=3, help="calls a round")
    options = parser.parse_args()
    cases = list(settings(options))
    times = take_turns([function for _, function in cases], options.rounds, options.calls)
    kind = "forward pass" if options.sampling else "training step"
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"{options.preset}, {options.resolution} px, batch {options.batch}, {torch.get_num_threads()} threads, {capability}\n")
    print(f"| precision | layout | attention | block | ms a {kind} | times as fast |\n|---|---|---|---|---:|---:|")
    for (name, _), spent in zip(cases, times, strict=True):
        print(f"| {' | '.join(name)} | {spent:.1f} | {times[0] / spent:.2f} |")


if __name__ == "__main__":
    main()
