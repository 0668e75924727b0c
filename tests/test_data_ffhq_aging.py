"""FFHQ-Aging: the labels of FFHQ's images are those of its table, and what is pruned is what its authors prune."""

from __future__ import annotations

import csv
import hashlib
from itertools import product
from pathlib import Path

import layouts
import numpy as np
import pytest

from facegen import wishes
from facegen.data import cache, doctor
from facegen.data.cache import open_packed
from facegen.data.decode import FILTER, Picture
from facegen.data.faces import FFHQAging
from facegen.data.ffhq import FFHQReader
from facegen.data.ffhq_aging import LABELS, FFHQAgingReader, Pruning
from facegen.data.records import HELD_OUT, TRAIN, Reader, Records
from facegen.errors import UserError
from facegen.families.labels import Labels

PICTURE = Picture(16, 3)
READER, WHOLE = FFHQAgingReader(PICTURE), FFHQAgingReader(PICTURE, prune=False)
AGES = ("0-2", "3-6", "7-9", "10-14", "15-19", "20-29", "30-39", "40-49", "50-69", "70-120")
NOT_MEASURED = dict.fromkeys(("head_pitch", "head_roll", "head_yaw", "left_eye_occluded", "right_eye_occluded", "glasses"), -1)
PEOPLE = {
    number: {"age_group": age, "gender": "male" if number % 3 else "female", "glasses": "Normal" if number % 2 else "None"}
    for number, age in enumerate(AGES)
}


def numbers(records: Records) -> list[int]:
    return [int(Path(path).stem) for path in records.paths]


def on(records: Records) -> dict[int, set[str]]:
    """The labels that each image has, by its number."""
    assert records.labels is not None
    assert records.labels.dtype == np.float32
    names = np.array(READER.condition_names)
    return {number: set(names[row == 1]) for number, row in zip(numbers(records), records.labels, strict=True)}


def rows_of(root: Path) -> list[dict[str, str]]:
    with open(root / LABELS, newline="") as file:
        return list(csv.DictReader(file))


def pruned(root: Path, reader: Reader = READER) -> dict[int, str]:
    """Why an image is pruned, by its number; nothing else is wrong."""
    problems = reader.scan(root).problems
    assert {(p.kind, p.row, p.effect) for p in problems} <= {("pruned", None, "left out")}
    return {int(Path(p.file).stem): p.what for p in problems}


def test_labels_are_those_of_the_table(tmp_path):
    people, expected = {}, {}
    for place, (age, gender, glasses) in enumerate(product(AGES, ("male", "female"), ("None", "Normal", "Dark"))):
        people[2 * place] = {"age_group": age, "gender": gender, "glasses": glasses}
        expected[2 * place] = {age} | ({"Male"} if gender == "male" else set()) | (set() if glasses == "None" else {"Eyeglasses"})
    records = WHOLE.scan(layouts.ffhq_aging(tmp_path, people))
    assert on(records) == expected
    assert records.problems == []


def test_the_form_of_the_table_does_not_matter(tmp_path):
    expected = on(READER.scan(layouts.ffhq_aging(tmp_path, PEOPLE)))
    rows = rows_of(tmp_path)
    layouts.aging_table(tmp_path, [{"": place, "freckles": "x", **dict(reversed(row.items()))} for place, row in enumerate(rows)], "\r\n")
    assert on(READER.scan(tmp_path)) == expected
    layouts.aging_table(tmp_path, [{f'"{column}"': f' "{entry}"' for column, entry in row.items()} for row in rows[::-1]])
    (tmp_path / LABELS).write_text((tmp_path / LABELS).read_text() + "\n,,,\n", encoding="utf-8-sig")
    assert on(READER.scan(tmp_path)) == expected
    layouts.aging_table(tmp_path, [{column: entry for column, entry in row.items() if column != "head_roll"} for row in rows])
    assert on(READER.scan(tmp_path)) == expected


