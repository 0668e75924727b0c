"""What a user does wrong is one line on stderr, exit code 2, no traceback, and costs nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from runs import configure

from facegen.cli import spelled_for_hydra

ROOT = Path(__file__).parent.parent


def run(script: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / script), *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


def errors(script: str, *arguments: str, cwd: Path = ROOT) -> list[str]:
    done = run(script, *arguments, cwd=cwd)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]


WRONG = [
    ("modle=ddpm", r"modle is not a setting of train.py \(did you mean 'model'\?\)"),
    (
        "model=dpdm",
        r"model=dpdm does not exist \(did you mean 'ddpm'\?\); allowed: autoencoder, class_conditional, ddpm, instruct_pix2pix, ldm",
    ),
    ("data=celeba46", r"data=celeba46 does not exist \(did you mean 'celeba64'\?\)"),
    ("model/network=unet_4", r"model/network=unet_4 does not exist \(did you mean 'unet_4m'\?\)"),
    ("experiment=dem", r"experiment=dem does not exist \(did you mean 'demo'\?\)"),
    ("trainer.max_step=5", r"trainer.max_step is not an option of TrainerOptions \(did you mean 'max_steps'\?\)"),
    ("trainer.max_steps=many", r"trainer.max_steps must be an integer.*got 'many'"),
    ("trainer.max_steps=0", r"trainer.max_steps must be greater than 0; got 0"),
    ("optimizer.lr=-1", r"optimizer.lr must be greater than 0; got -1"),
    ("model.loss=hubr", r"model.loss must be one of mse, l1, huber; got 'hubr' \(did you mean 'huber'\?\)"),
    ("sampler.steps=0", r"sampler.steps must be greater than 0; got 0"),
    ("data.resolution=30", r"data.resolution must be divisible by 8.*type data.resolution=24 or data.resolution=32"),
    ("model.network.groups=7", r"model.network.groups must divide each of model.network.widths"),
    ("model.network.head_dim=60", r"model.network.head_dim must divide the widths with attention"),
    ("model.network.attention=[5]", r"model.network.attention must name one or more of the feature-map sizes"),
    ("seed=-1", r"seed must be greater than or equal to 0; got -1"),
    ("model={", r"the command line cannot be read"),
    ("trainner.max_steps=5", r"trainner is not a setting \(did you mean 'trainer'\?\)"),
    ("model.seeds=3", r"model.seeds is not an option of DDPM \(did you mean 'seed'\?\)"),
    ("model=null", r"model=null names no option of the group; type GROUP=NAME"),
    ("ema=null", r"ema must not be null; leave it out, or type ema.KEY=VALUE"),
    ("optimizer.lr=inf", r"optimizer.lr must be a finite number; got inf"),
    ("optimizer.lr=nan", r"optimizer.lr must be a finite number; got nan"),
    ("model.network=unet_4m", r"model.network is not a value but a group: type model/network=NAME; got 'unet_4m'"),
    ("model.network=null", r"model.network is not a value but a group: type model/network=NAME; got null"),
    ("model/network=", r"model/network= does not exist; allowed: convnext_4m"),
    ("data=5", r"data=5 names no option of the group"),
    ("unet_1m", r"'unet_1m' is no setting; type KEY=VALUE"),
    ("trainer.threads=100000", r"trainer.threads must be less than or equal to 4096; got 100000"),
    ("trainer.devices=3", r"data.batch_size must be a multiple of the 3 devices that share it; got 64; type data.batch_size=66"),
    ("optimizer.lr=${seeed}", r"optimizer.lr takes over \$\{seeed\}, which is not a setting"),
    ("trainer.max_time=soon", r"trainer.max_time must be a time above 0 such as 90, 8m"),
    ("model.network.injection=channels", r"model.network.injection=channels is of models that are told something; type model=class_cond"),
]


@pytest.mark.parametrize(("argument", "message"), WRONG, ids=[argument for argument, _ in WRONG])
def test_a_mistake_is_one_line_that_says_what_is_allowed(argument: str, message: str, tmp_path: Path) -> None:
    lines = errors("train.py", argument, f"run_dir={tmp_path / 'run'}")
    assert len(lines) == 1
    assert re.search(message, lines[0])
    assert not (tmp_path / "run").exists()


def test_all_mistakes_are_told_at_once() -> None:
    lines = errors("train.py", "trainer.max_step=5", "data.batch_size=-3", "model.loss=hubr", "optimizer.lr=fast")
    assert len(lines) == 4


def test_steps_beyond_the_schedule_are_refused_before_training(tmp_path: Path) -> None:
    lines = errors("train.py", "scheduler=linear", "scheduler.steps=20", "sampler=ddim", "sampler.steps=50", f"run_dir={tmp_path}")
    assert lines == ["sampler.steps must be at most scheduler.steps=20; got 50; type sampler.steps=20"]


@pytest.mark.parametrize(
    ("arguments", "got"),
    [
        (("-m", "trainer=ddp", "seed=0,1"), "trainer=ddp"),
        (("-m", "trainer=cpu,ddp"), "trainer=cpu,ddp"),
        (("trainer.devices=1,2", "--multirun"), "trainer.devices=1,2"),
        (("hydra.mode=MULTIRUN", "trainer=ddp"), "trainer.devices=2 trainer.nodes=1 trainer.strategy=ddp"),
    ],
)
def test_a_sweep_on_several_devices_is_refused_before_its_first_job(arguments: tuple[str, ...], got: str, tmp_path: Path) -> None:
    lines = errors("train.py", *arguments, f"run_dir={tmp_path / 'run'}", cwd=tmp_path)
    way_out = "type trainer.devices=1 (trainer=cpu, trainer=gpu), or start each job without -m"
    assert lines == [f"-m runs each job on one device for now; got {got}; {way_out}"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "ckpt is required; type ckpt=..."),
        (("ckpt=nowhere",), "no file 'nowhere'"),
        (("ckpt=https://example.org/x.ckpt",), "is a URL: only local files are read"),
        (("ckpt=x", "n=0", "seed=-1"), "n must be greater than 0; got 0"),
        (("ckpt=x", "figure=denois"), "(did you mean 'denoise'?)"),
        (("ckpt=x", "sampler=dim"), "sampler=dim does not exist (did you mean 'ddim'?)"),
        (("ckpt=x", "sampler=ddim", "sampler.steps=0"), "sampler.steps must be greater than 0; got 0"),
        (("ckpt=x", "guidance=1e300"), "guidance must be less than or equal to 1000; got 1e+300"),
        (("ckpt=x", "guidance=2", "guidance_interval=[3,1]"), "guidance_interval must be two noise levels, the lower first"),
        (("ckpt=x", "condition={A:0.5,", "B:0.5}"), "type 'condition={A:0.5,B:0.5}'"),
    ],
)
def test_sampling_mistakes_are_told_the_same_way(arguments: tuple[str, ...], message: str) -> None:
    assert message in "\n".join(errors("sample.py", *arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "ckpt is required; type ckpt=RUN_OR_FILE, or fake=FOLDER real=FOLDER to compare folders"),
        (("ckpt=nowhere", "metrics=[fid,is]"), "ckpt=nowhere: no file 'nowhere'"),
        (("ckpt=[a,b]", "metrics=[fid"), "the command line cannot be read"),
        (("ckpt=x", "metrics=fidd"), "metrics: fidd is not a metric (did you mean 'fid'?); allowed: fid, is, kid"),
        (("ckpt=x", "metric=[fid]"), "metric is not a setting of evaluate.py (did you mean 'metrics'?)"),
        (("fake=nowhere", "real=nowhere", "metrics=[psnr]"), "fake=nowhere is no folder"),
    ],
)
def test_evaluation_mistakes_are_told_the_same_way(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert message in "\n".join(errors("evaluate.py", *arguments, cwd=tmp_path))


def test_several_checkpoints_are_a_list_whatever_their_names_hold(tmp_path: Path) -> None:
    odd, comma = tmp_path / "a = [b]", tmp_path / "it's (c)"
    line = spelled_for_hydra(f"ckpt=[{odd},{comma}]", sweep=False, script="evaluate")
    assert list(configure("evaluate", line).ckpt) == [str(odd), str(comma)]
    (tmp_path / "[x,y]").mkdir()
    assert configure("evaluate", f"ckpt={tmp_path}/[x,y]").ckpt == f"{tmp_path}/[x,y]"


ODD_PATHS = [
    "[x]",
    "[x",
    "{a:b}",
    "{a",
    "a=b",
    "a b",
    " a",
    "it's",
    "'x",
    '"',
    "näme 顔",
    "(a)",
    "a:b",
    "\\back\\",
    "\\'",
    "a\nb",
    "~",
    "1e3",
    "true",
]


def as_hydra_reads(value: str, sweep: bool, key: str = "run_dir") -> list[object]:
    """What each job is given for `key`."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    typed = parser.parse_overrides([spelled_for_hydra(f"{key}={value}", sweep)])
    jobs = BasicSweeper.split_arguments(typed, None)[0] if sweep else [[typed[0].input_line]]
    return [parser.parse_override(str(job)).value() for (job,) in jobs]


