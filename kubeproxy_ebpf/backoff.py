# SPDX-License-Identifier: Apache-2.0
"""When to try a thing again that failed: later each time, and forgotten once it worked."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)

FIRST_DELAY = 0.05
LONGEST_DELAY = 30.0


class Backoff(Generic[KeyT]):
    """Keys that wait for another try, each with a delay that doubles from 50 ms to 30 s.

    ``clock`` returns seconds and never goes back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start with nothing waiting."""
        self._clock = clock
        self._waiting: dict[KeyT, tuple[float, float]] = {}

    def __contains__(self, key: object) -> bool:
        """Whether the key's last try failed."""
        return key in self._waiting

    def failed(self, key: KeyT) -> float:
        """Note a failure; return the seconds until the next try."""
        _, previous = self._waiting.get(key, (0.0, FIRST_DELAY / 2))
        delay = min(previous * 2, LONGEST_DELAY)
        self._waiting[key] = (self._clock() + delay, delay)
        return delay

    def succeeded(self, key: KeyT) -> None:
        """Forget the key."""
        self._waiting.pop(key, None)

    def due(self) -> list[KeyT]:
        """Return the keys whose time has come. They keep their delay until they succeed."""
        now = self._clock()
        return [key for key, (at, _) in self._waiting.items() if at <= now]

    def seconds_to_next(self) -> float | None:
        """Return how long until some key is due; None while nothing waits."""
        if not self._waiting:
            return None
        return max(0.0, min(at for at, _ in self._waiting.values()) - self._clock())