def test_what_is_pruned_is_what_the_authors_prune(tmp_path):
    random = np.random.default_rng(0)
    values = {
        "age_group_confidence": [1] * 9 + [0.61, 0.6, -1],
        "gender_confidence": [1] * 9 + [0.67, 0.66, -1],
        "head_pitch": [0] * 9 + [-29.9, 29.9, 30, -30.0, -1],
        "head_yaw": [0] * 9 + [-39.9, 39.9, 40, -40.0, -1],
        "left_eye_occluded": [0] * 4 + [49.9, 50, 89.9, 90, -1],
        "right_eye_occluded": [0] * 4 + [49.9, 50, 89.9, 90, -1],
        "glasses": ["None"] * 4 + ["Normal", "Dark"],
    }
    people = {i: {column: some[random.integers(len(some))] for column, some in values.items()} for i in range(300)}
    people |= {i: NOT_MEASURED | {"glasses": "None", "gender_confidence": 1 - i % 2} for i in (300, 301)}

    def is_kept(row: dict) -> bool:  # as create_dataset.py of the authors' Lifespan Age Transformation Synthesis has it
        eyes = row["left_eye_occluded"], row["right_eye_occluded"]
        seen = (eyes[0] < 90 and eyes[1] < 50) or (eyes[0] < 50 and eyes[1] < 90)
        sure = row["age_group_confidence"] > 0.6 and row["gender_confidence"] > 0.66
        return sure and abs(row["head_pitch"]) < 30 and abs(row["head_yaw"]) < 40 and seen and row["glasses"] != "Dark"

    kept = [i for i, row in people.items() if is_kept({**layouts.AGING, **row})]
    assert 50 < len(kept) < 250
    root = layouts.ffhq_aging(tmp_path, people, (8, 8))
    assert numbers(READER.scan(root)) == kept
    assert sorted([*kept, *pruned(root)]) == sorted(people)
    assert numbers(WHOLE.scan(root)) == sorted(people)
    assert pruned(root, WHOLE) == {}


def test_why_an_image_is_pruned_is_said_with_the_line(tmp_path):
    faults = [{"age_group_confidence": 0.5}, {"gender_confidence": ""}, {"head_pitch": 31.5}, {"head_yaw": -62}]
    faults += [{"left_eye_occluded": 95.5}, {"left_eye_occluded": 60, "right_eye_occluded": 50}, {"glasses": "Dark"}, {}]
    assert pruned(layouts.ffhq_aging(tmp_path, dict(enumerate(faults)))) == {
        0: f"line 2 of {LABELS}: age_group_confidence 0.5 is not above 0.6",
        1: f"line 3 of {LABELS}: gender_confidence -1 is not above 0.66",
        2: f"line 4 of {LABELS}: head_pitch 31.5 is not within 30 degrees",
        3: f"line 5 of {LABELS}: head_yaw -62 is not within 40 degrees",
        4: f"line 6 of {LABELS}: the eyes are hidden, 95.5 and 0 of 100",
        5: f"line 7 of {LABELS}: the eyes are hidden, 60 and 50 of 100",
        6: f"line 8 of {LABELS}: dark glasses",
    }


def test_pruned_images_are_counted_and_listed_and_are_no_error(tmp_path, capsys):
    root = layouts.ffhq_aging(tmp_path / "data", PEOPLE | {4: {"glasses": "Dark"}, 7: {"head_yaw": 50}})
    packed = open_packed(READER, str(root), str(tmp_path / "cache"), on_bad="error")
    assert (len(packed.good), packed.left_out, packed.stops) == (8, 2, 0)
    assert "2 images are left out; " in capsys.readouterr().err
    with open(packed.folder / "bad.csv", newline="") as file:
        listed = [(row["kind"], Path(row["file"]).name, row["effect"]) for row in csv.DictReader(file)]
    assert listed == [("pruned", "00004.png", "left out"), ("pruned", "00007.png", "left out")]


def test_pruned_and_whole_are_two_caches_and_two_data_sets(tmp_path, monkeypatch):
    root = layouts.ffhq_aging(tmp_path / "data", PEOPLE | {4: {"glasses": "Dark"}})
    some, whole = (open_packed(reader, str(root), str(tmp_path / "cache")) for reader in (READER, WHOLE))
    assert (len(some.good), len(whole.good)) == (9, 10)
    assert some.fingerprint != whole.fingerprint
    monkeypatch.setattr("facegen.data.cache.pack", None)
    again, all_again = (open_packed(reader, str(root), str(tmp_path / "cache")) for reader in (READER, WHOLE))
    assert (again.folder, all_again.folder) == (some.folder, whole.folder)
    assert (again.fingerprint, all_again.fingerprint) == (some.fingerprint, whole.fingerprint)


