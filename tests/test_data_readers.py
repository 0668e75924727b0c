"""Every layout on disk is read as the same data set, and what is wrong with one is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import layouts
import numpy as np
import pytest

import facegen
from facegen.data.cache import open_packed
from facegen.data.celeba import ATTRIBUTES, CelebAReader
from facegen.data.decode import Picture
from facegen.data.ffhq import FFHQReader
from facegen.data.folder import FolderReader
from facegen.data.records import HELD_OUT, TEST, TRAIN, Records, keyed_fraction
from facegen.data.utkface import UTKFaceReader
from facegen.errors import UserError

CELEBA = CelebAReader(Picture(32, 3, "center148"))


def facts(records: Records) -> tuple:
    names = [path.rpartition("/")[2] for path in records.paths]
    return names, records.split.tolist(), records.labels.tolist(), records.problems


def kinds(records: Records) -> list[tuple]:
    return [(p.kind, p.file.rpartition("/")[2], p.row, p.effect) for p in records.problems]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_celeba_labels_and_split_are_those_of_its_tables(tmp_path):
    records = CELEBA.scan(layouts.celeba(tmp_path, 20))
    assert records.labels.dtype == np.float32
    assert records.labels.tolist() == [[max(0, value) for value in layouts.attributes(i)] for i in range(20)]
    assert records.split.tolist() == ([TRAIN] * 8 + [HELD_OUT, TEST]) * 2
    assert records.problems == []


@pytest.mark.parametrize(
    "layout",
    [
        {"images": "img_align_celeba/img_align_celeba", "tables": "csv"},
        {"newline": "\r\n"},
        {"tables": "csv", "newline": "\r\n"},
        {"images": ""},
    ],
)
def test_every_celeba_layout_is_the_same_data_set(tmp_path, layout):
    plain = CELEBA.scan(layouts.celeba(tmp_path / "plain", 10))
    other = CELEBA.scan(layouts.celeba(tmp_path / "other", 10, **layout))
    assert facts(plain) == facts(other)


def test_columns_of_attributes_are_found_by_their_names(tmp_path):
    records = CELEBA.scan(layouts.celeba(tmp_path / "plain", 10, tables="csv"))
    root = layouts.celeba(tmp_path / "turned", 10, tables="csv")
    path = root / "list_attr_celeba.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("\n".join(",".join([row[0], *row[:0:-1]]) for row in rows))
    assert facts(CELEBA.scan(root)) == facts(records)
    edit(path, "Smiling", "Smirking")
    with pytest.raises(
        UserError, match=r"csv:1 has no column Smiling \(did you mean 'Smirking'\?\); mend the header, which must name 5_o_C"
    ):
        CELEBA.scan(root)


def test_a_column_that_is_not_asked_for_does_no_harm_and_a_row_without_it_is_told(tmp_path):
    records = CELEBA.scan(layouts.celeba(tmp_path / "plain", 10, tables="csv"))
    root = layouts.celeba(tmp_path / "more", 10, tables="csv")
    path = root / "list_attr_celeba.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header.replace("image_id", "image_id,Freckles"), *(row.replace(".jpg", ".jpg,1") for row in rows)]))
    assert facts(CELEBA.scan(root)) == facts(records)
    edit(path, "000003.jpg,1", "000003.jpg")
    assert [(p.row, p.what) for p in CELEBA.scan(root).problems] == [(4, "000003.jpg: 40 values, not 41")]


@pytest.mark.parametrize("wanted", ["Male", "Young"])
def test_a_column_that_a_header_names_twice_is_refused(tmp_path, wanted):
    root = layouts.celeba(tmp_path, 10, tables="csv")
    path = root / "list_attr_celeba.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([f"{header},{wanted}", *(f"{row},1" for row in rows)]))
    with pytest.raises(UserError, match=rf"csv:1 names the column {wanted} twice; mend the header, which must name it once$") as caught:
        CELEBA.scan(root)
    assert len(caught.value.lines) == 1


@pytest.mark.parametrize("stem", ["list_attr_celeba", "list_eval_partition"])
@pytest.mark.parametrize("place", ["", "Anno"])
def test_of_two_tables_of_one_kind_none_is_read(tmp_path, stem, place):
    root = layouts.celeba(tmp_path, 10)
    (root / place).mkdir(exist_ok=True)
    (root / place / f"{stem}.csv").write_text((root / f"{stem}.txt").read_text())
    with pytest.raises(UserError, match=rf"^data\.root=.*{stem}\.(csv|txt) and .*{stem}\.(csv|txt), .*; remove one of them$") as caught:
        CELEBA.scan(root)
    assert len(caught.value.lines) == 1


def test_what_lies_beside_a_table_under_another_suffix_is_no_table(tmp_path):
    plain = CELEBA.scan(layouts.celeba(tmp_path / "plain", 10))
    root = layouts.celeba(tmp_path / "other", 10)
    (root / "list_attr_celeba.csv.zip").write_bytes(b"PK")
    (root / "list_attr_celeba.txt").rename(root / "list_attr_celeba.TXT")
    assert facts(CELEBA.scan(root)) == facts(plain)


@pytest.mark.parametrize("name", ["filename", '""', "Freckles"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_csv_is_read_whatever_its_column_of_images_is_called_and_with_quotes(tmp_path, name, quote):
    records = CELEBA.scan(layouts.celeba(tmp_path / "plain", 10))
    root = layouts.celeba(tmp_path / "other", 10, tables="csv")
    for path in (root / "list_attr_celeba.csv", root / "list_eval_partition.csv"):
        lines = path.read_text().replace("image_id", name).splitlines()
        path.write_text("\n".join(",".join(f"{quote}{field}{quote}" for field in line.split(",")) for line in lines))
    assert facts(CELEBA.scan(root)) == facts(records)


def test_beside_a_column_of_images_of_another_name_there_may_be_others_that_are_not_asked_for(tmp_path):
    records = CELEBA.scan(layouts.celeba(tmp_path / "plain", 10))
    root = layouts.celeba(tmp_path / "other", 10, tables="csv")
    path = root / "list_attr_celeba.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header.replace("image_id", "file,Freckles"), *(row.replace(".jpg", ".jpg,1") for row in rows)]))
    assert facts(CELEBA.scan(root)) == facts(records)
    path.write_text("\n".join([header.replace("image_id", "Freckles"), *(row.replace(".jpg", ".jpg,1") for row in rows)]))
    assert facts(CELEBA.scan(root)) == facts(records)


@pytest.mark.parametrize("name", ["list_attr_celeba.csv", "list_eval_partition.csv"])
@pytest.mark.parametrize("kept", [0, 1])
def test_a_table_without_rows_is_said_to_be_empty(tmp_path, name, kept):
    root = layouts.celeba(tmp_path, 10, tables="csv")
    path = root / name
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:kept]))
    with pytest.raises(
        UserError, match=rf"^data\.root: the table .*{name} is empty, .*; put the whole table there, or remove it$"
    ) as caught:
        CELEBA.scan(root)
    assert len(caught.value.lines) == 1


@pytest.mark.parametrize("tables", ["txt", "csv"])
def test_a_table_of_noughts_and_ones_is_the_same_as_one_of_minus_ones_and_ones(tmp_path, tables):
    plain = CELEBA.scan(layouts.celeba(tmp_path / "plain", 10))
    root = layouts.celeba(tmp_path / "other", 10, tables=tables)
    path = root / f"list_attr_celeba.{tables}"
    path.write_text(path.read_text().replace("-1", "0"))
    assert facts(CELEBA.scan(root)) == facts(plain)


@pytest.mark.parametrize(("most", "few"), [("-1", "0"), ("0", "-1")])
def test_a_row_of_noughts_in_a_table_of_minus_ones_is_told_and_the_other_way_round(tmp_path, most, few):
    root = layouts.celeba(tmp_path / "data", 10)
    path = root / "list_attr_celeba.txt"
    lines = path.read_text().splitlines()
    lines = [line if row < 2 else line.replace("-1", few if row == 6 else most) for row, line in enumerate(lines)]
    path.write_text("\n".join(lines))
    records = CELEBA.scan(root)
    what = f"000005.jpg: {few} is in a table of {most}, 1; write all of it with {most}, 1"
    assert [(p.file, p.row, p.what, p.effect) for p in records.problems] == [("list_attr_celeba.txt", 7, what, "stop")]
    assert len(records.paths) == 9
    with pytest.raises(UserError, match=rf"^1 problems .*list_attr_celeba.txt:7 {what}.*doctor.*type data\.on_bad=skip to leave them out$"):
        open_packed(CELEBA, str(root), str(tmp_path / "cache"))


def test_every_fault_of_a_table_says_in_which_file_and_row(tmp_path):
    root = layouts.celeba(tmp_path / "data", 5)
    path = root / "list_attr_celeba.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], *lines[3:], lines[3], lines[4] + " 1", lines[5].split()[0] + " -1" * 40]))
    told = [(f"{p.file}:{p.row}", p.what) for p in CELEBA.scan(root).problems]
    assert told == [
        ("list_attr_celeba.txt:7", "000002.jpg has a row already, the same, at line 3"),
        ("list_attr_celeba.txt:8", "000003.jpg: 41 values, not 40"),
        ("list_attr_celeba.txt:8", "000003.jpg has a row already, with other values, at line 4"),
        ("list_attr_celeba.txt:9", "000004.jpg has a row already, with other values, at line 5"),
        ("list_attr_celeba.txt:1", "line 1 announces 5 rows; there are 4"),
        ("img_align_celeba/000001.jpg:None", "has no row in list_attr_celeba.txt"),
    ]


def test_celeba_needs_only_its_images_and_splits_by_number(tmp_path):
    for number in (1, 162_770, 162_771, 182_637, 182_638):
        layouts.save(tmp_path / "img_align_celeba" / f"{number:06d}.jpg", number, (178, 218))
    records = CELEBA.scan(tmp_path)
    assert records.labels is None
    assert records.split.tolist() == [TRAIN, TRAIN, HELD_OUT, HELD_OUT, TEST]


def test_a_part_of_celeba_without_held_out_images_has_no_official_split(tmp_path):
    assert CELEBA.scan(layouts.celeba(tmp_path, 5, tables="none")).split is None


def test_every_fault_of_a_celeba_table_is_found_and_its_image_left_out(tmp_path):
    root = layouts.celeba(tmp_path, 10)
    table = root / "list_attr_celeba.txt"
    lines = table.read_text().splitlines()
    lines[0] = "12"  # so many rows there are not
    lines[2] = lines[2].replace(" 1", " 7", 1)  # 000001.jpg: a value that is none
    lines[3] = " ".join(lines[3].split()[:-1])  # 000002.jpg: one value too few
    lines.append(lines[4])  # 000003.jpg again, the same
    lines.append(lines[5].split()[0] + " " + " ".join(["1"] * 40))  # 000004.jpg again, otherwise
    lines.append(lines[6].replace("000005", "000099"))  # an image that is not there
    del lines[11]  # 000010.jpg without a row
    table.write_text("\n".join(lines))
    records = CELEBA.scan(root)
    assert [path[-10:-4] for path in records.paths] == ["000003", "000005", "000006", "000007", "000008", "000009"]
    assert sorted(kinds(records), key=str) == sorted(
        [
            ("mislabelled", "list_attr_celeba.txt", 3, "stop"),
            ("mislabelled", "list_attr_celeba.txt", 4, "stop"),
            ("mislabelled", "list_attr_celeba.txt", 12, "none"),
            ("mislabelled", "list_attr_celeba.txt", 13, "stop"),
            ("mislabelled", "list_attr_celeba.txt", 1, "none"),
            ("missing", "000099.jpg", 14, "none"),
            ("mislabelled", "000010.jpg", None, "stop"),
        ],
        key=str,
    )


def test_ffhq_is_numbered_by_stem_in_every_layout(tmp_path):
    numbers = [0, 1, 59_999, 60_000, 69_999]
    for number in numbers:
        layouts.save(tmp_path / f"nested/thumbnails128x128/{number // 1000 * 1000:05d}/{number:05d}.png", number, (16, 16))
        layouts.save(tmp_path / f"flat/{number}.jpg", number, (16, 16))
    for root in ("nested", "flat"):
        records = FFHQReader(Picture(16, 3)).scan(tmp_path / root)
        assert [int(Path(path).stem) for path in records.paths] == numbers
        assert records.split.tolist() == [TRAIN, TRAIN, TRAIN, HELD_OUT, HELD_OUT]


@pytest.mark.parametrize(("resolution", "folder"), [(64, "thumbnails128x128"), (200, "images256x256"), (999, "images1024x1024")])
def test_ffhq_reads_the_smallest_size_that_is_large_enough(tmp_path, resolution, folder):
    for name in ("thumbnails128x128", "images256x256", "images1024x1024"):
        layouts.save(tmp_path / name / "00000.png", 0, (8, 8))
    assert FFHQReader(Picture(resolution, 3)).scan(tmp_path).paths == [f"{folder}/00000.png"]


def test_ffhq_names_that_are_no_numbers_or_come_twice_are_told(tmp_path):
    for name in ("0.png", "00000.png", "cover.png", "².png"):
        layouts.save(tmp_path / name, 0, (8, 8))
    records = FFHQReader(Picture(8, 3)).scan(tmp_path)
    assert records.paths == ["0.png"]
    left_out = [("mislabelled", name, None, "left out") for name in ("cover.png", "².png")]
    assert kinds(records) == [("mislabelled", "00000.png", None, "stop"), *left_out]


def test_utkface_labels_are_those_of_the_name(tmp_path):
    names = ["1_0_2_2016.jpg.chip.jpg", "26_1_0_2017.jpg.chip.jpg", "116_1_4_2017 .jpg.chip.jpg"]
    malformed = ["39_1_2017.jpg.chip.jpg", "26_2_0_1.jpg.chip.jpg", "26_1_5_1.jpg.chip.jpg", "999_1_0_1.jpg.chip.jpg"]
    for name in names + malformed:
        layouts.save(tmp_path / name, 0, (8, 8))
    reader = UTKFaceReader(Picture(8, 3))
    records = reader.scan(tmp_path)
    on = {
        path: {name for name, value in zip(reader.condition_names, row, strict=True) if value}
        for path, row in zip(records.paths, records.labels, strict=True)
    }
    assert on == {names[0]: {"Male", "0-2", "Asian"}, names[1]: {"20-29", "White"}, names[2]: {"70-120", "Others"}}
    assert {p.file for p in records.problems} == set(malformed)
    assert {p.effect for p in records.problems} == {"left out"}


def test_a_folder_is_read_through_and_only_for_images(tmp_path):
    suffixes = ["jpg", "JPEG", "png", "webp", "bmp", "tif"]
    for number, suffix in enumerate(suffixes):
        layouts.save(tmp_path / "a" / f"b{number}" / f"x.{suffix}", number, (8, 8))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_text("no image")
    records = FolderReader(Picture(8, 3, "center")).scan(tmp_path)
    assert records.paths == [f"a/b{number}/x.{suffix}" for number, suffix in enumerate(suffixes)]
    assert (records.labels, records.split) == (None, None)


@pytest.mark.parametrize("reader", [CelebAReader, FFHQReader, UTKFaceReader, FolderReader])
def test_a_missing_root_an_absent_folder_and_an_empty_one_are_user_errors(tmp_path, reader):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    cases = ((None, "not given"), (tmp_path / "absent", "no folder"), (tmp_path / "empty", "is empty"), (tmp_path, "no images"))
    for root, what in cases:
        with pytest.raises(UserError, match=rf"^data\.root.*{what}.*must hold.*data\.root=FOLDER$"):
            reader(Picture(32, 3, reader.crops[0])).scan(root)


def test_a_link_back_to_a_folder_above_is_followed_once(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "1.png").touch()
    (tmp_path / "a" / "b" / "loop").symlink_to("..")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "a" / "b")
    found = sorted(file.path for file in FolderReader(Picture(8, 3, "center")).files(tmp_path))
    assert found == ["a/b/1.png", "elsewhere/1.png"]


def test_the_fraction_of_a_name_does_not_depend_on_the_other_names():
    names = [f"{number}.png" for number in range(2000)]
    fractions = keyed_fraction("purpose", names)
    assert keyed_fraction("purpose", names[::-3]).tolist() == fractions[::-3].tolist()
    assert not np.array_equal(keyed_fraction("other", names), fractions)
    assert (fractions < 0.25).mean() == pytest.approx(0.25, abs=0.05)


def test_readers_import_neither_torch_nor_lightning():
    package = Path(facegen.__file__).parent / "data"
    modules = {path.stem for path in package.glob("[a-z]*.py")} - {"faces", "module", "loading", "latents", "edit_source"}
    code = f"import sys; import {', '.join('facegen.data.' + m for m in modules)}; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'facegen.data.doctor'" in loaded
    for heavy in ("torch", "lightning", "hydra", "omegaconf", "matplotlib", "sklearn"):
        assert f"'{heavy}'" not in loaded


def test_celeba_declares_the_forty_published_attributes():
    assert len(ATTRIBUTES) == len(set(ATTRIBUTES)) == 40
    assert (ATTRIBUTES[0], ATTRIBUTES[20], ATTRIBUTES[-1]) == ("5_o_Clock_Shadow", "Male", "Young")
