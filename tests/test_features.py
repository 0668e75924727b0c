"""One pass over the images: each is made once, what was extracted is kept, and nothing depends on where a pass was cut."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from facegen.errors import UserError
from facegen.images import save_png
from facegen.metrics.features import CHUNK, collect, require_uint8
from facegen.metrics.sources import DataImages, FolderImages


class Numbered:
    """Images whose first pixel is their number, `batch` at a time; breaks down at image `fails`."""

    title = "images"

    def __init__(self, count: int, batch: int = 64, name: str = "a", fails: int | None = None) -> None:
        self.count, self.batch, self.fails = count, batch, fails
        self.identity = {"name": name}
        self.made: list[int] = []

    def batches(self, numbers: Sequence[int], kept: int) -> Iterator[np.ndarray]:
        for start in range(0, len(numbers), self.batch):
            chosen = numbers[start : start + self.batch]
            if self.fails is not None and self.fails in chosen:
                raise KeyboardInterrupt
            self.made += chosen
            images = np.zeros((len(chosen), 1, 2, 2), np.uint8)
            images[:, 0, 0, 0], images[:, 0, 0, 1] = np.array(chosen) % 256, np.array(chosen) // 256
            yield images


class FirstPixel:
    def __init__(self, name: str = "first") -> None:
        self.identity = {"name": name}
        self.seen = 0

    def __call__(self, images: Tensor) -> dict[str, np.ndarray]:
        self.seen += len(images)
        pixels = images.numpy().astype(np.float32)
        return {"features": np.stack([pixels[:, 0, 0, 0] + 256 * pixels[:, 0, 0, 1], pixels[:, 0, 1, 1]], axis=1)}


@pytest.mark.parametrize("count", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
@pytest.mark.parametrize("batch", [1, 60, 64, 1000])
def test_rows_are_in_the_order_of_the_images_however_they_come(tmp_path: Path, count: int, batch: int) -> None:
    rows = collect(tmp_path, Numbered(count, batch), {"x": FirstPixel()}).rows("x")
    assert rows[:, 0].tolist() == list(range(count))


def test_every_image_is_made_once_for_all_extractors_and_never_again(tmp_path: Path) -> None:
    source, extractors = Numbered(600), {"x": FirstPixel("x"), "y": FirstPixel("y")}
    collect(tmp_path, source, extractors)
    assert source.made == list(range(600))
    collect(tmp_path, source, extractors)
    assert len(source.made) == 600
    collect(tmp_path, source, {"x": FirstPixel("x"), "z": FirstPixel("z")})
    assert source.made == [*range(600), *range(600)]


def test_a_pass_that_was_broken_off_goes_on_where_it_was(tmp_path: Path) -> None:
    broken = Numbered(1000, fails=700)
    with pytest.raises(KeyboardInterrupt):
        collect(tmp_path, broken, {"x": FirstPixel()})
    again = Numbered(1000)
    rows = collect(tmp_path, again, {"x": FirstPixel()}).rows("x")
    assert again.made == list(range(2 * CHUNK, 1000))
    assert rows[:, 0].tolist() == list(range(1000))


def test_other_images_or_another_extractor_have_files_of_their_own(tmp_path: Path) -> None:
    collect(tmp_path, Numbered(10, name="a"), {"x": FirstPixel("x")})
    for source, extractor in ((Numbered(10, name="b"), FirstPixel("x")), (Numbered(10, name="a"), FirstPixel("y"))):
        collect(tmp_path, source, {"x": extractor})
        assert len(source.made) == 10


def test_more_images_of_the_same_kind_are_added_and_fewer_are_cut(tmp_path: Path) -> None:
    collect(tmp_path, Numbered(300), {"x": FirstPixel()})
    more, fewer = Numbered(600), Numbered(100)
    assert collect(tmp_path, more, {"x": FirstPixel()}).rows("x")[:, 0].tolist() == list(range(600))
    assert more.made == list(range(CHUNK, 600))
    assert collect(tmp_path, fewer, {"x": FirstPixel()}).rows("x")[:, 0].tolist() == list(range(100))
    assert fewer.made == []


def test_files_that_were_exchanged_are_made_again(tmp_path: Path) -> None:
    before = collect(tmp_path, Numbered(600), {"x": FirstPixel()}).rows("x")
    (first,), (second,) = tmp_path.glob("*/000000.npz"), tmp_path.glob("*/000001.npz")
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    assert np.array_equal(collect(tmp_path, Numbered(600), {"x": FirstPixel()}).rows("x"), before)


def test_what_another_version_extracted_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect(tmp_path, Numbered(10), {"x": FirstPixel()})
    monkeypatch.setattr("facegen.metrics.features.software", lambda: {"torch": "99"})
    source = Numbered(10)
    collect(tmp_path, source, {"x": FirstPixel()})
    assert len(source.made) == 10


def test_a_file_of_another_kind_is_made_again(tmp_path: Path) -> None:
    before = collect(tmp_path, Numbered(10), {"x": FirstPixel()}).rows("x")
    (path,) = tmp_path.glob("*/000000.npz")
    for put in (
        lambda: np.save(path.open("wb"), np.zeros(3)),
        lambda: np.savez(path, other=np.zeros(10)),
        lambda: (path.unlink(), path.mkdir()),
    ):
        put()
        assert np.array_equal(collect(tmp_path, Numbered(10), {"x": FirstPixel()}).rows("x"), before)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_file_is_made_again_and_said(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = collect(tmp_path, Numbered(600), {"x": FirstPixel()}).rows("x")
    (path,) = tmp_path.glob("*/000001.npz")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"cut": data[:100], "flip": data, "empty": b"", "text": b"no archive"}[damage])
    source = Numbered(600)
    assert np.array_equal(collect(tmp_path, source, {"x": FirstPixel()}).rows("x"), before)
    assert source.made == list(range(CHUNK, 2 * CHUNK))
    assert "is damaged: made again" in capsys.readouterr().err


def test_float_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"images must be uint8 in 0..255; got torch.float32; convert with facegen.images.to_uint8"):
        require_uint8(torch.zeros(1, 3, 8, 8))
    assert require_uint8(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)) is not None


def pictures(folder: Path, count: int, size: int = 8, channels: int = 3, first: int = 0) -> Path:
    rng = np.random.default_rng(first)
    for i in range(count):
        save_png(rng.integers(0, 256, (channels, size, size), dtype=np.uint8), folder / f"{first + i:03d}.png", {})
    return folder


def test_a_folder_is_read_pixel_by_pixel_in_the_order_of_its_names(tmp_path: Path) -> None:
    source = FolderImages(pictures(tmp_path / "a", 70), "fake")
    assert (source.count, source.resolution, source.channels) == (70, 8, 3)
    rng = np.random.default_rng(0)
    expected = [rng.integers(0, 256, (3, 8, 8), dtype=np.uint8) for _ in range(70)]
    assert np.array_equal(source.pixels(), np.stack(expected))
    assert np.array_equal(next(source.batches([5, 3], 0)), np.stack([expected[5], expected[3]]))


def test_a_folder_is_known_by_its_pictures_not_by_its_place(tmp_path: Path) -> None:
    a, b = pictures(tmp_path / "a", 3), pictures(tmp_path / "b", 3)
    assert FolderImages(a, "fake").identity == FolderImages(b, "real").identity
    pictures(b, 1, first=2)
    assert FolderImages(a, "fake").identity != FolderImages(b, "real").identity


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, r"real=.*x is no folder; it must hold images of one size; type real=FOLDER"),
        (lambda folder: folder.mkdir(), r"real=.*x holds no images \(jpg, "),
        (
            lambda folder: pictures(pictures(folder, 2), 1, size=9, first=2),
            r"holds images of mixed sizes: 000.png has 8 x 8 pixels, 002.png 9 x 9;",
        ),
        (
            lambda folder: (pictures(folder, 1), (folder / "a.png").write_bytes(b"no"))[0],
            r"x: a.png is no readable image; mend or remove it",
        ),
        (
            lambda folder: save_png(np.zeros((3, 8, 9), np.uint8), folder / "a.png", {}),
            r"holds images of 9 x 8 pixels; they must be square; type data=folder",
        ),
    ],
)
def test_a_folder_that_cannot_be_measured_is_refused(tmp_path: Path, prepare, message: str) -> None:
    prepare(tmp_path / "x")
    with pytest.raises(UserError, match=message):
        FolderImages(tmp_path / "x", "real")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "x", 2)
    os.mkfifo(folder / "q.png")
    with pytest.raises(UserError, match=r"q.png is no file; mend or remove it"):
        FolderImages(folder, "fake")


def test_a_picture_that_is_cut_short_is_named(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "x", 3)
    (folder / "001.png").write_bytes((folder / "001.png").read_bytes()[:-30])
    with pytest.raises(UserError, match=r"fake=.*x: 001.png .*mend or remove it"):
        FolderImages(folder, "fake").pixels()


def cartoon(size: int, held_out: int):
    from facegen.data.faces import Cartoon

    data = Cartoon(resolution=16, channels=3, batch_size=1, seed=0, size=size, held_out=held_out, flip=True)
    data.prepare()
    return data


def test_a_split_is_read_in_order_and_not_mirrored() -> None:
    data = cartoon(70, 30)
    train, held_out, every = (DataImages(data, split) for split in ("train", "held_out", "all"))
    assert (train.count, held_out.count, every.count) == (70, 30, 100)
    assert np.array_equal(np.concatenate([train.pixels(), held_out.pixels()]), every.pixels())
    assert np.array_equal(np.concatenate([*train.batches(range(70), 0)]), train.pixels())
    assert DataImages(data, "train", 5).count == 5


def test_a_split_is_known_by_its_images() -> None:
    identities = [DataImages(cartoon(70, 30), split).identity for split in ("train", "held_out")]
    identities += [DataImages(cartoon(71, 29), "train").identity, DataImages(cartoon(70, 30), "train", 69).identity]
    assert len({str(identity) for identity in identities}) == 4
    assert DataImages(cartoon(70, 30), "train").identity == identities[0]
