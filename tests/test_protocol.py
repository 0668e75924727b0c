"""A number is written with all that it depends on, and numbers of unlike protocols are not compared."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from facegen.errors import UserError
from facegen.metrics.compare import compared, main
from facegen.metrics.protocol import Number, first_difference, load, save

COMMON: dict[str, Any] = {
    "generated": {"count": 500, "sampler": "Heun(steps=18)"},
    "real": {"fingerprint": "aa", "split": "train"},
    "software": {"torch": "2.14"},
    "device": "cpu",
}
PROBE = {"name": "probe", "sha256": "ff"}
FD = Number("fd_probe", "fd_probe@500", 4.0, 0.3, (3.4, 4.6), {"infinity": 3.5}, PROBE, {"bootstrap": 20})
IS = Number("is", "is@500", 2.0, 0.4, None, {}, {"name": "inception"}, {"splits": 10}, of_fake=True)


def written(path: Path, *numbers: Number, subject: str = "a", **changes: Any) -> dict[str, Any]:
    common = copy.deepcopy(COMMON)
    for key, value in changes.items():
        group, field = key.split("__")
        common[group][field] = value
    return save(path, {"sha256": subject}, common, list(numbers))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    record = written(tmp_path / "a.json", FD, IS)
    assert load(tmp_path / "a.json") == record
    assert record["metrics"]["fd_probe@500"]["value"] == 4.0
    assert record["metrics"]["fd_probe@500"]["interval"] == [3.4, 4.6]
    assert record["metrics"]["fd_probe@500"]["protocol"]["extractor"] == PROBE


def test_the_hash_depends_on_every_field_of_the_protocol_and_not_on_the_subject(tmp_path: Path) -> None:
    def hashed(number: Number, **changes: Any) -> str:
        return written(tmp_path / "x.json", number, **changes)["metrics"][number.name]["protocol_hash"]

    base = hashed(FD)
    assert hashed(FD, subject="b") == base
    assert hashed(Number(**{**vars(FD), "value": 5.0})) == base
    for changes in ({"real__split": "held_out"}, {"generated__sampler": "DDIM"}, {"software__torch": "2.15"}):
        assert hashed(FD, **changes) != base
    for own in ({"extractor": {"name": "probe", "sha256": "fe"}}, {"options": {"bootstrap": 0}}):
        assert hashed(Number(**{**vars(FD), **own})) != base
    assert hashed(IS, real__split="held_out") == hashed(IS)


def test_other_numbers_of_the_same_protocol_are_kept_and_those_of_another_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    written(path, FD)
    assert set(written(path, IS)["metrics"]) == {"fd_probe@500", "is@500"}
    assert set(written(path, IS, real__split="all")["metrics"]) == {"is@500"}
    path.write_text("{")
    assert set(written(path, FD)["metrics"]) == {"fd_probe@500"}


def test_the_difference_comes_with_its_interval(tmp_path: Path) -> None:
    a = written(tmp_path / "a.json", FD)
    b = written(tmp_path / "b.json", Number(**{**vars(FD), "value": 6.0, "deviation": 0.4}), subject="b")
    (line,), alike = compared(a, b)
    assert alike
    assert line == "fd_probe@500: 4 to 6, a difference of +2, 95% interval +1.02002 to +2.97998: clear of 0"
    (line,), _ = compared(a, a)
    assert line.endswith("-0.831542 to +0.831542: not clear of 0")


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"real__split": "held_out"}, "real.split: train and held_out"),
        ({"generated__sampler": "DDIM"}, "generated.sampler: Heun(steps=18) and DDIM"),
        ({"software__numpy": "2.4"}, "software.numpy: (not told) and 2.4"),
    ],
)
def test_the_first_field_that_differs_is_told(tmp_path: Path, changes: dict[str, Any], difference: str) -> None:
    a, b = written(tmp_path / "a.json", FD), written(tmp_path / "b.json", FD, **changes)
    assert first_difference(a, b, "fd_probe") == difference
    (line,), alike = compared(a, b)
    field = difference.partition(":")[0]
    assert not alike
    assert line == f"fd_probe was measured otherwise: {difference}; measure both alike, or type --ignore {field}"
    assert compared(a, b, frozenset({field}))[1]


def test_a_number_of_the_generated_images_alone_needs_no_like_real_images(tmp_path: Path) -> None:
    a, b = written(tmp_path / "a.json", IS), written(tmp_path / "b.json", IS, real__split="held_out")
    assert compared(a, b)[1]


def test_another_count_is_another_protocol_though_the_name_is_another_too(tmp_path: Path) -> None:
    a = written(tmp_path / "a.json", FD)
    b = written(tmp_path / "b.json", Number(**{**vars(FD), "name": "fd_probe@1k"}), generated__count=1000)
    (line,), alike = compared(a, b)
    assert not alike
    assert line.startswith("fd_probe was measured otherwise: generated.count: 500 and 1000;")


def test_evaluations_without_a_number_in_common_are_no_comparison(tmp_path: Path) -> None:
    a, b = written(tmp_path / "a.json", IS), written(tmp_path / "b.json", FD)
    with pytest.raises(UserError, match=r"no number in common: is@500 and fd_probe@500"):
        compared(a, b)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"metrics": {}}', '{"metrics": {"fid": {"value": 1}}, "protocol": {}, "subject": {}}', "\xff", "[" * 100_000]
)
def test_what_is_no_evaluation_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="is not an evaluation"):
        load(path)


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    record = written(tmp_path / "a.json", FD)
    record["metrics"]["fd_probe@500"]["value"] = float("nan")
    (tmp_path / "a.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="is not an evaluation"):
        load(tmp_path / "a.json")


@pytest.mark.parametrize("change", [("value", True), ("value", 10**400), ("deviation", None), ("metric", ["fid"]), ("protocol_hash", "0")])
def test_an_evaluation_changed_by_hand_is_refused(tmp_path: Path, change: tuple[str, Any]) -> None:
    record = written(tmp_path / "a.json", FD)
    record["metrics"]["fd_probe@500"][change[0]] = change[1]
    (tmp_path / "a.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="is not an evaluation"):
        load(tmp_path / "a.json")


def test_a_field_that_is_not_there_cannot_be_ignored(tmp_path: Path) -> None:
    a = written(tmp_path / "a.json", FD)
    with pytest.raises(UserError, match=r"--ignore real.splt: no field of the protocols \(did you mean 'real.split'\?\)"):
        compared(a, a, frozenset({"real.splt"}))


def test_wrong_arguments_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--ignore", "x", "a.json"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


def test_the_exit_code_says_whether_the_numbers_could_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    written(a, FD)
    written(b, FD, real__split="held_out")
    assert main([str(a), str(a)]) == 0
    assert main([str(a), str(b)]) == 1
    assert main([str(a), str(b), "--ignore", "real.split"]) == 0
    assert main([str(a), str(tmp_path / "none.json")]) == 2
    out, err = capsys.readouterr()
    assert "real.split: train and held_out" in err
    assert len(out.splitlines()) == 2


def test_the_comparison_is_a_command(tmp_path: Path) -> None:
    written(tmp_path / "a.json", FD)
    command = [sys.executable, "-m", "facegen.metrics.compare", "a.json", "a.json"]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(root), "PATH": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("fd_probe@500: 4 to 4, a difference of +0")
