"""facegen: face-generating diffusion models, PyTorch Lightning inside, Hydra outside."""

__version__ = "0.1.0"
