# SPDX-License-Identifier: Apache-2.0
"""A reverse proxy in front of an API server that does what networks, servers and load balancers do on a bad day.

It is a process of its own in the control plane's namespace, told over a pipe what to do. TLS ends in it, so that it
can spoil HTTP and JSON as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from tests.cluster.spoiling import Fault, Order, serve
from tests.kernel.agent_process import wait_until
from tests.kernel.namespaces import Namespace
from tests.kernel.processes import Background, start_in
from tools.kubernetes.control_plane import ControlPlane


@dataclass(frozen=True)
class FaultyProxy:
    """A proxy that passes everything on as long as no fault is asked for."""

    url: str
    _orders: Connection
    _process: Background

    @classmethod
    def start(cls, plane: ControlPlane, namespace: Namespace, port: int) -> FaultyProxy:
        """Start one beside the API server, with its certificate. Call :meth:`stop` at the end."""
        ours, theirs = Pipe()
        address = plane.settings.address
        certificates = (*plane.credentials.server, plane.credentials.authority)
        process = start_in(namespace, None, serve, theirs, plane.server, (address, port), certificates)
        theirs.close()
        return cls(f"https://{address}:{port}", ours, process)

    @contextmanager
    def faults(self, *faults: Fault) -> Iterator[None]:
        """Let faults be until the block ends: a request meets the first that is meant for it.

        Requests that are under way are not spared, if a fault can still meet them.
        """
        self._order(Order.BEGIN, *faults)
        try:
            yield
        finally:
            self._order(Order.END)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Refuse new connections and reset all that there are, until the block ends."""
        self._order(Order.CLOSE)
        try:
            yield
        finally:
            self._order(Order.OPEN)

    def reset_connections(self) -> None:
        """Reset all connections."""
        self._order(Order.RESET)

    def wait_for_victims(self, count: int = 1) -> None:
        """Return when the latest faults have met a number of requests."""
        wait_until(lambda: self._order(Order.VICTIMS) >= count, f"{count} requests to meet a fault")

    def stop(self) -> None:
        """End it."""
        self._orders.close()
        if self._process.alive:
            self._process.kill()

    def _order(self, order: Order, *faults: Fault) -> int:
        self._orders.send((order, faults))
        answer: int = self._orders.recv()
        return answer
