"""The progress bar: on stderr, and only where a person looks at it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Bar(Protocol):
    def advance(self, count: int) -> None: ...


class _NoBar:
    def advance(self, count: int) -> None:
        return


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Bar]:
    """A bar of `total` events; without a total it counts. None at all where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield _NoBar()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f} events/s")

    remaining = (TimeRemainingColumn(),) if total is not None else ()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Speed(),
        TimeElapsedColumn(),
        *remaining,
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(what, total=total)

        class _Bar:
            def advance(self, count: int) -> None:
                shown.update(task, advance=count)

        yield _Bar()
