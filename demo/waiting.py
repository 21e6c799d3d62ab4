# SPDX-License-Identifier: Apache-2.0
"""Waiting for a condition, with a time-out that says what was waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

ResultT = TypeVar("ResultT")

PATIENCE = 300.0
"""Seconds after which a condition is taken to fail; generous, for emulated machines."""
PAUSE = 0.002


def wait_until(
    condition: Callable[[], ResultT], what: str, *, patience: float = PATIENCE, pause: float = PAUSE
) -> ResultT:
    """Return the first true value of the condition, which is looked at every ``pause`` seconds.

    Raises:
        TimeoutError: it did not become true in time.
    """
    deadline = time.monotonic() + patience
    while not (result := condition()):
        if time.monotonic() > deadline:
            msg = f"waited {patience:g} s for {what}"
            raise TimeoutError(msg)
        time.sleep(pause)
    return result
