"""Classes that are the folders of a data set: their names come from the disk and stay with the images."""

from __future__ import annotations

import shutil
from pathlib import Path

import layouts
import numpy as np
import pytest

from facegen.data import doctor
from facegen.data.cache import open_packed
from facegen.data.decode import Picture
from facegen.data.ethnicity import EthnicityReader
from facegen.data.faces import Ethnicity
from facegen.errors import UserError

READER = EthnicityReader(Picture(16, 3, "center"))
COUNTS = {"Oriental": 5, "European": 9, "Indian": 4}


def ethnicity(tmp_path: Path, root: Path, **options) -> Ethnicity:
    given = {"resolution": 16, "channels": 3, "crop": "center", "batch_size": 4, "seed": 0, "cache_dir": str(tmp_path / "cache")}
    data = Ethnicity(root=str(root), **{**given, **options})
    data.prepare()
    return data


def with_split(root: Path) -> Path:
    layouts.classes(root / "train", COUNTS)
    layouts.classes(root / "val", {"European": 2, "Indian": 1})
    layouts.classes(root / "test", {"Other": 1})
    return root


def test_the_classes_are_the_folders_in_the_order_of_their_names(tmp_path):
    data = ethnicity(tmp_path, layouts.classes(tmp_path / "data", COUNTS), val_fraction=0)
    assert data.condition_names == ("European", "Indian", "Oriental")
    assert data.condition_groups == {"class": ("European", "Indian", "Oriental")}
    assert data.conditions(data.numbers("train")).sum(axis=0).tolist() == [9, 4, 5]
    assert data.facts()["condition_names"] == ["European", "Indian", "Oriental"]
    images, conditions = data._source.read(np.array([0, 17]))
    assert conditions.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert images.shape == (2, 3, 16, 16)


def test_the_names_come_out_of_the_cache_too(tmp_path, monkeypatch):
    root = layouts.classes(tmp_path / "data", {"b": 3, "a": 2, "c d": 2})
    built = open_packed(READER, str(root), str(tmp_path / "cache"))
    monkeypatch.setattr("facegen.data.cache.pack", None)
    again = open_packed(READER, str(root), str(tmp_path / "cache"))
    for packed in (built, again):
        assert packed.condition_names == ("a", "b", "c d")
        assert packed.condition_groups == {"class": ("a", "b", "c d")}
        assert packed.fingerprint == built.fingerprint


def test_other_names_of_the_classes_are_another_data_set(tmp_path):
    root = layouts.classes(tmp_path / "data", {"a": 3, "b": 2})
    before = open_packed(READER, str(root), str(tmp_path / "cache"))
    (root / "b").rename(root / "bb")
    after = open_packed(READER, str(root), str(tmp_path / "cache"))
    assert np.array_equal(before.labels, after.labels)
    assert before.fingerprint != after.fingerprint
    assert after.condition_names == ("a", "bb")


def test_images_deeper_in_the_folder_of_a_class_are_of_it_and_hidden_folders_are_not(tmp_path):
    root = layouts.classes(tmp_path / "data", {"a": 1, "b/1/2": 2, "b": 1, ".c": 3, "b/.d": 1})
    records = READER.scan(root)
    assert records.paths == ["a/000.png", "b/000.png", "b/1/2/000.png", "b/1/2/001.png"]
    assert records.labels.argmax(axis=1).tolist() == [0, 1, 1, 1]
    assert (records.split, records.problems) == (None, [])


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_folders_of_a_split_are_the_official_one_and_test_is_not_trained_on(tmp_path, name):
    root = with_split(tmp_path / "data")
    (root / "val").rename(root / name)
    data = ethnicity(tmp_path, root)
    assert (data.num_train, data.num_val) == (18, 3)
    assert data.conditions(data.numbers("held_out")).sum(axis=0).tolist() == [2, 1, 0]
    assert data.condition_names == ("European", "Indian", "Oriental")


@pytest.mark.parametrize(("train", "val"), [("Train", "Val"), ("TRAIN", "Validation"), ("train", "VALID")])
def test_folders_of_a_split_are_known_whatever_their_case(tmp_path, train, val):
    root = with_split(tmp_path / "data")
    for name, other in (("train", train), ("val", val), ("test", "Test")):
        (root / name).rename(root / other)
    data = ethnicity(tmp_path, root)
    assert (data.num_train, data.num_val, data.condition_names) == (18, 3, ("European", "Indian", "Oriental"))
    assert data.conditions(data.numbers("held_out")).sum(axis=0).tolist() == [2, 1, 0]
    (root / train).rename(root / "Other")
    with pytest.raises(UserError, match=r"has a folder (Test|VALID|Val|Validation) and no folder train; put "):
        READER.scan(root)


