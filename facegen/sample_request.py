"""What sample.py is asked for, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from facegen import schema
from facegen.asked import Asked
from facegen.checkpoint import latest
from facegen.editing import request as edit_request
from facegen.errors import UserError

ASKED = "facegen.asked.Asked"


def options_of(config: dict[str, Any], job: str) -> dict[str, Any]:
    """The options of the function `job` out of the configuration of conf/sample.yaml, which is checked; null is the default of `n`.

    Raises UserError with a line for each problem.
    """
    known = schema.signature(job)
    options = {name: kind for name, (kind, _) in known.items() if name in config and name != "sampler"}
    config["n"] = known["n"][1] if config["n"] is None else config["n"]
    of_others = [name for target in (edit_request.OPTIONS, "facegen.sampling.sample_job") for name in schema.signature(target)]
    wanted = {**options, **{name: kind for name, (kind, _) in schema.signature(ASKED).items()}, "ckpt": str, "ema": str | None}
    for key in ("ema", "autoguidance_ema"):  # a half-life is read as a number
        config[key] = None if config.get(key) is None else str(config[key])
    problems = schema.unknown(config, list(dict.fromkeys([*wanted, "sampler", "data", *of_others])))
    problems += [line for key, kind in wanted.items() for line in schema.check_value(config, key, kind, key)]
    if "_target_" in (config.get("sampler") or {}):
        problems += schema.check(config["sampler"], "sampler")
    problems += _of_other_figures(config)
    if problems:
        raise UserError(*problems)
    return {name: config[name] for name in options}


def asked_of(config: dict[str, Any], edits: bool) -> Asked:
    """What a model is asked, and that all checkpoints that are named are there: what is not there need not wait for torch."""
    asked = Asked(**{key: config[key] for key in schema.signature(ASKED)})
    if problems := list(asked.problems(sweeps_guidance=config["figure"] == "guidance")):
        raise UserError(*problems)
    latest(config["ckpt"])
    if weaker := asked.weaker():
        latest(weaker, "autoguidance")
    if edits and config["baseline"] not in (None, edit_request.PRETRAINED):
        latest(config["baseline"], "baseline")
    return asked


def _of_other_figures(config: dict[str, Any]) -> Iterator[str]:
    """The problems of options that figure=reconstruct, which draws nothing, has no use for, or all others."""
    if config["figure"] != "reconstruct":
        if config.get("data"):
            yield "data is of figure=reconstruct, which shows images of it; leave data out"
        return
    taken = {"n", "out", "device", "figure", "batch_size"}
    for target in ("facegen.sampling.sample_job", ASKED):
        for name, (_, default) in schema.signature(target).items():
            if name not in taken and config.get(name) and config[name] != default:
                yield f"{name} is of images that are drawn, figure=reconstruct draws none; leave {name} out"
