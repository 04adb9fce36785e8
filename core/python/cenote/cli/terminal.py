"""The terminal that a command writes to: in colour where rich is installed, in plain text where not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TextIO

if TYPE_CHECKING:
    from rich.table import Table as RichTable

Row = Sequence[str]


class Table(NamedTuple):
    """What `Terminal.table` takes."""

    title: str
    columns: Row
    rows: Sequence[Row]


NARROWEST, WIDEST = 40, 1000
"""Columns. In less, a table has no room for its text; more is no terminal's."""


def open_terminal(file: TextIO | None = None) -> Terminal:
    """Give the best terminal that is installed, which writes to a file; to standard output if none is given."""
    try:
        return RichTerminal(file)
    except ImportError:
        return Terminal(file)


class Terminal:
    """Lines, tables and progress as plain text."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file

    def line(self, text: str = "", style: str = "") -> None:
        """Write one line; `style` is one of rich's, such as ``"bold"``."""
        print(text, file=self._file)

    def table(self, title: str, columns: Row, rows: Sequence[Row], total: Row | None = None) -> None:
        """Write a table.

        Parameters
        ----------
        title : str
            Its heading.
        columns : sequence of str
            Their headings. Those that begin with a blank are of numbers, which stand to the right.
        rows : sequence of sequence of str
            A text for each column.
        total : sequence of str, optional
            A last row, set apart.
        """
        table = [*([columns] if _has_headings(columns) else []), *rows, *([total] if total else [])]
        widths = [max(len(text.strip()) for text in column) for column in zip(*table, strict=True)]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        self.line(title)
        self.line(rule)
        for row in table:
            if row is total:
                self.line(rule)
            self.line("  ".join(map(_pad, columns, row, widths)).rstrip())
            if row is columns:
                self.line(rule)
        self.line()

    @contextmanager
    def live(self) -> Iterator[Callable[[Sequence[Table], Sequence[str]], None]]:
        """Show tables again and again; gives the function to call with them, and with lines below them."""

        def show(tables: Sequence[Table], lines: Sequence[str]) -> None:
            for table in tables:
                self.table(*table)
            for line in lines:
                self.line(line)
            if self._file is not None:
                self._file.flush()

        yield show

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show that something is under way; gives the function to call with how much of `total` is done."""
        print(f"{what} ({total:,}) ...", file=self._file, flush=True)
        yield lambda done: None


class RichTerminal(Terminal):
    """Colour, tables that fit the window and a moving bar, by rich."""

    def __init__(self, file: TextIO | None = None) -> None:
        from rich.console import Console

        columns, lines = shutil.get_terminal_size()  # of COLUMNS and LINES, unless they are no sizes
        width, height = min(max(columns, NARROWEST), WIDEST), min(max(lines, 1), WIDEST)
        self._console = Console(file=file, highlight=False, markup=False, emoji=False, width=width, height=height)

    def line(self, text: str = "", style: str = "") -> None:
        """Write one line, which is never wrapped: paths stay in one piece."""
        self._console.print(text, style=style or None, soft_wrap=True)

    def table(self, title: str, columns: Row, rows: Sequence[Row], total: Row | None = None) -> None:
        """Write a table."""
        self._console.print(title, style="bold")
        self._console.print(self._made(columns, rows, total))
        self._console.print()

    @contextmanager
    def live(self) -> Iterator[Callable[[Sequence[Table], Sequence[str]], None]]:
        """Show tables in the place of the ones before."""
        if not self._console.is_terminal:
            with super().live() as show:
                yield show
            return
        from rich.console import Group
        from rich.live import Live
        from rich.text import Text

        with Live(console=self._console, auto_refresh=False, screen=True) as live:

            def show_instead(tables: Sequence[Table], lines: Sequence[str]) -> None:
                parts: list[Text | RichTable] = []
                for table in tables:
                    parts += [Text(table.title, "bold"), self._made(table.columns, table.rows), Text("")]
                parts += [Text(line, "yellow") for line in lines]
                live.update(Group(*parts), refresh=True)

            yield show_instead

    def _made(self, columns: Row, rows: Sequence[Row], total: Row | None = None) -> RichTable:
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            box=box.SIMPLE,
            show_header=_has_headings(columns),
            show_footer=total is not None,
            show_edge=False,
            header_style="dim",
        )
        for heading, last in zip(columns, total or [""] * len(columns), strict=True):
            if _is_of_numbers(heading):
                table.add_column(heading.strip(), footer=last, justify="right", no_wrap=True)
            else:
                table.add_column(heading.strip(), footer=last, overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        return table

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)


def _has_headings(columns: Row) -> bool:
    return any(heading.strip() for heading in columns)


def _is_of_numbers(heading: str) -> bool:
    return heading.startswith(" ")


def _pad(heading: str, text: str, width: int) -> str:
    return text.strip().rjust(width) if _is_of_numbers(heading) else text.ljust(width)
