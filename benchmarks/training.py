"""How fast train.py trains: against a bare loop, and against the trainers of two other libraries.

    python benchmarks/training.py framework [--cases unet_1m:16 unet_4m:64] [data=folder data.root=FOLDER]
    python benchmarks/training.py peers FOLDER_OF_JPEGS --diffusers-script train_unconditional.py [--batch 16]

Every training is a process of its own that has the machine to itself; they take turns, round by round, and the ratios are medians
over the rounds. The first ten steps of each do not count. Previews, validation and checkpoints are off everywhere; train.py keeps its
averages, clipping, progress line and loggers, which the bare loop does without. Among the peers all average and clip.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from startup import ROOT, STEP, Observed, offline, watch

WARM_UP = 10  # steps; also the steps between two rows of train.py's metrics
IMAGES = 20_000  # in the bare loop's memory
NEVER = 1_000_000_000
MEMORY_EVERY = 2.0  # seconds between two readings of a process's memory
STEPS = {"facegen": STEP, "diffusers": rb"Epoch 0:[^\r]*\| (\d+)/", "lucidrains": rb"loss: [^\r]*\| (\d+)/"}
TOO_SHORT = "fewer than twenty steps were seen; type a larger --seconds"


def itself(function: Callable[..., None], **arguments: Any) -> list[str]:
    """The command that calls a function of this file in a process of its own."""
    return [sys.executable, __file__, "alone", function.__name__, json.dumps(arguments)]


def train_command(network: str, batch: int, precision: str, run_dir: str, *overrides: str) -> list[str]:
    """train.py as users type it, with nothing but training steps."""
    never = [f"{key}={NEVER}" for key in ("preview.every", "checkpoint.every", "trainer.validate_every", "trainer.max_steps")]
    options = [f"model/network={network}", f"data.batch_size={batch}", f"trainer.precision={precision}", f"trainer.log_every={WARM_UP}"]
    return [sys.executable, "train.py", *options, "preview.count=0", *never, f"run_dir={run_dir}", *overrides]


def logged_rate(run_dir: str, batch: int) -> float:
    """Images per second of train.py after its warm-up, from its own metrics."""
    metrics = Path(run_dir, "metrics.csv")
    rows = csv.DictReader(metrics.read_text().splitlines()) if metrics.exists() else []
    laps = [WARM_UP * batch / float(row["train/images_per_second"]) for row in rows][1:]
    if not laps:
        raise SystemExit(TOO_SHORT)
    return len(laps) * WARM_UP * batch / sum(laps)


def reported_rate(reports: list[tuple[float, int]], batch: int) -> float:
    """Images per second after the warm-up, from what a progress bar said when."""
    counted = [(second, step) for second, step in reports if step >= WARM_UP]
    if not counted or counted[-1][1] < 2 * WARM_UP:
        raise SystemExit(TOO_SHORT)
    (start, first), (end, last) = counted[0], counted[-1]
    return batch * (last - first) / (end - start)


def framework(options: argparse.Namespace) -> None:
    """train.py against the bare loop, in alternation."""
    print("| network | batch | precision | train.py, images/s | bare loop | ratio | of each pair |\n|---|---:|---|---:|---:|---:|---|")
    for case, precision in itertools.product(options.cases, options.precisions):
        network, _, batch = case.partition(":")
        ours, theirs = zip(*(pair(options, network, int(batch), precision, turn) for turn in range(options.rounds)), strict=True)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        each, middle = " ".join(f"{ratio:.3f}" for ratio in ratios), [statistics.median(x) for x in (ours, theirs, ratios)]
        print("| {} | {} | {} | {:.1f} | {:.1f} | {:.3f} | {} |".format(network, batch, precision, *middle, each), flush=True)


def pair(options: argparse.Namespace, network: str, batch: int, precision: str, turn: int) -> tuple[float, float]:
    """Images per second of train.py and of the bare loop, one after the other; who is first changes from turn to turn."""
    shape = {"network": network, "batch": batch, "precision": precision, "resolution": options.resolution}
    rates = {}
    for name in ("train.py", "bare loop") if turn % 2 else ("bare loop", "train.py"):
        if name == "bare loop":
            command = itself(bare_loop, **shape, seconds=options.seconds)
            rates[name] = float(subprocess.run(command, cwd=ROOT, env=offline(), check=True, stdout=subprocess.PIPE).stdout)
        else:
            with tempfile.TemporaryDirectory() as run_dir:
                overrides = (f"data.resolution={options.resolution}", *options.overrides)
                watch(train_command(network, batch, precision, run_dir, *overrides), STEP, options.seconds)
                rates[name] = logged_rate(run_dir, batch)
        say(f"{network}, batch {batch}, {precision}, {name}: {rates[name]:.1f} images/s")
    return rates["train.py"], rates["bare loop"]


def bare_loop(network: str, batch: int, precision: str, resolution: int, seconds: float) -> None:
    """Prints the images per second of nothing but EDM training steps (Karras et al. 2022) on images in memory."""
    import torch
    from networks import build

    model = build(network, resolution)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4, fused=True)
    images = torch.randint(256, (IMAGES, 3, resolution, resolution), dtype=torch.uint8)
    step, start = -WARM_UP, time.perf_counter()
    while step <= 0 or time.perf_counter() - start < seconds:
        x_0 = images[torch.randint(IMAGES, (batch,))].float() / 127.5 - 1
        sigma = (1.2 * torch.randn(batch, 1, 1, 1) - 1.2).exp()
        x_t, scale = x_0 + sigma * torch.randn_like(x_0), (sigma**2 + 0.25).rsqrt()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            raw = model(scale * x_t, 250 * sigma.flatten().log())
        loss = (raw.float() - (x_0 - 0.25 * scale**2 * x_t) / (0.5 * sigma * scale)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step == 0:
            start = time.perf_counter()
    print(batch * step / (time.perf_counter() - start))


def peers(options: argparse.Namespace) -> None:
    """All systems in turns, after one start of each that does not count: it fills their caches."""
    seen: dict[tuple[str, str], list[tuple[float, Observed]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.update(HF_HOME=f"{scratch}/huggingface", FACEGEN_CACHE=f"{scratch}/cache")
        for turn in range(options.rounds + 1):
            for name, precision in itertools.product(options.systems, options.precisions):
                run_dir = tempfile.mkdtemp(dir=scratch)
                observed = watch(
                    peer_command(options, name, precision, run_dir), STEPS[name], options.seconds if turn else 0.0, MEMORY_EVERY
                )
                what = f"{name}, {precision}: {'first step' if turn else 'very first start, first step'} after {observed.first_step:.1f} s"
                if turn:
                    rate = logged_rate(run_dir, options.batch) if name == "facegen" else reported_rate(observed.reports, options.batch)
                    seen[name, precision].append((rate, observed))
                    what += f", {rate:.1f} images/s, {observed.peak:.0f} MB"
                say(what)
    print_peers(seen)


def peer_command(options: argparse.Namespace, name: str, precision: str, run_dir: str) -> list[str]:
    """How the training of one system is started."""
    network = {"network": options.network, "changes": options.changes, "resolution": options.resolution}
    root, batch = str(options.root.resolve()), options.batch
    if name == "facegen":
        data = ["data=folder", f"data.root={root}", f"data.resolution={options.resolution}", "scheduler=linear"]
        return train_command(options.network, batch, precision, run_dir, *data, *(f"model.network.{c}" for c in options.changes))
    if name == "lucidrains":
        return itself(lucidrains, **network, batch=batch, precision=precision, root=root, run_dir=run_dir)
    subprocess.run(itself(unet_config, **network, folder=run_dir), cwd=ROOT, check=True)
    flags = {"train_data_dir": root, "output_dir": run_dir, "model_config_name_or_path": run_dir, "resolution": options.resolution}
    flags |= {"train_batch_size": batch, "mixed_precision": "no" if precision == "32" else precision}
    arguments = [f"--{key}={value}" for key, value in flags.items()]
    return [sys.executable, str(options.diffusers_script.resolve()), *arguments, "--center_crop", "--random_flip", "--use_ema"]


def same_network(network: str, changes: list[str], resolution: int) -> Any:
    """The network of a preset, with changes such as patch=1."""
    from networks import build
    from omegaconf import OmegaConf

    return build(network, resolution, **dict(OmegaConf.from_dotlist(changes)))


def unet_config(folder: str, resolution: int, **network: Any) -> None:
    """Writes the configuration of the UNet2DModel inside the network, for diffusers' script."""
    unet = same_network(resolution=resolution, **network).unet
    unet.register_to_config(sample_size=resolution)
    unet.save_config(folder)


