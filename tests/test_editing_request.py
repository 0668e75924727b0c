"""What is asked of an edit, as it is typed: read, checked and told before anything heavy is loaded."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf
from runs import configure

from facegen.editing.request import Request, misplaced, request_of
from facegen.errors import UserError
from facegen.experiment import sample


def typed(*options: str) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(configure("sample", "ckpt=nowhere", *options), resolve=True)
    return plain


def asked(*options: str) -> Request:
    return request_of(typed("edit=face.jpg", *options))[0]


def test_ages_are_read_one_or_many() -> None:
    assert [age.group for age in asked("age=60").ages] == ["50-69"]
    assert [age.group for age in asked("age=[5,20,elderly]").ages] == ["3-6", "20-29", "70-120"]
    assert asked("condition={Male:1}").ages == []


def test_a_prompt_says_what_age_and_gender_say() -> None:
    request = asked("prompt='make this woman look 60 years old'")
    assert ([age.group for age in request.ages], request.gender) == (["50-69"], "female")
    assert request.prompt(request.ages[0]) == "make this woman look 60 years old"
    plain = asked("age=60", "gender=man")
    assert plain.prompt(plain.ages[0]) == "make this male look 50-69 years old"


def test_several_weights_are_kept_and_the_first_is_what_the_model_is_asked_by() -> None:
    request, config = request_of(typed("edit=face.jpg", "age=60", "guidance=[2,4]", "image_guidance=1.5"))
    assert request.weights == {"guidance": [2.0, 4.0], "image_guidance": [1.5]}
    assert (config["guidance"], config["image_guidance"]) == (2.0, 1.5)


def test_photographs_may_be_several() -> None:
    assert request_of(typed("edit=[a.jpg,b.jpg]", "age=60"))[0].options.edit == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["age=130"], r"^age must be 0 to 120 years; got 130; type age=60$"),
        (["age=oldish"], r"^age must be an age; got oldish.*; allowed: 0 to 120 years, 0-2, .*elderly.*; type age=60$"),
        (["age=[]"], r"^age must be one or more ages; got \[\]; type age=\[5,20,40,60,80\]$"),
        (["age=60", "gender=robot"], r"^gender must be male or female; got robot"),
        (["prompt='make him smile'"], r"^prompt must say an age; got 'make him smile'; type prompt='make this male look 50-69 years old'$"),
        (["prompt='look 60 years old'", "age=60"], r"^prompt and age both say an age; leave one of them out$"),
        (["age=60", "condition={Male:1}"], r"^age and condition=.* both say what to ask for; type condition={50-69:1,...} alone$"),
        (
            ["age=[5,60]", "guidance=[1,2]"],
            r"^age=.* and guidance=.*: a strip shows several ages, a grid several weights; type one",
        ),
        (
            ["age=60", "guidance=0.5"],
            r"^guidance=0.5: below 1 .* would turn it off without a word; type guidance=1 or more$",
        ),
        (["age=60", "image_guidance=[1,0.9]"], r"^image_guidance=0.9: below 1"),
        (["age=60", "guidance=[]"], r"^guidance must be one or more weights; got \[\]; type guidance=\[1,2,4\]$"),
        (["age=60", "guidance=strong"], r"^guidance must be"),
        (["age=60", "strength=0"], r"^strength must be greater than 0; got 0"),
        (["age=60", "strength=0.5", "method=edit"], r"^strength=0.5 is of method=sdedit and invert; leave it out, or type method=sdedit$"),
        (["age={a:1}"], r"^age must be years, an age group or a word, or a list of them; got {'a': 1}; type age=60$"),
        (["age=60", "guidances=[1,2]"], r"^guidances=\[1, 2\] is of figures of images that are drawn, .*; leave guidances out$"),
        (["age=60", "method=magic"], r"^method must be one of edit, sdedit, invert, null; got 'magic'"),
        (["age=[1,2,3,4,5,6,7,8,9,10,11,12,13]"], r"^age has room for 12 values; got 13; type fewer$"),
        (["age=60", "figure=denoise"], r"^figure=denoise is of images that are drawn, edit=face.jpg edits photographs; leave figure out$"),
    ],
)
def test_what_cannot_be_asked_is_one_line_before_any_checkpoint_is_looked_for(options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        sample(configure("sample", "ckpt=nowhere", "edit=face.jpg", *options))
    assert len(caught.value.lines) == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("age=60", r"^age=60 is of edits; type edit=PHOTOGRAPH, or leave age out$"),
        ("prompt=old", r"^prompt=old is of edits"),
        ("strength=0.5", r"^strength=0.5 is of edits"),
        ("degrade=false", r"^degrade=False is of edits"),
        ("image_guidance=2", r"^image_guidance=2 is of edits; type edit=PHOTOGRAPH, or leave image_guidance out$"),
        ("guidance=[1,2]", r"^guidance=\[1, 2\] is several; type figure=guidance guidances=\[1, 2\], or edit=PHOTOGRAPH$"),
    ],
)
def test_options_of_edits_are_told_where_none_is_asked_for(option: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sample(configure("sample", "ckpt=nowhere", option))
    assert list(misplaced(typed())) == []