def test_a_changed_table_is_another_data_set(tmp_path):
    root = layouts.ffhq_aging(tmp_path / "data", PEOPLE)
    before = open_packed(READER, str(root), str(tmp_path / "cache"))
    text = (root / LABELS).read_text()
    (root / LABELS).write_text(text.replace("30-39", "-1"))
    after = open_packed(READER, str(root), str(tmp_path / "cache"))
    assert (before.labels[6].sum(), after.labels[6].sum()) == (1, 0)
    assert before.fingerprint != after.fingerprint


def test_a_reader_that_cannot_be_switched_keeps_the_caches_it_has():
    reader = FFHQReader(PICTURE)
    before = repr((cache.FORMAT, "ffhq", 1, PICTURE, FILTER, None)).encode()
    assert cache._key(reader, [], None) == hashlib.blake2b(before, digest_size=8).hexdigest()
    assert len({cache._key(reader, [], None) for reader in (READER, WHOLE)}) == 2


@pytest.mark.parametrize(
    ("option", "value", "spared"),
    [
        ("age_confidence", 0.4, 0),
        ("gender_confidence", 0.2, 1),
        ("pitch", 32.0, 2),
        ("yaw", 63.0, 3),
        ("one_eye", 96.0, 4),
        ("both_eyes", 51.0, 5),
        ("dark_glasses", True, 6),
    ],
)
def test_every_threshold_is_an_option_that_spares_what_it_is_about_and_makes_another_data_set(tmp_path, option, value, spared):
    faults = [{"age_group_confidence": 0.5}, {"gender_confidence": 0.5}, {"head_pitch": 31.5}, {"head_yaw": -62}]
    faults += [{"left_eye_occluded": 95.5}, {"left_eye_occluded": 60, "right_eye_occluded": 50}, {"glasses": "Dark"}, {}, {}]
    root = layouts.ffhq_aging(tmp_path / "data", dict(enumerate(faults)))
    options = {"root": str(root), "resolution": 16, "channels": 3, "batch_size": 1, "seed": 0, "cache_dir": str(tmp_path / "cache")}
    usual, other = FFHQAging(**options, val_fraction=0), FFHQAging(**options, val_fraction=0, **{option: value})
    for data in (usual, other):
        data.prepare()
    assert (usual.num_train, other.num_train) == (2, 3)
    assert usual.fingerprint != other.fingerprint
    reader = FFHQAgingReader(PICTURE, pruning=Pruning(**{option: value}))
    assert spared not in pruned(root, reader)


def test_the_module_prunes_unless_told_otherwise(tmp_path):
    root = layouts.ffhq_aging(tmp_path / "data", PEOPLE | {4: {"glasses": "Dark"}, 60_000: {}})
    options = {"root": str(root), "resolution": 16, "channels": 3, "batch_size": 2, "seed": 0, "cache_dir": str(tmp_path / "cache")}
    for prune, trained in (({}, 9), ({"prune": True}, 9), ({"prune": False}, 10)):
        data = FFHQAging(**options, **prune)
        data.prepare()
        assert (data.num_train, data.num_val) == (trained, 1)
        assert (data.condition_names, data.condition_groups) == (("Male", "Eyeglasses", *AGES), {"age": AGES})
    chosen = FFHQAging(**options, attributes=["age"], balance="age")
    chosen.prepare()
    assert chosen.condition_names == AGES


