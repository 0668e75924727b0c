"""Two processes train both stages of a latent model together: their weights stay the same, and the images are encoded once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_distributed import two_ranks
from test_resume import assert_same_state, final
from test_two_stages import two_stages

from facegen.families.autoencoder import Autoencoder


def test_two_ranks_train_both_stages_with_one_mind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEGEN_CACHE", str(tmp_path / "cache"))
    honest = Autoencoder._step

    def recorded(self: Autoencoder, both: bool) -> None:
        own = [float(p.grad.double().abs().sum()) for p in self.parameters() if p.grad is not None]
        honest(self, both)
        weights = [float(p.detach().double().sum()) for p in self.parameters()]
        with Path(self.trainer.default_root_dir, f"record-{self.global_rank}").open("a") as file:
            file.write(json.dumps({"own": own, "weights": weights, "both": both}) + "\n")

    monkeypatch.setattr(Autoencoder, "_step", recorded)
    for name in ("one", "other"):
        assert two_ranks(tmp_path / name, make=two_stages) == 0
    lines: list[list[dict[str, Any]]] = [
        [json.loads(line) for line in (tmp_path / "one" / "autoencoder" / f"record-{rank}").read_text().splitlines()] for rank in (0, 1)
    ]
    assert [line["weights"] for line in lines[0]] == [line["weights"] for line in lines[1]]
    assert all(a["own"] != b["own"] for a, b in zip(*lines, strict=True))  # until they step each has the gradients of its own images
    assert [line["both"] for line in lines[0]] == [False] * 4 + [True] * 6
    assert_same_state(final(tmp_path / "one" / "autoencoder"), final(tmp_path / "other" / "autoencoder"))
    assert_same_state(final(tmp_path / "one"), final(tmp_path / "other"))
    assert len(list((tmp_path / "cache").glob("latents-*/latents.bin"))) == 1


def test_gradients_of_two_ranks_become_their_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEGEN_CACHE", str(tmp_path / "cache"))
    honest = Autoencoder._bring_together

    def recorded(self: Autoencoder, optimizer: torch.optim.Optimizer) -> None:
        before, after = [], []
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        before = [float(p.grad.double().sum()) for p in parameters if p.grad is not None]
        honest(self, optimizer)
        after = [float(p.grad.double().sum()) for p in parameters if p.grad is not None]
        Path(self.trainer.default_root_dir, f"gradients-{self.global_rank}").write_text(json.dumps([before, after]))

    monkeypatch.setattr(Autoencoder, "_bring_together", recorded)
    assert two_ranks(tmp_path / "run", "stage1.trainer.max_steps=6", "trainer.max_steps=1", make=two_stages) == 0
    (mine, mean), (theirs, same) = (json.loads((tmp_path / "run" / "autoencoder" / f"gradients-{rank}").read_text()) for rank in (0, 1))
    assert mean == same
    assert mean == pytest.approx([(a + b) / 2 for a, b in zip(mine, theirs, strict=True)], rel=1e-4, abs=1e-6)
