# SPDX-License-Identifier: Apache-2.0
"""Writes Services into the maps by hand, so that the programs are tested against map_types.h alone.

Ids count from 1 and are never used again; every address is text, ports are numbers in host order.
"""

from __future__ import annotations

import ipaddress
import itertools
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.map_store import KernelMapStore
from kubeproxy_ebpf.layout.changes import ArrayMap, DeleteEntry, HashMap, InsertEntry, Phase

CLUSTER_IP, EXTERNAL_IP, LOAD_BALANCER, NODE_PORT = 1, 2, 3, 4
ADDRESS_CLUSTER_IP, ADDRESS_EXTERNAL, ADDRESS_NODE, ADDRESS_EXCLUDED = 1, 2, 4, 8
INTERNAL_LOCAL, EXTERNAL_LOCAL, HAS_ENDPOINTS, SOURCE_RANGES = 1, 2, 4, 8
IN_CLUSTER_SET, IN_LOCAL_SET, IS_LOCAL = 2, 4, 8
LOCALHOST_NODE_PORTS, LISTENING = 1, 2

ADDRESS_KINDS = {
    CLUSTER_IP: ADDRESS_CLUSTER_IP,
    EXTERNAL_IP: ADDRESS_EXTERNAL,
    LOAD_BALANCER: ADDRESS_EXTERNAL,
    NODE_PORT: ADDRESS_NODE,
}
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
MAX_CIDRS = 8

_KEY = struct.Struct("=16s2sBx")
_ORIGIN = struct.Struct("=16s2sBx4xII")
_SERVICE = struct.Struct("=QQIIQ")
_SLOT = struct.Struct("=I4x")
_BACKEND = struct.Struct("=16sIIIH2s")
_SETTINGS = struct.Struct("=I4xIIQ16s16s" + 2 * MAX_CIDRS * "16s16s")
_RANGE = struct.Struct("=II16s")
_NUMBER = struct.Struct("=I")

Endpoint = tuple[str, int]


def packed(address: str) -> bytes:
    """Return an address's sixteen bytes."""
    parsed = ipaddress.ip_address(address)
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed


def packed_prefix(cidr: str) -> tuple[bytes, bytes]:
    """Return a CIDR's network and mask."""
    network = ipaddress.ip_network(cidr)
    length = network.prefixlen + (96 if network.version == 4 else 0)
    return packed(str(network.network_address)), ((1 << 128) - (1 << (128 - length))).to_bytes(16)


def packed_port(port: int) -> bytes:
    """Return a port in network order."""
    return port.to_bytes(2, "big")


@dataclass
class Backend:
    """A backend as it was last written."""

    id: int
    service: int
    endpoint: Endpoint
    generation: int = 1


