# SPDX-License-Identifier: Apache-2.0
"""What is out of use and waits for a grace period, until every reader that may still meet it is gone."""

from __future__ import annotations

from dataclasses import dataclass, field

from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.map_schema import Set


@dataclass(slots=True)
class Retired:
    """What went out of use in one batch, or in one epoch."""

    backends: list[int] = field(default_factory=list)
    """Their entries must still be marked as free."""
    services: list[int] = field(default_factory=list)
    """Their names must still be deleted."""
    source_ranges: list[bytes] = field(default_factory=list)
    """Keys that must still be deleted, unless somebody wants them again."""
    origins: list[int] = field(default_factory=list)
    ranges: list[Set] = field(default_factory=list)
    free_backends: list[int] = field(default_factory=list)
    """Found free by an agent that was just started."""
    free_services: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return any(getattr(self, name) for name in self.__slots__)

    def add(self, other: Retired) -> None:
        """Take over what another one holds."""
        for name in self.__slots__:
            getattr(self, name).extend(getattr(other, name))

    def count(self, name: ArrayMap | HashMap) -> int:
        """Return how many entries of a map wait."""
        waiting: dict[ArrayMap | HashMap, int] = {
            ArrayMap.SLOTS: sum(one.length for one in self.ranges),
            ArrayMap.BACKENDS: len(self.backends) + len(self.free_backends),
            ArrayMap.SERVICES: len(self.services) + len(self.free_services),
            ArrayMap.ORIGINS: len(self.origins),
            HashMap.SERVICE_NAMES: len(self.services),
            HashMap.SOURCE_RANGES: len(self.source_ranges),
        }
        return waiting.get(name, 0)


class Epochs:
    """The open epoch, which collects, and the closed one, for which a grace period runs."""

    def __init__(self) -> None:
        """Start with nothing waiting."""
        self.number = 1
        """Of the open epoch."""
        self.open = Retired()
        self.closed: Retired | None = None

    def close(self) -> bool:
        """Close the open epoch; False: nothing waits in it, or another one is closed."""
        if self.closed is not None or not self.open:
            return False
        self.closed, self.open = self.open, Retired()
        self.number += 1
        return True

    def take_closed(self) -> Retired:
        """Return what was in the closed epoch: its grace period has passed."""
        passed, self.closed = self.closed or Retired(), None
        return passed

    def waiting(self, name: ArrayMap | HashMap) -> int:
        """Return how many entries of a map wait."""
        return self.open.count(name) + (self.closed.count(name) if self.closed else 0)

    @property
    def service_ids(self) -> frozenset[int]:
        """The service ids that wait with their names."""
        return frozenset((*self.open.services, *(self.closed.services if self.closed else ())))

    @property
    def backend_ids(self) -> frozenset[int]:
        """The ids of the backends that wait to be marked as free."""
        return frozenset((*self.open.backends, *(self.closed.backends if self.closed else ())))
