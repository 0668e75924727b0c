"""The model families: LightningModules that own a denoiser and what it is conditioned on."""
