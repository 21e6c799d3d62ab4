# SPDX-License-Identifier: Apache-2.0
"""Data on standard output: tables for people, JSON for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import orjson
import typer

_WIDER_THAN_ANY_ROW = 10_000
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class OutputError(Exception):
    """Standard output takes no more."""

    def __init__(self, cause: OSError) -> None:
        """Say why."""
        super().__init__(f"cannot write to standard output: {cause.strerror}; make room, or let it lead elsewhere")


def print_line(text: str = "") -> None:
    """Print a line of data.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        typer.echo(text)
    except BrokenPipeError:
        raise  # whoever read has had enough: typer ends the program
    except OSError as error:
        # What is in the buffer goes nowhere, or leaving would try to write it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(error) from error


def print_json(data: object) -> None:
    """Print data as indented JSON."""
    print_line(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())


def print_json_line(data: object) -> None:
    """Print data as JSON on one line, for streams of it."""
    print_line(orjson.dumps(data).decode())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their columns' names; never wrapped or cut, so that lines can be searched."""
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only tables need it
    from rich.table import Table  # noqa: PLC0415 - likewise
    from rich.text import Text  # noqa: PLC0415 - likewise

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ignore")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console = Console(highlight=False, width=_WIDER_THAN_ANY_ROW)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print_line(line.rstrip())
