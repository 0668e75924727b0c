"""Data sets of faces: readers of their layouts on disk, the packed cache, and the batches made of it."""
