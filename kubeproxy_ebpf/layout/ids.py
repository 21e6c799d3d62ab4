# SPDX-License-Identifier: Apache-2.0
"""Hands out the ids of one array: ids never used first, then those given back, oldest first. Finds runs of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence


class IdPool:
    """Ids 1 to capacity - 1; id 0 stands for none.

    An id comes back only after a grace period: the caller sees to that. The order makes an id rest
    as long as there are others, which keeps what outlives a grace period (names of peers) meaningful for longest.
    """

    def __init__(self, capacity: int, first_unused: int = 1) -> None:
        """Start with the ids from ``first_unused`` on free."""
        self._capacity = capacity
        self._next = min(first_unused, capacity)
        self._returned: deque[int] = deque()

    @property
    def available(self) -> int:
        """How many ids can be taken."""
        return self._capacity - self._next + len(self._returned)

    @property
    def in_use(self) -> int:
        """How many ids are handed out, those in a grace period among them."""
        return self._next - 1 - len(self._returned)

    @property
    def free(self) -> frozenset[int]:
        """The ids that were given back."""
        return frozenset(self._returned)

    def take(self, count: int) -> list[int]:
        """Return ids that nobody has; no more than are ``available``."""
        fresh = min(count, self._capacity - self._next)
        ids = list(range(self._next, self._next + fresh))
        self._next += fresh
        if fresh < count:
            ids.extend(self._returned.popleft() for _ in range(count - fresh))
        return ids

    def give_back(self, ids: Iterable[int]) -> None:
        """Take back ids that no reader can meet any more."""
        self._returned.extend(ids)


def runs(ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield start and end of each run of consecutive ids."""
    start = 0
    for end in range(1, len(ids) + 1):
        if end == len(ids) or ids[end] != ids[end - 1] + 1:
            yield start, end
            start = end
