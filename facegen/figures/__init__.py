"""Figures of a run, of a model and of several runs beside each other."""
