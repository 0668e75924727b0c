"""A cache is built once, whole or not at all, and is that of the files as they are now."""

from __future__ import annotations

import csv
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from collections import namedtuple
from pathlib import Path

import layouts
import numpy as np
import pytest
from PIL import Image

from facegen.data import pack as packing
from facegen.data.cache import open_packed
from facegen.data.celeba import CelebAReader
from facegen.data.decode import Picture, decode
from facegen.data.folder import FolderReader
from facegen.data.packed import PackedImages
from facegen.data.records import HELD_OUT, TEST, TRAIN
from facegen.data.utkface import UTKFaceReader
from facegen.errors import UserError

PICTURE = Picture(16, 3, "center")
ALIGNED = Picture(16, 3, "center148")


def opened(tmp_path: Path, **options) -> PackedImages:
    return open_packed(FolderReader(PICTURE), str(tmp_path / "data"), str(tmp_path / "cache"), **options)


def folders(tmp_path: Path, pattern: str = "*/") -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").glob(pattern))


def test_what_is_read_is_what_the_files_decode_to(tmp_path):
    root = layouts.folder(tmp_path / "data", 7)
    packed = opened(tmp_path)
    expected = [decode(path.read_bytes(), PICTURE) for path in sorted(root.rglob("*.png"))]
    images, conditions = packed.read(np.array([6, 0, 3]))
    assert np.array_equal(images, np.stack([expected[6], expected[0], expected[3]]))
    assert images.dtype == np.uint8
    assert conditions is None


def test_many_processes_decode_what_one_decodes(tmp_path, monkeypatch):
    root = layouts.folder(tmp_path / "data", 9)
    (root / "0" / "000.png").write_bytes(b"no image")
    paths = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    shape = (9, 3, 16, 16)
    outcomes, pixels = [], []
    for at_once in (100, 2):  # one task in this process; five tasks in others
        monkeypatch.setattr(packing, "_AT_ONCE", at_once)
        target = tmp_path / f"{at_once}.npy"
        np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=shape)
        outcomes.append(packing.pack(root, paths, PICTURE, target))
        pixels.append(np.load(target))
    assert np.array_equal(*pixels)
    assert outcomes[0].problems == outcomes[1].problems
    for column in ("digests", "sums", "good"):
        assert np.array_equal(getattr(outcomes[0], column), getattr(outcomes[1], column))
    assert outcomes[0].good.sum() == 8


def test_labels_and_official_split_are_kept(tmp_path):
    root = layouts.celeba(tmp_path / "data", 20)
    packed = open_packed(CelebAReader(Picture(32, 1, "center148")), str(root), str(tmp_path / "cache"))
    assert packed.images.shape == (20, 1, 32, 32)
    assert packed.read(np.array([3]))[1].tolist() == [[max(0, value) for value in layouts.attributes(3)]]
    parts = [packed.indices(split, val_fraction=0.5).tolist() for split in (TRAIN, HELD_OUT, TEST)]
    assert parts == [[*range(8), *range(10, 18)], [8, 18], [9, 19]]


def test_every_layout_has_one_fingerprint_and_every_picture_another(tmp_path):
    def fingerprint(name: str, picture: Picture = ALIGNED, **layout) -> str:
        root = layouts.celeba(tmp_path / name, 10, **layout)
        return open_packed(CelebAReader(picture), str(root), str(tmp_path / "cache")).fingerprint

    same = {
        fingerprint("plain"),
        fingerprint("again"),
        fingerprint("kaggle", images="img_align_celeba/img_align_celeba", tables="csv", newline="\r\n"),
    }
    others = {
        fingerprint("plain", Picture(17, 3, "center148")),
        fingerprint("plain", Picture(16, 1, "center148")),
        fingerprint("plain", Picture(16, 3, "squash")),
        fingerprint("unlabelled", tables="none"),
    }
    assert (len(same), len(others | same)) == (1, 5)


def test_a_second_start_builds_nothing(tmp_path, monkeypatch):
    layouts.folder(tmp_path / "data", 4)
    first = opened(tmp_path)
    monkeypatch.setattr("facegen.data.cache.pack", None)
    assert opened(tmp_path).fingerprint == first.fingerprint