def test_an_image_of_no_known_age_is_in_no_group_and_one_of_no_known_gender_or_glasses_is_left_out(tmp_path):
    people = {0: {"age_group": -1}, 1: {"age_group": ""}, 2: {"gender": -1}, 3: {"glasses": ""}, 4: NOT_MEASURED, 5: {}}
    root = layouts.ffhq_aging(tmp_path, people)
    for reader in (READER, WHOLE):
        records = reader.scan(root)
        assert on(records) == {0: set(), 1: set(), 5: {"20-29"}}
        assert [(p.kind, p.file[-9:], p.what, p.effect) for p in records.problems] == [
            ("mislabelled", f"{number:05d}.png", f"line {number + 2} of {LABELS} gives no {what}", "left out")
            for number, what in ((2, "gender"), (3, "glasses"), (4, "glasses"))
        ]


def test_every_fault_of_a_row_is_told_with_its_line_and_its_image_left_out(tmp_path):
    root = layouts.ffhq_aging(tmp_path / "data", PEOPLE)
    lines = (root / LABELS).read_text().splitlines()
    sound = lines[2]
    lines[1] = lines[1].replace("0-2", "2-Feb")
    lines[2] += ",1"
    lines[3] = lines[3].replace("-3.0", "left")
    lines[4] = lines[4].replace("0.125", "nan")
    lines[5] = lines[5].replace("4,", "four,", 1)
    lines[6] = "5"
    lines += [lines[7].replace("1.0", "1"), lines[8].replace("male", "female"), sound]
    (root / LABELS).write_text("\n".join(lines))
    records = READER.scan(root)
    assert numbers(records) == [6, 8, 9]
    told = [(Path(p.file).name, p.row, p.what, p.effect) for p in records.problems]
    assert told == [
        (LABELS, 2, f"0: age_group 2-Feb is none of {', '.join(AGES)}, and not -1", "stop"),
        (LABELS, 3, "1: 12 values, not 11", "stop"),
        (LABELS, 4, "2: head_yaw left is no number", "stop"),
        (LABELS, 5, "3: left_eye_occluded nan is no number", "stop"),
        (LABELS, 6, "four: image_number is no number", "stop"),
        (LABELS, 7, "5: 1 values, not 11", "stop"),
        (LABELS, 12, "6 has a row already, the same, at line 8", "none"),
        (LABELS, 13, "7 has a row already, with other values, at line 9", "stop"),
        (LABELS, 14, "1 has a row already, with other values, at line 3", "stop"),
        ("00004.png", None, f"has no row in {LABELS}", "stop"),
    ]
    with pytest.raises(UserError, match=rf"problems in data\.root: {LABELS}:2 0: age_group 2-Feb is none of .*type data\.on_bad=skip"):
        open_packed(READER, str(root), str(tmp_path / "cache"))
    assert len(open_packed(READER, str(root), str(tmp_path / "cache"), on_bad="skip").good) == 3


def test_a_row_without_an_image_is_told_and_does_no_harm(tmp_path):
    root = layouts.ffhq_aging(tmp_path, PEOPLE)
    (root / "thumbnails128x128/00000/00003.png").unlink()
    records = READER.scan(root)
    assert numbers(records) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    what = f"line 5 of {LABELS} names it; there is no such image"
    assert [tuple(p) for p in records.problems] == [("missing", "00003.png", 5, what, "none")]


def lacking(text: str) -> str:
    return text.replace("glasses", "glases")


def twice(text: str) -> str:
    return text.replace("head_roll", "gender")


def header_only(text: str) -> str:
    return text.splitlines()[0]


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (
            lacking,
            rf"{LABELS}:1 has no column glasses \(did you mean 'glases'\?\); mend the header, which must name image_number, age_group, .*$",
        ),
        (twice, rf"{LABELS}:1 names the column gender twice; mend the header, which must name it once$"),
        (header_only, rf"^data\.root: the table .*{LABELS} is empty, no row of it is of an image; put the whole table there$"),
        (lambda _: "", rf"^data\.root: the table .*{LABELS} is empty"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(tmp_path, fault, what):
    root = layouts.ffhq_aging(tmp_path, PEOPLE)
    (root / LABELS).write_text(fault((root / LABELS).read_text()))
    with pytest.raises(UserError, match=what) as caught:
        READER.scan(root)
    assert len(caught.value.lines) == 1


def test_a_missing_table_root_or_image_is_told_and_ffhq_without_labels_offered(tmp_path):
    (tmp_path / "empty").mkdir()
    root = layouts.ffhq_aging(tmp_path / "data", PEOPLE)
    (root / LABELS).unlink()
    layouts.aging_table(tmp_path, [layouts.AGING])
    offer = rf"has no {LABELS}; .*put it there, type data\.root=FOLDER, or data=ffhq128 for images without labels"
    cases = ((None, "not given"), (tmp_path / "absent", "no folder"), (tmp_path / "empty", "is empty"), (root, offer))
    for given, what in cases:
        with pytest.raises(UserError, match=rf"^data\.root.*{what}"):
            READER.scan(given)
        with pytest.raises(UserError, match=rf"^data\.root.*{what}"):
            READER.located(given)
    (root / LABELS).write_text("x")
    for path in root.rglob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match=r"^data\.root=.* holds no images; it must hold .*; type data\.root=FOLDER$"):
        READER.scan(root)


