# SPDX-License-Identifier: Apache-2.0
"""Runs Python functions as somebody else: in a network namespace and a cgroup, in a process of their own."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.kernel.namespaces import Namespace, die_with_parent

T = TypeVar("T")


def _become(namespace: Namespace | None, cgroup: Path | None) -> None:
    die_with_parent()
    if cgroup is not None:
        # Before any socket is made: a socket belongs to the cgroup that its maker was in.
        (cgroup / "cgroup.procs").write_text("0")
    if namespace is not None:
        namespace.enter()


def _fork(body: Callable[[Callable[[object], None]], None]) -> tuple[int, int]:
    """Fork a child that runs ``body(report)``; return its pid and a pipe with its pickled reports."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    os.close(reading)

    def report(value: object) -> None:
        try:
            data = pickle.dumps(value)
            pickle.loads(data)  # noqa: S301 -- some exceptions can be written but not read
        except Exception:  # noqa: BLE001 -- whatever cannot travel goes as text
            data = pickle.dumps(RuntimeError(repr(value)) if isinstance(value, BaseException) else repr(value))
        with os.fdopen(os.dup(writing), "wb") as pipe:
            pipe.write(len(data).to_bytes(8, "big") + data)

    try:
        body(report)
    except BaseException as error:  # noqa: BLE001 -- the parent raises it
        error.add_note("".join(traceback.format_exception(error)))
        report(error)
    finally:
        # Never back into pytest.
        os._exit(0)


def _receive(pipe: int, what: str) -> Any:
    header = os.read(pipe, 8)
    if len(header) < 8:
        msg = f"{what} was killed before it answered"
        raise ChildProcessError(msg)
    data, size = b"", int.from_bytes(header, "big")
    while len(data) < size:
        data += os.read(pipe, size - len(data))
    value = pickle.loads(data)  # noqa: S301 -- from our own child
    if isinstance(value, BaseException):
        raise value
    return value


def run_in(namespace: Namespace | None, cgroup: Path | None, function: Callable[..., T], *arguments: Any) -> T:
    """Return what a function returns when a child process calls it there; raise what it raises there.

    ``None`` keeps the test's own namespace or cgroup. The result travels by pickle, the function need not.
    """

    def body(report: Callable[[object], None]) -> None:
        _become(namespace, cgroup)
        report(function(*arguments))

    pid, pipe = _fork(body)
    try:
        result: T = _receive(pipe, function.__name__)
    finally:
        os.close(pipe)
        os.waitpid(pid, 0)
    return result


class Background:
    """A child that goes on running. ``ready`` is the first thing it yielded."""

    def __init__(self, pid: int, pipe: int, what: str) -> None:
        """Wait until the child is ready."""
        self.pid = pid
        self._pipe = pipe
        self._what = what
        self.alive = True
        try:
            self.ready = self.next()
        except BaseException:
            self.wait()
            raise

    def next(self) -> Any:
        """Wait for the next thing that the child yields; raise what it raises."""
        return _receive(self._pipe, self._what)

    def kill(self) -> None:
        """Kill the child and wait for its end. Once."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """Wait for the child's end; return its status."""
        os.close(self._pipe)
        self.alive = False
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def start_in(
    namespace: Namespace | None, cgroup: Path | None, function: Callable[..., Iterator[Any]], *arguments: Any
) -> Background:
    """Start a generator function in a child process and return when it has yielded for the first time.

    Tests use the fixture ``background``, which kills what is left at the end.
    """

    def body(report: Callable[[object], None]) -> None:
        _become(namespace, cgroup)
        for value in function(*arguments):
            report(value)

    pid, pipe = _fork(body)
    return Background(pid, pipe, function.__name__)
