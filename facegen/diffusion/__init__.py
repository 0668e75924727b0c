"""Schedules, denoisers, guidance and samplers: the mathematics of diffusion, on torch alone."""
