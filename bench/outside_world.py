# SPDX-License-Identifier: Apache-2.0
"""A client outside a node, the node with a pod, and another node with a pod, as network namespaces.

Every address of a range is there: of the client's, of this node's endpoints, of the other node's. The pods' devices
have a route to them and no gateway, as on any node.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench import world
from bench.world import Plug, inside, let_route, link, namespace, run, wait_until_up

FAR_ENDPOINTS = "10.208.0.0/16"
"""The other node's."""
_OFFLOADS = {
    "tso": "tcp-segmentation-offload",
    "gso": "generic-segmentation-offload",
    "gro": "generic-receive-offload",
    "tx": "tx-checksumming",
    "rx": "rx-checksumming",
}
"""What ethtool(8) calls them when it changes and when it shows them."""


@dataclass(frozen=True, slots=True)
class Outside:
    """The namespaces around one node."""

    client: str
    node: str
    server: str
    far_node: str
    far_server: str

    def turn_offloads_off(self) -> None:
        """Have devices neither join packets, nor cut them, nor leave their checksums to anybody else."""
        for name, *devices in (
            (self.client, "eth0"),
            (self.node, "uplink", "pod", "backbone"),
            (self.server, "eth0"),
            (self.far_node, "uplink", "pod"),
            (self.far_server, "eth0"),
        ):
            for device in devices:
                off = (word for offload in _OFFLOADS for word in (offload, "off"))
                run(*inside(name, "ethtool", "-K", device, *off))
                (features,) = json.loads(run(*inside(name, "ethtool", "--json", "-k", device)))
                if on := [feature for feature in _OFFLOADS.values() if features[feature]["active"]]:
                    msg = f"{device} of {name} keeps {', '.join(on)}"
                    raise world.WorldError(msg)


@contextmanager
def outside(name: str) -> Iterator[Outside]:
    """Build them for as long as the block runs."""
    with ExitStack() as stack:
        roles = ("client", "node", "server", "far-node", "far-server")
        made = Outside(*(stack.enter_context(namespace(f"{name}-{role}")) for role in roles))
        link(Plug(made.node, "uplink", world.NODE_ADDRESS), Plug(made.client, "eth0", "10.192.0.2"))
        link(Plug(made.node, "pod", "10.192.0.5"), Plug(made.server, "eth0", "10.192.0.6"))
        link(Plug(made.node, "backbone", "10.192.0.9"), Plug(made.far_node, "uplink", "10.192.0.10"))
        link(Plug(made.far_node, "pod", "10.192.0.13"), Plug(made.far_server, "eth0", "10.192.0.14"))
        _route(made.client, "default", "via", world.NODE_ADDRESS)
        _route(made.server, "default", "via", "10.192.0.5")
        _route(made.far_node, "default", "via", "10.192.0.9")
        _route(made.far_server, "default", "via", "10.192.0.13")
        _route(made.node, world.CLIENTS, "via", "10.192.0.2")
        _route(made.node, world.ENDPOINTS, "dev", "pod")
        _route(made.node, FAR_ENDPOINTS, "via", "10.192.0.10")
        _route(made.far_node, FAR_ENDPOINTS, "dev", "pod")
        for name_, own in (
            (made.client, world.CLIENTS),
            (made.server, world.ENDPOINTS),
            (made.far_server, FAR_ENDPOINTS),
        ):
            _route(name_, "local", own, "dev", "lo")
        for router in (made.node, made.far_node):
            let_route(router)
        wait_until_up(made.client, made.node, made.server, made.far_node, made.far_server)
        yield made


def _route(name: str, *words: str) -> None:
    run("ip", "-n", name, "route", "add", *words)
