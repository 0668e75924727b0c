"""A machine with a GPU is never refused; one without is told so before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import configure

from facegen import experiment, gpu
from facegen.cli import CONF
from facegen.errors import UserError

CUDA_BUILD = "__version__ = '2.14.1+cu130'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n"
NOTHING = "there is no GPU on this machine, neither a device nor a driver"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The /dev of a Linux machine without a GPU or a driver, with the usual torch installed."""
    (tmp_path / "dev").mkdir()
    for name in ("null", "nvme0", "nvram"):
        (tmp_path / "dev" / name).touch()
    monkeypatch.setattr(gpu, "DEV", tmp_path / "dev")
    monkeypatch.setattr(gpu, "_has_driver", lambda: False)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("CUDA_VISIBLE_DEVICES", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    torch_is(CUDA_BUILD, tmp_path, monkeypatch)
    return tmp_path / "dev"


def torch_is(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch").mkdir(exist_ok=True)
    (tmp_path / "torch" / "version.py").write_text(text)
    spec = type("Spec", (), {"origin": str(tmp_path / "torch" / "__init__.py")})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)


def test_a_machine_with_neither_a_device_nor_a_driver_has_no_gpu(machine: Path) -> None:
    assert gpu.no_gpu() == NOTHING


@pytest.mark.parametrize("node", ["nvidia0", "nvidiactl", "nvidia-caps", "nvhost-gpu", "nvgpu", "nvmap", "kfd", "dxg"])
def test_a_device_is_left_to_torch(machine: Path, node: str) -> None:
    (machine / node).touch()
    assert gpu.no_gpu() is None


def test_a_driver_whose_devices_appear_at_first_use_is_left_to_torch(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_has_driver", lambda: True)
    assert gpu.no_gpu() is None


@pytest.mark.parametrize("version", ["2.4.0+metax2.29", "2.9.0a0+git1234", "2.1.1+corex.4.1"])
def test_an_unknown_build_of_torch_is_left_to_torch(machine: Path, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_is(CUDA_BUILD.replace("2.14.1+cu130", version), tmp_path, monkeypatch)
    assert gpu.no_gpu() is None
    torch_is("", tmp_path, monkeypatch)
    assert gpu.no_gpu() is None


def test_preloaded_libraries_and_other_systems_are_left_to_torch(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", "libremote.so")
        assert gpu.no_gpu() is None
    monkeypatch.setattr(sys, "platform", "win32")
    assert gpu.no_gpu() is None


def test_a_torch_built_for_cpus_has_no_gpu(machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "nvidia0").touch()
    torch_is("__version__ = '2.14.1+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n", tmp_path, monkeypatch)
    assert gpu.no_gpu() == "torch 2.14.1+cpu is built for CPUs only"


def test_hidden_devices_are_no_gpu(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "nvidia0").touch()
    for value, hides in (("", True), ("-1", True), ("0", False), ("GPU-8932f937", False)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert gpu.no_gpu() == (f"CUDA_VISIBLE_DEVICES={value} hides every GPU" if hides else None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (machine / "kfd").touch()
    assert gpu.no_gpu() is None


def test_what_is_said_of_this_machine_is_what_torch_says() -> None:
    assert gpu.no_gpu() is None or not torch.cuda.is_available()


def test_a_missing_gpu_is_told_before_the_run_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "no_gpu", lambda: NOTHING)
    with pytest.raises(UserError) as error:
        experiment.train(configure("train", "trainer=gpu", f"run_dir={tmp_path / 'run'}"))
    assert str(error.value) == f"trainer.accelerator=gpu: {NOTHING}; type trainer=cpu"
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(gpu.no_gpu() is None, reason="torch has to be asked on this machine")
def test_a_missing_gpu_is_told_without_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    (tmp_path / "version.py").write_text(Path(torch.__file__).with_name("version.py").read_text())
    command = [sys.executable, str(CONF.parent / "train.py"), "trainer=gpu", "run_dir=run"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert "trainer.accelerator=gpu: " in told.stderr