def lucidrains(batch: int, precision: str, root: str, run_dir: str, resolution: int, **network: Any) -> None:
    """Trains the network with the Trainer of denoising-diffusion-pytorch."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer

    model = same_network(resolution=resolution, **network)
    model.channels, model.out_dim, model.self_condition = 3, 3, False  # what GaussianDiffusion asks for
    diffusion = GaussianDiffusion(model, image_size=resolution, objective="pred_noise", beta_schedule="linear")
    options = {"train_batch_size": batch, "save_and_sample_every": NEVER, "results_folder": run_dir, "calculate_fid": False}
    Trainer(diffusion, root, amp=precision != "32", mixed_precision_type=precision, **options).train()


def print_peers(seen: dict[tuple[str, str], list[tuple[float, Observed]]]) -> None:
    """A table with the medians of every system and how many times as fast ours is."""
    ours = {precision: [rate for rate, _ in rounds] for (name, precision), rounds in seen.items() if name == "facegen"}
    heads = "".join(f" facegen {precision} is |" for precision in ours)
    print(f"| system | precision | images/s |{heads} first step after, s | peak memory, MB |\n|---|---|---:|{'---:|' * (len(ours) + 2)}")
    for (name, precision), rounds in seen.items():
        ratios = [statistics.median(mine / rate for mine, (rate, _) in zip(rates, rounds, strict=True)) for rates in ours.values()]
        columns = zip(*((rate, observed.first_step, observed.peak) for rate, observed in rounds), strict=True)
        rate, first, peak = map(statistics.median, columns)
        times = "".join(f" {ratio:.2f} times |" for ratio in ratios)
        print(f"| {name} | {precision} | {rate:.1f} |{times} {first:.1f} | {peak:.0f} |")


def say(line: str) -> None:
    """How far the measurement is."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    if sys.argv[1:2] == ["alone"]:  # a process that `itself` has started
        globals()[sys.argv[2]](**json.loads(sys.argv[3]))
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what it has started ends with it
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--resolution", type=int, default=32)
    common.add_argument("--rounds", type=int, default=5)
    common.add_argument("--seconds", type=float, default=30.0, help="of each training, from its first step on")
    common.add_argument("--precisions", nargs="+", default=["32", "bf16"], choices=["32", "bf16"], help="bf16 only where the CPU has it")
    command = commands.add_parser("framework", parents=[common], help="train.py against a bare loop")
    command.add_argument("--cases", nargs="+", default=["unet_1m:16", "unet_4m:64"], metavar="NETWORK:BATCH")
    command.add_argument("overrides", nargs="*", default=["data=cartoon", "data.size=1024"], help="of train.py")
    command.set_defaults(run=framework)
    command = commands.add_parser("peers", parents=[common], help="train.py against two other trainers")
    command.add_argument("root", type=Path, help="a folder of more JPEGs than are trained on")
    command.add_argument("--diffusers-script", type=Path, required=True, help="its examples/unconditional_image_generation/...")
    command.add_argument("--network", default="unet_1m")
    command.add_argument("--changes", nargs="+", default=["patch=1", "widths=[32,64,96]", "head_dim=32"], help="of the network")
    command.add_argument("--batch", type=int, default=16)
    command.add_argument("--systems", nargs="+", default=list(STEPS), choices=list(STEPS))
    command.set_defaults(run=peers)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
