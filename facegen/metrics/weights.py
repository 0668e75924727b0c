"""Published weights: found in torch's cache or by hand, verified, downloaded where there is a network, read without running code."""

from __future__ import annotations

import functools
import hashlib
import http.client
import os
import pickle
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facegen.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

TIMEOUT = 5.0  # seconds without a byte: what a missing network costs at most
PIECE = 1 << 20  # bytes


@dataclass(frozen=True)
class Published:
    """A file that everybody means who publishes a number: its `name` in torch's cache, also known as `aliases`.

    `option` is the setting that names the file by hand, `what` says in words what it is.
    """

    name: str
    aliases: tuple[str, ...]
    sha256: str
    url: str
    option: str
    what: str


INCEPTION = Published(
    name="weights-inception-2015-12-05-6726825d.pth",
    aliases=("pt_inception-2015-12-05-6726825d.pth",),
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    option="inception_weights",
    what="the Inception weights of FID and IS",
)
ALEXNET = Published(
    name="alexnet-owt-7be5be79.pth",
    aliases=(),
    sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    option="lpips_weights",
    what="the AlexNet weights of LPIPS",
)
VGG16 = Published(
    name="vgg16-397923af.pth",
    aliases=(),
    sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    option="perceptual_weights",
    what="the VGG-16 weights of LPIPS",
)


def located(published: Published, given: str | None, instead: str, download: bool = True) -> tuple[Path, str]:
    """The file of `published` and its SHA-256: the one `given` by hand, whatever its hash, or else verified from torch's cache.

    It is downloaded into the cache where there is a network and `download` allows it. Raises UserError where there is no such file
    (`instead` says what works without it), where the one in the cache is damaged, and where the network breaks off.
    """
    if given is not None:
        return _by_hand(published, given)
    home = cache()
    there = [path for name in (published.name, *published.aliases) if (path := home / name).is_file()]
    for path in there:
        if sha256_of(path) == published.sha256:
            return path, published.sha256
    if there:
        wrong = f"{there[0]} is damaged: its SHA-256 is {sha256_of(there[0])}, that of {published.what} is {published.sha256}"
        raise UserError(f"{wrong}; delete it, or type {published.option}={there[0]} to use it all the same")
    try:
        if download:
            return _downloaded(published, home), published.sha256
        reason = ""
    except _NoNetwork as error:
        reason = f" and cannot be downloaded ({error})"
    file = f"{published.name} (SHA-256 {published.sha256}) from {published.url}"
    raise UserError(f"{published.what} are not here{reason}: put {file} into {home}, or type {published.option}=PATH; {instead}")


def cache() -> Path:
    """The folder that torch.hub downloads weights to; there need not be one."""
    home = os.environ.get("TORCH_HOME", os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch"))
    return Path(home, "hub", "checkpoints").expanduser()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal, remembered for as long as its size and date stay. Raises UserError."""
    with _reading(path):
        status = path.stat()
        return _sha256(path, status.st_size, status.st_mtime_ns)


def trusted_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict in the file `path`, on the CPU; code in the file is not run.

    Raises UserError where the file is missing or damaged, holds more than tensors and plain values, or holds no state dict.
    """
    import torch

    again = "download it again, or give another"
    with _reading(Path(path)):
        open(path, "rb").close()
    try:
        state: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} holds code or is no file of weights: refused, none of it was run; {again}") from error
    except Exception as error:  # a crafted or truncated file can make the unpickler fail in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is damaged or no file of weights ({reason}); {again}") from error
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict, the tensors of a network by name; {again}")
    return {str(name): value for name, value in state.items()}


def fill(network: nn.Module, path: str | os.PathLike[str], renamed: Callable[[str], str] = str) -> None:
    """Puts the weights in the file `path` into `network`; `renamed` says what a name of the network is called in the file.

    Raises UserError where one is missing or of another shape, and as `trusted_state` does.
    """
    state = trusted_state(path)
    for own, tensor in network.state_dict().items():
        name = renamed(own)
        if own.endswith("num_batches_tracked"):  # of training only
            continue
        if name not in state:
            raise UserError(f"{path} holds weights of another network: {name} is missing; give the file that belongs to this one")
        if state[name].shape != tensor.shape:
            shapes = f"{name} must be {tuple(tensor.shape)}; got {tuple(state[name].shape)}"
            raise UserError(f"{path} holds weights of another network: {shapes}; give the file that belongs to this one")
        tensor.copy_(state[name])


class _NoNetwork(Exception):
    """There is no way to the server, or no such file on it."""


def _by_hand(published: Published, given: str) -> tuple[Path, str]:
    path = Path(given).expanduser()
    if path.is_file():
        return path, sha256_of(path)
    folder = path.parent
    if path.is_dir() or not folder.is_dir():
        wrong = "is a folder" if path.is_dir() else f"there is no folder {folder}"
    else:
        names = os.listdir(folder) if os.access(folder, os.R_OK) else []
        wrong = f"no file '{path.name}' in {folder}{nearest(path.name, names)}"
    raise UserError(f"{published.option}={given}: {wrong}; give the file of {published.what}, or leave {published.option} out")


@functools.lru_cache
def _sha256(path: Path, size: int, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}; give another file") from error


def _downloaded(published: Published, folder: Path) -> Path:
    """The file in `folder`, where it stands only once all of it has come and is what it should be."""
    try:
        response = _opened(published.url)
    except (OSError, http.client.HTTPException) as error:
        raise _NoNetwork(getattr(error, "reason", None) or error) from error
    path, temporary = folder / published.name, folder / f".{published.name}.{os.getpid()}.tmp"
    digest = hashlib.sha256()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with response, open(temporary, "wb") as file:
            for piece in _pieces(response, published):
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != published.sha256:
            raise UserError(f"{published.url} has sent another file (SHA-256 {digest.hexdigest()}); {_otherwise(published)}")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; free or choose a folder by TORCH_HOME=FOLDER") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def _opened(url: str) -> Any:
    """The server's answer, or an OSError in time: the look-up of its name cannot be told how long to wait."""
    answer: Future[Any] = Future()

    def ask() -> None:
        try:
            answer.set_result(urllib.request.urlopen(url, timeout=TIMEOUT))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(TIMEOUT)
    except TimeoutError as error:
        raise TimeoutError(f"no answer in {TIMEOUT:g} s") from error


def _pieces(response: Any, published: Published) -> Iterator[bytes]:
    """What the server sends, behind a bar; raises UserError where it breaks off."""
    length, received = int(response.headers.get("Content-Length") or 0), 0
    with _bar(published.name, length or None) as advance:
        try:
            while piece := response.read(PIECE):
                yield piece
                received += len(piece)
                advance(len(piece))
            reason = "the connection ended" if received < length else ""
        except (OSError, http.client.HTTPException) as error:
            reason = str(error)
    if reason:
        raise UserError(f"{published.url} broke off after {received / 1e6:.0f} MB ({reason}); {_otherwise(published)}")


def _otherwise(published: Published) -> str:
    return f"nothing was kept; type the same command again, or {published.option}=PATH"


@contextmanager
def _bar(title: str, length: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr with bytes, bytes per second and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=length)
        yield lambda received: progress.advance(task, received)