@pytest.mark.parametrize("change", ["replace", "remove", "add", "label"])
def test_a_changed_data_set_has_another_cache_and_fingerprint(tmp_path, change):
    root = layouts.celeba(tmp_path / "data", 10)
    reader = CelebAReader(ALIGNED)
    before = open_packed(reader, str(root), str(tmp_path / "cache"))
    image = root / "img_align_celeba" / "000003.jpg"
    table = root / "list_attr_celeba.txt"
    if change == "replace":
        layouts.save(image, 99, (178, 218))
    elif change == "remove":
        image.unlink()
    elif change == "add":
        layouts.celeba(root, 11)
    else:
        text = table.read_text()
        os.utime(table, ns=(0, 0))
        table.write_text(text.replace(" 1\n", "-1\n", 1))
    after = open_packed(reader, str(root), str(tmp_path / "cache"))
    assert after.fingerprint != before.fingerprint
    assert len(folders(tmp_path)) == 2


def test_without_an_official_split_a_fraction_is_held_out_and_copies_stay_together(tmp_path):
    root = layouts.folder(tmp_path / "data", 300, size=(16, 16))
    for path in sorted((root / "0").iterdir()):
        shutil.copy(path, root / f"copy-{path.name}")
    packed = opened(tmp_path)
    train, held_out = (packed.indices(split, 0.3) for split in (TRAIN, HELD_OUT))
    assert sorted([*train, *held_out]) == list(range(450))
    assert len(held_out) / 450 == pytest.approx(0.3, abs=0.1)
    assert set(packed.indices(HELD_OUT, 0.1)) <= set(held_out)
    assert not {packed.images[i].tobytes() for i in train} & {packed.images[i].tobytes() for i in held_out}


def test_a_limit_keeps_so_many_images_whatever_else_is_there(tmp_path):
    layouts.folder(tmp_path / "data", 20)
    everything, some, more = (opened(tmp_path, limit=limit).images for limit in (None, 5, 6))
    chosen = [{image.tobytes() for image in images} for images in (everything, some, more)]
    assert (len(some), len(more)) == (5, 6)
    assert chosen[1] < chosen[2] < chosen[0]


def damaged(root: Path) -> None:
    layouts.folder(root, 6)
    (root / "0" / "000.png").write_bytes((root / "0" / "002.png").read_bytes()[:-40])
    Image.fromarray(np.ones((24, 24), np.float32)).save(root / "1" / "float.tif")


def test_a_bad_file_is_an_error_that_names_it_and_the_way_out(tmp_path):
    damaged(tmp_path / "data")
    for _ in range(2):  # while packing, and when the cache is there
        with pytest.raises(UserError) as error:
            opened(tmp_path)
        (line,) = error.value.lines
        for part in ("2 problems", "0/000.png", "1/float.tif", "data.on_bad=skip", "facegen.data.doctor"):
            assert part in line


def test_bad_files_are_skipped_listed_and_counted_when_asked_for(tmp_path, capsys):
    damaged(tmp_path / "data")
    packed = opened(tmp_path, on_bad="skip")
    assert "2 images are left out" in capsys.readouterr().err
    with open(packed.folder / "bad.csv", newline="") as file:
        assert [(row["file"], row["kind"]) for row in csv.DictReader(file)] == [("0/000.png", "corrupt"), ("1/float.tif", "corrupt")]
    kept = np.concatenate([packed.indices(split, 0.5) for split in (TRAIN, HELD_OUT)])
    assert sorted(kept) == [1, 2, 3, 4, 5]


def test_a_malformed_utkface_name_is_told_and_is_no_error(tmp_path, capsys):
    for name in ("1_0_2_2016.jpg.chip.jpg", "39_1_2017.jpg.chip.jpg"):
        layouts.save(tmp_path / "data" / name, 0, (16, 16))
    packed = open_packed(UTKFaceReader(Picture(16, 3)), str(tmp_path / "data"), str(tmp_path / "cache"))
    assert len(packed.images) == 1
    assert "1 images are left out" in capsys.readouterr().err


def test_a_data_set_without_a_usable_image_is_a_user_error(tmp_path):
    layouts.save(tmp_path / "data" / "39_1_2017.jpg.chip.jpg", 0, (16, 16))
    with pytest.raises(UserError, match="no usable image"):
        open_packed(UTKFaceReader(Picture(16, 3)), str(tmp_path / "data"), str(tmp_path / "cache"))


def truncate(folder: Path) -> None:
    os.truncate(folder / "images.npy", 500)


def lengthen(folder: Path) -> None:
    with open(folder / "images.npy", "ab") as file:
        file.write(b"x")


