# SPDX-License-Identifier: Apache-2.0
"""A program that goes on running in a network namespace, and may be stopped, killed and started again."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.kubernetes.errors import ControlPlaneError, DaemonEndedError
from tools.kubernetes.namespace import inside

_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02


class Daemon:
    """One program. It ends with the thread that started it, whatever happens to that."""

    def __init__(self, namespace: Path, command: Sequence[str], log: Path) -> None:
        """Know how to start it; what it says is appended to a log."""
        self.name = Path(command[0]).name
        self.log = log
        self._command = ["setpriv", "--pdeathsig", "KILL", *inside(namespace, *command)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        if self._process is None:
            msg = f"{self.name} is not running"
            raise ControlPlaneError(msg)
        return self._process.pid

    def start(self) -> None:
        """Start it and return at once."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def check(self) -> None:
        """Raise DaemonEndedError unless it runs."""
        code = None if self._process is None else self._process.poll()
        if code is not None:
            raise DaemonEndedError(self.name, code, self.log)

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Return when a condition is met.

        Raises:
            DaemonEndedError: the program ended first.
            ControlPlaneError: it takes longer than a number of seconds.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                msg = f"waited {seconds:g} s for {self.name} {what}; see {self.log}"
                raise ControlPlaneError(msg)
            time.sleep(_POLL_SECONDS)

    def kill(self) -> None:
        """End it with SIGKILL and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it in its own way; after some seconds, with SIGKILL."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
