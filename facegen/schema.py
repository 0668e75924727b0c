"""The check of a configuration before anything is imported: names, types, ranges and choices, all problems at once.

What an option allows is written once, in the signature of the class it configures. This module reads those signatures from the source
text, without importing it, so that a misspelt key costs a fraction of a second and no torch. Only the classes of `TARGETS` can be
named: a configuration may come from somebody else's checkpoint.
"""

from __future__ import annotations

import ast
import typing
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from facegen import types
from facegen.errors import UserError, nearest

ROOT = Path(__file__).parent
REQUIRED = object()
FACTS = (
    "condition_names",
    "condition_groups",
    "condition_examples",
)  # of the data: given to a model that asks for them, by the run or the checkpoint
SUPPLIED = {"run_dir", *FACTS}  # given by the run itself
RETIRED = {"facegen.networks.unet.UNet.condition_size": 0}  # options that are gone, with the value that changed nothing

TARGETS = frozenset(
    f"facegen.{name}"
    for name in (
        "callbacks.checkpoints.KeepCheckpoints",
        "callbacks.ema.EMA",
        "callbacks.monitor.Monitor",
        "callbacks.preview.Preview",
        "codecs.Latents",
        "codecs.Pixels",
        "data.faces.Cartoon",
        "data.faces.CelebA",
        "data.faces.Digits",
        "data.faces.Ethnicity",
        "data.faces.FFHQ",
        "data.faces.FFHQAging",
        "data.faces.Folder",
        "data.faces.MNIST",
        "data.faces.UTKFace",
        "diffusion.discrete.Cosine",
        "diffusion.discrete.Linear",
        "diffusion.discrete.Quadratic",
        "diffusion.discrete.ScaledLinear",
        "diffusion.discrete.Sigmoid",
        "diffusion.sampler.DDIM",
        "diffusion.sampler.DDPM",
        "diffusion.sampler.DPMpp2M",
        "diffusion.sampler.Heun",
        "diffusion.schedule.EDM",
        "diffusion.schedule.Flow",
        "diffusion.times.LogNormalTimes",
        "diffusion.times.StratifiedTimes",
        "diffusion.times.UniformTimes",
        "families.autoencoder.Autoencoder",
        "families.class_conditional.ClassConditional",
        "families.ddpm.DDPM",
        "families.instruct_pix2pix.InstructPix2Pix",
        "families.latent.ConditionalLatentDiffusion",
        "families.latent.LatentDiffusion",
        "families.optimization.Adam",
        "families.pix2pix.Pix2Pix",
        "families.probe.Probe",
        "interop.DiffusersSampler",
        "loggers.Loggers",
        "networks.autoencoder.KLAutoencoder",
        "networks.autoencoder.VQAutoencoder",
        "networks.discriminator.PatchDiscriminator",
        "networks.probe.ProbeNet",
        "networks.stable.StableUNet",
        "networks.unet.UNet",
        "text.Text",
        "trainer.TrainerOptions",
    )
)


@cache
def signature(target: str) -> dict[str, tuple[Any, Any]]:
    """The keyword arguments of the class or function `target` as {name: (annotation, default)}, read from its source.

    An annotation that is no plain type (a class of facegen, a torch module) reads as `Any`; a missing default as `REQUIRED`.
    """
    module, _, name = target.rpartition(".")
    tree = ast.parse(ROOT.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name)
    scope = {**vars(types), **vars(typing)}
    for node in tree.body:  # aliases such as BetaScaling = Literal[...]
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            scope[node.targets[0].id] = _evaluate(node.value, scope)
    arguments = found.args if isinstance(found, ast.FunctionDef) else _arguments_of_init(found, tree)
    inherited = signature(_base(found, tree, module)) if isinstance(found, ast.ClassDef) and arguments.kwarg else {}
    plain, keyword = arguments.args, arguments.kwonlyargs
    defaults = [None] * (len(plain) - len(arguments.defaults)) + arguments.defaults + arguments.kw_defaults
    own = {
        argument.arg: (_evaluate(argument.annotation, scope), REQUIRED if default is None else ast.literal_eval(default))
        for argument, default in zip([*plain, *keyword], defaults, strict=True)
        if argument.arg != "self"
    }
    return {**own, **{name: told for name, told in inherited.items() if name not in own}}


def _base(found: ast.ClassDef, tree: ast.Module, module: str) -> str:
    """The target of the class, in the text `tree` of `module` or imported by it, that `found` hands its other arguments on to."""
    (base,) = (base.id for base in found.bases if isinstance(base, ast.Name))
    imported = (node.module for node in tree.body if isinstance(node, ast.ImportFrom) and base in [alias.name for alias in node.names])
    return f"{next(imported, module)}.{base}"


def facts_asked(node: dict[str, Any]) -> list[str]:
    """The facts of the data that the class of the configuration `node` is to be told when it is built."""
    return [name for name in signature(node["_target_"]) if name in FACTS]


