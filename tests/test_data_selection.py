"""Which labels are shown and how often each image: what the user chooses changes neither the images nor what a number is against."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import layouts
import numpy as np
import pytest
from runs import configure

from facegen.data.columns import Columns, balanced_by, choose
from facegen.data.faces import Cartoon, Digits, Ethnicity, FaceData, Folder
from facegen.data.selection import balanced
from facegen.errors import UserError
from facegen.experiment import resolve

COLUMNS = Columns(("Male", "Young", "0-2", "3-6", "7-9", "White", "Black"), {"age": ("0-2", "3-6", "7-9"), "race": ("White", "Black")})


def cartoon(**options) -> Cartoon:
    data = Cartoon(**{"resolution": 8, "channels": 3, "batch_size": 4, "seed": 0, "size": 200, "held_out": 20, **options})
    data.prepare()
    return data


def ethnicity(tmp_path: Path, counts: dict[str, int], **options) -> Ethnicity:
    root = tmp_path / "data"
    given = {"resolution": 16, "channels": 3, "crop": "center", "batch_size": 4, "seed": 0, "val_fraction": 0}
    given["cache_dir"] = str(tmp_path / "cache")
    data = Ethnicity(root=str(root if root.exists() else layouts.classes(root, counts)), **{**given, **options})
    data.prepare()
    return data


def shown(data: FaceData, batches: int) -> np.ndarray:
    return np.concatenate([batch["index"].numpy() for batch in islice(data.train_dataloader(), batches)])


@pytest.mark.parametrize(
    ("wanted", "names", "groups"),
    [
        (None, COLUMNS.names, COLUMNS.groups),
        (["Young", "Male"], ("Male", "Young"), {}),
        (["race", "Male"], ("Male", "White", "Black"), {"race": ("White", "Black")}),
        (["7-9", "0-2"], ("0-2", "7-9"), {"age": ("0-2", "7-9")}),
        (["Black", "3-6", "Male"], ("Male", "3-6", "Black"), {}),
    ],
)
def test_labels_are_chosen_by_column_or_group_in_the_order_of_the_data(wanted, names, groups):
    assert choose(COLUMNS, wanted, "") == (names, groups)


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        (
            ["Mail"],
            r"data.attributes=\[Mail\]: the data has no label Mail \(did you mean 'Male'\?\); type some of: Male, Young, .*age, race$",
        ),
        (["rice"], r"did you mean 'race'"),
        ([], r"names no label; allowed: Male, .*; type data.attributes=null for all of them$"),
        (["Male", "Male"], r"names Male twice; type each once$"),
        (["White", "race"], r"names White twice, in group race too; type each once$"),
    ],
)
def test_labels_that_cannot_be_chosen_are_told(wanted, what):
    with pytest.raises(UserError, match=what):
        choose(COLUMNS, wanted, "")


@pytest.mark.parametrize(
    ("columns", "balance", "by"),
    [
        (COLUMNS, False, ()),
        (COLUMNS, "race", ("race",)),
        (COLUMNS, ["Male", "age"], ("Male", "age")),
        (COLUMNS, "Young", ("Young",)),
        (choose(COLUMNS, ["race", "Male"], ""), True, ("race",)),
        (choose(COLUMNS, ["Black", "Male"], ""), "Black", ("Black",)),
        (Columns(("1", "2", "3"), {"digit": ("1", "2")}), 3, ("3",)),
    ],
)
def test_classes_are_balanced_over_a_group_or_an_attribute(columns, balance, by):
    assert balanced_by(columns, balance, "") == by


@pytest.mark.parametrize(
    ("columns", "balance", "what"),
    [
        (
            COLUMNS,
            True,
            r"^data.balance=true means the only group .* there are 2; type data.balance=NAME with one of: age, race, Male, Young$",
        ),
        (choose(COLUMNS, ["Male"], ""), True, r"there are 0; type data.balance=Male$"),
        (COLUMNS, "rase", r"^data.balance=rase is no group and no attribute .*did you mean 'race'"),
        (COLUMNS, "White", r"^data.balance=White is one class of the group race; type data.balance=race"),
        (choose(COLUMNS, ["race"], ""), "age", r"no attribute of the labels in use"),
        (Columns((), {}), "race", r"^data.balance=race needs labels, THE REASON$"),
    ],
)
def test_a_balance_that_cannot_be_is_told(columns, balance, what):
    with pytest.raises(UserError, match=what):
        balanced_by(columns, balance, "THE REASON")


def test_batches_and_facts_show_the_labels_chosen_and_the_data_stays_the_same():
    whole, some = cartoon(), cartoon(attributes=["Eyeglasses", "group", "3-6", "Male"])
    assert some.condition_names == ("Eyeglasses", "Male", "3-6", "Amber", "Teal", "Violet")
    assert some.condition_groups == {"group": ("Amber", "Teal", "Violet")}
    assert some.facts()["condition_names"] == list(some.condition_names)
    assert some.facts()["condition_groups"] == {"group": ["Amber", "Teal", "Violet"]}
    assert some.fingerprint == whole.fingerprint
    places = [whole.condition_names.index(name) for name in some.condition_names]
    for ours, theirs in zip(islice(some.train_dataloader(), 5), whole.train_dataloader(), strict=False):
        assert np.array_equal(ours["condition"], theirs["condition"][:, places])
        assert np.array_equal(ours["image"], theirs["image"])


def test_labels_are_known_without_drawing_or_reading_images(tmp_path, monkeypatch):
    sources = [cartoon(), cartoon(attributes=["Male", "age"], balance="age"), ethnicity(tmp_path, {"a": 9, "b": 5})]
    sources.append(Digits(resolution=8, channels=1, batch_size=4, seed=0))
    sources[-1].prepare()
    numbers = np.array([5, 0, 3, 3])
    expected = [data._source.read(numbers)[1] for data in sources]
    monkeypatch.setattr("facegen.data.drawn.render", None)
    for data, conditions in zip(sources, expected, strict=True):
        monkeypatch.setattr(type(data._source), "read", None)
        found = data.conditions(numbers)
        assert (found.dtype, found.tolist()) == (np.float32, conditions.tolist())
        data.facts()


def test_data_without_labels_has_no_conditions_and_no_examples(tmp_path):
    root = layouts.folder(tmp_path / "data", 8)
    data = Folder(root=str(root), resolution=8, channels=3, crop="center", batch_size=2, seed=0, cache_dir=str(tmp_path / "cache"))
    data.prepare()
    assert data.conditions(np.array([1])) is None
    assert data.facts()["condition_examples"] == []
    for option in ({"attributes": ["Male"]}, {"balance": True}):
        asked = Folder(
            root=str(root), resolution=8, channels=3, crop="center", batch_size=2, seed=0, cache_dir=str(tmp_path / "cache"), **option
        )
        with pytest.raises(UserError, match=r"^data\.(attributes=\[Male\]|balance=true) needs labels, data=folder has none; type data="):
            asked.prepare()


def test_examples_are_the_labels_of_training_images_in_a_fixed_order(tmp_path):
    data = cartoon(size=700)
    examples = data.facts()["condition_examples"]
    assert len(examples) == 512
    assert examples == cartoon(size=700, seed=7, batch_size=2).facts()["condition_examples"]
    rows = {tuple(np.flatnonzero(row).tolist()) for row in data.conditions(data.numbers("train"))}
    assert {tuple(example) for example in examples} <= rows
    male = np.mean([data.condition_names.index("Male") in example for example in examples])
    assert male == pytest.approx(data.conditions(data.numbers("train"))[:, data.condition_names.index("Male")].mean(), abs=0.05)
    few = ethnicity(tmp_path, {"a": 30, "b": 10}, balance=True).facts()["condition_examples"]
    assert sorted(few) == [[0]] * 30 + [[1]] * 30


def test_in_an_epoch_every_class_comes_equally_often_and_every_image_of_it(tmp_path):
    data = ethnicity(tmp_path, {"a": 12, "b": 5, "c": 7}, balance=True)
    assert (data.num_train, data.epoch_length) == (24, 36)
    for epoch in np.split(shown(data, 18), 2):
        assert data.conditions(epoch).sum(axis=0).tolist() == [12, 12, 12]
        counts = np.bincount(epoch, minlength=24)
        assert counts[:12].tolist() == [1] * 12
        assert sorted(counts[12:17]) == [2, 2, 2, 3, 3]
        assert sorted(counts[17:]) == [1, 1, 2, 2, 2, 2, 2]
    assert data.numbers("train").tolist() == list(range(24))
    assert data.fingerprint == ethnicity(tmp_path, {}).fingerprint


def test_a_balanced_stream_continues_where_it_stopped(tmp_path):
    options = {"counts": {"a": 12, "b": 5}, "balance": "class"}
    whole = shown(ethnicity(tmp_path, **options), 12)
    stopped = ethnicity(tmp_path, **options)
    stopped.consumed = 5
    resumed = ethnicity(tmp_path, **options)
    resumed.load_state_dict(stopped.state_dict())
    assert shown(resumed, 7).tolist() == whole[20:].tolist()
    assert shown(ethnicity(tmp_path, **options, seed=1), 12).tolist() != whole.tolist()


def test_an_attribute_has_two_classes():
    data = cartoon(balance="Eyeglasses", attributes=["Eyeglasses"])
    glasses = data.conditions(data.numbers("train")).sum()
    assert data.epoch_length == 2 * max(glasses, 200 - glasses)
    assert data.conditions(shown(data, data.epoch_length // 4)).mean() == pytest.approx(0.5, abs=0.02)


def test_images_in_no_class_are_not_shown():
    data = cartoon(attributes=["Amber", "Teal"], balance="group")
    chosen = data.conditions(data.numbers("train"))
    assert (chosen.sum(axis=1) == 0).any()
    assert (data.conditions(shown(data, 40)).sum(axis=1) == 1).all()
    assert data.epoch_length == 2 * chosen.sum(axis=0).max()
    assert data.num_train == 200


def test_a_class_without_images_is_left_out_and_no_class_at_all_is_told():
    columns = Columns(("a", "b", "c"), {"class": ("a", "b", "c")})
    conditions = np.eye(3)[[0, 0, 2]]
    assert balanced(np.array([7, 8, 9]), conditions, columns, ["class"]).tolist() == [7, 8, 9, 9]
    assert balanced(np.array([7, 8, 9]), conditions, Columns(columns.names, {}), ["b"]).tolist() == [7, 8, 9]
    with pytest.raises(UserError, match=r"^data.balance=class: no image .* is in a class of class; type data.balance=false$"):
        balanced(np.array([7]), np.zeros((1, 3)), columns, ["class"])


def test_classes_that_are_never_shown_are_told_where_the_data_is_balanced(capsys):
    columns = Columns(("a", "b", "c", "Male"), {"class": ("a", "b", "c")})
    conditions = np.eye(4)[[0, 0, 2]]
    balanced(np.arange(3), conditions, columns, ["class"])
    balanced(np.arange(3), conditions, columns, ["Male"])
    balanced(np.arange(3), 1 - conditions, columns, ["Male"])
    assert capsys.readouterr().err.splitlines() == [
        f"data.balance={by}: never shown, because no image to train on is in that class: {name}"
        for by, name in (("class", "b"), ("Male", "Male"), ("Male", "not Male"))
    ]


def test_nothing_is_told_where_every_class_is_shown_or_the_data_is_not_balanced(tmp_path, capsys):
    cartoon(attributes=["Male"], size=4)
    cartoon(balance="Male")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["data.attributes=[Yung]"], "the data has no label Yung (did you mean 'Young'?)"),
        (["data.balance=true"], "data.balance=true means the only group"),
        (["data=utkface64", "data.root=.", "data.attributes=[Males]"], "did you mean 'Male'?"),
        (["data=folder", "data.root=.", "data.attributes=[Male]"], "data.attributes=[Male] needs labels, data=folder has none"),
        (["data=ffhq64", "data.root=.", "data.balance=age"], "data.balance=age needs labels, data=ffhq has none"),
        (["data=ffhq_aging", "data.root=.", "data.attributes=[ages]"], "did you mean 'age'?"),
        (["data=ffhq_aging", "data.root=."], "data.root=. has no ffhq_aging_labels.csv"),
        (["data=digits", "data.resolution=16", "data.attributes=[3,ten]"], "the data has no label ten"),
        (["data=mnist", "data.resolution=24", "data.root=."], "data.resolution must be at least 28"),
        (["data=mnist", "data.root=/nowhere"], "data.root=/nowhere is no folder"),
        (["data=ethnicity", "data.root=/nowhere"], "data.root=/nowhere is no folder"),
    ],
)
def test_a_wrong_choice_is_told_before_any_data_is_opened(options, line, monkeypatch):
    monkeypatch.setattr(Cartoon, "prepare", None)
    with pytest.raises(UserError) as caught:
        resolve(configure("train", *options))
    assert any(line in told for told in caught.value.lines)


def test_the_names_of_classes_on_the_disk_are_known_before_too(tmp_path):
    layouts.classes(tmp_path, {"European": 1, "Indian": 1})
    with pytest.raises(
        UserError, match=r"no label Indien \(did you mean 'Indian'\?\); type some of: European, Indian; whole groups: class$"
    ):
        resolve(configure("train", "data=ethnicity", f"data.root={tmp_path}", "data.attributes=[Indien]"))
    assert resolve(configure("train", "data=ethnicity", f"data.root={tmp_path}", "data.balance=true"))["data"]["balance"] is True
