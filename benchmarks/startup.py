"""How soon train.py answers, and how soon it has trained its first step.

    python benchmarks/startup.py [--rounds 10] [--training-rounds 5]

Help, a configuration error and shell completion against nothing but `import hydra`; the time from the command to the end of the first
training step on cartoon faces against nothing but the imports it cannot do without. All take turns, round by round.
"""

from __future__ import annotations

import argparse
import os
import re
import selectors
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEP = rb"step (\d+) "  # what train.py says of a finished step
BARE = "import torch, lightning.pytorch; from diffusers import UNet2DModel"
ANSWERS = {
    "`import hydra`": ["-c", "import hydra"],
    "`train.py --help`": ["train.py", "--help"],
    "a configuration error": ["train.py", "seed=-1"],
    "shell completion": ["train.py", "-sc", "query=bash"],
}


@dataclass
class Observed:
    """A training seen from outside: its peak memory in MB, and its (second, step) reports."""

    peak: float
    reports: list[tuple[float, int]]

    @property
    def first_step(self) -> float:
        """Seconds from the command to the end of the first step."""
        return self.reports[0][0]


def watch(command: list[str], step: bytes, seconds: float, every: float = 0.0, limit: float = 600.0) -> Observed:
    """Runs `command` until `seconds` after its first step, then kills it; `step` matches its reports of finished steps.

    Its memory is read `every` so many seconds, not at all at 0: each reading walks the page tables of the process and holds it up.
    """
    observed, text = Observed(0.0, []), b""
    for now, chunk, memory in output(command, every):
        text = text[-4000:] + chunk
        for found in re.finditer(step, text):
            if int(found[1]) > (observed.reports[-1][1] if observed.reports else 0):
                observed.reports.append((now, int(found[1])))
        observed.peak = max(observed.peak, memory)
        if now > (observed.first_step + seconds if observed.reports else limit):
            break
    if not observed.reports:
        raise SystemExit(f"{' '.join(command)}\nfinished no step; its last words:\n{text.decode(errors='replace')}")
    return observed


def output(command: list[str], every: float) -> Iterator[tuple[float, bytes, float]]:
    """What `command` says, as (seconds since its start, bytes, MB of memory it holds), until it ends or the caller stops listening."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=offline(), start_new_session=True)
    assert process.stdout is not None
    polled, held, chunk = 0.0, 0.0, b" "
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while chunk:
                heard = selector.select(timeout=0.25)
                now = time.perf_counter() - start
                if every and now - polled > every:
                    held, polled = memory(process.pid), now
                if heard:
                    chunk = os.read(process.stdout.fileno(), 1 << 16)
                yield now, chunk if heard else b"", held
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def offline() -> dict[str, str]:
    """The environment of every training: no network, no graphics card, every step reported."""
    return os.environ | {"ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TQDM_MININTERVAL": "0"}


def memory(session: int) -> float:
    """MB held by the processes of a session; what several of them share is shared out (PSS)."""
    total = 0
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and os.getsid(int(process.name)) == session:
                total += sum(int(kb) for kb in re.findall(r"^Pss: +(\d+)", (process / "smaps_rollup").read_text(), re.MULTILINE))
        except OSError:  # it has just ended
            continue
    return total * 1024 / 1e6


def answer(arguments: list[str], **environment: str) -> tuple[float, str]:
    """Seconds that a Python process takes, and what it says on stderr."""
    start = time.perf_counter()
    line = {"COMP_LINE": "python train.py data=", "COMP_POINT": "21"}
    process = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=os.environ | line | environment, capture_output=True, text=True)
    return time.perf_counter() - start, process.stderr


def answers(rounds: int) -> None:
    """Prints what help, errors and completion cost and whether they import torch."""
    spent: dict[str, list[float]] = {name: [] for name in ANSWERS}
    for _ in range(rounds + 1):
        for name, arguments in ANSWERS.items():
            spent[name].append(answer(arguments)[0])
    print("| | fastest, s | median, s | times import hydra | imports torch |\n|---|---:|---:|---:|---|")
    middles = {name: statistics.median(times[1:]) for name, times in spent.items()}  # the first fills the disk cache
    for name, arguments in ANSWERS.items():
        imported = re.search(r"\| +torch$", answer(arguments, PYTHONPROFILEIMPORTTIME="1")[1], re.MULTILINE)
        ratio = middles[name] / middles["`import hydra`"]
        print(f"| {name} | {min(spent[name][1:]):.2f} | {middles[name]:.2f} | {ratio:.2f} | {'yes' if imported else 'no'} |")


def first_step(rounds: int) -> None:
    """Prints how long the first training step takes to come, beside the imports alone."""
    imports, training = [], []
    for _ in range(rounds + 1):
        imports.append(answer(["-c", BARE])[0])
        with tempfile.TemporaryDirectory() as run_dir:
            training.append(watch([sys.executable, "train.py", f"run_dir={run_dir}"], STEP, 0.0).first_step)
    more = [a - b for a, b in zip(training[1:], imports[1:], strict=True)]
    print("\n| | fastest, s | median, s |\n|---|---:|---:|")
    for name, times in ((f"`{BARE}`", imports[1:]), ("`train.py` to the end of its first step", training[1:]), ("more", more)):
        print(f"| {name} | {min(times):.2f} | {statistics.median(times):.2f} |")


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what it has started ends with it
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--training-rounds", type=int, default=5)
    options = parser.parse_args()
    answers(options.rounds)
    first_step(options.training_rounds)


if __name__ == "__main__":
    main()
