"""Weights are those that were published, or given by hand; what is damaged, broken off or holds code is one line and leaves nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pickle
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torchvision.models import AlexNet_Weights

from facegen.errors import UserError
from facegen.metrics import weights
from facegen.metrics.weights import ALEXNET, INCEPTION, Published, cache, fill, located, sha256_of, trusted_state

CONTENT = os.urandom(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
INSTEAD = "metrics=[fd_probe] works without them"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def published(url: str = "http://127.0.0.1:1/w.pth") -> Published:
    return Published("w.pth", ("other-name.pth",), SHA256, url, "inception_weights", "the weights of a test")


class Handler(BaseHTTPRequestHandler):
    """/whole.pth, /broken.pth (a half), /other.pth; anything else is 404."""

    def do_GET(self) -> None:
        sent = {"/whole.pth": CONTENT, "/broken.pth": CONTENT[: len(CONTENT) // 2], "/other.pth": CONTENT[::-1]}.get(self.path)
        if sent is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        with contextlib.suppress(OSError):  # who asked has hung up
            self.wfile.write(sent)
        return None

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def error(what: Published, given: str | None = None, download: bool = True) -> str:
    with pytest.raises(UserError) as caught:
        located(what, given, INSTEAD, download)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_published_files_are_those_of_torch_fidelity_and_torchvision() -> None:
    assert INCEPTION.url == URL_INCEPTION_V3
    assert ALEXNET.url == AlexNet_Weights.IMAGENET1K_V1.url
    for what in (INCEPTION, ALEXNET):
        assert what.name == what.url.rpartition("/")[2]
        assert re.search(r"-([0-9a-f]{8})\.pth$", what.name)[1] == what.sha256[:8]  # type: ignore[index]
        assert len(what.sha256) == 64


@pytest.mark.parametrize("environment", [{"TORCH_HOME": "/a"}, {"TORCH_HOME": "~/a"}, {"XDG_CACHE_HOME": "/b"}, {}])
def test_the_cache_is_torchs(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache() == Path(torch.hub.get_dir(), "checkpoints")


def test_a_file_given_by_hand_may_have_any_hash(tmp_path: Path) -> None:
    path = put(tmp_path / "mine.pth", b"abc")
    assert located(published(), str(path), INSTEAD) == (path, hashlib.sha256(b"abc").hexdigest())


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ("mine.pt", r"no file 'mine.pt' in {here} \(did you mean 'mine.pth'\?\)"),
        ("", r"is a folder"),
        ("no/mine.pth", r"there is no folder {here}/no"),
    ],
)
def test_a_file_given_by_hand_must_be_there(given: str, wrong: str, tmp_path: Path) -> None:
    put(tmp_path / "mine.pth")
    path, wrong = tmp_path / given, wrong.format(here=re.escape(str(tmp_path)))
    pattern = rf"inception_weights={re.escape(str(path))}: {wrong}; give the file of the weights of a test, or leave inception_weights out"
    assert re.fullmatch(pattern, error(published(), str(path)))


@pytest.mark.parametrize("name", ["w.pth", "other-name.pth"])
def test_the_cache_is_used_under_either_name(name: str, home: Path) -> None:
    path = put(home / name)
    assert located(published(), None, INSTEAD, download=False) == (path, SHA256)


def test_a_damaged_file_in_the_cache_is_refused_and_kept(home: Path, server: str) -> None:
    path = put(home / "w.pth", CONTENT[:-1])
    said = error(published(f"{server}/whole.pth"))
    assert said.startswith(f"{path} is damaged: its SHA-256 is {sha256_of(path)}, that of the weights of a test is {SHA256}; delete it")
    assert said.endswith(f"or type inception_weights={path} to use it all the same")
    assert path.read_bytes() == CONTENT[:-1]
    undamaged = put(home / "other-name.pth")
    assert located(published(), None, INSTEAD) == (undamaged, SHA256)


def test_a_file_that_changes_has_another_hash(tmp_path: Path) -> None:
    path = put(tmp_path / "w.pth")
    assert sha256_of(path) == SHA256
    put(path, CONTENT[::-1] + b"!")
    assert sha256_of(path) == hashlib.sha256(CONTENT[::-1] + b"!").hexdigest()


def test_what_is_missing_is_downloaded_once(home: Path, server: str) -> None:
    assert located(published(f"{server}/whole.pth"), None, INSTEAD) == (home / "w.pth", SHA256)
    assert [path.name for path in home.iterdir()] == ["w.pth"]
    assert (home / "w.pth").read_bytes() == CONTENT
    assert located(published(), None, INSTEAD) == (home / "w.pth", SHA256)  # where nobody answers


@pytest.mark.parametrize(
    ("page", "said"), [("broken.pth", r"broke off after [12] MB \(.+\)"), ("other.pth", r"has sent another file \(SHA-256 .{64}\)")]
)
def test_a_download_that_fails_leaves_nothing(page: str, said: str, home: Path, server: str) -> None:
    url = f"{server}/{page}"
    pattern = rf"{url} {said}; nothing was kept; type the same command again, or inception_weights=PATH"
    assert re.fullmatch(pattern, error(published(url)))
    assert list(home.iterdir()) == []


def test_a_file_cannot_be_written_where_its_folder_is_a_file(home: Path, server: str) -> None:
    put(home, b"")
    assert re.fullmatch(
        rf"cannot write {home}/w.pth: .+; free or choose a folder by TORCH_HOME=FOLDER", error(published(f"{server}/whole.pth"))
    )


def missing(why: str, what: Published, home: Path) -> str:
    file = f"w.pth (SHA-256 {SHA256}) from {what.url}"
    return f"the weights of a test are not here{why}: put {file} into {home}, or type inception_weights=PATH; {INSTEAD}"


def test_without_a_network_the_error_says_what_to_put_where(home: Path, server: str) -> None:
    assert error(published(), download=False) == missing("", published(), home)
    assert error(published()) == missing(" and cannot be downloaded ([Errno 111] Connection refused)", published(), home)
    gone = published(f"{server}/nothing.pth")
    assert error(gone) == missing(" and cannot be downloaded (Not Found)", gone, home)
    assert not home.exists()


def test_a_look_up_that_takes_for_ever_does_not(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "TIMEOUT", 0.1)
    monkeypatch.setattr(weights.urllib.request, "urlopen", lambda *_, **__: time.sleep(3600))
    assert error(published()) == missing(" and cannot be downloaded (no answer in 0.1 s)", published(), home)


class Malicious:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("save", [torch.save, lambda what, path: torch.save(what, path, _use_new_zipfile_serialization=False)])
def test_a_state_dict_is_read_in_either_format(save: Any, tmp_path: Path) -> None:
    layer = torch.nn.BatchNorm1d(3)
    layer.running_mean.uniform_()  # type: ignore[union-attr]
    save(layer.state_dict(), tmp_path / "w.pth")
    read = trusted_state(tmp_path / "w.pth")
    assert read.keys() == layer.state_dict().keys()
    assert all(torch.equal(read[name], value) for name, value in layer.state_dict().items())


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    path, victim = tmp_path / "w.pth", tmp_path / "victim"
    for write in (lambda what: torch.save(what, path), lambda what: path.write_bytes(pickle.dumps(what, protocol=2))):
        write({"weight": torch.zeros(1), "bias": Malicious(victim)})
        with pytest.raises(UserError, match=rf"^{path} holds code or is no file of weights: refused, none of it was run; .*$"):
            trusted_state(path)
        assert not victim.exists()


@pytest.mark.parametrize("part", [0.999, 0.5, 0.0])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_one_line(part: float, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"weight": torch.rand(10_000)}, path, _use_new_zipfile_serialization=zipped)
    put(path, path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(
        UserError, match=rf"^{path} (is damaged or|holds code or is) no file of weights.*; download it again, or give another$"
    ) as caught:
        trusted_state(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {}, {"state_dict": {"weight": torch.zeros(1)}}, {"weight": 1.0}])
def test_what_is_no_state_dict_is_one_line(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(
        UserError, match=r"w.pth holds no state dict, the tensors of a network by name; download it again, or give another$"
    ):
        trusted_state(tmp_path / "w.pth")


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^{tmp_path}/w.pth cannot be read: No such file or directory; give another file$"):
        trusted_state(tmp_path / "w.pth")


def test_filling_takes_the_weights_of_the_file_whatever_else_is_in_it(tmp_path: Path) -> None:
    source, network = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    torch.save({f"head.{name}": value for name, value in source.state_dict().items()} | {"more": torch.zeros(1)}, tmp_path / "w.pth")
    fill(network, tmp_path / "w.pth", lambda name: f"head.{name}")
    assert all(torch.equal(mine, its) for mine, its in zip(network.parameters(), source.parameters(), strict=True))


def test_published_files_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        INCEPTION.sha256 = ""  # type: ignore[misc]
