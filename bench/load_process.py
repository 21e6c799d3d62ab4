# SPDX-License-Identifier: Apache-2.0
"""A load that is talked to while it runs: lines go to its standard input, and come from its standard output."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NoReturn

from bench import world


class LoadProcess:
    """One that runs."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        """Take it over. ``name``: what it does where."""
        self._name = name
        self._process = process

    def tell(self, text: str) -> None:
        """Send it some text.

        Raises:
            world.WorldError: it has ended.
        """
        stdin = _pipe(self._process.stdin)
        try:
            stdin.write(text)
            stdin.flush()
        except BrokenPipeError:
            self._ended()

    def end(self) -> None:
        """Tell it that nothing more will be said."""
        with suppress(BrokenPipeError):
            _pipe(self._process.stdin).close()

    def line(self) -> str:
        """Return the next line that it says.

        Raises:
            world.WorldError: it has ended.
        """
        return _pipe(self._process.stdout).readline() or self._ended()

    def _ended(self) -> NoReturn:
        msg = f"{self._name} ended (exit code {self._process.wait()})"
        raise world.WorldError(msg)


@contextmanager
def load_process(command: Sequence[str], where: str) -> Iterator[LoadProcess]:
    """Run a load until the block ends. ``where``: for messages."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        load = LoadProcess(f"{Path(command[0]).name}, {where},", process)
        try:
            yield load
        finally:
            process.kill()
            load.end()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None  # noqa: S101 - for the type's sake
    return pipe
