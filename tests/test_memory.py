"""Freed memory is kept: what is allocated again is there already."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource
import numpy as np
from facegen.memory import keep_freed_memory
took = {keep} and keep_freed_memory()
for turn in range(4):
    if turn == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(40 << 20, np.uint8)  # larger than glibc's own threshold ever becomes
print(took, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(keep: bool) -> tuple[bool, int]:
    """Whether the C library took the advice, and the page faults of filling 40 MB twice more."""
    command, small_pages = [sys.executable, "-c", COUNT_FAULTS.format(keep=keep)], {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}
    done = subprocess.run(command, env=small_pages, capture_output=True, text=True, check=True)
    took, faults = done.stdout.split()
    return took == "True", int(faults)


def test_memory_that_is_kept_is_not_faulted_in_again() -> None:
    took, kept = page_faults(keep=True)
    if not took:
        pytest.skip("not glibc: there is nothing to keep")
    assert kept < 5000 < page_faults(keep=False)[1]
