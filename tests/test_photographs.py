"""Photographs as people have them: any size, turned any way, in any format, framed as a model's training pictures are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facegen.editing.photographs import Square, faces, photographs
from facegen.errors import UserError
from facegen.regions import FFHQ

ORIENTATION = 274  # the number of EXIF's tag


def gradient(width: int, height: int) -> Image.Image:
    """Every pixel another colour: red rises to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8))


def nobody(grey: np.ndarray) -> list[Square]:
    return []


def somebody(*squares: Square) -> Callable[[np.ndarray], list[Square]]:
    """A detector that finds faces at these places of the picture it is given."""
    return lambda grey: list(squares)


@pytest.mark.parametrize("size", [(64, 64), (100, 60), (60, 100), (333, 87)])
def test_the_centred_square_is_in_the_middle_and_as_large_as_it_can_be(tmp_path: Path, size: tuple[int, int]) -> None:
    gradient(*size).save(tmp_path / "a.png")
    [found] = photographs(str(tmp_path / "a.png"), 32, 3, "center")
    assert found.pixels.shape == (3, 32, 32)
    assert found.pixels.dtype == np.uint8
    left, top, right, bottom = found.box
    assert (right - left, bottom - top) == (min(size), min(size))
    assert ((left + right) / 2, (top + bottom) / 2) == (size[0] / 2, size[1] / 2)
    assert abs(found.pixels[:2].mean() - 127.5) < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_says_how_it_is_turned_is_upright(tmp_path: Path, orientation: int) -> None:
    upright = gradient(48, 48)
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
    stored = upright.transpose(Image.Transpose[undo[orientation]]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    [found] = photographs(str(tmp_path / "a.png"), 48, 3, "center")
    assert np.array_equal(found.pixels.transpose(1, 2, 0), np.asarray(upright))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_kind_of_colour_becomes_what_the_model_takes(tmp_path: Path, mode: str, channels: int) -> None:
    gradient(40, 40).convert(mode).save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    [found] = photographs(str(tmp_path), 32, channels, "center")
    assert found.pixels.shape == (channels, 32, 32)


def test_the_largest_face_is_put_where_the_frame_says(tmp_path: Path) -> None:
    gradient(400, 300).save(tmp_path / "a.png")
    [found] = photographs(str(tmp_path / "a.png"), 64, 3, frame=FFHQ.face, detect=somebody((20, 30, 25), (150, 100, 80)))
    left, top, right, bottom = found.box
    side = right - left
    assert side == pytest.approx(80 / (FFHQ.face[2] - FFHQ.face[0]))
    assert bottom - top == pytest.approx(side)
    assert (150 - left) / side == pytest.approx(FFHQ.face[0])
    assert (100 - top) / side == pytest.approx(FFHQ.face[1])
    assert found.note is None


def test_a_face_is_looked_for_in_a_smaller_picture_and_found_in_the_large_one(tmp_path: Path) -> None:
    gradient(1920, 1440).save(tmp_path / "a.png")
    seen: list[tuple[int, ...]] = []

    def look(grey: np.ndarray) -> list[Square]:
        seen.append(grey.shape)
        return [(100, 100, 80)]

    [found] = photographs(str(tmp_path / "a.png"), 64, 3, frame=(0.25, 0.25, 0.75, 0.75), detect=look)
    assert max(seen[0]) == 480
    assert found.box == pytest.approx((400 - 160, 400 - 160, 400 + 480, 400 + 480))


@pytest.mark.parametrize("place", [(0, 0), (320, 220), (0, 220)])
def test_a_face_at_the_edge_is_framed_within_the_picture(tmp_path: Path, place: tuple[int, int]) -> None:
    gradient(400, 300).save(tmp_path / "a.png")
    [found] = photographs(str(tmp_path / "a.png"), 64, 3, detect=somebody((*place, 80)))
    left, top, right, bottom = found.box
    assert min(left, top) >= 0
    assert right <= 400 + 1e-6
    assert bottom <= 300 + 1e-6


def test_a_square_picture_of_a_face_alone_is_taken_as_it_is(tmp_path: Path) -> None:
    gradient(100, 100).save(tmp_path / "a.png")
    [found] = photographs(str(tmp_path / "a.png"), 64, 3, detect=somebody((20, 20, 60)))
    assert found.box == (0, 0, 100, 100)


def test_where_no_face_is_found_the_centre_is_taken_and_said(tmp_path: Path) -> None:
    gradient(100, 80).save(tmp_path / "a.png")
    [found] = photographs(str(tmp_path / "a.png"), 64, 3, detect=nobody)
    assert found.box == (10, 0, 90, 80)
    assert found.note == "no face was found: the centred square is taken"


def test_the_real_detector_finds_the_astronaut_and_nobody_on_a_wall() -> None:
    from skimage.data import astronaut

    picture = Image.fromarray(astronaut()).convert("L")
    found = max(faces(np.asarray(picture)), key=lambda square: square[2])
    x, y = found[0] + found[2] / 2, found[1] + found[2] / 2
    assert 180 < x < 270
    assert 60 < y < 160
    assert faces(np.full((200, 200), 128, np.uint8)) == []


def test_a_box_is_cut_out_as_it_was_given(tmp_path: Path) -> None:
    picture = gradient(100, 80)
    picture.save(tmp_path / "a.png")
    [found] = photographs(str(tmp_path / "a.png"), 32, 3, [10, 20, 42, 52])
    assert np.array_equal(found.pixels.transpose(1, 2, 0), np.asarray(picture)[20:52, 10:42])


def test_a_folder_is_all_its_images_in_order_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("b.png", "a.JPG", ".hidden.png"):
        gradient(40, 40).save(tmp_path / name, "PNG" if name.endswith("png") else "JPEG")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "sub").mkdir()
    assert [one.name for one in photographs(str(tmp_path), 32, 3, "center")] == ["a", "b"]
    assert "1 files that are no images are passed over" in capsys.readouterr().err


