# SPDX-License-Identifier: Apache-2.0
"""Services with NodePorts: some whose endpoints are all on this node, some whose endpoints are all on another."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from bench import fleet, world
from bench.agent import write_manifest
from bench.fleet import Target
from bench.plan import ENDPOINTS

PROTOCOLS = ("TCP", "UDP")
_SERVICES = 8
_FIRST_NUMBER = 200_000
"""Beyond all Services that there are besides."""
_FIRST_FAR_ENDPOINT = IPv4Address("10.208.1.0")
_FIRST_NODE_PORT = 30_000


class Place(enum.Enum):
    """Where a Service's endpoints are."""

    HERE = "here"
    ELSEWHERE = "elsewhere"

    @property
    def numbers(self) -> range:
        """The Services whose endpoints are there."""
        first = _FIRST_NUMBER + (0 if self is Place.HERE else _SERVICES)
        return range(first, first + _SERVICES)


def objects() -> Iterator[dict[str, Any]]:
    """Yield the Services and their EndpointSlices."""
    for place in Place:
        for number in place.numbers:
            yield _service(number)
            yield _endpoint_slice(place, number)


def write_manifests(folder: Path, others: int) -> Path:
    """Write them for the agent into a new folder, with so many Services besides."""
    folder.mkdir()
    write_manifest(folder / "node.json", [fleet.node()])
    write_manifest(folder / "services.json", fleet.objects(others, ENDPOINTS))
    write_manifest(folder / "node-ports.json", objects())
    return folder


def _service(number: int) -> dict[str, Any]:
    service = fleet.service(number, PROTOCOLS)
    service["spec"]["type"] = "NodePort"
    for port in service["spec"]["ports"]:
        port["nodePort"] = _node_port(number)
    return service


def _endpoint_slice(place: Place, number: int) -> dict[str, Any]:
    made = fleet.endpoint_slice(number, range(ENDPOINTS), PROTOCOLS)
    for index, endpoint in enumerate(made["endpoints"]):
        endpoint["addresses"] = [_endpoint(place, number, index)]
        endpoint["nodeName"] = fleet.NODE if place is Place.HERE else "node-1"
    return made


def _node_port(number: int) -> int:
    return _FIRST_NODE_PORT + number - _FIRST_NUMBER


def _endpoint(place: Place, number: int, index: int) -> str:
    if place is Place.HERE:
        return fleet.endpoint(number, index)
    return str(_FIRST_FAR_ENDPOINT + (number - _FIRST_NUMBER) * ENDPOINTS + index)


def node_ports(place: Place) -> Iterator[Target]:
    """Yield NodePorts of this node, and who may answer."""
    for number in place.numbers:
        first, last = (_endpoint(place, number, index) for index in (0, ENDPOINTS - 1))
        yield Target(world.NODE_ADDRESS, _node_port(number), first, last)


def endpoints(place: Place) -> Iterator[Target]:
    """Yield one endpoint of each Service."""
    for number in place.numbers:
        address = _endpoint(place, number, number % ENDPOINTS)
        yield Target(address, world.PORT, address, address)
