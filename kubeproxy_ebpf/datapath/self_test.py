# SPDX-License-Identifier: Apache-2.0
"""Makes real connections through the live hooks: attached is not the same as working.

A Service of its own for a moment: entry 0 of each array, which no other ever gets, and a frontend with a
documentation address. Its endpoint is a socket of this process on loopback, so nothing leaves the node.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.datapath.features import Probe
from kubeproxy_ebpf.datapath.map_store import KernelMapStore
from kubeproxy_ebpf.datapath.network import SOCKET_FAMILIES
from kubeproxy_ebpf.datapath.pins import PinFolder
from kubeproxy_ebpf.layout.changes import ArrayMap, DeleteEntry, HashMap, InsertEntry, Phase
from kubeproxy_ebpf.map_schema import (
    ADDRESS_EXTERNAL,
    BACKEND_ALLOCATED,
    BACKEND_IN_CLUSTER_SET,
    BACKEND_IN_LOCAL_SET,
    ENTRY_SIZES,
    SERVICE_HAS_ENDPOINTS,
    BackendEntry,
    OriginEntry,
    ServiceEntry,
    Set,
    pack_backend,
    pack_frontend_key,
    pack_origin,
    pack_service,
    pack_slots,
    pack_u32,
)
from kubeproxy_ebpf.model.address import Family, parse_address
from kubeproxy_ebpf.model.objects import Protocol
from kubeproxy_ebpf.plan.service_plan import FrontendKey, FrontendKind

TIMEOUT = 2.0
"""Seconds for a connection within this process; only a broken one takes so long."""

_BORROWED = 0
_LOOPBACK = {Family.IPV4: "127.0.0.1", Family.IPV6: "::1"}
_DOCUMENTATION = {Family.IPV4: "198.51.100.{}", Family.IPV6: "2001:db8::{:x}"}
"""TEST-NET-2 and the IPv6 prefix of RFC 5737 and RFC 3849: nobody's addresses."""
_BACKEND_FLAGS = BACKEND_ALLOCATED | BACKEND_IN_CLUSTER_SET | BACKEND_IN_LOCAL_SET
_SOCKET_TYPE = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}
_BORROWED_ARRAYS = (ArrayMap.SERVICES, ArrayMap.SLOTS, ArrayMap.BACKENDS, ArrayMap.ORIGINS)


class Target(NamedTuple):
    """What the client asks for."""

    address: str
    port: int


class SelfTestError(Exception):
    """A connection did not go where it should have, or did not look as it should have."""


def self_test(pin_folder: Path) -> tuple[Probe, ...]:
    """Connect by each family and protocol; leave the maps as they were. One self-test runs at a time.

    This process must be in the cgroup that the hooks are attached to.

    Raises:
        NotLoadedError: no hooks are loaded.
    """
    with loader.open_pinned(pin_folder, writable=True) as store, _alone(pin_folder):
        return tuple(_probe(store, family, protocol) for family in Family for protocol in _SOCKET_TYPE)


