"""From a configuration to a run: with the entry scripts the only place that sees Hydra.

`resolve` checks everything that can be checked without torch; `train` and `sample` import what they need after that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from facegen import edits, pretrained, sample_request, schema, stages
from facegen.cli import CONF, one_device_a_job
from facegen.conflicts import conflicts
from facegen.editing import request as edit_request
from facegen.errors import UserError
from facegen.gpu import no_gpu
from facegen.ranks import is_first

if TYPE_CHECKING:
    from facegen.evaluation import EvaluationResult
    from facegen.loading import Loaded, LoadedProbe
    from facegen.rundir import RunDir
    from facegen.sampling import SampleResult
    from facegen.training import TrainResult

GROUPS = ("model", "data", "scheduler", "sampler", "optimizer", "trainer", "logger", "ema", "preview", "monitor", "checkpoint")
# What may differ when a run continues: it changes how far or where, not what is computed.
_FREE = (
    "run_dir",
    "logger",
    "preview",
    "monitor",
    "checkpoint",
    "sampler",
    "model.autoencoder",  # it is known by its weights
    "model.pretrained",  # so is it
    "data.root",
    "data.cache_dir",
    "data.num_workers",
    *(f"trainer.{key}" for key in ("max_steps", "max_epochs", "max_time", "devices", "nodes", "strategy", "accelerator")),
    *(f"trainer.{key}" for key in ("log_every", "validate_every", "validate_batches", "threads", "compile")),
)
FREE = (*_FREE, *(f"stage1.{key}" for key in _FREE))


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """The whole configuration as plain containers, with every default filled in.

    Raises UserError with one line for each problem.
    """
    config = _plain(cfg)
    config["run_dir"] = config.get("run_dir") or _default_run_dir()
    problems = schema.unknown(config, (*GROUPS, "stage1", "seed", "run_dir"))
    problems += [_unchosen(group) for group in GROUPS if config.get(group) is None]
    if not problems and not (problems := _of_data(config)):
        config = pretrained.settled(stages.settled(edits.settled(config)))
        problems = _problems(config)
    if (first := stages.first(config)) and not problems:
        problems = _of_first(first, config)
    echoed = _interpolated(cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False)))
    echoes = tuple(f"{path}{end}" for path in echoed for end in (" ", "."))
    problems = [line for line in dict.fromkeys(problems) if not line.startswith(echoes)]  # told where the value was given
    if not problems:
        problems = [*_sweep_on_several(config), *conflicts(config)]
    if problems:
        raise UserError(*problems)
    return config


def _of_first(first: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """The problems of the first of two stages, in the words of the command."""
    problems = schema.unknown(config["stage1"], GROUPS)
    problems += [_unchosen(group) for group in GROUPS if first.get(group) is None]
    if problems:
        return [f"stage1.{line}" for line in problems]
    found = _problems(first) or ([] if stages.has_begun(config) else conflicts(first))
    return [stages.in_stage1(line, config["stage1"]) for line in found]


def _of_data(config: dict[str, Any]) -> list[str]:
    """The problems of what a model in latents is settled by: nothing else can be said of it before these are mended."""
    groups = ("data", "scheduler") if stages.is_latent(config) else ()
    return [line for group in groups for line in schema.check_value(config, group, Any, group)]


def _problems(config: dict[str, Any]) -> list[str]:
    """The problems of each part of a configuration by itself."""
    problems = [line for group in GROUPS if config.get(group) is not None for line in schema.check_value(config, group, Any, group)]
    problems += schema.check_value(config, "seed", schema.types.NonNegativeInt, "seed")
    problems += schema.check_value(config, "run_dir", str | None, "run_dir")
    return problems


def _plain(cfg: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))


def _unchosen(group: str) -> str:
    way_out = f"type {group}=NAME" if (CONF / group).is_dir() else f"leave it out, or type {group}.KEY=VALUE"
    return f"{group} must not be null; {way_out}"


def _sweep_on_several(config: dict[str, Any]) -> Iterator[str]:
    devices, nodes, strategy = (config["trainer"][key] for key in ("devices", "nodes", "strategy"))
    if _is_multirun() and (devices * nodes > 1 or strategy == "ddp"):
        yield one_device_a_job(f"trainer.devices={devices} trainer.nodes={nodes} trainer.strategy={strategy}")


def _interpolated(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The paths of what is taken over from elsewhere in the configuration."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _interpolated(value, f"{prefix}{key}.")
        elif isinstance(value, str) and value.startswith("${"):
            yield f"{prefix}{key}"


def _is_multirun() -> bool:
    mode = HydraConfig.get().mode if HydraConfig.initialized() else None
    return mode is not None and mode.name == "MULTIRUN"


def _default_run_dir() -> str:
    if not HydraConfig.initialized():
        return "runs/default"
    hydra = HydraConfig.get()
    if _is_multirun():
        return str(Path(hydra.sweep.dir, hydra.sweep.subdir))
    choices = hydra.runtime.choices
    return str(Path("runs", choices.get("experiment") or f"{choices['model']}-{choices['data']}"))


def train(cfg: DictConfig) -> TrainResult:
    """Trains, or continues, the run that `cfg` describes."""
    config = resolve(cfg)
    if config["trainer"]["accelerator"] == "gpu" and (reason := no_gpu()):  # not in resolve: what is wrong is the machine
        raise UserError(f"trainer.accelerator=gpu: {reason}; type trainer=cpu")
    with _opened(config) as run:
        from facegen.training import FIRST_STAGE, fit

        first = stages.first(config)
        if first is None:
            return fit(config, run, build)
        if not stages.has_begun(config):  # a run that has begun its second stage carries what the first has made
            try:
                with _opened(first) as before:
                    result = fit(first, before, build, stage=FIRST_STAGE)
            except UserError as error:
                raise UserError(*(stages.in_stage1(line, config["stage1"]) for line in error.lines)) from error
            if result.exit_code:
                return result
        return fit(config, run, build, stage="stage 2 of 2")


@contextmanager
def _opened(config: dict[str, Any]) -> Iterator[RunDir]:
    """The directory of a run, which the first process of a job holds for all of them."""
    from facegen.rundir import RunDir, open_run

    if not is_first():
        yield RunDir(config["run_dir"])
        return
    with open_run(config["run_dir"], config, FREE) as run:
        yield run


def load(ckpt: str, ema: str | None = None) -> Loaded:
    """The model of a checkpoint or run directory, with averaged weights (half-life `ema`, the first by default), ready to draw."""
    from facegen.loading import load as load_with

    return load_with(ckpt, build, ema)


def load_probe(ckpt: str, ema: str | None = None) -> LoadedProbe:
    """The probe of a checkpoint, or the best of a run directory, with averaged weights (half-life `ema`, the first by default)."""
    from facegen.loading import load_probe as load_with

    return load_with(ckpt, build, ema)


def sample(cfg: DictConfig) -> SampleResult:
    """Draws the images, or edits the photographs, that `cfg` (conf/sample.yaml) asks for."""
    config, edit = _plain(cfg), None
    if config.get("edit") is not None:
        edit, config = edit_request.request_of(config)
    elif problems := list(edit_request.misplaced(config)):
        raise UserError(*problems)
    job = "facegen.sampling.sample_job" if edit is None else "facegen.editing.job.edit_job"
    options, asked = sample_request.options_of(config, job), sample_request.asked_of(config, edit is not None)
    if config["figure"] == "reconstruct":
        return _reconstruct(config)
    from facegen.loading import sampler_of

    loaded = load(config["ckpt"], config["ema"])
    sampler = build(sampler_of(loaded, config.get("sampler")))
    from facegen.guiding import direct

    direction = direct(loaded, asked, load)
    if edit is not None:
        from facegen.editing.job import edit_job

        return edit_job(loaded, sampler, direction, edit, load, **options)
    from facegen.sampling import sample_job

    return sample_job(loaded, sampler, direction, **options)


def _reconstruct(config: dict[str, Any]) -> SampleResult:
    """What an autoencoder makes of images."""
    from facegen.loading import load_measurable
    from facegen.reconstructing import reconstruct_job

    loaded = load_measurable(config["ckpt"], build, config["ema"])
    return reconstruct_job(loaded, config.get("data") or {}, build, **{key: config[key] for key in ("n", "out", "device")})


def evaluate(cfg: DictConfig) -> EvaluationResult:
    """Measures what `cfg` (conf/evaluate.yaml) asks for."""
    from facegen.request import request_of

    request = request_of(_plain(cfg))
    from facegen.checkpoint import latest

    for ckpt in request.checkpoints:
        latest(ckpt)  # what is not there need not wait for torch
    for option, path in {"probe": request.probe, "autoguidance": request.asked.weaker()}.items():
        if path is not None:
            latest(path, option)
    from facegen.evaluation import evaluate_job

    return evaluate_job(request, load, load_probe, build)


def build(node: dict[str, Any], **given: Any) -> Any:
    """The object that a checked configuration node describes, with its nested ones."""
    from hydra.utils import instantiate

    if given:  # beside the configuration, not merged into it: what a path or a checkpoint says must not be interpreted
        return instantiate(node, _partial_=True, _convert_="all")(**given)
    return instantiate(node, _convert_="all")
