"""The conversion to bytes is exact, PNGs tell where they come from, and a grid can be taken apart again."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from facegen import images, lettering
from facegen.errors import UserError


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_every_byte_survives_the_round_trip() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(images.to_uint8(images.to_float(every)), every)
    assert images.to_float(every)[[0, 255]].tolist() == [-1, 1]


def test_a_value_becomes_the_nearest_byte_and_is_clamped() -> None:
    values = torch.linspace(-1.5, 1.5, 10_001)
    nearest = np.abs((values.clamp(-1, 1).double().numpy() + 1)[:, None] * 127.5 - np.arange(256)).argmin(1)
    found = images.to_uint8(values).numpy().astype(int)
    halfway = np.abs((values.double().numpy() + 1) * 127.5 % 1 - 0.5) < 1e-4
    assert (found == nearest)[~halfway].all()
    assert images.to_uint8(torch.tensor([-9.0, 9.0, float("inf")])).tolist() == [0, 255, 255]
    assert images.to_uint8(values.bfloat16()).dtype == torch.uint8


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_keeps_its_pixels_and_its_provenance(tmp_path: Path, channels: int) -> None:
    image, facts = noise(channels, 7, 5), {"sampler": "DDIM(steps=50, eta=0.0)", "checkpoint": "Gesichter-Läufe 顔.ckpt", "seed": "3"}
    path = tmp_path / "new folder" / "a.png"
    images.save_png(torch.from_numpy(image), path, facts)
    assert np.array_equal(images.read_png(path), image)
    assert images.read_provenance(path) == facts
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    images.save_png(noise(3, 4, 4), path, {"which": "old"})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        images.save_png(noise(3, 4, 4), path, {"which": "new"})
    assert images.read_provenance(path) == {"which": "old"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_png_is_never_believed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    images.save_png(noise(3, 6, 6), path, {"seed": "1"})
    whole = path.read_bytes()
    told = len(whole) - 12  # then follows IEND, which holds nothing
    for data in (damaged for i in range(told) for damaged in (whole[:i] + bytes([whole[i] ^ 16]) + whole[i + 1 :], whole[:i])):
        path.write_bytes(data)
        with pytest.raises(UserError, match="not a readable PNG"):
            images.read_provenance(path)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"columns": 3},
        {"columns": 2, "band": 2},
        {"columns": 4, "row_labels": ["step 1", "step 1,000"], "column_labels": ["a", "b", "c", "a very long label"]},
    ],
)
def test_splitting_undoes_the_grid(tmp_path: Path, channels: int, layout: dict) -> None:
    tiles, path = noise(7, channels, 9, 6), tmp_path / "grid.png"
    picture = images.save_grid(tiles, path, {"step": "1"}, **layout)
    assert np.array_equal(images.read_png(path), picture)
    assert np.array_equal(images.split_grid(path), tiles)
    assert images.read_provenance(path)["step"] == "1"


def test_labels_are_written_beside_the_tiles() -> None:
    white = np.full((4, 3, 8, 8), 255, dtype=np.uint8)
    assert (images.grid(white) == 255).all()
    rows, columns = images.grid(white, row_labels=["x", "y"]), images.grid(white, column_labels=["x", "y"])
    assert (rows < 128).any()
    assert (columns < 128).any()
    assert rows.shape[2] > columns.shape[2]
    assert rows.shape[1] < columns.shape[1]


LONG = "{Male:1,Smiling:0.5,Young:0,European:0.25,Indian:0.75}" * 3


@pytest.mark.parametrize(
    "texts",
    [
        ["a", "b", "c"],
        [LONG, "", "", "", LONG],
        [LONG, "", "b", "", ""],
        ["a", "", "", "", LONG],
        [LONG[:40], LONG[:9], LONG[:40]],
        [LONG] * 9,
    ],
)
def test_labels_in_a_line_do_not_overlap_and_stay_inside(texts: list[str]) -> None:
    places = [(50 + 900 * i / (len(texts) - 1), text) for i, text in enumerate(texts) if text]
    placed = lettering.in_line(places, 20, 1000, 14)
    halves = [lettering.width(text, 14) / 2 for _, text in placed]
    ends = [(middle - half, middle + half) for (middle, _), half in zip(placed, halves, strict=True)]
    assert ends[0][0] >= 20
    assert ends[-1][1] <= 1000
    assert all(right < left for (_, right), (left, _) in pairwise(ends))
    for (_, text), (_, whole) in zip(placed, places, strict=True):
        assert text == whole or (text.endswith("...") and whole.startswith(text.removesuffix("...")))


def test_a_label_that_has_room_is_written_whole() -> None:
    texts = [(50.0, "a"), (150.0, "b"), (950.0, LONG[:100])]
    assert [text for _, text in lettering.in_line(texts, 0, 1000, 14)] == ["a", "b", LONG[:100]]
    assert lettering.in_line(texts[:2], 0, 1000, 14) == texts[:2]
    assert lettering.shortened(LONG, 100, 14).endswith("...")
    assert lettering.width(lettering.shortened(LONG, 100, 14), 14) <= 100


def test_letters_beyond_ascii_are_not_boxes_and_plain_ones_keep_their_font() -> None:
    def drawn(text: str) -> bytes:
        image = Image.new("L", (40, 40))
        ImageDraw.Draw(image).text((5, 5), text, 255, lettering.font_of(text, 20))
        return image.tobytes()

    assert len({drawn(letter) for letter in "ÉéüßŁЯα\uffff"}) == 8
    assert lettering.font_of("Indian", 20) is lettering.font_of("European", 20) is not lettering.font_of("É", 20)


def test_without_matplotlib_every_label_has_the_plain_font(monkeypatch: pytest.MonkeyPatch) -> None:
    lettering._wide.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(lettering, "find_spec", lambda name: None)
        assert lettering.font_of("É", 20) is lettering.font_of("E", 20)
    lettering._wide.cache_clear()


def test_a_font_is_found_without_importing_matplotlib() -> None:
    code = "import sys; from facegen import lettering; lettering.font_of('É', 14); print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_sheet_of_small_faces_can_be_seen_and_a_large_one_is_left_as_it_is() -> None:
    assert 600 <= images.grid(noise(64, 3, 32, 32)).shape[2] <= 1000
    assert images.grid(noise(64, 1, 256, 256)).shape == (1, 8 * 256 + 7 * images.GAP, 8 * 256 + 7 * images.GAP)


def test_only_a_grid_can_be_split(tmp_path: Path) -> None:
    images.save_png(noise(3, 8, 8), tmp_path / "a.png", {"tiling": '{"colour": "red"}'})
    images.save_png(noise(3, 8, 8), tmp_path / "b.png", {})
    for name in ("a.png", "b.png"):
        with pytest.raises(UserError, match="not written as a grid"):
            images.split_grid(tmp_path / name)
