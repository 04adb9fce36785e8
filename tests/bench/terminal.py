"""Progress on the terminal: a bar with rich, plain lines without it."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from tests.bench.session import Progress


class TerminalProgress(Progress, AbstractContextManager["TerminalProgress"]):
    """A bar a section on stderr; where rich is missing, a line a section."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar
        except ImportError:
            return
        self._bar = Bar(
            TextColumn("[bold]{task.fields[title]:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
        )

    def __enter__(self) -> TerminalProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_section()
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Tell what is being done besides measuring."""
        if self._bar is not None:
            self._bar.console.print(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def begin(self, title: str, total: int) -> None:
        """Begin a section of so many steps."""
        self._end_section()
        if self._bar is not None:
            self._task = self._bar.add_task("", total=total, title=title)
        else:
            self.say(f"measuring {title}: {total:,} steps …")

    def step(self, text: str) -> None:
        """One step is about to be made."""
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=text)

    def _end_section(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description="done")
