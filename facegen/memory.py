"""The C library's allocator, told that a training loop asks for the same memory again at once."""

from __future__ import annotations

import contextlib
import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
NEVER = 2**31 - 1  # bytes


def keep_freed_memory() -> bool:
    """Lets this process keep freed memory for its next allocation; returns whether the C library took the advice.

    By default glibc gives the large blocks of activations and gradients back to the kernel and has them mapped and zeroed anew at every
    step: thousands of page faults, a sixth of the time of a small network on a CPU (`benchmarks/training.py` has the figures). Peak
    memory stays what it was. It concerns Linux with glibc only and is harmless elsewhere.
    """
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        return all(libc.mallopt(option, NEVER) for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))
    return False