def modernised(node: dict[str, Any]) -> dict[str, Any]:
    """A configuration that an earlier version wrote, with the defaults of later options, and without retired ones that said nothing."""
    parts = {key: modernised(value) if isinstance(value, dict) else value for key, value in node.items()}
    target = parts.get("_target_")
    if target not in TARGETS:
        return parts
    parts = {key: value for key, value in parts.items() if RETIRED.get(f"{target}.{key}", REQUIRED) != value}
    defaults = {key: default for key, (_, default) in signature(target).items() if default is not REQUIRED and key not in SUPPLIED}
    return {**defaults, **parts}


def unlabelled(model: dict[str, Any], reason: str) -> UserError:
    """The error of a `model` that asks for labels where the data has none, for the `reason` that it gives."""
    name = model["_target_"].split(".")[-2]
    if name == "latent":
        return UserError(f"model=ldm model.condition=true needs labels, {reason}, or model.condition=false")
    return UserError(f"model={name} needs labels, {reason}")


def _arguments_of_init(found: ast.ClassDef, module: ast.Module) -> ast.arguments:
    """Of the class or, where it has none, of the nearest base in the same module."""
    if init := next((node for node in found.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"), None):
        return init.args
    if any("dataclass" in ast.unparse(decorator) for decorator in found.decorator_list):
        fields = [node for node in found.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
        names = [ast.arg(node.target.id, node.annotation) for node in fields if isinstance(node.target, ast.Name)]
        return ast.arguments(posonlyargs=[], args=[], kwonlyargs=names, kw_defaults=[node.value for node in fields], defaults=[])
    names = [base.id for base in found.bases if isinstance(base, ast.Name)]
    bases = [node for node in module.body if isinstance(node, ast.ClassDef) and node.name in names]
    empty = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    return _arguments_of_init(bases[0], module) if bases else empty


def _evaluate(node: ast.expr | None, scope: dict[str, Any]) -> Any:
    if node is None:
        return Any
    try:
        return eval(compile(ast.Expression(node), "<annotation>", "eval"), dict(scope))
    except (NameError, AttributeError, TypeError, ValueError):
        return Any


def unknown(config: dict[str, Any], known: Collection[str]) -> list[str]:
    """The problems of top-level keys of `config` that are none of `known`: a dotted key makes its group where there is none."""
    return [f"{key} is not a setting{nearest(key, known)}; allowed: {', '.join(known)}" for key in config if key not in known]


def check(node: dict[str, Any], path: str) -> Iterator[str]:
    """The problems of the configuration `node` at `path`, one line each; fills in the defaults of what is not given."""
    target = node.get("_target_")
    if target not in TARGETS:
        yield f"{path}._target_ must be a class of facegen; got {target!r}{nearest(str(target), TARGETS)}"
        return
    known = {key: value for key, value in signature(target).items() if key not in SUPPLIED}
    for key in [k for k in node if k != "_target_" and k not in known]:
        allowed = ", ".join(known) or "none"
        yield f"{path}.{key} is not an option of {target.rpartition('.')[2]}{nearest(key, known)}; it has: {allowed}"
    for key, (annotation, default) in known.items():
        if key not in node:
            if default is REQUIRED:
                yield f"{path}.{key} is required; type {path}.{key}=..."
                continue
            node[key] = default
        if annotation is Any and not isinstance(node[key], dict) and not (node[key] is None and default is None):
            group = f"{path}.{key}".replace(".", "/")
            yield f"{path}.{key} is not a value but a group: type {group}=NAME; got {_shown(node[key])}"
            continue
        yield from check_value(node, key, annotation, f"{path}.{key}")


def check_value(node: dict[str, Any], key: str, annotation: Any, path: str) -> Iterator[str]:
    """The problems of `node[key]`; brings it to its type (a whole 3.0 to 3)."""
    value = node[key]
    if isinstance(value, dict) and "_target_" in value:
        yield from check(value, path)
    elif annotation is not Any:
        if not isinstance(value, bool) and str(value) in _choices(annotation):
            value = str(value)  # a choice that YAML reads as a number: precision=32
        try:
            node[key] = TypeAdapter(annotation).validate_python(value)
        except ValidationError as error:
            yield f"{path} must be {_wanted(annotation, error)}; got {value!r}{_near_choice(annotation, value)}"
    elif isinstance(value, dict):
        yield f"{path} has no _target_: it must be chosen as a group, {path.replace('.', '/')}=NAME, or be null; got {value!r}"


def _shown(value: object) -> str:
    return "null" if value is None else repr(value)


def _wanted(annotation: Any, error: ValidationError) -> str:
    choices = _choices(annotation)
    if choices:
        return "one of " + ", ".join("null" if c is None else str(c) for c in choices)
    message = error.errors()[0]["msg"].lower().removeprefix("input should be ")
    return (
        message.replace("less than inf", "a finite number").replace("a valid ", "a ").replace("a integer", "an integer").partition(",")[0]
    )


def _choices(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    parts = [a for a in typing.get_args(annotation) if a is not type(None)]
    return [*_choices(parts[0]), None] if len(parts) == 1 and _choices(parts[0]) else []


def _near_choice(annotation: Any, value: Any) -> str:
    return nearest(str(value), [c for c in _choices(annotation) if c is not None])
