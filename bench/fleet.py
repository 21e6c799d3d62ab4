# SPDX-License-Identifier: Apache-2.0
"""Numbers Services and says what each is: its ClusterIP, its endpoints, the objects that Kubernetes would show.

Every side of every measure asks for the same numbers, so that the answers can be checked.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, NamedTuple

from bench import world

SERVICE_PORT = 80
NAMESPACE = "bench"
NODE = "node-0"
TCP = ("TCP",)
_FIRST_SERVICE = IPv4Address("10.96.1.0")
_FIRST_ENDPOINT = IPv4Address("10.128.1.0")
_FIRST_STRANGER = IPv4Address("10.200.1.0")
_ENDPOINT_STRIDE = 16
_FEW = 16


def cluster_ip(number: int) -> str:
    """Return the address of a Service."""
    return str(_FIRST_SERVICE + number)


def endpoint(number: int, index: int) -> str:
    """Return the address of an endpoint of a Service, at most 16 of them."""
    return str(_FIRST_ENDPOINT + number * _ENDPOINT_STRIDE + index)


def name(number: int) -> str:
    """Return the name of a Service."""
    return f"service-{number:06}"


def service(number: int, protocols: Sequence[str] = TCP) -> dict[str, Any]:
    """Return the Service as the API has it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name(number), "namespace": NAMESPACE, "uid": f"00000000-0000-4000-8000-{number:012}"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ip(number),
            "clusterIPs": [cluster_ip(number)],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "ports": [
                {"name": protocol.lower(), "port": SERVICE_PORT, "protocol": protocol, "targetPort": world.PORT}
                for protocol in protocols
            ],
        },
    }


def endpoint_slice(number: int, indexes: Iterable[int], protocols: Sequence[str] = TCP) -> dict[str, Any]:
    """Return the EndpointSlice of a Service that lists the endpoints with these indexes."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name(number)}-slice",
            "namespace": NAMESPACE,
            "uid": f"00000000-0000-4000-8001-{number:012}",
            "labels": {"kubernetes.io/service-name": name(number)},
        },
        "addressType": "IPv4",
        "ports": [{"name": protocol.lower(), "port": world.PORT, "protocol": protocol} for protocol in protocols],
        "endpoints": [
            {"addresses": [endpoint(number, index)], "conditions": {"ready": True}, "nodeName": f"node-{index}"}
            for index in indexes
        ],
    }


def node() -> dict[str, Any]:
    """Return the Node as the API has it."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE},
        "status": {"addresses": [{"type": "InternalIP", "address": world.NODE_ADDRESS}]},
    }


def objects(count: int, endpoints: int) -> Iterator[dict[str, Any]]:
    """Yield all Services and their EndpointSlices."""
    for number in range(count):
        yield service(number)
        yield endpoint_slice(number, range(endpoints))


def few(count: int) -> list[int]:
    """Return at most sixteen Services, spread over all: those that one client keeps coming back to."""
    return sorted({number * count // _FEW for number in range(_FEW)})


class Target(NamedTuple):
    """What a load connects to, and the first and the last of the endpoints that may answer, if any."""

    address: str
    port: int
    first: str = ""
    last: str = ""


def service_target(number: int, endpoints: int) -> Target:
    """Return a Service, and who may answer."""
    return Target(cluster_ip(number), SERVICE_PORT, endpoint(number, 0), endpoint(number, endpoints - 1))


def write_service_targets(path: Path, numbers: Iterable[int], endpoints: int) -> Path:
    """Write a targets file for the loads: Services."""
    return write_targets(path, (service_target(number, endpoints) for number in numbers))


def write_endpoint_targets(path: Path, numbers: Iterable[int], endpoints: int) -> Path:
    """Write a targets file for the loads: one endpoint of each Service."""
    addresses = (endpoint(number, number % endpoints) for number in numbers)
    return write_targets(path, (Target(address, world.PORT, address, address) for address in addresses))


def write_stranger_targets(path: Path, count: int) -> Path:
    """Write a targets file for the loads: addresses that have nothing to do with any Service."""
    picks = random.Random(count).sample(range(200_000), count)
    return write_targets(path, (Target(str(_FIRST_STRANGER + pick), world.PORT) for pick in picks))


def write_targets(path: Path, targets: Iterable[Target]) -> Path:
    """Write a targets file for the loads."""
    with path.open("w") as file:
        file.writelines(f"{' '.join(map(str, target))}\n" for target in targets)
    return path