def test_photographs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        gradient(40, 40).save(tmp_path / folder / "face.png")
    assert [one.name for one in photographs([str(tmp_path / "x"), str(tmp_path / "y" / "face.png")], 32, 3)] == ["face", "face-2"]


def test_a_small_photograph_is_enlarged_and_that_is_said(tmp_path: Path) -> None:
    gradient(40, 40).save(tmp_path / "a.png")
    [found] = photographs(str(tmp_path / "a.png"), 64, 3, "center")
    assert found.note == "40 pixels were enlarged to 64"


@pytest.mark.parametrize(
    ("name", "crop", "message"),
    [
        ("none.png", "face", r"^edit=.*none.png cannot be read \(No such file or directory\); type edit=FILE, a photograph$"),
        ("text.png", "face", r"^edit=.*text.png is not an image that can be read: .*; allowed: .*; type edit=FILE$"),
        ("cut.png", "face", r"^edit=.*cut.png is not an image that can be read"),
        (
            "tiny.png",
            "face",
            r"^edit=.*tiny.png shows a square of 8 pixels, no face-sized image; the model draws 64 and takes 24 or more",
        ),
        ("good.png", "upper", r"^crop must be face, center or \[left,top,right,bottom\]; got upper; type crop=face$"),
        (
            "good.png",
            [0, 0, 50, 20],
            r"^crop=\[0,0,50,20\] must be left, top, right and bottom of a square in .*, which has 90 x 60",
        ),
        ("good.png", [0, 0, 70, 70], r"^crop=\[0,0,70,70\] must be left"),
        ("good.png", [0, 0, 30], r"^crop=\[0,0,30\] must be left"),
        ("empty", "face", r"^edit=.*empty is a folder without images; allowed: .*; type edit=FILE, or another folder$"),
    ],
)
def test_what_cannot_be_edited_is_one_line(tmp_path: Path, name: str, crop: str | list[float], message: str) -> None:
    gradient(90, 60).save(tmp_path / "good.png")
    gradient(8, 8).save(tmp_path / "tiny.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:200])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message) as caught:
        photographs(str(tmp_path / name), 64, 3, crop, detect=nobody)
    assert len(caught.value.lines) == 1


def test_no_photographs_at_all_are_told() -> None:
    with pytest.raises(UserError, match=r"^edit must name photographs; got \[\]; type edit=FILE, or edit=FOLDER$"):
        photographs([], 32, 3)
