# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a control plane of one's own."""

from __future__ import annotations

from pathlib import Path


class BuildError(Exception):
    """Kubernetes could not be built."""


class ControlPlaneError(Exception):
    """A part of the control plane does not start, or has ended."""


class DaemonEndedError(ControlPlaneError):
    """A program ended that should go on running."""

    def __init__(self, name: str, code: int, log: Path) -> None:
        """Show the last of what it said."""
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        super().__init__(f"{name} ended (exit code {code}); see {log}:\n{tail}")


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, request: str, status: int, reason: str, message: str) -> None:
        """Take over what a Status object says."""
        super().__init__(f"{request}: {status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
