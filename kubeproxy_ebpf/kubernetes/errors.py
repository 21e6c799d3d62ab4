# SPDX-License-Identifier: Apache-2.0
"""What can go wrong between this agent and an API server."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path


class KubeconfigError(Exception):
    """It is not said how to reach an API server, or not in a way that can be understood."""

    def __init__(self, path: Path, what: str) -> None:
        """Remember which file is concerned, what is wrong with it, and the remedy."""
        super().__init__(f"{path}: {what}")


class LoginFailedError(Exception):
    """Credentials could not be had: a file is gone, a plug-in failed. It may work later."""


class ServerUnreachableError(Exception):
    """No answer: refused, reset, timed out, not trusted. Says which server, and why."""

    def __init__(self, server: str, error: BaseException) -> None:
        """Remember what happened."""
        super().__init__(f"{server}: {str(error) or type(error).__name__}")


class BrokenStreamError(Exception):
    """What a server sends cannot be made sense of."""


class ListGoneError(Exception):
    """The server no longer knows the state that was asked for: everything has to be listed again."""


class ApiError(Exception):
    """The server answered with an error."""

    def __init__(self, status: int, message: str, retry_after: float = 0.0) -> None:
        """Remember the HTTP status, what the server says, and how many seconds it wants to be left alone."""
        super().__init__(f"HTTP {status}: {message}")
        self.status = status
        self.retry_after = retry_after

    @property
    def means_gone(self) -> bool:
        """Whether the state that was asked for is too old for the server, or newer than all it knows."""
        return self.status == HTTPStatus.GONE or (
            self.status == HTTPStatus.GATEWAY_TIMEOUT and "Too large resource version" in str(self)
        )


class ErrorEventError(ApiError):
    """The server ended a watch with an error: what it has sent is not all."""
