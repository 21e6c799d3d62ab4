# SPDX-License-Identifier: Apache-2.0
"""How the demo speaks: scenes, what was done, what was seen; an expectation that fails ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

_BAR = 30


class ExpectationError(Exception):
    """Something else was seen than what the demo promises."""


class Stage:
    """Prints to a console."""

    def __init__(self, console: Console) -> None:
        """Start before the first scene."""
        self._console = console
        self._scene = 0

    def scene(self, title: str) -> None:
        """Begin a scene."""
        self._scene += 1
        self._console.print(f"\n[bold cyan]{self._scene:2}. {escape(title)}[/]")

    def did(self, text: str) -> None:
        """Say what is done."""
        self._tell("[dim]do[/]", text)

    def saw(self, text: str) -> None:
        """Say what was seen."""
        self._tell("[green]see[/]", text)

    def _tell(self, what: str, text: str) -> None:
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(min_width=3)
        grid.add_column(overflow="fold")
        grid.add_row(what, escape(text))
        self._console.print(_indented(grid))

    def output(self, text: str) -> None:
        """Show what a command printed."""
        for line in text.rstrip().splitlines():
            self._console.print(f"         {line}", markup=False, no_wrap=True, crop=False, overflow="ignore")

    def table(self, table: Table) -> None:
        """Show a table."""
        self._console.print(_indented(table))

    @contextmanager
    def live(self) -> Iterator[Callable[[Table], None]]:
        """Return a function that shows a table in place of the one before; on paper, the last one stays."""
        with Live(console=self._console) as live:
            yield lambda table: live.update(_indented(table))
        if not self._console.is_terminal:
            self._console.line()

    def histogram(self, answers: Mapping[str, int]) -> None:
        """Show how often each server answered."""
        most = max(answers.values())
        for name, number in sorted(answers.items()):
            bar = "█" * max(1, round(_BAR * number / most))
            self._console.print(f"         {name:6} {number:4}  [cyan]{bar}[/]")

    def expect(self, condition: object, expected: str, seen: object) -> None:
        """Go on if the condition holds.

        Raises:
            ExpectationError: it does not.
        """
        if not condition:
            msg = f"expected {expected}\n     saw {seen}"
            raise ExpectationError(msg)


def _indented(table: Table) -> Padding:
    return Padding(table, (0, 0, 0, 4), expand=False)
