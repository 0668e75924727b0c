"""Figures of conditions show what single images show, told what their labels say and nothing else."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facegen import images
from facegen.asked import Asked
from facegen.cli import opened_brace
from facegen.codecs import Pixels
from facegen.diffusion.denoiser import Denoiser
from facegen.diffusion.discrete import Cosine
from facegen.diffusion.sampler import DDIM
from facegen.errors import UserError
from facegen.families.labels import Labels
from facegen.figures.conditions import GUIDANCES, MOST_CLASSES, PICTURES, SEEDS, SIDE, WAYS, WEIGHTS, picture
from facegen.figures.scene import Picture
from facegen.figures.ternary import save_triangle, shares, split_triangle
from facegen.guiding import direct
from facegen.sampling import FIGURES, Figure, SampleResult, sample_job
from facegen.studio import Studio

ROOT = Path(__file__).parent.parent
NAMES = ["Male", "Smiling", "Young", "European", "Indian", "Oriental", "20-29", "7"]
GROUPS = {"age": ["20-29", "7"], "race": ["European", "Indian", "Oriental"]}
EXAMPLES = [(0, 2, 3, 6), (1, 4, 7), (0, 1, 5, 6), (2, 4, 6), (3, 7), (0, 5, 7)]
SAMPLER = DDIM(3)


class Net(nn.Module):
    """Something smooth that every column of the condition, or that there is none, changes; counts the images that it is asked about."""

    def __init__(self, columns: int, channels: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.map = nn.Parameter(torch.randn(columns, channels, 1, 1, generator=generator))
        self.asked = 0

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        self.asked += len(x)
        bias = 0 if condition is None else torch.einsum("bk,kcij->bcij", condition.nan_to_num(-0.3), self.map)
        return torch.tanh(x + x.roll(1, 2) + bias)


class Run:
    """A trained model as `sample_job` sees it, whose labels are `names` in `groups`; without names it can be told nothing."""

    def __init__(
        self, run_dir: Path, names: list[str] = NAMES, groups: dict[str, list[str]] = GROUPS, channels: int = 3, seed: int = 0
    ) -> None:
        self.path = run_dir / "checkpoints" / "step-00000002.ckpt"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"weights")
        self.run_dir, self.codec, self.checkpoints = run_dir, Pixels(8, channels), [self.path]
        self.denoiser = Denoiser(Net(len(names), channels, seed), Cosine(100), "v")
        self.provenance = {"checkpoint": self.path.name, "step": "2", "family": "class_conditional" if names else "ddpm"}
        self.config: dict[str, Any] = {"model": {"drop_condition": 0.1}, "scheduler": {}}
        self.text = None
        self.labels = Labels(names, groups) if names else None
        self.examples = torch.zeros(len(EXAMPLES), len(NAMES))
        for row, columns in enumerate(EXAMPLES):
            self.examples[row, list(columns)] = 1
        self.examples = self.examples[:, [NAMES.index(name) for name in names]] if names else None

    def reload(self, path: Path) -> Run:
        return self


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


def job(run: Run, figure: str, options: dict[str, Any] | None = None, load: Any = None, **asked: Any) -> SampleResult:
    """What `sample.py figure=FIGURE` does where `asked` and `options` are typed."""
    return sample_job(run, SAMPLER, direct(run, Asked(**asked), load), figure=figure, device="cpu", **(options or {}))


def tiles(run: Run, figure: str, options: dict[str, Any] | None = None, **asked: Any) -> np.ndarray:
    return images.split_grid(job(run, figure, options, **asked).figures[0])


def singles(run: Run, seeds: range | list[int], **asked: Any) -> np.ndarray:
    """The images (N,C,H,W) of `seeds`, each drawn on its own."""
    studio = Studio(run, SAMPLER, 64, "cpu", direct(run, Asked(**asked), None))
    return np.concatenate([studio.draw([seed], "single") for seed in seeds])


def planned(run: Run, figure: str, seeds: range = range(64), **asked: Any) -> Picture:
    found = picture(figure, Studio(run, SAMPLER, 64, "cpu", direct(run, Asked(**asked), None)), seeds, None, None)
    assert found is not None
    return found


def test_every_value_of_figure_is_drawn_by_somebody() -> None:
    assert set(get_args(Figure)) == {*FIGURES, *PICTURES}
    assert set(PICTURES) == set(SEEDS)
    assert not {*FIGURES} & {*PICTURES}


@pytest.mark.parametrize("group", ["age", "race"])
@pytest.mark.parametrize("given", [None, "Smiling", {"Smiling": 0, "Male": 1}])
def test_the_rows_of_classes_equal_single_draws(run: Run, group: str, given: Any) -> None:
    wish = {} if given is None else given if isinstance(given, dict) else {given: 1}
    found = tiles(run, "classes", {"n": 4, "seed": 2, "group": group}, condition=given, guidance=2)
    for row, name in zip(found.reshape(len(GROUPS[group]), 4, 3, 8, 8), GROUPS[group], strict=True):
        assert np.array_equal(row, singles(run, range(2, 6), condition={**wish, name: 1}, guidance=2))


def test_classes_may_be_of_any_conditions_and_by_default_are_of_the_first_group(run: Run) -> None:
    found = tiles(run, "classes", {"n": 2}, condition=["Indian", {"Male": 1}, "none"])
    assert np.array_equal(found, np.concatenate([singles(run, range(2), condition=c) for c in ("Indian", {"Male": 1}, "none")]))
    assert images.read_provenance(job(run, "classes", {"n": 2}).figures[0])["rows"] == "20-29; 7"


@pytest.mark.parametrize("given", [None, {"Male": 1}, {"European": 0.5, "Indian": 0.5}])
def test_a_pair_of_attributes_differs_in_that_attribute_alone(run: Run, given: Any) -> None:
    _, seeds, told = planned(run, "attributes", condition=given).panels[0]
    assert told is not None
    assert list(seeds) == [seed for _ in range(3) for seed in range(4) for _ in range(2)]
    usual = direct(run, Asked(condition=given), None).told(range(4))
    assert usual is not None
    for column, row in enumerate(told.conditions[:, 0].reshape(3, 4, 2, len(NAMES))):
        rest = [i for i in range(len(NAMES)) if i != column]
        assert torch.equal(row[..., column], torch.tensor([0.0, 1.0]).expand(4, 2))
        assert torch.equal(row[..., rest], usual.conditions[..., rest].expand(4, 2, len(rest)))


def test_of_every_pair_of_attributes_one_image_is_that_of_the_seed_and_it_is_drawn_once(run: Run) -> None:
    plain = singles(run, range(4))
    run.denoiser.network.asked = 0
    found = tiles(run, "attributes").reshape(3, 4, 2, 3, 8, 8)
    assert ((found == plain[None, :, None]).all(axis=(3, 4, 5)).sum(axis=2) == 1).all()
    assert len({image.tobytes() for image in found.reshape(-1, 3 * 64)}) == 4 * (1 + 3)


@pytest.mark.parametrize("blend", WAYS)
def test_at_weight_0_a_strip_shows_the_image_of_its_first_condition(run: Run, blend: str) -> None:
    ends: list[Any] = [{"Indian": 1, "Male": 0}, "European"]
    found = tiles(run, "strip", {"n": 3}, condition=ends, blend=blend, guidance=2).reshape(3, 9, 3, 8, 8)
    assert np.array_equal(found[:, 0], singles(run, range(3), condition=ends[0], guidance=2))
    assert len({image.tobytes() for image in found[0]}) == (9 if blend != "switch" else SAMPLER.steps + 1)


def test_what_the_ends_of_a_strip_leave_open_is_the_same_over_a_row(run: Run) -> None:
    _, seeds, told = planned(run, "strip", condition=[{"Male": 0}, {"Male": 1, "Young": 1}]).panels[0]
    assert told is not None
    assert list(seeds) == [seed for seed in range(SEEDS["strip"]) for _ in WEIGHTS]
    rows = told.conditions.reshape(SEEDS["strip"], 9, len(NAMES))
    torch.testing.assert_close(rows[..., 0], torch.tensor(WEIGHTS).expand(SEEDS["strip"], -1))
    for column in (1, 3, 4, 5, 6, 7):
        assert (rows[..., column] == rows[:, :1, column]).all()


def test_blends_are_the_strips_of_all_pairs(run: Run) -> None:
    found = tiles(run, "blends", {"n": 9, "group": "race"}).reshape(3, 2, 9, 3, 8, 8)
    for band, pair in zip(found, combinations(GROUPS["race"], 2), strict=True):
        assert np.array_equal(band.reshape(-1, 3, 8, 8), tiles(run, "strip", {"n": 2}, condition=list(pair)))
    named = tiles(run, "blends", {"n": 2}, condition=GROUPS["race"])
    assert np.array_equal(named, found.reshape(named.shape))
    facts = images.read_provenance(job(run, "blends", {"n": 2, "group": "race"}).figures[0])
    assert facts["rows"] == "European, Indian; European, Oriental; Indian, Oriental"


@pytest.mark.parametrize("blend", WAYS)
def test_the_corners_of_a_triangle_equal_the_classes(tmp_path: Path, blend: str) -> None:
    classes = GROUPS["race"]
    run = Run(tmp_path / "run", classes, {"race": classes})  # nothing is left open that the corners could differ in
    found = split_triangle(job(run, "ternary", {"seed": 5}, blend=blend).figures[0])
    assert len(found) == SIDE * (SIDE + 1) // 2
    for place, name in zip((0, -SIDE, -1), classes, strict=True):
        assert np.array_equal(found[place], singles(run, [5], condition=name)[0])


def test_inside_a_triangle_each_corner_has_its_share(run: Run) -> None:
    told = planned(run, "ternary").panels[0][2]
    assert told is not None
    torch.testing.assert_close(told.conditions[:, 0, 3:6], torch.tensor(shares(SIDE)), rtol=0, atol=1e-6)
    assert (told.conditions[:, 0, [0, 1, 2, 6, 7]] == told.conditions[:1, 0, [0, 1, 2, 6, 7]]).all()


def test_by_default_a_triangle_is_of_a_group_that_has_three_classes(run: Run) -> None:
    facts = images.read_provenance(job(run, "ternary").figures[0])
    assert facts["rows"] == "European; Indian; Oriental"
    assert facts["seeds"] == "0..0"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [2, 6])
def test_splitting_undoes_the_triangle(tmp_path: Path, channels: int, side: int) -> None:
    faces = np.random.default_rng(0).integers(0, 256, (side * (side + 1) // 2, channels, 9, 7), dtype=np.uint8)
    picture = save_triangle(faces, tmp_path / "a.png", {"step": "1"}, corners=["A", "a long name", "B"])
    assert np.array_equal(images.read_png(tmp_path / "a.png"), picture)
    assert np.array_equal(split_triangle(tmp_path / "a.png"), faces)
    images.save_grid(faces, tmp_path / "b.png", {})
    with pytest.raises(UserError, match="not written as a triangle"):
        split_triangle(tmp_path / "b.png")


def test_the_bands_of_ways_are_the_strips_of_each_way(run: Run) -> None:
    ends = ["Indian", "Oriental"]
    found = tiles(run, "ways", {"n": 2}, condition=ends, guidance=3).reshape(2, 3, 9, 3, 8, 8)
    for row, way in enumerate(WAYS):
        assert np.array_equal(found[:, row].reshape(-1, 3, 8, 8), tiles(run, "strip", {"n": 2}, condition=ends, guidance=3, blend=way))
    assert all(np.array_equal(found[:, 0, end], found[:, row, end]) for row in (1, 2) for end in (0, -1))
    assert images.read_provenance(job(run, "ways", {"n": 2}, condition=ends).figures[0])["blend"] == "embedding, prediction, switch"


@pytest.mark.parametrize("condition", [None, "Indian", {"European": 0.5, "Indian": 0.5}])
def test_the_rows_of_guidance_are_the_images_of_that_guidance(run: Run, condition: Any) -> None:
    found = tiles(run, "guidance", {"n": 4}, condition=condition, guidance=4).reshape(len(GUIDANCES), 4, 3, 8, 8)
    for row, weight in zip(found, GUIDANCES, strict=True):
        assert np.array_equal(row, singles(run, range(4), condition=condition, guidance=weight))
    assert np.array_equal(found[0], singles(run, range(4), condition="none"))


def test_guided_by_a_weaker_model_weight_0_is_that_model_and_1_is_none(run: Run, tmp_path: Path) -> None:
    weak, condition = Run(tmp_path / "weak", seed=1), {"Male": 1}
    options = {"n": 2, "guidances": [0.0, 1.0, 2.0]}
    result = job(run, "guidance", options, lambda *_: weak, condition=condition, guidance=2, autoguidance="weak")
    found = images.split_grid(result.figures[0]).reshape(3, 2, 3, 8, 8)
    assert np.array_equal(found[0], singles(weak, range(2), condition=condition))
    assert np.array_equal(found[1], singles(run, range(2), condition=condition))
    assert images.read_provenance(result.figures[0])["rows"] == "0 (weaker); 1 (off); 2"


def test_a_model_that_is_told_nothing_can_be_guided_by_a_weaker_one(tmp_path: Path) -> None:
    run, weak = Run(tmp_path / "run", [], {}), Run(tmp_path / "weak", [], {}, seed=1)
    result = job(run, "guidance", {"n": 2}, lambda *_: weak, guidance=2, autoguidance="weak")
    assert np.array_equal(images.split_grid(result.figures[0])[2:4], singles(run, range(2)))


def test_every_figure_says_what_it_was_asked_for(run: Run) -> None:
    ends = ["Indian", {"Male": 1, "Smiling": 0.5}]
    facts = images.read_provenance(job(run, "strip", {"n": 2, "seed": 4}, condition=ends, blend="prediction", guidance=2).figures[0])
    wanted = {"figure": "strip", "condition": "[Indian,{Male:1,Smiling:0.5}]", "blend": "prediction", "guidance": "2", "seeds": "4..5"}
    assert {key: facts[key] for key in wanted} == wanted
    assert facts["rows"] == "seed 4; seed 5"
    assert images.read_provenance(job(run, "guidance", {"n": 1}).figures[0])["guidance"] == "0, 1, 1.5, 2, 3, 5, 8"


def test_figures_of_other_conditions_lie_in_other_folders(run: Run) -> None:
    asked: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("strip", {}, {"condition": ["Indian", "European"]}),
        ("strip", {}, {"condition": ["European", "Indian"]}),
        ("strip", {}, {"condition": ["European", "Indian"], "blend": "switch"}),
        ("strip", {"seed": 1}, {"condition": ["European", "Indian"]}),
        ("ways", {}, {"condition": ["European", "Indian"]}),
        ("classes", {}, {}),
        ("classes", {}, {"condition": "Male"}),
        ("classes", {"group": "race"}, {}),
        ("blends", {"group": "race"}, {}),
        ("blends", {"group": "race"}, {"blend": "prediction"}),
        ("guidance", {}, {}),
        ("guidance", {"guidances": [0.0, 1.0]}, {}),
    ]
    folders = {job(run, figure, {"n": 1, **options}, **told).out for figure, options, told in asked}
    assert len(folders) == len(asked)
    assert {folder.parent for folder in folders} == {run.run_dir / "samples"}


def test_what_is_grey_is_drawn_too(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", channels=1)
    for figure in ("classes", "attributes", "ternary", "guidance"):
        assert images.read_png(job(run, figure, {"n": 2}).figures[0]).shape[0] == 1


@pytest.mark.parametrize(
    "layout", [{"block": 2}, {"band": 1, "block": 2, "row_labels": ["a", "b"], "column_labels": ["x\ny", "z"], "corner": "what"}]
)
def test_splitting_undoes_a_grid_of_blocks(tmp_path: Path, layout: dict[str, Any]) -> None:
    faces = np.random.default_rng(0).integers(0, 256, (8, 3, 9, 7), dtype=np.uint8)
    wide = images.save_grid(faces, tmp_path / "a.png", {}, columns=4, **layout).shape[2]
    assert np.array_equal(images.split_grid(tmp_path / "a.png"), faces)
    narrow = images.save_grid(faces, tmp_path / "b.png", {}, columns=4, **{**layout, "block": 0}).shape[2]
    assert wide == narrow + images.BETWEEN_BANDS - images.GAP


WRONG: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    (
        "sheet",
        {},
        {"condition": ["Indian", "European"]},
        "several conditions are for figure=classes, strip, blends, ternary, ways; give one",
    ),
    ("denoise", {}, {"condition": ["Indian", "European"]}, "several conditions are for figure="),
    ("guidance", {}, {"condition": ["Indian", "European"]}, "several conditions are for figure="),
    ("attributes", {}, {"condition": ["Indian", "European"]}, "several conditions are for figure="),
    ("strip", {}, {}, r"figure=strip wants a list of 2 conditions; got condition=null; type condition=\[20-29,7\]"),
    ("strip", {}, {"condition": "Indian"}, "figure=strip wants a list of 2 conditions; got condition=Indian"),
    ("strip", {}, {"condition": ["Indian"]}, r"figure=strip wants a list of 2 conditions; got condition=\[Indian\]"),
    (
        "strip",
        {},
        {"condition": [["Indian"], "European"]},
        r"figure=strip wants a list of 2 conditions; got condition=\[\[Indian\],European\]",
    ),
    ("strip", {}, {"condition": ["Indain", "European"]}, r"Indain is nothing that this model was told \(did you mean 'Indian'\?\)"),
    ("strip", {}, {"condition": ["none", "European"]}, "cannot be mixed.*type blend=prediction"),
    ("ways", {}, {"condition": ["none", "European"]}, "type figure=strip blend=prediction"),
    ("ternary", {"group": "age"}, {}, r"figure=ternary wants 3 classes; age has 2; type figure=blends group=age$"),
    ("blends", {}, {"condition": NAMES[:6]}, "figure=blends wants a list of 2 to 5 conditions"),
    ("classes", {"group": "rase"}, {}, r"group must be one of age, race; got rase \(did you mean 'race'\?\); type group=age"),
    (
        "classes",
        {"group": "race"},
        {"condition": {"Indian": 1}},
        "condition=Indian: figure=classes shows each race in its turn; leave it out",
    ),
    ("classes", {"group": "race"}, {"condition": ["Indian", "7"]}, "one of them is shown; leave the other out"),
    ("classes", {}, {"condition": "none"}, "figure=classes tells the model something, condition=none nothing; leave it out"),
    ("strip", {"group": "race"}, {"condition": ["Indian", "European"]}, "group is an option of figure=classes, blends, ternary"),
    ("sheet", {"guidances": [1.0]}, {}, "guidances is an option of figure=guidance; got figure=sheet; leave guidances out"),
    ("guidance", {"guidances": []}, {}, r"guidances must be weights of guidance; got \[\]; type guidances="),
]


@pytest.mark.parametrize(("figure", "options", "asked", "message"), WRONG)
def test_what_does_not_go_together_is_said_in_one_line_before_anything_is_made(
    run: Run, figure: str, options: dict[str, Any], asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        job(run, figure, options, **asked)
    assert len(error.value.lines) == 1
    assert run.denoiser.network.asked == 0
    assert not (run.run_dir / "samples").exists()


@pytest.mark.parametrize("figure", list(PICTURES))
def test_figures_of_conditions_need_a_model_that_can_be_told_one(tmp_path: Path, figure: str) -> None:
    with pytest.raises(UserError, match=rf"^figure={figure}: .* is model=ddpm, which is told nothing; sample one that can be told: python"):
        job(Run(tmp_path / "run", [], {}), figure)


def test_a_way_out_that_a_figure_names_is_one(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", NAMES[6:], {"age": GROUPS["age"]})
    with pytest.raises(UserError, match=r"figure=ternary wants 3 classes; age has 2; type figure=blends group=age$"):
        job(run, "ternary")
    job(run, "blends", {"group": "age", "n": 1})
    with pytest.raises(UserError, match=r"figure=ternary wants a list of 3 conditions; .*; type condition=\[20-29,7,null\]$"):
        job(run, "ternary", condition=["20-29", "7"])
    job(run, "ternary", condition=["20-29", "7", None])
    alone = Run(tmp_path / "alone", NAMES[:1], {})
    with pytest.raises(UserError, match=r"figure=strip wants a list of 2 conditions; .*; type condition=\[Male,null\]$"):
        job(alone, "strip")
    job(alone, "strip", {"n": 1}, condition=["Male", None])


def heads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written into pictures from now on."""
    written: list[str] = []
    monkeypatch.setattr("PIL.ImageDraw.ImageDraw.text", lambda _, xy, text, *rest, **options: written.append(text))
    return written


