"""Editing photographs from the command line: what is drawn depends on the photograph, the wish and the seed, and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runs import configure, tiny

from facegen.data.drawn import DrawnImages
from facegen.errors import UserError
from facegen.experiment import sample, train
from facegen.images import read_png, read_provenance, split_grid
from facegen.tiny_stable_diffusion import build as build_tiny

CARTOON = ("data=cartoon", "data.size=32", "data.held_out=8", "scheduler=edm", "preview.count=0")
STABLE = ("model=instruct_pix2pix", "data=cartoon", "data.resolution=32", "data.size=16", "data.held_out=4", "data.batch_size=4",
          "trainer.precision=32", "trainer.threads=1", "trainer.max_steps=1", "preview.count=0", "sampler=ddim", "sampler.steps=3",
          "logger.tensorboard=false")  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each kind of model, of seconds."""
    home = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEGEN_CACHE", str(home / "cache"))
        train(tiny(home / "pix2pix", "model=pix2pix", *CARTOON))
        train(tiny(home / "noised", "model=pix2pix", *CARTOON, "data.source=noised", "trainer.max_steps=1"))
        train(tiny(home / "ddpm", *CARTOON))
        train(tiny(home / "told", "model=class_conditional", *CARTOON, "data.attributes=[Male,age]"))
        pretrained = build_tiny(home / "tiny")
        train(configure("train", *STABLE, f"model.pretrained={pretrained}", f"run_dir={home / 'stable'}"))
    return {path.name: path for path in home.iterdir()}


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs: drawn people, of an odd size."""
    folder = tmp_path_factory.mktemp("faces")
    images, _ = DrawnImages(48, 3).read(np.array([30_000, 30_001, 30_002]))
    for name, image in zip("abc", images, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).resize((60, 50)).save(folder / f"{name}.png")
    return folder


def edited(run: Path, out: Path, *options: str) -> Any:
    return sample(configure("sample", f"ckpt={run}", f"out={out}", "crop=center", *options))


def singles(out: Path) -> list[Path]:
    return sorted(path for path in out.glob("*.png") if path.stem not in ("edits", "ages", "guidance", "compare"))


def test_an_edit_is_a_file_and_a_sheet_that_say_what_was_asked(runs: dict[str, Path], faces: Path, tmp_path: Path) -> None:
    result = edited(runs["pix2pix"], tmp_path, f"edit={faces / 'a.png'}", "age=60", "gender=female", "seed=7")
    assert result.figures == [tmp_path / "edits.png"]
    [file] = singles(tmp_path)
    assert read_png(file).shape == (3, 16, 16)
    facts = read_provenance(file)
    assert {facts[key] for key in ("age", "gender", "method", "source", "seed", "family")} == {
        "60",
        "female",
        "edit",
        "paired",
        "7",
        "pix2pix",
    }
    photograph, edit = split_grid(tmp_path / "edits.png")
    assert np.array_equal(edit, read_png(file))
    assert not np.array_equal(photograph, edit)


def test_an_age_strip_shows_the_photograph_and_every_age(runs: dict[str, Path], faces: Path, tmp_path: Path) -> None:
    result = edited(runs["pix2pix"], tmp_path, f"edit={faces}", "age=[5,20,40,60,elderly]")
    assert result.drawn == 15
    assert len(split_grid(result.figures[0])) == 3 * (1 + 5)


@pytest.mark.parametrize("run", ["pix2pix", "noised", "stable"])
def test_an_edit_does_not_depend_on_what_else_is_edited(runs: dict[str, Path], faces: Path, tmp_path: Path, run: str) -> None:
    edited(runs[run], tmp_path / "all", f"edit={faces}", "age=[5,60]")
    edited(runs[run], tmp_path / "one", f"edit={faces / 'c.png'}", "age=60")
    [alone] = singles(tmp_path / "one")
    [together] = [path for path in singles(tmp_path / "all") if path.name.startswith("c-ages-01")]
    assert np.array_equal(read_png(alone), read_png(together))


@pytest.mark.parametrize("run", ["pix2pix", "stable"])
def test_a_grid_of_two_weights_begins_with_the_edit_that_is_guided_by_neither(
    runs: dict[str, Path], faces: Path, tmp_path: Path, run: str
) -> None:
    options = (f"edit={faces / 'a.png'}", "age=60")
    edited(runs[run], tmp_path / "grid", *options, "guidance=[1,3]", "image_guidance=[1,2]")
    edited(runs[run], tmp_path / "plain", *options)
    edited(runs[run], tmp_path / "both", *options, "guidance=3", "image_guidance=2")
    cells = [read_png(path) for path in singles(tmp_path / "grid")]
    assert len(cells) == 4
    assert np.array_equal(cells[0], read_png(singles(tmp_path / "plain")[0]))
    assert np.array_equal(cells[3], read_png(singles(tmp_path / "both")[0]))


def test_variants_differ_by_seed_alone(runs: dict[str, Path], faces: Path, tmp_path: Path) -> None:
    edited(runs["pix2pix"], tmp_path / "two", f"edit={faces / 'a.png'}", "age=60", "n=2", "seed=3")
    edited(runs["pix2pix"], tmp_path / "last", f"edit={faces / 'a.png'}", "age=60", "seed=4")
    first, second = (read_png(path) for path in singles(tmp_path / "two"))
    assert not np.array_equal(first, second)
    assert np.array_equal(second, read_png(singles(tmp_path / "last")[0]))


@pytest.mark.parametrize("run", ["ddpm", "told"])
def test_any_model_edits_by_noise_the_less_the_nearer(runs: dict[str, Path], faces: Path, tmp_path: Path, run: str) -> None:
    age = [] if run == "ddpm" else ["age=60"]
    far = []
    for strength in (0.1, 1.0):
        out = tmp_path / str(strength)
        edited(runs[run], out, f"edit={faces / 'a.png'}", "method=sdedit", f"strength={strength}", "sampler=ddim", "sampler.steps=20", *age)
        photograph, edit = split_grid(out / "edits.png")
        far.append(np.abs(photograph.astype(int) - edit).mean())
    assert far[0] < far[1]


def test_inversion_changes_a_real_face_by_what_is_asked(runs: dict[str, Path], faces: Path, tmp_path: Path) -> None:
    options = (f"edit={faces / 'a.png'}", "method=invert", "sampler=ddim", "sampler.steps=8")
    edited(runs["told"], tmp_path / "man", *options, "condition={Male:1}")
    edited(runs["told"], tmp_path / "woman", *options, "condition={Male:0}")
    man, woman = (split_grid(tmp_path / name / "edits.png")[1] for name in ("man", "woman"))
    assert read_provenance(singles(tmp_path / "man")[0])["method"] == "invert"
    assert man.shape == woman.shape


@pytest.mark.parametrize(
    ("sampler", "method"),
    [*((name, "edit") for name in ("ddim", "lms", "pndm", "unipc", "euler", "dpmpp_2m")), ("ddim", "sdedit"), ("lms", "sdedit")],
)
def test_stable_diffusion_edits_by_every_scheduler(runs: dict[str, Path], faces: Path, tmp_path: Path, sampler: str, method: str) -> None:
    options = (f"sampler={sampler}", "sampler.steps=4", f"method={method}", "negative_prompt=blurred", "guidance=2")
    assert edited(runs["stable"], tmp_path, f"edit={faces / 'a.png'}", "prompt='make this man look 30 years old'", *options).drawn == 1


def test_a_prompt_and_an_age_that_mean_the_same_make_the_same_edit(runs: dict[str, Path], faces: Path, tmp_path: Path) -> None:
    face = f"edit={faces / 'a.png'}"
    edited(runs["pix2pix"], tmp_path / "words", face, "prompt='make this woman look 60 years old'")
    edited(runs["pix2pix"], tmp_path / "options", face, "age=50-69", "gender=female")
    edited(runs["stable"], tmp_path / "report", face, "prompt='make this female look 50-69 years old'")
    edited(runs["stable"], tmp_path / "stable", face, "age=60", "gender=female")
    for a, b in (("words", "options"), ("report", "stable")):
        assert np.array_equal(read_png(singles(tmp_path / a)[0]), read_png(singles(tmp_path / b)[0]))


@pytest.mark.parametrize(("run", "baseline"), [("stable", "pretrained"), ("pix2pix", "told")])
def test_a_comparison_shows_the_baseline_below(runs: dict[str, Path], faces: Path, tmp_path: Path, run: str, baseline: str) -> None:
    other = str(runs.get(baseline, baseline))
    result = edited(runs[run], tmp_path, f"edit={faces / 'a.png'}", "age=[5,60]", f"baseline={other}", "sampler=ddim", "sampler.steps=4")
    assert result.figures == [tmp_path / "compare.png"]
    assert result.drawn == 4


@pytest.mark.parametrize(
    ("run", "options", "message"),
    [
        ("pix2pix", [], r"^age is required: .* edits by age; type age=60, age=\[5,20,40,60,80\], or prompt="),
        ("ddpm", ["method=edit", "age=60"], r"^method=edit: .* is model=ddpm and was not trained to edit .*; type method=sdedit, or"),
        ("ddpm", ["method=invert", "sampler=heun"], r"^method=invert goes the way of sampler=ddim back; type sampler=ddim$"),
        ("pix2pix", ["age=60", "negative_prompt=ugly"], r"^negative_prompt=ugly: .* reads no text; leave it out$"),
        ("stable", ["condition={Male:1}"], r"^condition=.*is told in words; type edit=PHOTOGRAPH age=60$"),
        ("told", ["age=60", "image_guidance=2"], r"^image_guidance=2: .* is shown no source to be guided by; type image_guidance=1$"),
        ("pix2pix", ["age=60", "baseline=pretrained"], r"^baseline=pretrained: .* trained from scratch; type baseline=CKPT"),
        ("stable", ["age=60", "method=sdedit", "sampler=pndm"], r"^PNDMScheduler begins with steps of another kind, .*; type sampler"),
        ("pix2pix", ["age=60", "tile=8"], r"^tile=8 is of models that work in latents"),
        ("pix2pix", ["age=60", "guidance=0.5"], r"^guidance=0.5: below 1 it would lead away from what is asked, and diffusers'"),
        ("pix2pix", ["age=60", "crop=[0,0,10,20]"], r"^crop=\[0,0,10,20\] must be left, top, right and bottom of a square"),
    ],
)  # fmt: skip
def test_what_a_model_cannot_edit_is_one_line(
    runs: dict[str, Path], faces: Path, tmp_path: Path, run: str, options: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        edited(runs[run], tmp_path, f"edit={faces / 'a.png'}", *options)
    assert len(caught.value.lines) == 1
    assert not list(tmp_path.iterdir())


def test_edits_that_were_drawn_otherwise_are_not_overwritten(runs: dict[str, Path], faces: Path, tmp_path: Path) -> None:
    edited(runs["pix2pix"], tmp_path, f"edit={faces / 'a.png'}", "age=60")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    edited(runs["pix2pix"], tmp_path, f"edit={faces / 'a.png'}", "age=60")
    other = tmp_path / "other"
    other.mkdir()
    Image.open(faces / "b.png").save(other / "a.png")
    for options in (
        (f"edit={faces / 'a.png'}", "age=5"),
        (f"edit={faces / 'a.png'}", "age=60", "guidance=2"),
        (f"edit={other / 'a.png'}", "age=60"),
    ):
        with pytest.raises(UserError, match=r"^out=.* holds edits that were drawn otherwise \(.*there, .* now\): choose another with out="):
            edited(runs["pix2pix"], tmp_path, *options)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_what_is_no_photograph_is_told_before_anything_is_drawn(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    Image.new("RGB", (5, 5)).save(tmp_path / "small.png")
    for name, message in (("notes.txt", "is not an image"), ("small.png", "no face-sized image"), ("none.png", "cannot be read")):
        with pytest.raises(UserError, match=message):
            edited(runs["pix2pix"], tmp_path / "out", f"edit={tmp_path / name}", "age=60")