@contextmanager
def _alone(pin_folder: Path) -> Iterator[None]:
    """Keep others from borrowing the same entries; the agent's own lock is another one."""
    folder = os.open(PinFolder(pin_folder).current, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _probe(store: KernelMapStore, family: Family, protocol: Protocol) -> Probe:
    name = f"self_test_{protocol.name.lower()}_ipv{family}"
    try:
        server = _server(family, protocol)
    except OSError as error:
        detail = f"not tried, as this node has no IPv{family} ({error.strerror})"
        return Probe(name, ok=True, detail=detail, required=False)
    try:
        with server, _frontend_for(store, family, protocol, server.getsockname()[1]) as target:
            exchange = _exchange_stream if protocol is Protocol.TCP else _exchange_datagram
            exchange(target, server)
    except (SelfTestError, OSError) as error:
        detail = "nothing arrived at the endpoint" if isinstance(error, TimeoutError) else str(error)
        remedy = "see who else is attached, and that this process is inside the cgroup of the hooks"
        return Probe(name, ok=False, detail=detail, remedy=remedy)
    return Probe(name, ok=True, detail="a connection to a Service address arrived, and shows that address")


def _server(family: Family, protocol: Protocol) -> socket.socket:
    server = socket.socket(SOCKET_FAMILIES[family], _SOCKET_TYPE[protocol])
    try:
        server.settimeout(TIMEOUT)
        server.bind((_LOOPBACK[family], 0))
    except BaseException:
        server.close()
        raise
    return server


@contextmanager
def _frontend_for(store: KernelMapStore, family: Family, protocol: Protocol, port: int) -> Iterator[Target]:
    """Let a documentation address lead to a loopback port, and take every trace of it away again."""
    target = _unused_target(store, family)
    address = parse_address(target.address)
    key = pack_frontend_key(FrontendKey(address, target.port, protocol))
    _borrow(store, key, BackendEntry(parse_address(_LOOPBACK[family]), port, _BORROWED, 0, 0, _BACKEND_FLAGS))
    inserted = [
        InsertEntry(Phase.EXPOSE, HashMap.FRONTENDS, key, pack_u32(_BORROWED)),
        InsertEntry(Phase.ANNOUNCE, HashMap.ADDRESSES, address, pack_u32(ADDRESS_EXTERNAL)),
    ]
    try:
        for entry in inserted:
            failed = store.insert([entry])
            if failed:
                raise SelfTestError(str(failed[0])) from failed[0]
        yield target
    finally:
        for entry in reversed(inserted):
            store.delete([DeleteEntry(Phase.WITHDRAW, entry.map, entry.key)])
        store.wait_for_readers()
        for array in _BORROWED_ARRAYS:
            store.write(array, 0, bytes(ENTRY_SIZES[array]))


def _unused_target(store: KernelMapStore, family: Family) -> Target:
    """Choose a documentation address that no Service of this cluster has, whatever the reason."""
    taken = {key for key, _ in store.entries(HashMap.ADDRESSES)}
    numbers = random.sample(range(1, 255), 254)
    texts = (_DOCUMENTATION[family].format(number) for number in numbers)
    text = next((text for text in texts if parse_address(text) not in taken), None)
    if text is None:
        msg = "Services have all documentation addresses; those are for documents only"
        raise SelfTestError(msg)
    return Target(text, random.randrange(1024, 65536))  # noqa: S311 -- a port, no secret


def _borrow(store: KernelMapStore, frontend_key: bytes, backend: BackendEntry) -> None:
    both_sets = Set(_BORROWED, 1)
    entries = {
        ArrayMap.BACKENDS: pack_backend(backend),
        ArrayMap.SLOTS: pack_slots((_BORROWED,)),
        ArrayMap.SERVICES: pack_service(ServiceEntry(both_sets, both_sets, 0, SERVICE_HAS_ENDPOINTS)),
        ArrayMap.ORIGINS: pack_origin(OriginEntry(frontend_key, _BORROWED, FrontendKind.EXTERNAL_IP)),
    }
    for array, data in entries.items():
        store.write(array, 0, data)


def _exchange_stream(target: Target, server: socket.socket) -> None:
    server.listen(1)
    with socket.socket(server.family, server.type) as client:
        client.settimeout(TIMEOUT)
        _connect(client, target)
        with server.accept()[0] as accepted:
            if accepted.getpeername()[:2] != client.getsockname()[:2]:
                msg = f"another connection arrived, from {accepted.getpeername()[0]}"
                raise SelfTestError(msg)
        _require_name("getpeername()", client.getpeername(), target)


def _exchange_datagram(target: Target, server: socket.socket) -> None:
    with socket.socket(server.family, server.type) as client:
        client.settimeout(TIMEOUT)
        _connect(client, target)
        _require_name("getpeername()", client.getpeername(), target)
        client.send(b"question")
        data, source = server.recvfrom(64)
        server.sendto(data, source)
        _require_name("the reply's source", client.recvfrom(64)[1], target)


def _connect(client: socket.socket, target: Target) -> None:
    try:
        client.connect(target)
    except OSError as error:
        msg = f"connecting to the Service address {target.address} failed: {error.strerror or 'nothing answered'}"
        raise SelfTestError(msg) from error


def _require_name(what: str, found: tuple[str, int], target: Target) -> None:
    if found[:2] != target:
        msg = f"{what} shows {found[0]} port {found[1]}, and not the Service's {target.address} port {target.port}"
        raise SelfTestError(msg)
