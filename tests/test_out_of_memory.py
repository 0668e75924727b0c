"""Too little memory is one line that says what is set now and what to type, and what it says to type does take less."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from runs import TINY, tiny
from stand_in import Run, job, studio
from test_codecs import Halves
from test_tiling import asked, latents
from test_two_stages import two_stages
from torch import Tensor

from facegen import evaluation, stages
from facegen.codecs import Latents
from facegen.errors import UserError
from facegen.experiment import resolve, train
from facegen.families.ddpm import DDPM
from facegen.latents import furnish
from facegen.out_of_memory import of_drawing, of_training, out_of_memory
from facegen.types import SMALLEST_TILE

ROOT = Path(__file__).parent.parent
CARD = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.22 GiB is free."
AGAIN = "the same command again when more memory is free"
PETABYTE = 2**50  # more than any machine has an address for


def of_card(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError(CARD)


def of_torch(*_: Any, **__: Any) -> Tensor:
    return torch.empty(PETABYTE, dtype=torch.uint8)


def of_numpy(*_: Any, **__: Any) -> np.ndarray:
    return np.ones(PETABYTE, dtype=np.uint8)


def of_python(*_: Any, **__: Any) -> bytearray:
    return bytearray(2**62)


def told(fail: Callable[[], Any]) -> str:
    """The one line that `fail` ends with."""
    with pytest.raises(UserError) as caught:
        fail()
    (line,) = caught.value.lines
    assert "\n" not in line
    return line


def typed(line: str) -> list[str]:
    """The ways out that a line tells, each as it is typed."""
    return line.rpartition("; type ")[2].split(", or ")


@pytest.mark.parametrize(("fail", "amount"), [(of_card, "2.5 GiB"), (of_torch, r"1.05e\+06 GiB"), (of_numpy, "1 PiB"), (of_python, None)])
def test_every_lack_of_memory_is_told_with_what_is_set_and_what_to_type(fail: Callable[[], Any], amount: str | None) -> None:
    short = out_of_memory("doing this", lambda error: [("a is 2", "a=1"), ("b is on", "b=off")])(fail)
    asked_for = rf" \({amount} more were asked for\)" if amount else ""
    assert re.fullmatch(rf"out of memory while doing this{asked_for}: a is 2, b is on; type a=1, or b=off", told(short))


def test_where_nothing_less_can_be_typed_nothing_is_made_up() -> None:
    short = out_of_memory("doing this", lambda error: [])(of_python)
    assert told(short) == "out of memory while doing this; nothing less can be asked for: free some memory and type the same command again"


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("out of memory"), UserError("out of memory")])
def test_other_errors_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, out_of_memory("doing this", lambda error: pytest.fail("asked")):
        raise error
    assert caught.value is error


def config(batch: int = 64, accumulate: int = 1, devices: int = 1, run_dir: str = "/nowhere") -> dict[str, Any]:
    network = {"gradient_checkpointing": False, "widths": [8, 16]}
    trainer = {"accumulate": accumulate, "devices": devices, "nodes": 1}
    return {"data": {"batch_size": batch}, "trainer": trainer, "model": {"network": network}, "run_dir": run_dir, "preview": {"count": 4}}


def test_a_smaller_batch_makes_steps_of_as_many_images_and_can_be_shared_out_by_the_devices() -> None:
    for batch, accumulate, devices in ((b, a, d) for b in range(1, 41) for a in (1, 2, 3) for d in (1, 2, 3) if b % d == 0):
        ways = [way for _, way in of_training(config(batch, accumulate, devices), False, MemoryError())]
        sizes = [re.fullmatch(r"data.batch_size=(\d+) trainer.accumulate=(\d+)", way) for way in ways]
        for found in filter(None, sizes):
            less, more = map(int, found.groups())
            assert less * more == batch * accumulate
            assert less <= batch / 2
            assert less % devices == 0
        assert any(sizes) is (batch > devices)  # one image a device is the least
    assert next(way for _, way in of_training(config(64), False, MemoryError())) == "data.batch_size=32 trainer.accumulate=2"


def test_what_is_on_already_is_not_told() -> None:
    on = config()
    on["model"]["network"]["gradient_checkpointing"] = True
    assert "gradient_checkpointing" not in str([*of_training(on, False, MemoryError())])


def test_a_step_that_is_too_large_ends_a_training_with_settings_that_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DDPM, "losses", of_card)
    line = told(lambda: train(tiny(tmp_path / "run")))
    now = "data.batch_size is 4, trainer.accumulate 1, model.network.gradient_checkpointing is false, model.network.widths is [16, 16]"
    assert line.startswith(f"out of memory while training (2.5 GiB more were asked for): {now}; type ")
    batch, checkpointing, smaller = typed(line)
    assert smaller == "a smaller model/network=NAME"
    monkeypatch.undo()
    for words in (batch, checkpointing):  # in the same run, which has not begun
        assert train(tiny(tmp_path / "run", *words.split(), "trainer.max_steps=1")).steps == 1
        (tmp_path / "run" / "checkpoints" / "step-00000001.ckpt").unlink()


def test_a_run_that_has_begun_wants_another_folder_for_other_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = DDPM.losses
    monkeypatch.setattr(DDPM, "losses", lambda self, batch: of_card() if batch["position"] == 5 else losses(self, batch))
    line = told(lambda: train(tiny(tmp_path / "run")))
    *others, again = typed(line)
    assert all(way.endswith(" run_dir=NEW") for way in others)
    assert again == AGAIN
    monkeypatch.undo()
    with pytest.raises(UserError, match="was started with another configuration"):
        train(tiny(tmp_path / "run", *others[0].split()[:2]))
    assert train(tiny(tmp_path / "run")).steps == 10


def test_the_first_of_two_stages_is_told_in_the_words_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("facegen.networks.autoencoder.KLAutoencoder.forward", of_torch)
    batch, checkpointing, smaller = typed(told(lambda: train(two_stages(tmp_path / "run"))))
    assert (batch, smaller) == ("stage1.data.batch_size=2 stage1.trainer.accumulate=2", "a smaller stage1/model/network=NAME")
    first = stages.first(resolve(two_stages(tmp_path / "run", *batch.split(), checkpointing)))
    assert first is not None
    assert (first["data"]["batch_size"], first["trainer"]["accumulate"]) == (2, 2)
    assert first["model"]["network"]["gradient_checkpointing"] is True


def test_a_preview_that_is_too_large_is_told_and_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facegen.generate.in_groups", of_card)
    line = told(lambda: train(tiny(tmp_path / "run")))
    assert "asked for): preview.count is 2, the last checkpoint is good; type " in line
    assert typed(line) == ["preview.count=0", AGAIN]
    assert train(tiny(tmp_path / "run", "preview.count=0")).steps == 10


def test_an_encoder_that_is_too_large_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facegen.latents.encoded", of_card)
    model = SimpleNamespace(codec=Latents(Halves(), 8))
    stored = {"codec": model.codec.state()}

    def of(device: str) -> str:
        return told(lambda: furnish(model, None, tmp_path / "gone", stored, lambda _: None, torch.device(device), tmp_path))

    assert of("cuda").startswith("out of memory while encoding the images (2.5 GiB more were asked for): the encoder is on cuda, ")
    assert typed(of("cuda"))[0] == "trainer.accelerator=cpu until all are encoded, which is kept"
    assert not any("accelerator" in way for way in typed(of("cpu")))


@pytest.mark.parametrize("tile", [None, 16, 8])
def test_a_decoding_that_is_too_large_ends_in_a_smaller_tile(tile: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "run", codec=latents())
    with monkeypatch.context() as patch:
        patch.setattr(Halves, "decode", of_torch)
        line = told(lambda: job(run, "sheet", n=2, tile=tile, batch_size=16))
    if tile == SMALLEST_TILE:
        assert line.endswith("; nothing less can be asked for: free some memory and type the same command again")
        return
    assert f"tile is {tile or 'null'} for latents of 32x32; type " in line
    (way,) = typed(line)
    assert way == f"tile={16 if tile is None else 8}"
    assert job(run, "sheet", n=2, tile=int(way.partition("=")[2]), batch_size=16).drawn == 2


def test_a_smaller_batch_is_told_where_it_makes_fewer_images_at_once_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run")  # 8 px: the network is given 256 images at a time

    def together(batch_size: int) -> int:
        return len(next(studio(run, batch_size=batch_size).batches(range(2000), ""))[0])

    for batch_size in (1, 64, 256, 300, 512, 1500):
        with monkeypatch.context() as patch:
            patch.setattr(run.net, "forward", of_card)
            line = told(lambda size=batch_size: job(run, "sheet", n=2000, batch_size=size))
        ways = [int(way.partition("=")[2]) for way in typed(line) if way.startswith("batch_size=")]
        if ways:
            assert together(ways[0]) < together(batch_size)
        else:
            assert together(max(1, batch_size // 2)) == together(batch_size) == 256


def test_a_card_can_be_left_for_the_cpu() -> None:
    ways = [way for _, way in of_drawing(64, 16, 64, None, "cuda", MemoryError())]
    assert ways == ["batch_size=32", "tile=32", "device=cpu"]
    assert [way for _, way in of_drawing(64, 64, 0, None, "cuda", MemoryError())] == ["device=cpu"]


def test_measuring_what_is_too_much_says_what_to_lower(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("Extractors", "load_measurable"):
        monkeypatch.setattr(evaluation, name, lambda *_, **__: SimpleNamespace())
    monkeypatch.setattr(evaluation, "Loaded", SimpleNamespace)
    monkeypatch.setattr(evaluation.candidates, "unfit", lambda *_: [])
    monkeypatch.setattr(evaluation.candidates, "drawn", lambda *_: SimpleNamespace(out=tmp_path))
    monkeypatch.setattr(evaluation.candidates, "misfits", lambda *_: [])
    monkeypatch.setattr(evaluation._Job, "run", of_numpy)
    request = asked("ckpt=run", "n=3000", "device=cpu", f"cache_dir={tmp_path}")
    line = told(lambda: evaluation.evaluate_job(request, None, None, None))
    assert line == "out of memory while measuring (1 PiB more were asked for): n is 3000; type n=1500"


LIMITED = """
import resource, runpy, sys
import facegen.families.ddpm, facegen.networks.unet, facegen.training
from diffusers.models.unets.unet_2d import UNet2DModel
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 150 * 2**20,) * 2)
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_a_process_that_is_given_no_more_memory_says_what_to_type_and_ends_with_2(tmp_path: Path) -> None:
    def limited(batch: int) -> subprocess.CompletedProcess[str]:
        sizes = (f"data.batch_size={batch}", "data.resolution=32", "model.network.patch=1")
        rest = ("data.size=1024", "data.held_out=0", "trainer.max_steps=1", "preview.count=0", f"run_dir={tmp_path / 'run'}")
        command = [sys.executable, "-c", LIMITED, *TINY, *sizes, *rest]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "FACEGEN_CACHE": str(tmp_path / "cache")}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)

    done = limited(1024)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert re.match(r"error: out of memory while training \(\S+ [KMG]iB more were asked for\): data.batch_size is 1024, ", line)
    assert "type data.batch_size=512 trainer.accumulate=2, or model.network.gradient_checkpointing=true, or " in line
    assert "Traceback" not in done.stderr
    assert limited(4).returncode == 0
