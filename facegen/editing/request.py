"""What is asked of a model that edits photographs, as it is typed, checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from facegen import schema
from facegen.ages import Age, resolve
from facegen.errors import UserError
from facegen.prompts import gender_of, prompt, read
from facegen.types import GuidanceWeight, PositiveFraction

PRETRAINED = "pretrained"  # the baseline that a fine-tuned model began with
OPTIONS = "facegen.editing.request.Options"
WEIGHTS = ("guidance", "image_guidance")  # of which a grid shows several
MOST = 12  # columns or rows of a strip or a grid


@dataclass(frozen=True)
class Options:
    """The options of sample.py that only an edit has; what they are is said beside them in conf/sample.yaml.

    Args:
        edit: a photograph, a folder of them, or a list of these.
        age: years, an age group or a word, or a list of them for an age strip.
        gender: male or female; null leaves it open.
        prompt: what a model that reads text is told, and any other that can find an age in it.
        negative_prompt: what a model that reads text is guided away from; null is nothing.
        method: `edit` shows the photograph to a model that edits, `sdedit` adds noise to it and walks back (Meng et al. 2022), `invert`
            finds the noise that the model would have drawn it from (Song et al. 2021); null is `edit` where the model can.
        strength: how much of the walk sdedit and invert go; null is 0.6 and 1.
        crop: `face` finds the face, `center` takes the largest centred square, [left, top, right, bottom] what is given, in pixels.
        degrade: show a model that edits the photograph as its sources were in training; false: as it is.
        baseline: another checkpoint, which edits by sdedit, for comparison; `pretrained` is what the model was fine-tuned from.
    """

    edit: str | list[str] | None = None
    age: int | float | str | list[int | float | str] | None = None
    gender: str | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    method: Literal["edit", "sdedit", "invert"] | None = None
    strength: PositiveFraction | None = None
    crop: str | list[float] = "face"
    degrade: bool = True
    baseline: str | None = None


@dataclass(frozen=True)
class Request:
    """An edit: the `options` as they were typed, the `ages` asked for, none where a condition is, and the weights to be shown."""

    options: Options
    ages: list[Age]
    gender: str | None
    weights: dict[str, list[float]] = field(default_factory=dict)

    def prompt(self, age: Age) -> str:
        """What a model that reads text is told for `age`: what was typed, or what it was trained with."""
        return self.options.prompt or prompt(self.gender, age.group)


def request_of(config: dict[str, Any]) -> tuple[Request, dict[str, Any]]:
    """The edit that the configuration of conf/sample.yaml asks for, and the configuration with one weight of each guidance.

    Raises UserError with a line for each problem.
    """
    weights = {name: config[name] if isinstance(config[name], list) else [config[name]] for name in WEIGHTS}
    problems = [line for name in WEIGHTS for line in schema.check_value(weights, name, list[GuidanceWeight], name)]
    problems += [line for name, (kind, _) in schema.signature(OPTIONS).items() for line in schema.check_value(config, name, kind, name)]
    if any(line.startswith("age must be an ") for line in problems):  # of its many types the first, which says little
        said = f"age must be years, an age group or a word, or a list of them; got {config['age']}; type age=60"
        problems = [said if line.startswith("age must be an ") else line for line in problems]
    if problems:
        raise UserError(*problems)
    options = Options(**{name: config[name] for name in schema.signature(OPTIONS)})
    found, problems = _read(options)
    problems += [*_weak(weights), *_together(options, found, weights, config)]
    if problems:
        raise UserError(*problems)
    return Request(options, found[0], found[1], weights), {**config, **{name: values[0] for name, values in weights.items()}}


def _read(options: Options) -> tuple[tuple[list[Age], str | None], list[str]]:
    """The ages and the gender asked for, and what is wrong with them."""
    ages: list[Age] = []
    gender, problems = None, []
    asked = options.age if isinstance(options.age, list) else [] if options.age is None else [options.age]
    for value in asked:
        try:
            ages.append(resolve(value))
        except UserError as error:
            problems += error.lines
    try:
        gender = None if options.gender is None else gender_of(options.gender)
        if options.prompt is not None:
            wish = read(options.prompt)
            ages, gender = ages or [wish.age], gender or wish.gender
    except UserError as error:
        problems += error.lines
    return (ages, gender), problems


def _weak(weights: dict[str, list[float]]) -> Iterator[str]:
    for name, values in weights.items():
        if not values:
            yield f"{name} must be one or more weights; got []; type {name}=[1,2,4]"
        for value in values:
            if value < 1:
                why = "below 1 it would lead away from what is asked, and diffusers' pipeline would turn it off without a word"
                yield f"{name}={value:g}: {why}; type {name}=1 or more"


def _together(
    options: Options, found: tuple[list[Age], str | None], weights: dict[str, list[float]], config: dict[str, Any]
) -> Iterator[str]:
    """The problems of options that do not go with each other."""
    several = [name for name, values in weights.items() if len(values) > 1]
    if isinstance(options.age, list) and not options.age:
        yield "age must be one or more ages; got []; type age=[5,20,40,60,80]"
    if len(found[0]) > 1 and several:
        got = f"age={options.age} and {several[0]}={weights[several[0]]}"
        yield f"{got}: a strip shows several ages, a grid several weights; type one age, or one weight"
    if options.prompt is not None and options.age is not None:
        yield "prompt and age both say an age; leave one of them out"
    if found[0] and config["condition"] is not None:
        yield f"age and condition={config['condition']} both say what to ask for; type condition={{{found[0][0].group}:1,...}} alone"
    if options.strength is not None and options.method == "edit":
        yield f"strength={options.strength:g} is of method=sdedit and invert; leave it out, or type method=sdedit"
    for name, count in {"age": len(found[0]), **{name: len(values) for name, values in weights.items()}}.items():
        if count > MOST:
            yield f"{name} has room for {MOST} values; got {count}; type fewer"
    for name in ("group", "guidances", "steps_shown"):
        if config[name] is not None:
            yield f"{name}={config[name]} is of figures of images that are drawn, edit={options.edit} edits photographs; leave {name} out"
    if config["figure"] != "sheet":
        yield f"figure={config['figure']} is of images that are drawn, edit={options.edit} edits photographs; leave figure out"


def misplaced(config: dict[str, Any]) -> Iterator[str]:
    """The problems of options of edits where none is asked for."""
    for name, (_, default) in schema.signature(OPTIONS).items():
        if config.get(name, default) != default:
            yield f"{name}={config[name]} is of edits; type edit=PHOTOGRAPH, or leave {name} out"
    if config.get("image_guidance", 1) != 1:
        yield f"image_guidance={config['image_guidance']} is of edits; type edit=PHOTOGRAPH, or leave image_guidance out"
    if isinstance(config.get("guidance"), list):
        yield f"guidance={config['guidance']} is several; type figure=guidance guidances={config['guidance']}, or edit=PHOTOGRAPH"