def flip_a_pixel(folder: Path) -> None:
    data = bytearray((folder / "images.npy").read_bytes())
    data[-1] ^= 1
    (folder / "images.npy").write_bytes(data)


def flip_a_label(folder: Path) -> None:
    data = bytearray((folder / "records.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "records.npz").write_bytes(data)


def remove_records(folder: Path) -> None:
    (folder / "records.npz").unlink()


@pytest.mark.parametrize("damage", [truncate, lengthen, flip_a_pixel, flip_a_label, remove_records])
def test_a_damaged_cache_is_noticed_and_built_again(tmp_path, capsys, damage):
    layouts.folder(tmp_path / "data", 6)
    before = opened(tmp_path)
    pixels, _ = before.read(np.arange(6))
    damage(before.folder)
    after = opened(tmp_path)
    assert "is damaged: building it again" in capsys.readouterr().err
    assert np.array_equal(after.read(np.arange(6))[0], pixels)
    opened(tmp_path)
    assert capsys.readouterr().err == ""


def _open_and_report(tmp_path: Path, start, results) -> None:
    built = []
    original = packing.pack
    import facegen.data.cache as cache

    def slow(*arguments):
        built.append(1)
        time.sleep(0.3)
        return original(*arguments)

    cache.pack = slow
    start.wait()
    results.put((opened(tmp_path).fingerprint, len(built)))


def _build_until_killed(tmp_path: Path, begun) -> None:
    import facegen.data.cache as cache

    def endless(*arguments):
        begun.set()
        time.sleep(60)

    cache.pack = endless
    opened(tmp_path)


def test_two_processes_that_start_at_once_build_once(tmp_path):
    layouts.folder(tmp_path / "data", 4)
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.Queue()
    processes = [context.Process(target=_open_and_report, args=(tmp_path, start, results)) for _ in range(2)]
    for process in processes:
        process.start()
    start.set()
    outcomes = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert outcomes[0][0] == outcomes[1][0]
    assert outcomes[0][1] + outcomes[1][1] == 1


def test_a_killed_build_is_not_believed_and_its_leftovers_are_removed(tmp_path):
    layouts.folder(tmp_path / "data", 4)
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    process = context.Process(target=_build_until_killed, args=(tmp_path, begun))
    process.start()
    assert begun.wait(timeout=30)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert folders(tmp_path, "*.building")
    layouts.folder(tmp_path / "data", 5)  # another data set now: its cache has another name
    assert len(opened(tmp_path).images) == 5
    assert not folders(tmp_path, "*.building")


def test_the_leftovers_of_a_builder_at_work_stay(tmp_path):
    from facegen.data.lock import locked

    layouts.folder(tmp_path / "data", 4)
    (tmp_path / "cache" / "folder-1.building").mkdir(parents=True)
    (tmp_path / "cache" / "folder-2.building").mkdir()
    with locked(tmp_path / "cache" / "folder-1.lock", "packing"):
        opened(tmp_path)
        assert folders(tmp_path, "*.building") == ["folder-1.building"]


def test_too_little_room_is_told_before_anything_is_decoded(tmp_path, monkeypatch):
    layouts.folder(tmp_path / "data", 4)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(100, 100, 0))
    monkeypatch.setattr("facegen.data.cache.pack", None)
    with pytest.raises(UserError, match=r"^data\.cache_dir=.*0 MB free.*data\.cache_dir=FOLDER$"):
        opened(tmp_path)


def test_a_cache_that_cannot_be_written_is_a_user_error(tmp_path):
    layouts.folder(tmp_path / "data", 4)
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"^data\.cache_dir=.*cannot be used"):
        opened(tmp_path)


def test_another_process_opens_the_pixels_for_itself(tmp_path):
    layouts.folder(tmp_path / "data", 4, size=(64, 64))
    packed = open_packed(FolderReader(Picture(64, 3, "center")), str(tmp_path / "data"), str(tmp_path / "cache"))
    assert packed.images.nbytes == 4 * 3 * 64 * 64
    sent = pickle.dumps(packed)
    assert len(sent) < 2000
    assert np.array_equal(pickle.loads(sent).images, packed.images)


def test_the_cache_lies_where_the_environment_says(tmp_path, monkeypatch):
    layouts.folder(tmp_path / "data", 2)
    monkeypatch.setenv("FACEGEN_CACHE", str(tmp_path / "elsewhere"))
    assert open_packed(FolderReader(PICTURE), str(tmp_path / "data")).folder.parent == tmp_path / "elsewhere"
