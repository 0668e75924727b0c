"""A condition is read as it was typed, whatever the names of the classes."""

from __future__ import annotations

import pytest
from runs import configure

from facegen.cli import opened_brace, spelled_for_hydra
from facegen.errors import UserError
from facegen.wishes import parts, read, spelled

TYPED: dict[str, object] = {
    "Indian": "Indian",
    "7": "7",
    "01": "01",
    "true": "true",
    "1e3": "1e3",
    "null": None,
    "none": "none",
    "{European:0.5,Indian:0.5}": {"European": 0.5, "Indian": 0.5},
    "{ European : 0.5, Indian: 0.5 }": {"European": 0.5, "Indian": 0.5},
    "{Élodie:0.5,日本:0.5}": {"Élodie": 0.5, "日本": 0.5},
    "{7:1}": {"7": 1.0},
    "{a=b:1}": {"a=b": 1.0},
    "{a:b:1}": {"a:b": 1.0},
    r"{a\,b:1,'c,d':0}": {"a,b": 1.0, "c,d": 0.0},
    "{20-29:0.5,30-39:0.5}": {"20-29": 0.5, "30-39": 0.5},
    "[European,Indian]": ["European", "Indian"],
    "[{Male:0},{Male:1,Smiling:1}]": [{"Male": 0.0}, {"Male": 1.0, "Smiling": 1.0}],
    "[null,A]": [None, "A"],
    "{}": {},
    "{A:yes}": {"A": "yes"},
}


@pytest.mark.parametrize("text", TYPED)
def test_text_is_read_as_it_is_meant(text: str) -> None:
    assert read(text) == TYPED[text]


@pytest.mark.parametrize("text", [text for text in TYPED if " " not in text])
def test_what_is_typed_reaches_the_job_through_hydra_unchanged(text: str) -> None:
    config = configure("sample", "ckpt=x", f"condition={text}")
    assert read(str(config.condition)) == TYPED[text] if config.condition is not None else TYPED[text] is None


@pytest.mark.parametrize("text", ["Indian", "{European:0.5,Indian:0.25}", "[European,{A:1}]", "null"])
def test_what_is_spelled_is_what_was_typed(text: str) -> None:
    assert spelled(read(text)) == text


BROKEN = {"{A,B}": r"must give each name a weight; A has none; type .*A:0.5,B:0.5", "{A:1,A:0}": r"names A twice", "{:1}": "a weight"}


@pytest.mark.parametrize(("text", "message"), BROKEN.items())
def test_a_brace_of_anything_else_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(text)


def test_a_sweep_goes_over_the_conditions_between_its_commas() -> None:
    assert list(parts("A,{B:0.5,C:0.5},'d,e'")) == ["A", "{B:0.5,C:0.5}", "'d,e'"]
    assert spelled_for_hydra("condition=A,{B:0.5,C:0.5}", sweep=True, script="sample") == "condition='A','{B:0.5,C:0.5}'"


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        (["condition=A:0.5", "condition=B:0.5"], "'condition={A:0.5,B:0.5}'"),
        (["condition=A:0.5"], "'condition={A:0.5}'"),
        (["ckpt=x", "condition={A:0.5,", "B:0.5}", "guidance=2"], "'condition={A:0.5,B:0.5}'"),
        (["condition={A:", "0.5,B:", "0.5}", "-m"], "'condition={A:0.5,B:0.5}'"),
    ],
)
def test_a_brace_that_the_shell_took_apart_is_shown_whole_and_quoted(words: list[str], typed: str) -> None:
    line = opened_brace(words)
    assert line is not None
    assert line.endswith(typed)


def test_a_whole_brace_is_not_complained_of() -> None:
    assert opened_brace(["condition={A:0.5,B:0.5}", "n=4"]) is None
    assert opened_brace(["ckpt=x"]) is None
