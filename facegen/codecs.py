"""Codecs: what a denoiser sees of an image. In pixels that is the image itself, in latents what an autoencoder makes of it; a DDPM and a
latent model share all the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from facegen.tiling import decode_tiled
from facegen.types import PositiveFloat, PositiveInt


class Codec(Protocol):
    """Between images (B,C,H,W) in [-1, 1] and what the denoiser sees, (B, *shape)."""

    shape: tuple[int, int, int]  # of what the denoiser sees
    image_shape: tuple[int, int, int]
    limit: float | None  # largest value of a clean encoding, None where there is no such bound

    def encode(self, images: Tensor) -> Tensor: ...

    def decode(self, x: Tensor) -> Tensor: ...

    def clean(self, batch: Mapping[str, Any], *, draw: bool) -> Tensor:
        """What the denoiser is to find for a `batch` of the data; with `draw` one of several possible, by torch's generator."""
        ...

    def rest(self) -> None:
        """Frees what it takes up on a graphics card until it is needed again."""

    def state(self) -> dict[str, Any]:
        """All that a checkpoint keeps of it: plain values and tensors; the inverse of `load`."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` said; raises what `load_state_dict` and a dict raise where it is another's."""

    def fingerprint(self) -> str:
        """What encodings belong to: those of one codec mean nothing to another."""
        ...


class Pixels:
    """The image itself: the codec of a model that works in pixel space."""

    limit: float | None = 1.0

    def __init__(self, resolution: PositiveInt = 32, channels: PositiveInt = 3) -> None:
        self.shape = self.image_shape = (channels, resolution, resolution)

    def encode(self, images: Tensor) -> Tensor:
        """`images` (B,C,H,W) in [-1, 1], as they are."""
        return images

    def decode(self, x: Tensor) -> Tensor:
        """The images (B,C,H,W) for `x` (B,C,H,W), as they are; a sampler's answer may reach a little beyond [-1, 1]."""
        return x

    def clean(self, batch: Mapping[str, Any], *, draw: bool) -> Tensor:
        """The images (B,C,H,W) of a batch."""
        return batch["image"]

    def rest(self) -> None:
        """Nothing: it takes up nothing."""

    def state(self) -> dict[str, Any]:
        """Nothing: it has learned nothing."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Nothing."""

    def fingerprint(self) -> str:
        """The same for all: every image is its own encoding."""
        return "pixels"


class Latents:
    """The latents of an autoencoder, each channel brought to mean 0 and standard deviation `std` (Rombach et al. 2022, section 4.3.2,
    who scale all channels alike).

    It is no module of the model that it belongs to: its weights are not trained, not averaged, and stay where they are when the model
    moves. They follow what is encoded or decoded to its device, until `rest` brings them back to the CPU.

    Args:
        network: the autoencoder (`facegen.networks.autoencoder`).
        resolution: side of the images, in pixels; divisible by the network's `factor`.
        std: 1, or 0.5 for models that are written for data of that deviation, as EDM's are.
        scale: the one factor that all channels have in a model that was trained elsewhere, such as Stable Diffusion's 0.18215; None: mean
            and deviation are measured (`standardize`).
    """

    limit: float | None = None
    tile: int | None = None  # side, in latent pixels, of what is decoded at a time; None: the whole: a choice of whoever draws

    def __init__(self, network: Any, resolution: PositiveInt, std: PositiveFloat = 1.0, scale: PositiveFloat | None = None) -> None:
        size = resolution // network.factor
        self.network: Any = network.eval().requires_grad_(False)
        self.shape = (network.latent_channels, size, size)
        self.image_shape = (network.channels, resolution, resolution)
        self.std, self.scale = std, scale
        self.center, self.spread = torch.zeros(self.shape[0], 1, 1), torch.full((self.shape[0], 1, 1), 1 / (scale or 1))
        self._device = torch.device("cpu")

    def standardize(self, mean: Tensor, deviation: Tensor) -> None:
        """Sets the mean and the standard deviation (d,) of the latents' channels, as measured."""
        self.center, self.spread = (part.detach().float().cpu().reshape(-1, 1, 1) for part in (mean, deviation))

    def encode(self, images: Tensor) -> Tensor:
        """The latents (B,d,h,w) of `images` (B,C,H,W) in [-1, 1]: the means of what they may be."""
        return self._inwards(self.moments(images)[0])

    def decode(self, x: Tensor) -> Tensor:
        """The images (B,C,H,W) of the latents `x` (B,d,h,w); they may reach a little beyond [-1, 1].

        Where `tile` is set, a larger latent is decoded in tiles (`facegen.tiling`).
        """
        z = x.float() * (self.spread.to(x.device) / self.std) + self.center.to(x.device)
        with torch.autocast(x.device.type, enabled=False):
            network = self._on(x.device)
            return decode_tiled(network.decode, z, self.tile, network.factor) if self.tile else network.decode(z)

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B,d,h,w) of the latents of `images`, as the autoencoder has them, not standardised."""
        with torch.autocast(images.device.type, enabled=False):
            return self._on(images.device).moments(images)

    def clean(self, batch: Mapping[str, Any], *, draw: bool) -> Tensor:
        """The latents (B,d,h,w) of a batch, out of its `latent` (B,P,d,h,w) where it has some: means and, with P = 2, deviations."""
        if "latent" in batch:
            parts = batch["latent"].float()
            mean, deviation = parts[:, 0], parts[:, 1] if parts.shape[1] > 1 else None
        else:
            mean, deviation = self.moments(batch["image"])
        return self._inwards(mean + deviation * torch.randn_like(mean) if draw and deviation is not None else mean)

    def _inwards(self, z: Tensor) -> Tensor:
        return (z - self.center.to(z.device)) * (self.std / self.spread.to(z.device))

    def _on(self, device: torch.device) -> Any:
        if self._device != device:
            self.network.to(device)
            self._device = device
        return self.network

    def rest(self) -> None:
        """Brings the weights back to the CPU, where they leave the room on a graphics card to the training."""
        self._on(torch.device("cpu"))

    def state(self) -> dict[str, Any]:
        """All that a checkpoint keeps of it; the inverse of `load`."""
        return {"network": self.network.state_dict(), "mean": self.center.flatten(), "deviation": self.spread.flatten()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` said; raises what `load_state_dict` and a dict raise where it is another's."""
        self.network.load_state_dict(state["network"], strict=True)
        for name in ("mean", "deviation"):
            if tuple(state[name].shape) != self.shape[:1]:
                raise RuntimeError(f"{name} of the latents has the shape {tuple(state[name].shape)}")
            if not state[name].is_floating_point() or not torch.isfinite(state[name]).all():
                raise RuntimeError(f"{name} of the latents is {state[name].tolist()}")
        if not (state["deviation"] > 0).all():
            raise RuntimeError(f"deviation of the latents is {state['deviation'].tolist()}")
        self.standardize(state["mean"], state["deviation"])

    def fingerprint(self) -> str:
        """A digest of the autoencoder's weights: latents belong to it alone."""
        return digest(self.network)


def digest(network: nn.Module) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a network's weights with their names."""
    found = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
