"""The doctor finds every planted defect and nothing else."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import subprocess
import sys
from collections import Counter

import layouts
import pytest
import yaml

from facegen.data import doctor
from facegen.data.celeba import CelebAReader
from facegen.data.decode import Picture
from facegen.data.utkface import UTKFaceReader


def sick_celeba(root):
    """One defect of each kind; two of what is mislabelled."""
    layouts.celeba(root, 14)
    images = root / "img_align_celeba"
    (images / "000001.jpg").unlink()
    (images / "000002.jpg").write_bytes((images / "000003.jpg").read_bytes()[:1500])
    shutil.copy(images / "000004.jpg", images / "000005.jpg")
    layouts.save(images / "000006.jpg", 6, (200, 200))
    layouts.save(images / "999999.jpg", 7, (178, 218))
    table = root / "list_attr_celeba.txt"
    lines = table.read_text().splitlines()
    lines[8] = lines[8].replace("-1", "0", 1)
    table.write_text("\n".join(lines))
    return root


def test_every_planted_defect_is_found(tmp_path):
    report = doctor.examine(CelebAReader(Picture(32, 3, "center148")), str(sick_celeba(tmp_path)))
    found = {(p.kind, p.file.rpartition("/")[2], p.row) for p in report.problems}
    assert found == {
        ("missing", "000001.jpg", 3),
        ("missing", "000001.jpg", 1),
        ("corrupt", "000002.jpg", None),
        ("duplicated", "000005.jpg", None),
        ("mis-sized", "000006.jpg", None),
        ("mislabelled", "list_attr_celeba.txt", 9),
        ("mislabelled", "999999.jpg", None),
    }
    assert report.usable == 10


def test_the_command_shows_counts_writes_a_csv_and_exits_1(tmp_path, capsys):
    root = sick_celeba(tmp_path / "data")
    report = tmp_path / "problems.csv"
    assert doctor.main(["data=celeba32", f"data.root={root}", f"report={report}"]) == 1
    shown = capsys.readouterr().out
    for word in ("missing", "corrupt", "duplicated", "mis-sized", "mislabelled", "10 images can be used"):
        assert word in shown
    with open(report, newline="") as file:
        counts = Counter(row["kind"] for row in csv.DictReader(file))
    assert counts == {"missing": 2, "corrupt": 1, "duplicated": 1, "mis-sized": 1, "mislabelled": 3}


def test_a_sound_data_set_is_said_to_be_sound(tmp_path, capsys):
    command = ["data=celeba32", f"data.root={layouts.celeba(tmp_path, 10)}"]
    assert doctor.main([*command, "data.on_bad=skip", "data.cache_dir=elsewhere"]) == 0  # as typed for train.py
    assert "nothing is wrong" in capsys.readouterr().out


@pytest.mark.parametrize("data", ["folder", "ffhq64", "utkface64"])
def test_pictures_too_small_for_the_resolution_are_mis_sized(tmp_path, data):
    layouts.save(tmp_path / "1_0_0_1.png", 0, (32, 32)) if data == "utkface64" else layouts.save(tmp_path / "1.png", 0, (32, 32))
    assert doctor.main([f"data={data}", f"data.root={tmp_path}"]) == 1
    assert doctor.main([f"data={data}", f"data.root={tmp_path}", "data.resolution=32"]) == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["data=celeba46"], "did you mean 'celeba64'?"),
        (["data=cartoon"], "got cartoon, which is drawn: nothing of it can be wrong; type data="),
        (["data=digits"], "got digits, which is part of scikit-learn: nothing of it can be wrong; type data="),
        (["data.root=x"], "data must be one of"),
        (["data=celeba64"], "data.root is not given"),
        (["data=celeba64", "data.rot=x"], "did you mean 'data.root'?"),
        (["data=celeba64", "data.resolution=0"], "positive int"),
        (["data=celeba64", "data.channels=2"], "1 or 3"),
        (["data=celeba64", "data.crop=center149"], "did you mean"),
        (["data=ffhq64", "data.crop=d2c"], "must be one of square"),
        (["celeba64"], "not understood"),
        (["data=celeba64", "data.resolution=[1"], "data.resolution must be a positive int, at most 8192; got [1; type data.resolution=64"),
        (["data=celeba64", "data.resolution=1e3"], "positive int"),
        (["data=celeba64", "data.resolution=true"], "positive int"),
        (["data=celeba64", "data.resolution=100000"], "at most 8192"),
        (["data=celeba64", "data.resolution="], "positive int"),
        (["data=celeba64", "data.channels=x"], "data.channels must be 1 or 3; got x"),
        (["data=celeba64", "data.channels=true"], "data.channels must be 1 or 3; got true"),
        (["data=celeba64", "data.crop=3"], "data.crop must be one of d2c"),
        (["data=celeba64", "data.crop={a"], "data.crop must be one of d2c"),
        (["data=celeba64", "data.crop=2001-99-99"], "data.crop must be one of d2c"),
        (["data=celeba64", "data.root="], "data.root is not given"),
        (["data=celeba64", "data.prune=false"], "data.prune is no option of data=celeba64; leave it out"),
        (["data=mnist", "data.prune=false"], "data.prune is no option of data=mnist; leave it out"),
        (["data=ffhq_aging", "data.prune=fasle"], "data.prune must be true or false; got fasle; type data.prune=false"),
        (["data=celeba64", "data.root=~nobody-of-this-name/x"], "there is no such user"),
    ],
)
def test_a_wrong_command_is_one_line_on_stderr_and_exits_2(arguments, line, capsys):
    assert doctor.main(arguments) == 2
    printed = capsys.readouterr()
    assert line in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_a_report_that_cannot_be_written_is_told_before_the_images_are_read(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda *_: pytest.fail("the images were read"))
    for report, line in ((tmp_path / "nowhere" / "x.csv", "there is no folder"), (tmp_path, "it is a folder")):
        assert doctor.main(["data=folder", f"data.root={tmp_path}", f"report={report}"]) == 2
        printed = capsys.readouterr().err
        assert line in printed
        assert printed.count("\n") == 1


def test_a_report_on_a_full_disk_is_one_line(tmp_path, capsys):
    layouts.save(tmp_path / "1.png", 0, (32, 32))
    assert doctor.main(["data=folder", f"data.root={tmp_path}", "report=/dev/full"]) == 2
    assert capsys.readouterr().err == "report=/dev/full cannot be written: No space left on device; type report=FILE.csv\n"


def test_a_folder_that_may_not_be_read_is_one_line(tmp_path, capsys, monkeypatch):
    # Simulated, since the tests may run as root, who may read everything.
    def examine(reader, root):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{root}/closed")

    monkeypatch.setattr(doctor, "examine", examine)
    assert doctor.main(["data=folder", f"data.root={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith(f"data.root={tmp_path} cannot be read: Permission denied ({tmp_path}/closed)")


def test_a_name_that_is_no_text_can_be_shown(tmp_path):
    layouts.save(tmp_path / "1.png", 0, (32, 32))
    os.rename(os.fsencode(tmp_path / "1.png"), os.fsencode(tmp_path) + b"/\xff.png")
    command = [sys.executable, "-m", "facegen.data.doctor", "data=folder", f"data.root={tmp_path}"]
    shown = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"})
    assert (shown.returncode, shown.stderr) == (1, b"")
    assert b"\\udcff.png" in shown.stdout


def test_every_data_option_on_disk_is_known_to_the_doctor():
    options = {path.stem: yaml.safe_load(path.read_text())["_target_"] for path in doctor.CONF.glob("*.yaml")}
    unknown = {name for name, target in options.items() if target.rpartition(".")[2] not in doctor.READERS}
    assert unknown == {"cartoon", "digits", "mnist"}


def test_one_picture_with_two_ages_is_mislabelled_and_not_only_duplicated(tmp_path):
    layouts.save(tmp_path / "20_1_0_1.jpg", 0, (32, 32))
    for name in ("21_1_0_2.jpg", "70_1_0_3.jpg"):
        shutil.copy(tmp_path / "20_1_0_1.jpg", tmp_path / name)
    report = doctor.examine(UTKFaceReader(Picture(32, 3)), str(tmp_path))
    assert [(p.kind, p.file) for p in report.problems] == [("duplicated", "21_1_0_2.jpg"), ("mislabelled", "70_1_0_3.jpg")]
