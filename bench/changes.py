# SPDX-License-Identifier: Apache-2.0
"""One Service that appears, gets other endpoints and goes, beside all those that stay; and how long each step takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from bench import fleet
from bench.node import Node
from bench.reach import NOBODY, Answerers, Change, Reach
from bench.upload import set_endpoints
from tools.kubernetes.client import Client
from tools.kubernetes.control_plane import ControlPlane

ENDPOINTS = 10
MOVED = "all endpoints of a Service replaced"
ADDED = "Service added"
DELETED = "Service deleted"
KINDS = (MOVED, ADDED, DELETED)

Changes = dict[str, list[Change]]
"""For each kind of change how long each one took."""


class ChangingService:
    """The Service after the last. Its EndpointSlice is always there, as a controller would have made it before."""

    def __init__(self, client: Client, number: int) -> None:
        """Begin with the EndpointSlice alone."""
        self._client = client
        self._number = number
        self._address = fleet.cluster_ip(number)
        self._owner = number
        """The endpoints are those that were meant for this Service: for it, or for the one after it."""
        self._is_there = False
        client.create(fleet.endpoint_slice(number, range(ENDPOINTS)))

    @property
    def now(self) -> Answerers:
        """Who answers when everything that was done is in effect."""
        return self._answerers(self._owner) if self._is_there else Answerers(self._address, *NOBODY)

    @property
    def other(self) -> Answerers:
        """Who would answer after a move."""
        return self._answerers(self._other_owner)

    def add(self) -> None:
        """Create the Service."""
        self._is_there = True
        self._client.create(fleet.service(self._number))

    def move(self) -> None:
        """Replace all endpoints by others."""
        self._owner = self._other_owner
        set_endpoints(self._client, self._number, range(ENDPOINTS), of=self._owner)

    def delete(self) -> None:
        """Delete the Service."""
        self._is_there = False
        self._client.delete(fleet.service(self._number))

    def timed(self, reach: Reach, kind: str) -> Change:
        """Do one of these; return how long it took."""
        before = self.now
        after, act = {
            MOVED: (self.other, self.move),
            ADDED: (self._answerers(self._owner), self.add),
            DELETED: (Answerers(self._address, *NOBODY), self.delete),
        }[kind]
        return reach.change(before, after, act)

    def remove(self) -> None:
        """Leave nothing in the API."""
        if self._is_there:
            self.delete()
        self._client.delete(fleet.endpoint_slice(self._number, ()))

    @property
    def _other_owner(self) -> int:
        return self._number + (self._owner == self._number)

    def _answerers(self, owner: int) -> Answerers:
        return Answerers(self._address, fleet.endpoint(owner, 0), fleet.endpoint(owner, ENDPOINTS - 1))


@contextmanager
def changing_service(plane: ControlPlane, number: int) -> Iterator[ChangingService]:
    """Have one until the block ends."""
    with closing(plane.client()) as client:
        service = ChangingService(client, number)
        yield service
        service.remove()


def cycles(node: Node, reach: Reach, service: ChangingService, count: int) -> Changes:
    """Let the Service appear, change and go, so many times; it is not there before and after."""
    changes: Changes = {kind: [] for kind in KINDS}
    for _ in range(count):
        for kind in (ADDED, MOVED, DELETED):
            changes[kind].append(service.timed(reach, kind))
            time.sleep(node.rest)
    return changes
