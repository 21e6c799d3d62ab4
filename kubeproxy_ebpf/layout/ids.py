# SPDX-License-Identifier: Apache-2.0
"""Hands out the ids of one array: ids never used first, then those given back, oldest first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from kubeproxy_ebpf.layout.errors import MapFullError


class IdPool:
    """Ids 1 to capacity - 1; id 0 stands for none.

    An id comes back only after a grace period: the caller sees to that. The order makes an id rest
    as long as there are others, which keeps what outlives a grace period (names of peers) meaningful for longest.
    """

    def __init__(self, map_name: str, capacity: int) -> None:
        """Start with every id free."""
        self._map_name = map_name
        self._capacity = capacity
        self._next = 1
        self._returned: deque[int] = deque()

    @property
    def in_use(self) -> int:
        """How many ids are handed out, those in a grace period among them."""
        return self._next - 1 - len(self._returned)

    def restore(self, used: Iterable[int]) -> None:
        """Start over with these ids handed out."""
        taken = set(used)
        self._next = max(taken, default=0) + 1
        self._returned = deque(free for free in range(1, self._next) if free not in taken)

    def take(self) -> int:
        """Return an id that nobody has.

        Raises:
            MapFullError: there is none.
        """
        if self._next < self._capacity:
            self._next += 1
            return self._next - 1
        if self._returned:
            return self._returned.popleft()
        raise MapFullError(self._map_name, self._capacity)

    def give_back(self, ids: Iterable[int]) -> None:
        """Take back ids that no reader can meet any more."""
        self._returned.extend(ids)