@pytest.mark.parametrize("place", ["", "train"])
@pytest.mark.parametrize("name", ["none", "Null", "TRUE", "False"])
def test_a_class_is_not_named_like_a_word_that_means_something_else(tmp_path, name, place, capsys):
    root = layouts.classes(tmp_path / place, {**COUNTS, name: 1}).parent if place else layouts.classes(tmp_path, {**COUNTS, name: 1})
    what = rf"^data\.root=.*: the folder {name} is named like a word that means something else in condition=; rename the folder$"
    with pytest.raises(UserError, match=what):
        READER.columns(root)
    assert doctor.main(["data=ethnicity", f"data.root={root}", "data.resolution=16"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_folder_val_a_fraction_of_train_is_held_out(tmp_path):
    root = with_split(tmp_path / "data")
    shutil.rmtree(root / "val")
    data = ethnicity(tmp_path, root, val_fraction=0.4)
    assert data.num_train + data.num_val == 18
    assert data.num_val > 0


def test_images_of_no_class_are_left_out_and_told(tmp_path, capsys):
    root = with_split(tmp_path / "data")
    for place in (root, root / "train", root / "val"):
        layouts.save(place / "stray.png", 99, (24, 24))
    plain = layouts.classes(tmp_path / "plain", COUNTS)
    layouts.save(plain / "stray.png", 99, (24, 24))
    for folder, expected in ((root, ["stray.png", "train/stray.png", "val/stray.png"]), (plain, ["stray.png"])):
        problems = READER.scan(folder).problems
        assert [(p.kind, p.file, p.effect) for p in problems] == [("mislabelled", file, "left out") for file in expected]
    ethnicity(tmp_path, plain)
    assert "1 images are left out" in capsys.readouterr().err


def empty(root: Path) -> str:
    (root / "Nobody" / "deeper").mkdir(parents=True)
    return rf"the folder {root}/Nobody holds no images; put images there or remove it$"


def one(root: Path) -> str:
    for name in ("Indian", "Oriental"):
        shutil.rmtree(root / name)
    return r"only one folder of a class, European; it must hold .*; type data=folder for images without labels$"


def none(root: Path) -> str:
    for name in COUNTS:
        shutil.rmtree(root / name)
    layouts.save(root / "1.png", 1, (24, 24))
    return r"no folders of classes; .*; type data=folder for images without labels$"


def unknown(root: Path) -> str:
    layouts.classes(root / "train", COUNTS)
    layouts.classes(root / "val", {"Indien": 1})
    return r"val/Indien is a class that train has no folder of \(did you mean 'Indian'\?\); rename it, remove it"


def no_train(root: Path) -> str:
    layouts.classes(root / "valid", {"European": 1})
    return "has a folder valid and no folder train; put the folders of the classes to train on into train$"


@pytest.mark.parametrize("fault", [empty, one, none, unknown, no_train])
def test_a_fault_of_the_folders_is_one_line_that_says_what_to_do(tmp_path, fault, capsys):
    root = layouts.classes(tmp_path / "data", COUNTS)
    what = fault(root)
    with pytest.raises(UserError, match=rf"^data\.root.*{what}"):
        READER.scan(root)
    assert doctor.main(["data=ethnicity", f"data.root={root}", "data.resolution=16"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_doctor_names_both_files_of_one_picture_in_two_classes(tmp_path):
    root = layouts.classes(tmp_path / "data", COUNTS)
    shutil.copy(root / "European" / "003.png", root / "Indian" / "copy.png")
    shutil.copy(root / "European" / "003.png", root / "European" / "copy.png")
    report = doctor.examine(READER, str(root))
    assert [(p.kind, p.file, p.what) for p in report.problems] == [
        ("duplicated", "European/copy.png", "the same bytes as European/003.png"),
        ("mislabelled", "Indian/copy.png", "the same bytes as European/003.png, which is of another class"),
    ]


def test_a_class_that_comes_or_goes_is_told_when_training_continues(tmp_path):
    root = layouts.classes(tmp_path / "data", COUNTS)
    data = ethnicity(tmp_path, root)
    state = data.state_dict()
    assert state["condition_names"] == ["European", "Indian", "Oriental"]
    (root / "Oriental").rename(root / "Asian")
    renamed = ethnicity(tmp_path, root)
    with pytest.raises(
        UserError, match=r"are \[Asian, European, Indian\], and were \[European, Indian, Oriental\] .*names again.*run_dir="
    ):
        renamed.load_state_dict(state)
    del state["condition_names"]  # as older checkpoints are
    ethnicity(tmp_path, layouts.classes(tmp_path / "data2", COUNTS)).load_state_dict(state)
    with pytest.raises(UserError, match="fingerprint"):
        renamed.load_state_dict(state)
