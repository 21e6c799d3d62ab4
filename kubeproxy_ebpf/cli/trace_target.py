# SPDX-License-Identifier: Apache-2.0
"""What ``trace`` is given on the command line: where a connection comes from, and where it goes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from kubeproxy_ebpf.layout.restore import find
from kubeproxy_ebpf.map_store import MapStore
from kubeproxy_ebpf.model.address import (
    UNSPECIFIED_IPV4,
    UNSPECIFIED_IPV6,
    Address,
    family_of,
    format_address,
    parse_address,
)
from kubeproxy_ebpf.model.objects import ObjectName, Protocol
from kubeproxy_ebpf.plan.service_plan import FrontendKey, Source

_HIGHEST_PORT = 65535
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")  # RFC 1123, as Kubernetes names both
_PORT = re.compile(r"[0-9]{1,5}")
_DESTINATION = "an address, port and protocol, e.g. 10.96.0.10:80/TCP or [fd00::10]:53/UDP"
_SERVICE = "a Service, e.g. default/web or default/web:http"


class TargetError(Exception):
    """What cannot be traced. The message says what can."""


class Client(NamedTuple):
    """Where a connection comes from."""

    source: Source
    address: Address | None
    """None: nobody said."""

    def __str__(self) -> str:
        """Return what ``--from`` says."""
        return self.source.value if self.address is None else f"{self.source.value}={format_address(self.address)}"


class ServiceTarget(NamedTuple):
    """All frontends of a Service, or of one of its ports."""

    service: ObjectName
    port: str
    """Name or number; empty: all."""


def parse_client(text: str) -> Client:
    """Parse ``pod``, ``node=192.0.2.10``, ``outside=203.0.113.5``.

    Raises:
        TargetError: it is none of these.
    """
    kind, equals, given = text.partition("=")
    try:
        source, address = Source(kind), parse_address(given) if equals else None
    except ValueError as error:
        msg = f"--from is {text!r}: give pod, node or outside, with =ADDRESS behind it where the address matters"
        raise TargetError(msg) from error
    if address in {UNSPECIFIED_IPV4, UNSPECIFIED_IPV6}:
        msg = f"--from is {text!r}, which nobody has: leave =ADDRESS out if it is not known"
        raise TargetError(msg)
    return Client(source, address)


def parse_target(text: str) -> FrontendKey | ServiceTarget:
    """Parse a destination or a Service.

    Raises:
        TargetError: it is neither.
    """
    before, slash, after = text.rpartition("/")
    if slash and ":" in before:
        return _destination(text, before, after)
    namespace, _, rest = text.partition("/")
    name, _, port = rest.partition(":")
    if not (_LABEL.fullmatch(namespace) and _LABEL.fullmatch(name)):
        msg = f"{text!r} cannot be traced: give {_DESTINATION}; or {_SERVICE}"
        raise TargetError(msg)
    return ServiceTarget(ObjectName(namespace, name), port)


def _destination(text: str, host_and_port: str, protocol: str) -> FrontendKey:
    host, _, port = host_and_port.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    msg = f"{text!r} is no destination: give {_DESTINATION}"
    if (":" in host) is not is_bracketed or not _PORT.fullmatch(port):
        raise TargetError(msg)
    try:
        key = FrontendKey(parse_address(host.strip("[]")), int(port), Protocol[protocol.upper()])
    except (ValueError, KeyError) as error:
        raise TargetError(msg) from error
    if not 0 < key.port <= _HIGHEST_PORT:
        msg = f"{text!r} has port {key.port}: give one from 1 to {_HIGHEST_PORT}"
        raise TargetError(msg)
    return key


def destinations(target: FrontendKey | ServiceTarget, maps: MapStore) -> list[FrontendKey]:
    """Return the frontends that a target means; a Service's are those that the maps have.

    Raises:
        TargetError: the maps have none for it.
    """
    if isinstance(target, FrontendKey):
        return [target]
    of_service = [port for port in find(maps).ports if port.key.service == target.service]
    keys = sorted(
        (port.key, kind, key)
        for port in of_service
        for key, (_, kind) in port.origins.items()
        if target.port in {"", port.key.port, str(key.port)}
    )
    if keys:
        return [key for _, _, key in keys]
    if of_service:
        numbers = sorted({key.port for port in of_service for key in port.origins})
        names = sorted({port.key.port for port in of_service} - {""})
        known = ", ".join(map(str, (*names, *numbers)))
        msg = f"the Service {target.service} has no port {target.port!r} in the kernel's maps: it has {known}"
    else:
        msg = (
            f"the Service {target.service} is not in the kernel's maps: `kubeproxy-ebpf dump services` shows "
            "those that are, the agent's log why one is not"
        )
    raise TargetError(msg)


def of_family(client: Client, keys: Sequence[FrontendKey]) -> list[FrontendKey]:
    """Return the frontends that a client can speak to, by the family of its address; all if that is not known.

    Raises:
        TargetError: there is none.
    """
    if client.address is None:
        return list(keys)
    family = family_of(client.address)
    found = [key for key in keys if family_of(key.address) is family]
    if not found:
        msg = f"--from is {client}, an IPv{family} address, and the destination has none: give both of one family"
        raise TargetError(msg)
    return found