def test_what_is_asked_for_as_in_the_data_is_labelled_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    written = heads(monkeypatch)
    job(run, "strip", {"n": 1}, condition=[None, "Indian"])
    assert [text for text in written if text not in [f"{weight:g}" for weight in WEIGHTS]] == ["seed 0", "as in the data", "Indian", ""]
    facts = images.read_provenance(job(run, "classes", {"n": 1}, condition=[None, "Indian"]).figures[0])
    assert facts["rows"] == "as in the data; Indian"


def test_the_ends_of_blends_are_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    written = heads(monkeypatch)
    job(run, "blends", {"n": 1, "group": "race"})
    assert written.count("first") == written.count("second") == 1


@pytest.mark.parametrize("figure", ["strip", "ways", "ternary"])
def test_long_conditions_are_shortened_in_the_picture_and_whole_in_its_provenance(
    run: Run, figure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = heads(monkeypatch)
    ends = [{"Indian": 1.0, **dict.fromkeys(NAMES[:3], i / 4)} for i in range(1, 4)][: 3 if figure == "ternary" else 2]
    monkeypatch.setattr("facegen.images.SHEET_WIDTH", 400)
    facts = images.read_provenance(job(run, figure, {"n": 1}, condition=ends).figures[0])
    assert sum(text.endswith("...") for text in written) == len(ends)
    assert facts["condition"].count("{Indian:1,Male:0.") == len(ends)
    assert "..." not in facts["condition"] + facts["rows"]


def test_of_many_classes_a_part_is_shown_and_the_rest_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"c{i}" for i in range(30)]
    run = Run(tmp_path / "run", [*NAMES[:1]], {})
    run.labels, run.examples = Labels(names, {"kind": names}), torch.eye(30)
    run.denoiser = Denoiser(Net(30, 3, 0), Cosine(100), "v")
    found = tiles(run, "classes", {"n": 2})
    assert len(found) == MOST_CLASSES * 2
    line = "figure=classes shows the first 24 of 30, 6 are left out; condition=[A,B,...] chooses which are shown"
    assert line in capsys.readouterr().err.splitlines()
    assert np.array_equal(tiles(run, "classes", {"n": 2}, condition=names[:24]), found)
    assert "left out" not in capsys.readouterr().err


