"""What a checkpoint says, and what is refused of one: damage, code, URLs, foreign classes."""

from __future__ import annotations

import pickle
import random
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import checkpoint, equal, message

from facegen.checkpoint import Header, check_targets, header, latest, latest_valid, read, step_name, steps, write
from facegen.errors import UserError


def test_every_flipped_bit_is_detected_or_harmless(tmp_path: Path) -> None:
    path, rng = tmp_path / "step-00000001.ckpt", random.Random(0)
    good = checkpoint(5, 200)
    write(good, path)
    data, detected = path.read_bytes(), 0
    for bit in rng.sample(range(len(data) * 8), 1500):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            assert equal(read(path), good), f"bit {bit} changed what was read"
        except UserError:
            detected += 1
    assert detected > 300


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "step-00000002.ckpt"
    write(checkpoint(1), tmp_path / "step-00000001.ckpt")
    write(checkpoint(2), path)
    data = path.read_bytes()
    for length in [0, 1, 100, len(data) // 2, len(data) - 30, len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(UserError) as error:
            read(path)
        assert str(path) in message(error)
        assert "step-00000001.ckpt" in message(error), "the way out is not named"


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("form", ["pickle", "legacy", "zip"])
def test_pickled_code_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    path, marker = tmp_path / "a.ckpt", tmp_path / "marker"
    content = checkpoint() | {"bomb": Bomb(marker)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError) as error:
        read(path)
    assert str(path) in message(error)
    assert not marker.exists()
    torch.load(path, weights_only=False) if form != "pickle" else pickle.loads(path.read_bytes())
    assert marker.exists(), "the bomb is a dud: the test proved nothing"


@pytest.mark.parametrize(
    "url", ["https://example.org/a.ckpt", "hf://model/a.ckpt", "hf:model", "s3:bucket/a", Path("https://example.org/a")]
)
def test_urls_are_refused(url: str | Path) -> None:
    with pytest.raises(UserError) as error:
        read(url)
    assert "only local files" in message(error)


def test_an_empty_path_is_no_folder() -> None:
    with pytest.raises(UserError, match=r"^ckpt is required; type ckpt=RUN_OR_FILE$"):
        latest("")


def test_a_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    write(checkpoint(), tmp_path / "faces" / "checkpoints" / step_name(1000))
    with pytest.raises(UserError) as error:
        read(tmp_path / "facse" / "checkpoints" / step_name(1000))
    assert "did you mean 'faces'?" in message(error)
    with pytest.raises(UserError) as error:
        read(tmp_path / "faces" / "checkpoints" / "step-1000.ckpt")
    assert f"did you mean '{step_name(1000)}'?" in message(error)


def test_a_run_directory_means_its_newest_step_by_number(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train first"):
        latest(tmp_path)
    for step in (999_999_999, 100_000_000, 2):
        write(checkpoint(), tmp_path / "checkpoints" / step_name(step))
    write(checkpoint(), tmp_path / "checkpoints" / "step-x.ckpt")
    write(checkpoint(), tmp_path / "checkpoints" / step_name(1_000_000_000))
    newest = tmp_path / "checkpoints" / "step-1000000000.ckpt"
    assert latest(tmp_path) == latest(tmp_path / "checkpoints") == latest(newest) == newest
    assert len(steps(tmp_path)) == 4


def test_damaged_steps_are_passed_over_and_said_so(tmp_path: Path) -> None:
    said: list[str] = []
    assert latest_valid(tmp_path, said.append) is None
    first, second = (tmp_path / "checkpoints" / step_name(step) for step in (1, 2))
    write(checkpoint(1), first)
    write(checkpoint(2), second)
    assert latest_valid(tmp_path, said.append) == second
    assert not said
    second.write_bytes(second.read_bytes()[:-1])
    assert latest_valid(tmp_path, said.append) == first
    assert len(said) == 1
    assert str(second) in said[0]
    first.write_bytes(b"")
    with pytest.raises(UserError, match="run_dir=NEW"):
        latest_valid(tmp_path, said.append)


def test_header_comes_back_and_foreign_ones_are_refused() -> None:
    good = checkpoint()
    assert header(good, "a.ckpt", "ddpm") == Header("ddpm", {"model": {"widths": [32, 64]}}, {"resolution": 32})
    with pytest.raises(UserError, match=r"a.ckpt is a checkpoint of model=ddpm; give one of model=ldm"):
        header(good, "a.ckpt", "ldm")
    with pytest.raises(UserError, match="schema 2"):
        header({"facegen": good["facegen"] | {"schema": 2}}, "a.ckpt")
    for bad in [{}, {"facegen": None}, {"facegen": {}}, {"facegen": good["facegen"] | {"config": "{"}}]:
        with pytest.raises(UserError, match="not a facegen checkpoint"):
            header(bad, "a.ckpt")
    with pytest.raises(UserError, match="not a facegen checkpoint"):
        header({"facegen": good["facegen"] | {"config": "[" * 100_000}}, "a.ckpt")


ALLOWED = frozenset({"facegen.networks.unet.UNet", "facegen.diffusion.schedule.Cosine"})


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"_target_": "facegen_foreign.touch", "path": "x"}, ["facegen_foreign.touch", "_target_"]),
        ({"_target_": "facegen.networks.unet"}, ["facegen.networks.unet"]),
        ({"_target_": "facegen.networks.unet.UNet.__init__"}, ["UNet.__init__"]),
        ({"_target_": " facegen.networks.unet.UNet"}, []),
        ({"_target_": ["facegen.networks.unet.UNet"]}, []),
        ({"_target": "facegen_foreign.touch"}, ["did you mean '_target_'?"]),
        ({"_target_:": "facegen_foreign.touch"}, ["did you mean '_target_'?"]),
        ({"target_": "facegen_foreign.touch"}, ["did you mean '_target_'?"]),
        ({"_target_": "facegen.networks.unet.UNet", "_args_": [1]}, ["_args_"]),
        ({"_target_": "facegen.networks.unet.UNet", "_partial_": "yes"}, ["_partial_"]),
        ({"_target_": "facegen.networks.unet.UNet", "width": "${oc.env:HOME}"}, ["width", "interpolation"]),
        ({"width": object()}, ["width"]),
        ({1: 2}, []),
    ],
)
def test_foreign_targets_are_refused_however_deep_and_nothing_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: dict, named: list[str]
) -> None:
    (tmp_path / "facegen_foreign.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')\ndef touch(path): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    with pytest.raises(UserError) as error:
        check_targets({"model": {"blocks": [{"_target_": "facegen.diffusion.schedule.Cosine"}, [1, {"inner": bad}]]}}, ALLOWED)
    assert all(name in message(error) for name in ["model.blocks[1][1].inner.", *named])
    assert set(sys.modules) == before
    assert not (tmp_path / "marker").exists()


def test_a_config_with_allowed_targets_passes() -> None:
    unet = {"_target_": "facegen.networks.unet.UNet", "_partial_": True, "_convert_": "all", "widths": [32, 64], "target": None}
    check_targets({"model": {"network": unet, "rate": 1e-4, "name": "a$b {c}"}, "steps": 10, "on": False}, ALLOWED)