@pytest.mark.parametrize("path", [*ODD_PATHS, "a, b"])
@pytest.mark.parametrize("key", ["run_dir", "out", "ckpt", "data.root", "++data.cache_dir"])
def test_a_path_may_hold_any_character(path: str, key: str) -> None:
    assert as_hydra_reads(path, sweep=False, key=key) == [path]


@pytest.mark.parametrize(
    ("typed", "paths"),
    [
        *((path, [path.strip()]) for path in ODD_PATHS),
        ("a,b", ["a", "b"]),
        ("[x],it's, {a:b}", ["[x]", "it's", "{a:b}"]),
        ("'a,b',c", ["a,b", "c"]),
        ("choice(a,b)", ["a", "b"]),
        ("null,a", [None, "a"]),
    ],
)
def test_commas_in_a_path_sweep_in_a_multirun(typed: str, paths: list[str]) -> None:
    assert as_hydra_reads(typed, sweep=True) == paths


def test_a_path_that_is_not_there_is_named_as_it_was_typed(tmp_path: Path) -> None:
    (line,) = errors("sample.py", f"ckpt={tmp_path}/it's a = (strange), näme/run")
    assert "it's a = (strange), näme" in line
    (line,) = errors("sample.py", "ckpt=[x]", cwd=tmp_path)
    assert line.startswith("ckpt=[x]: no file '[x]'")
    (line,) = errors("train.py", "data=folder", "data.root=[x]", f"run_dir={tmp_path / 'run'}")
    assert line.startswith("data.root=[x] is no folder")


