# SPDX-License-Identifier: Apache-2.0
"""What our agent says in its log, one JSON object a line, since it was last started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench import world

_READY = "agent_ready"


class AgentLog:
    """The log file of an agent, to which each start appends."""

    def __init__(self, path: Path) -> None:
        """Know where it is; it may not be there yet."""
        self._path = path
        self._start = 0

    def begin(self) -> None:
        """Look no more at what is there now: the agent is about to be started."""
        self._start = self._path.stat().st_size if self._path.exists() else 0

    def events(self) -> list[dict[str, Any]]:
        """Return what was said."""
        lines = self._path.read_bytes()[self._start :].splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"\n")]

    def ready(self) -> dict[str, Any] | None:
        """Return what the agent says when it has taken everything in; None: it has not yet."""
        return next((event for event in self.events() if event["event"] == _READY), None)

    def check(self) -> None:
        """Raise WorldError if an error was logged."""
        errors = [event for event in self.events() if event["level"] in {"error", "critical"}]
        if errors:
            msg = f"our agent logged: {errors[0]}"
            raise world.WorldError(msg)
