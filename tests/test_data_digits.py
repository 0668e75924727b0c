"""Digits: MNIST's files and those of scikit-learn, in memory, padded and never mirrored."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import layouts
import numpy as np
import pytest
import torch

from facegen.data import doctor
from facegen.data.faces import MNIST, Digits
from facegen.data.in_memory import InMemory
from facegen.data.mnist import BadIdx, find, open_mnist
from facegen.errors import UserError

COMMON = {"channels": 1, "batch_size": 4, "seed": 0}


def mnist(root: Path, **options) -> MNIST:
    data = MNIST(**{"root": str(root), "resolution": 32, **COMMON, **options})
    data.prepare()
    return data


def digits(**options) -> Digits:
    data = Digits(**{"resolution": 8, **COMMON, **options})
    data.prepare()
    return data


@pytest.mark.parametrize("place", ["MNIST/raw", "raw", ""])
@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_found_where_it_is_laid_out(tmp_path, place, packed):
    layouts.mnist(tmp_path / place, 30, packed=packed)
    layouts.mnist(tmp_path / place, 7, "t10k", packed)
    data = mnist(tmp_path)
    assert (data.num_train, data.num_val) == (30, 7)
    assert data.numbers("held_out").tolist() == list(range(30, 37))
    assert data.condition_names == tuple("0123456789")
    assert data.condition_groups == {"digit": tuple("0123456789")}
    assert data.conditions(np.arange(37)).argmax(axis=1).tolist() == [i % 10 for i in (*range(30), *range(7))]
    assert data.pixels(np.array([3, 31]))[:, 0, 2, 2].tolist() == [4, 2]


def test_the_names_of_kaggle_are_known_too(tmp_path):
    layouts.mnist(tmp_path)
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert mnist(tmp_path).num_train + mnist(tmp_path).num_val == 30


def test_digits_stand_in_the_middle_of_black_and_are_not_mirrored(tmp_path):
    layouts.mnist(tmp_path)
    small, large = mnist(tmp_path, resolution=28), mnist(tmp_path, resolution=40)
    inside, around = small.pixels(np.arange(5)), large.pixels(np.arange(5))
    assert np.array_equal(around[:, :, 6:34, 6:34], inside)
    assert around.sum() == inside.sum()
    assert (small.flip, digits().flip) == (False, False)
    assert small.fingerprint != large.fingerprint == mnist(tmp_path, resolution=40).fingerprint
    batch = next(iter(large.train_dataloader()))
    assert torch.equal(batch["image"], torch.from_numpy(large.pixels(batch["index"].numpy())))
    assert batch["condition"].shape == (4, 10)


def test_without_the_files_of_t10k_a_fraction_is_held_out(tmp_path):
    layouts.mnist(tmp_path, 200)
    data = mnist(tmp_path, val_fraction=0.2)
    assert 20 < data.num_val < 60
    assert sorted([*data.numbers("train"), *data.numbers("held_out")]) == list(range(200))
    assert mnist(tmp_path, val_fraction=0).num_val == 0


def lacking(root: Path) -> str:
    (root / "train-labels-idx1-ubyte").unlink()
    return r"train-labels-idx1-ubyte \(or .gz\) is missing"


def half_of_t10k(root: Path) -> str:
    layouts.idx(root / "t10k-labels-idx1-ubyte", np.arange(5))
    return r"t10k-images-idx3-ubyte \(or .gz\) is missing"


def only_t10k(root: Path) -> str:
    for path in list(root.iterdir()):
        path.rename(path.with_name(path.name.replace("train", "t10k")))
    return r"train-images-idx3-ubyte \(or .gz\) is missing"


def no_magic(root: Path) -> str:
    shutil.copy(root / "train-labels-idx1-ubyte", root / "train-images-idx3-ubyte")
    return "train-images-idx3-ubyte is no IDX file of 3 dimensions: its magic number is 2049, not 2051"


def empty(root: Path) -> str:
    (root / "train-images-idx3-ubyte").write_bytes(b"")
    return "is no IDX file"


def cut(root: Path) -> str:
    os.truncate(root / "train-images-idx3-ubyte", 1016)
    return "announces 23520 bytes and holds 1000"


def longer(root: Path) -> str:
    with open(root / "train-labels-idx1-ubyte", "ab") as file:
        file.write(b"x")
    return "announces 30 bytes and holds more"


def cut_gzip(root: Path) -> str:
    layouts.mnist(root, packed=True)
    for path in list(root.glob("*ubyte")):
        path.unlink()
    os.truncate(root / "train-images-idx3-ubyte.gz", 5000)
    return r"train-images-idx3-ubyte.gz is damaged \("


def no_gzip(root: Path) -> str:
    (root / "train-labels-idx1-ubyte").rename(root / "train-labels-idx1-ubyte.gz")
    return r"train-labels-idx1-ubyte.gz is damaged \("


def fewer_labels(root: Path) -> str:
    layouts.idx(root / "train-labels-idx1-ubyte", np.arange(9))
    return "train-labels-idx1-ubyte holds 9 labels, and train-images-idx3-ubyte 30 images"


def strange_label(root: Path) -> str:
    layouts.idx(root / "train-labels-idx1-ubyte", np.array([1] * 17 + [23] + [1] * 12))
    return "train-labels-idx1-ubyte:18 the label is 23, and must be one of 0 to 9"


def other_size(root: Path) -> str:
    layouts.idx(root / "train-images-idx3-ubyte", np.zeros((30, 32, 24)))
    return "holds images of 24 x 32 pixels, not 28 x 28"


FAULTS = [lacking, half_of_t10k, only_t10k, no_magic, empty, cut, longer, cut_gzip, no_gzip, fewer_labels, strange_label, other_size]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_mnist_is_one_line_that_names_the_file_and_what_to_do(tmp_path, fault, capsys):
    what = fault(layouts.mnist(tmp_path))
    with pytest.raises(UserError, match=rf"^data\.root: .*{what}.*; (put|.*type)") as caught:
        mnist(tmp_path)
    assert len(caught.value.lines) == 1
    damaged = isinstance(caught.value, BadIdx)
    assert doctor.main(["data=mnist", f"data.root={tmp_path}"]) == (1 if damaged else 2)
    assert ("0 images can be used" in capsys.readouterr().out) == damaged


def test_a_sound_mnist_is_said_to_be_sound(tmp_path, capsys):
    layouts.mnist(layouts.mnist(tmp_path / "raw", 30), 5, "t10k")
    assert doctor.main(["data=mnist", f"data.root={tmp_path}", "data.resolution=28"]) == 0
    assert "35 images can be used; nothing is wrong" in capsys.readouterr().out
    assert doctor.main(["data=mnist", f"data.root={tmp_path}", "data.resolution=27"]) == 2


def test_a_folder_without_mnist_says_what_it_must_hold(tmp_path):
    for root, what in ((None, "not given"), (tmp_path / "absent", "no folder"), (tmp_path, "is empty")):
        with pytest.raises(UserError, match=rf"^data\.root.*{what}.*train-images-idx3-ubyte.*type data\.root=FOLDER$"):
            find(root)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"holds no MNIST; it must hold .*type data\.root=FOLDER$"):
        find(tmp_path)


def test_images_do_not_fit_into_less_than_their_side(tmp_path):
    with pytest.raises(UserError, match=r"^data\.resolution must be at least 28, .*got 27; type data\.resolution=28$"):
        open_mnist(layouts.mnist(tmp_path), 27, 0.1)
    with pytest.raises(UserError, match=r"^data\.resolution must be at least 8, .*got 7"):
        digits(resolution=7)


def test_the_digits_of_scikit_learn_need_no_download():
    from sklearn.datasets import load_digits

    published = load_digits()
    data = digits()
    everything = data.numbers("all")
    assert everything.tolist() == list(range(1797))
    assert 120 < data.num_val < 240
    assert digits().numbers("held_out").tolist() == data.numbers("held_out").tolist()
    assert np.abs(data.pixels(everything)[:, 0] - published.images * 255 / 16).max() <= 0.5
    assert data.conditions(everything).argmax(axis=1).tolist() == published.target.tolist()
    assert (data.facts()["name"], data.facts()["resolution"], data.facts()["channels"]) == ("Digits", 8, 1)


def test_copies_of_a_digit_fall_on_one_side(tmp_path):
    one = np.random.default_rng(0).integers(0, 256, (50, 28, 28))
    layouts.idx(tmp_path / "train-images-idx3-ubyte", np.concatenate([one, one]))
    layouts.idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(100))
    held = mnist(tmp_path, val_fraction=0.5).numbers("held_out")
    assert set(held[held < 50] + 50) == set(held[held >= 50])


def test_classes_are_told_apart_by_the_fingerprint():
    images = np.zeros((4, 28, 28), np.uint8)
    classes = [np.arange(4), np.arange(4)[::-1]]
    assert len({InMemory(images, of, 32).fingerprint for of in classes}) == 2


def test_scikit_learn_is_imported_only_for_its_digits():
    code = "import sys, facegen.data.faces, facegen.data.checks, facegen.data.digits; print('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
