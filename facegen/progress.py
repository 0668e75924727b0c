"""A bar on stderr with images per second and the time left; in a log file a line every half minute."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

EVERY = 30.0  # seconds between two lines in a log file


@contextmanager
def progress(title: str, done: int, count: int, steps: int = 1) -> Iterator[Callable[[int], None]]:
    """A bar for `count` images of `steps` steps each, `done` of them before it began; yields what moves it on by steps of single images."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn())
    of_others = int(os.environ.get("RANK", 0)) > 0  # one bar is enough
    console, told = Console(stderr=True), time.monotonic()
    with Progress(*columns, console=console, disable=of_others) as bar:
        task = bar.add_task(title, completed=done * steps, total=count * steps, text="")

        def advance(by: int) -> None:
            nonlocal told
            bar.advance(task, by)
            state = bar.tasks[task]
            text = f"{state.completed // steps:.0f} of {count}  {(state.speed or 0) / steps:.3g} images/s"
            bar.update(task, text=text)
            if not console.is_terminal and not of_others and time.monotonic() - told > EVERY:
                told = time.monotonic()
                left = timedelta(seconds=round(state.time_remaining)) if state.time_remaining else "?"
                bar.print(f"{title}: {text}  {left} left", highlight=False)

        yield advance