def test_the_official_split_is_that_of_ffhq_and_of_the_images_that_are_left(tmp_path):
    people = {number: {} for number in (0, 59_999, 60_000, 69_999)}
    records = READER.scan(layouts.ffhq_aging(tmp_path / "both", people))
    assert records.split.tolist() == [TRAIN, TRAIN, HELD_OUT, HELD_OUT]
    turned = people | {number: {"head_yaw": 90} for number in (60_000, 69_999)}
    root = layouts.ffhq_aging(tmp_path / "one", turned)
    assert numbers(READER.scan(root)) == [0, 59_999]
    assert READER.scan(root).split is None
    assert WHOLE.scan(root).split.tolist() == [TRAIN, TRAIN, HELD_OUT, HELD_OUT]


def test_every_layout_of_ffhq_is_the_same_data_set_and_masks_are_no_images(tmp_path):
    expected = on(READER.scan(layouts.ffhq_aging(tmp_path, PEOPLE)))
    (tmp_path / "thumbnails128x128").rename(tmp_path / "ffhq_aging128x128")  # as the authors' script lays it out
    for number in PEOPLE:  # and as their segmentation leaves it
        layouts.save(tmp_path / f"ffhq_aging128x128/00000/parsings/{number:05d}.png", 99, (8, 8))
    records = READER.scan(tmp_path)
    assert (on(records), records.problems) == (expected, [])
    for number in PEOPLE:
        (tmp_path / f"ffhq_aging128x128/00000/{number:05d}.png").rename(tmp_path / f"{number}.png")
    records = READER.scan(tmp_path)
    assert (on(records), records.problems) == (expected, [])
    assert records.paths == [f"{number}.png" for number in PEOPLE]


def test_an_age_group_can_be_asked_for_by_its_name_and_has_its_years(tmp_path):
    years = Labels(READER.condition_names, READER.condition_groups).years("age")
    assert years.tolist() == [1, 4.5, 8, 12, 17, 24.5, 34.5, 44.5, 59.5, 95]
    for name in READER.condition_names:
        assert wishes.read(name) == name
        assert wishes.read(f'{{"{name}":1}}') == wishes.read(f"{{{name}:1}}") == {name: 1}


def test_the_doctor_shows_what_is_pruned_and_does_not_call_it_a_problem(tmp_path, capsys):
    root = layouts.ffhq_aging(tmp_path, PEOPLE | {4: {"glasses": "Dark"}})
    command = ["data=ffhq_aging", f"data.root={root}", "data.resolution=16"]
    report = tmp_path / "report.csv"
    assert doctor.main([*command, f"report={report}"]) == 0
    shown = capsys.readouterr().out
    assert "9 images can be used" in shown
    assert "pruned" in shown
    assert "nothing is wrong" not in shown
    with open(report, newline="") as file:
        assert [(row["kind"], Path(row["file"]).name) for row in csv.DictReader(file)] == [("pruned", "00004.png")]
    assert doctor.main([*command, "data.prune=False"]) == 0
    assert "10 images can be used; nothing is wrong" in capsys.readouterr().out
    (root / "thumbnails128x128/00000/00003.png").write_bytes(b"no image")
    assert doctor.main([*command, "data.prune=true"]) == 1
    assert "corrupt" in capsys.readouterr().out
