"""torch.compile where it cannot work: one line, in place of the compiler's page."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from facegen.errors import UserError


@contextmanager
def compiling() -> Iterator[None]:
    """Turns a failure of torch.compile into a UserError: no C++ compiler, no headers of Python, a GPU that Triton does not know."""
    try:
        yield
    except RuntimeError as error:
        dynamo = sys.modules.get("torch._dynamo.exc")  # loaded when something is compiled: takes a second
        if dynamo is None or not isinstance(error, dynamo.TorchDynamoException):
            raise
        line = f"trainer.compile=true: torch cannot compile the network here ({_reason(error)})"
        raise UserError(f"{line}; type trainer.compile=false") from error


def _reason(error: RuntimeError) -> str:
    """What went wrong, and the first complaint of the compiler where that is quoted below it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    complaint = next((line for line in lines[1:] if "error:" in line.lower()), "")
    return f"{lines[0]}: {complaint}" if complaint else lines[0]
