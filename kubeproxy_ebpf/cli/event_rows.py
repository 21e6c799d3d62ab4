# SPDX-License-Identifier: Apache-2.0
"""Events of the programs to rows: who asked for what, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from kubeproxy_ebpf import map_schema
from kubeproxy_ebpf.cli.inventory import Filter, Inventory, Names, ReadableMaps, host_and_port
from kubeproxy_ebpf.map_schema import Event
from kubeproxy_ebpf.model.address import Address
from kubeproxy_ebpf.model.objects import Protocol
from kubeproxy_ebpf.plan.service_plan import Verdict

_NANOSECONDS = 1_000_000_000
_RENEWAL_SECONDS = 1.0


class EventRow(NamedTuple):
    """One decision."""

    time: str
    """UTC, in the form of RFC 3339."""
    source: str
    """A client outside, by address and port; else the command of a process and its network namespace's cookie."""
    destination: str
    protocol: str
    namespace: str
    """Of the Service; empty, as the next two: no Service's."""
    name: str
    port: str
    verdict: str
    endpoint: str
    """Empty without DNAT."""
    reason: str
    """As ``dump counters`` names it; empty with DNAT."""
    device: str
    """That a packet came in or leaves by; empty: a socket's connect() or sendmsg()."""

    def line(self) -> str:
        """Return the row for people."""
        service = f" {self.namespace}/{self.name}" if self.name else ""
        port = f":{self.port}" if self.port else ""
        outcome = f"{self.verdict} {self.endpoint or self.reason}"
        device = f" ({self.device})" if self.device else ""
        return f"{self.time} {self.source} -> {self.destination}/{self.protocol}{service}{port} {outcome}{device}"


class ServiceNames:
    """Names of service ids, while Services come and go."""

    def __init__(self, maps: ReadableMaps, only: Filter) -> None:
        """Read them."""
        self._maps = maps
        self._only = only
        self._read()

    def _read(self) -> None:
        self._inventory = Inventory(self._maps, Filter())
        self._read_at = time.monotonic()

    def of(self, service: int) -> Names | None:
        """Return the names of a service id; None: not asked for, or not known."""
        names = self._inventory.names_of(service)
        if service and names is None and time.monotonic() - self._read_at > _RENEWAL_SECONDS:
            self._read()
            names = self._inventory.names_of(service)
        return names if names and self._only.matches(*names[:2]) else None


def event_row(event: Event, names: Names | None, device_of: Callable[[int], str], since_boot: int) -> EventRow:
    """Return a row. ``since_boot``: nanoseconds between the epoch and the machine's start."""
    verdict = Verdict(event.verdict)
    namespace, name, port, _ = names or ("", "", "", "")
    moment = datetime.fromtimestamp((event.time + since_boot) / _NANOSECONDS, UTC)
    return EventRow(
        moment.isoformat(timespec="microseconds"),
        _source(event),
        host_and_port(event.destination, event.destination_port),
        Protocol(event.protocol).name,
        namespace,
        name,
        port,
        verdict.name,
        host_and_port(event.endpoint, event.endpoint_port) if verdict is Verdict.DNAT else "",
        "" if verdict is Verdict.DNAT else _reason(event.reason),
        device_of(event.device) if event.device else "",
    )


def is_about(event: Event, address: Address) -> bool:
    """Whether an event has a client, frontend or endpoint with this address."""
    return address in {event.source, event.destination, event.endpoint}


def _source(event: Event) -> str:
    if event.device:
        return host_and_port(event.source, event.source_port)
    return f"{event.command or 'kernel'}[netns {event.netns_cookie}]"


def _reason(number: int) -> str:
    return map_schema.REASONS[number] if number < len(map_schema.REASONS) else f"reason_{number}"