def test_a_multirun_may_be_asked_for_anywhere_on_the_line(tmp_path: Path) -> None:
    (line,) = errors("train.py", f"run_dir={tmp_path}/a,{tmp_path}/b", "-m", "seed=-1")
    assert line == "seed must be greater than or equal to 0; got -1"


@pytest.mark.parametrize("data", ["celeba64", "ffhq128", "ffhq_aging", "utkface64", "folder"])
@pytest.mark.parametrize("given", [(), ("data.root=nowhere",)])
def test_missing_data_is_told_before_anything_is_built(data: str, given: tuple[str, ...], tmp_path: Path) -> None:
    lines = errors("train.py", f"data={data}", f"run_dir={tmp_path / 'run'}", *given)
    assert len(lines) == 1
    assert "data.root" in lines[0]
    assert "type data.root=FOLDER" in lines[0]


@pytest.mark.parametrize("arguments", [("data=celeba64",), ("data=folder", "data.crop=round"), ("seed=-1",), ("modle=ddpm",)])
def test_a_mistake_of_the_command_line_is_told_without_importing_torch(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-X", "importtime", "train.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "| hydra\n" in done.stderr
    assert not re.search(r"\| +(torch|lightning|diffusers)\n", done.stderr)


def test_help_lists_every_group_and_the_options_of_what_is_chosen() -> None:
    command = [sys.executable, "-X", "importtime", "train.py", "data=celeba64", "model/network=unet_1m", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = re.sub(r"\n {10,}", " ", done.stdout).splitlines()  # long lists go on in the next line
    for group in ("model", "data", "scheduler", "sampler", "optimizer", "trainer", "logger", "experiment", "model/network"):
        (line,) = [line for line in lines if line.startswith(f"  {group} ") and "=" not in line]
        assert all(path.stem in line for path in (ROOT / "conf" / group).glob("*.yaml"))
    assert "celeba64*" in done.stdout
    assert "crop=center148" in done.stdout
    assert "widths=[48,96]" in done.stdout
    assert not re.search(r"\| +(torch|hydra|lightning)\n", done.stderr)


@pytest.mark.parametrize("script", ["train.py", "sample.py", "evaluate.py"])
def test_what_help_names_can_be_typed(script: str) -> None:
    done = subprocess.run([sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    settings = re.findall(r"^  (\w+)=", done.stdout, re.MULTILINE)
    composed = configure(script[:-3], *(["ckpt=RUN"] if script == "sample.py" else []))
    assert settings
    assert set(settings) <= set(composed)


def test_debugging_shows_the_traceback() -> None:
    import os

    done = subprocess.run(
        [sys.executable, "train.py", "seed=-1"], cwd=ROOT, capture_output=True, text=True, env={**os.environ, "FACEGEN_DEBUG": "1"}
    )
    assert "Traceback" in done.stderr
    assert done.returncode != 0
