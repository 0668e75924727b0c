from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from facegen.callbacks.checkpoints import DurableCheckpointIO, KeepCheckpoints
from facegen.callbacks.preempt import Preempt, Preempted
from facegen.checkpoint import read
from facegen.errors import UserError
from facegen.seeding import torch_generator

BATCHES = 10


class Tiny(LightningModule):
    """Gradients depend on the number of batches seen, so that a lost or repeated one changes the weights."""

    def __init__(self, losses: dict[int, float] | None = None, kill: dict[int, int] | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(8))
        self.register_buffer("batches", torch.tensor(0))
        self.losses = losses or {}
        self.kill = kill or {}

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.batches += 1
        if signum := self.kill.get(int(self.batches)):
            os.kill(os.getpid(), signum)
        target = torch.randn(8, generator=torch_generator("tiny", int(self.batches)))
        return (self.weight - target).square().sum()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val/loss", self.losses.get(self.trainer.global_step, 9.0))

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Marks(Callback):
    """State of another callback, to see whether it is saved after its share of a step is done."""

    seen = 0

    def on_train_batch_end(self, *_: object) -> None:
        self.seen += 1

    def state_dict(self) -> dict[str, int]:
        return {"seen": self.seen}


def fit(
    run: Path,
    every: int,
    keep: int = 2,
    module: Tiny | None = None,
    others: tuple[Callback, ...] = (),
    resume: Path | None = None,
    **settings: Any,
) -> Tiny:
    module = module or Tiny()
    keeper = KeepCheckpoints(run_dir=str(run), every=every, keep=keep)
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=run,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[DurableCheckpointIO()],
        callbacks=[keeper, Preempt(keeper), *others],
        **({"limit_val_batches": 0} | settings),
    )
    batches = torch.utils.data.DataLoader(torch.zeros(BATCHES, 1))
    trainer.fit(module, batches, batches, ckpt_path=resume)
    return module


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def step(run: Path, number: int) -> Path:
    return run / "checkpoints" / f"step-{number:08d}.ckpt"


def test_the_last_two_and_the_end_are_kept(tmp_path: Path) -> None:
    fit(tmp_path, every=3, max_steps=14)
    assert names(tmp_path) == ["step-00000012.ckpt", "step-00000014.ckpt"]
    assert read(step(tmp_path, 12))["global_step"] == 12


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_are_kept_as_asked(tmp_path: Path, keep: int) -> None:
    fit(tmp_path, every=2, keep=keep, max_epochs=2)
    assert names(tmp_path) == [f"step-{number:08d}.ckpt" for number in (16, 18, 20)[-keep:]]


def test_an_older_step_is_removed_only_after_the_new_one_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = DurableCheckpointIO.save_checkpoint

    def full(self: DurableCheckpointIO, checkpoint: dict, path: Path, storage_options: object = None) -> None:
        if checkpoint["global_step"] == 3:
            raise UserError("disk nearly full")
        real(self, checkpoint, path, storage_options)

    monkeypatch.setattr(DurableCheckpointIO, "save_checkpoint", full)
    with pytest.raises(UserError, match="disk nearly full"):
        fit(tmp_path, every=1, keep=1, max_steps=5)
    assert names(tmp_path) == ["step-00000002.ckpt"]


def test_the_best_is_kept_with_its_own_weights(tmp_path: Path) -> None:
    losses = {4: 5.0, 8: 1.0, 12: 3.0, 16: float("nan"), 20: 2.0}
    settings = {"val_check_interval": 4, "check_val_every_n_epoch": None, "limit_val_batches": 1}
    fit(tmp_path, every=5, module=Tiny(losses), max_steps=20, **settings)
    assert names(tmp_path) == ["best.ckpt", "step-00000015.ckpt", "step-00000020.ckpt"]
    best = read(tmp_path / "checkpoints" / "best.ckpt")
    assert best["global_step"] == best["state_dict"]["batches"] == 8
    record = {"metric": "val/loss", "value": 1.0, "step": 8}
    assert read(step(tmp_path, 20))["callbacks"]["KeepCheckpoints"]["best"] == record
    fit(tmp_path, every=5, module=Tiny({24: 1.5}), resume=step(tmp_path, 20), max_steps=24, **settings)
    assert read(tmp_path / "checkpoints" / "best.ckpt")["global_step"] == 8