def test_classes_and_attributes_point_at_each_other_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="type figure=attributes"):
        job(Run(tmp_path / "a", NAMES[:3], {}), "classes")
    with pytest.raises(UserError, match="type figure=classes"):
        job(Run(tmp_path / "b", NAMES[3:], GROUPS), "attributes")


def test_a_model_that_never_drew_unasked_shows_no_guidance(run: Run) -> None:
    run.config["model"]["drop_condition"] = 0
    with pytest.raises(UserError, match=r"drop_condition=0.*type autoguidance=early guidance=2"):
        job(run, "guidance")
    with pytest.raises(UserError, match=r"drop_condition=0.*leave none out"):
        job(run, "strip", condition=["none", "Indian"], blend="prediction")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["condition=European:0.5", "n=4", "condition=Indian:0.5"], "type 'condition={European:0.5,Indian:0.5}'"),
        (["condition=Male:1"], "type 'condition={Male:1}'"),
        (["condition=20-29:1,5_o_Clock_Shadow:0"], "type 'condition={20-29:1,5_o_Clock_Shadow:0}'"),
        (["condition=[Male:0,{Male:1}]", "condition=[Smiling:1,{Male:1}]"], "condition is given 2 times"),
    ],
)
def test_braces_that_the_shell_has_taken_are_shown_in_quotes(arguments: list[str], line: str) -> None:
    assert line in (opened_brace(arguments) or "")


@pytest.mark.parametrize(
    "argument", ["condition=Indian", "condition={European:0.5,Indian:0.5}", "condition=[{Male:0},{Male:1}]", "ckpt=a:1"]
)
def test_whole_braces_are_let_through(argument: str) -> None:
    assert opened_brace([argument]) is None


@pytest.mark.parametrize("script", ["sample.py", "evaluate.py"])
def test_a_brace_without_quotes_is_one_line_and_exit_code_2(script: str) -> None:
    typed = [sys.executable, str(ROOT / script), "ckpt=x", "condition=European:0.5", "condition=Indian:0.5"]
    done = subprocess.run(typed, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"error: {opened_brace(typed[3:])}"]
    assert "'condition={European:0.5,Indian:0.5}'" in done.stderr