class ServiceMaps:
    """The maps of one loaded data plane, and which ids are taken."""

    def __init__(self, store: KernelMapStore) -> None:
        """Start with empty maps."""
        self.store = store
        self._ids = {array: itertools.count(1) for array in ArrayMap}
        self._slot = 1
        self.settings()

    def settings(
        self,
        *,
        flags: int = 0,
        service_cidrs: Sequence[str] = (),
        excluded_cidrs: Sequence[str] = (),
        host_netns_cookie: int = 0,
        host_sources: tuple[str, str] = ("0.0.0.0", "::"),  # noqa: S104 -- "none", nobody binds to it
    ) -> None:
        """Write the one entry of settings."""
        sources = [packed(source) for source in host_sources]
        prefixes: list[bytes] = []
        for cidrs in (service_cidrs, excluded_cidrs):
            filled = [*(packed_prefix(cidr) for cidr in cidrs), *[(bytes(16), bytes(16))] * (MAX_CIDRS - len(cidrs))]
            prefixes += [part for prefix in filled for part in prefix]
        counts = len(service_cidrs), len(excluded_cidrs)
        self._write(ArrayMap.SETTINGS, 0, _SETTINGS.pack(flags, *counts, host_netns_cookie, *sources, *prefixes))

    def service(
        self,
        endpoints: Sequence[Endpoint] = (),
        *,
        local: Sequence[Endpoint] = (),
        elsewhere: Sequence[Endpoint] = (),
        flags: int | None = None,
        affinity_seconds: int = 0,
    ) -> int:
        """Add a service with endpoints in its cluster set, some of these in its local set and some on other nodes."""
        service = next(self._ids[ArrayMap.SERVICES])
        self.publish(
            service, endpoints, local=local, elsewhere=elsewhere, flags=flags, affinity_seconds=affinity_seconds
        )
        return service

    def publish(
        self,
        service: int,
        endpoints: Sequence[Endpoint],
        *,
        local: Sequence[Endpoint] = (),
        elsewhere: Sequence[Endpoint] = (),
        flags: int | None = None,
        affinity_seconds: int = 0,
    ) -> list[Backend]:
        """Give a service new backends and sets; the old ones stay as they are, but in no set."""
        if flags is None:
            flags = HAS_ENDPOINTS if endpoints else 0
        backends = []
        for endpoint in endpoints:
            membership = IN_CLUSTER_SET | (IN_LOCAL_SET if endpoint in local else 0)
            membership |= 0 if endpoint in elsewhere else IS_LOCAL
            backends.append(Backend(next(self._ids[ArrayMap.BACKENDS]), service, endpoint))
            self.write_backend(backends[-1], flags=1 | membership)
        cluster_set = self._set([backend.id for backend in backends])
        local_set = self._set([backend.id for backend in backends if backend.endpoint in local])
        self._write(ArrayMap.SERVICES, service, _SERVICE.pack(cluster_set, local_set, affinity_seconds, flags, 0))
        return backends

    def write_backend(self, backend: Backend, *, flags: int = 1 | IN_CLUSTER_SET) -> None:
        """Write a backend's entry."""
        address, port = backend.endpoint
        values = packed(address), backend.service, 0, backend.generation, flags, packed_port(port)
        self._write(ArrayMap.BACKENDS, backend.id, _BACKEND.pack(*values))

    def retire(self, backend: Backend) -> None:
        """Move a backend's generation on: it serves no more."""
        backend.generation += 1
        self.write_backend(backend, flags=1)

    def _set(self, backends: Sequence[int]) -> int:
        base = self._slot
        for offset, backend in enumerate(backends):
            self._write(ArrayMap.SLOTS, base + offset, _SLOT.pack(backend))
        self._slot += len(backends)
        return base << 32 | len(backends)

    def frontend(self, service: int, address: str, port: int, protocol: int = TCP, kind: int = CLUSTER_IP) -> int:
        """Let an address and port stand for a service; return the origin id."""
        origin = next(self._ids[ArrayMap.ORIGINS])
        self.write_origin(origin, service, address, port, protocol=protocol, kind=kind)
        key = _KEY.pack(packed(address), packed_port(port), protocol)
        self._insert(HashMap.FRONTENDS, key, _NUMBER.pack(origin))
        self.address(address, ADDRESS_KINDS[kind])
        return origin

    def write_origin(
        self, origin: int, service: int, address: str, port: int, *, protocol: int = TCP, kind: int = CLUSTER_IP
    ) -> None:
        """Write an origin's entry alone."""
        values = packed(address), packed_port(port), protocol, service, kind
        self._write(ArrayMap.ORIGINS, origin, _ORIGIN.pack(*values))

    def withdraw(self, origin: int, address: str, port: int, protocol: int = TCP) -> None:
        """Take a frontend away, and free its origin; the address stays known."""
        key = _KEY.pack(packed(address), packed_port(port), protocol)
        assert self.store.delete([DeleteEntry(Phase.WITHDRAW, HashMap.FRONTENDS, key)]) == []
        self._write(ArrayMap.ORIGINS, origin, bytes(_ORIGIN.size))

    def address(self, address: str, kinds: int) -> None:
        """Say what an address is."""
        self._insert(HashMap.ADDRESSES, packed(address), _NUMBER.pack(kinds))

    def allow_source(self, service: int, cidr: str) -> None:
        """Add a source range."""
        network = ipaddress.ip_network(cidr)
        length = 32 + network.prefixlen + (96 if network.version == 4 else 0)
        key = _RANGE.pack(length, service, packed(str(network.network_address)))
        self._insert(HashMap.SOURCE_RANGES, key, _NUMBER.pack(1))

    def count(self, map_name: str) -> dict[int, tuple[int, ...]]:
        """Return what a counter map has counted, by index."""
        return dict(self.store.counters(map_name))

    def entries_of(self, map_name: str) -> int:
        """Return how many entries a keyed map has."""
        return len(list(self.store.entries_of(map_name)))

    def forget_peer_names(self) -> None:
        """Clear peer_names, as if other sockets had taken every place."""
        fd = self.store.descriptor("peer_names")
        for index in range(syscalls.map_info(fd).max_entries):
            syscalls.map_update(fd, _NUMBER.pack(index), bytes(8))

    def _write(self, array: ArrayMap, index: int, data: bytes) -> None:
        self.store.write(array, index * len(data), data)

    def _insert(self, name: HashMap, key: bytes, value: bytes) -> None:
        assert self.store.insert([InsertEntry(Phase.EXPOSE, name, key, value)]) == []