@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("at", [2, 4, 5, 7, 10])
def test_a_run_continued_from_any_step_ends_bit_identical(tmp_path: Path, accumulate: int, at: int) -> None:
    settings = {"accumulate_grad_batches": accumulate, "val_check_interval": 5, "limit_val_batches": 1, "num_sanity_val_steps": 0}
    whole = fit(tmp_path / "whole", every=100, max_steps=13, **settings)
    fit(tmp_path / "parts", every=at, max_steps=at, **settings)
    parts = fit(tmp_path / "parts", every=100, resume=step(tmp_path / "parts", at), max_steps=13, **settings)
    assert torch.equal(parts.weight, whole.weight)
    a, b = (read(step(tmp_path / name, 13)) for name in ("whole", "parts"))
    torch.testing.assert_close(a["optimizer_states"][0]["state"], b["optimizer_states"][0]["state"], rtol=0, atol=0)
    assert a["lr_schedulers"] == b["lr_schedulers"]
    assert a["epoch"] == b["epoch"]


def test_accumulated_gradients_are_never_cut(tmp_path: Path) -> None:
    # ten batches an epoch, four to a step: Lightning steps after batches 4, 8, 10, 14, ...
    fit(tmp_path, every=1, keep=99, accumulate_grad_batches=4, max_steps=5)
    batches = [int(read(step(tmp_path, number))["state_dict"]["batches"]) for number in range(1, 6)]
    assert batches == [4, 8, 10, 14, 18]


class StopAt(Callback):
    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_end(self, trainer: Trainer, pl_module: Tiny, *_: object) -> None:
        if pl_module.batches == self.batch:
            trainer.should_stop = True


def test_a_stop_in_the_midst_of_accumulating_waits_for_the_step_and_is_saved(tmp_path: Path) -> None:
    module = fit(tmp_path, every=100, others=(StopAt(5),), accumulate_grad_batches=4, max_steps=50)
    assert module.batches == 8
    assert names(tmp_path) == ["step-00000002.ckpt"]


def test_the_end_by_time_is_saved(tmp_path: Path) -> None:
    fit(tmp_path, every=10**6, max_epochs=10**6, max_time=timedelta(seconds=0.2))
    (name,) = names(tmp_path)
    assert read(tmp_path / "checkpoints" / name)["state_dict"]["batches"] == int(name[5:13])


def test_what_other_callbacks_made_of_the_step_is_in_its_checkpoint(tmp_path: Path) -> None:
    fit(tmp_path, every=4, others=(Marks(),), max_steps=4)
    assert read(step(tmp_path, 4))["callbacks"]["Marks"]["seen"] == 4


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_at_the_next_step_with_everything_saved(tmp_path: Path, signum: int) -> None:
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    settings = {"accumulate_grad_batches": 2, "max_steps": 9}
    whole = fit(tmp_path / "whole", every=100, **settings)
    module = Tiny(kill={5: signum})
    with pytest.raises(Preempted) as stopped:
        fit(tmp_path / "parts", every=100, module=module, **settings)
    assert module.batches == 6
    assert stopped.value.checkpoint == step(tmp_path / "parts", 3)
    assert stopped.value.exit_code == 128 + signum
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == before
    parts = fit(tmp_path / "parts", every=100, resume=stopped.value.checkpoint, **settings)
    assert torch.equal(parts.weight, whole.weight)
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_signal_before_the_first_batch_is_not_lost(tmp_path: Path) -> None:
    class Loading(Tiny):
        def on_train_start(self) -> None:
            self.trainer._signal_connector._sigterm_notifier_fn(signal.SIGTERM, None)

    with pytest.raises(Preempted) as stopped:
        fit(tmp_path, every=100, module=Loading(), max_steps=9)
    assert stopped.value.checkpoint == step(tmp_path, 1)


def test_a_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    module = Tiny(kill={1: signal.SIGINT, 2: signal.SIGINT})
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what it puts behind with SIGINT ignored
    try:
        with pytest.raises(SystemExit):
            fit(tmp_path, every=100, module=module, accumulate_grad_batches=4, max_steps=9)
    finally:
        signal.signal(signal.SIGINT, before)
    assert module.batches == 2
    assert not (tmp_path / "checkpoints").exists()
