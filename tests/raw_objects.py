# SPDX-License-Identifier: Apache-2.0
"""One valid raw object of each kind, with every field that is read, for tests to change."""

from __future__ import annotations

import copy
from typing import Any

SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {
        "namespace": "shop",
        "name": "web",
        "uid": "1-2",
        "creationTimestamp": "2024-01-01T00:00:00Z",
        "labels": {"app": "web"},
        "annotations": {"kubeproxy-ebpf.io/exclude": "false"},
    },
    "spec": {
        "type": "LoadBalancer",
        "clusterIP": "10.96.0.10",
        "clusterIPs": ["10.96.0.10", "fd00:10:96::10"],
        "externalIPs": ["198.51.100.7"],
        "ports": [
            {"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP", "targetPort": "web"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ],
        "loadBalancerSourceRanges": ["203.0.113.0/24", " 10.0.0.1/8"],
        "internalTrafficPolicy": "Local",
        "externalTrafficPolicy": "Local",
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        "healthCheckNodePort": 32000,
    },
    "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.8", "ipMode": "VIP"}, {"hostname": "lb.example.org"}]}},
}

SLICE: dict[str, Any] = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {
        "namespace": "shop",
        "name": "web-x7k2p",
        "uid": "3-4",
        "labels": {"kubernetes.io/service-name": "web"},
        "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2024-01-01T00:00:01Z"},
    },
    "addressType": "IPv4",
    "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    "endpoints": [
        {
            "addresses": ["10.244.0.5"],
            "conditions": {"ready": False, "serving": True, "terminating": True},
            "nodeName": "this-node",
            "hints": {"forZones": [{"name": "zone-a"}], "forNodes": [{"name": "this-node"}]},
        }
    ],
}

NODE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "this-node", "labels": {"topology.kubernetes.io/zone": "zone-a"}},
    "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd00:10:244::/64"], "taints": [{"key": "a"}]},
    "status": {
        "addresses": [
            {"type": "Hostname", "address": "this-node"},
            {"type": "ExternalIP", "address": "198.51.100.10"},
            {"type": "InternalIP", "address": "192.0.2.10"},
        ]
    },
}

SERVICE_CIDR: dict[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "ServiceCIDR",
    "metadata": {"name": "kubernetes", "uid": "5-6"},
    "spec": {"cidrs": ["10.96.0.0/12", "fd00:10:96::/112"]},
}


def changed(raw: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return a copy with the field at a dotted path replaced."""
    copied = copy.deepcopy(raw)
    *parents, last = path.split(".")
    target: Any = copied
    for key in parents:
        target = target[int(key) if key.isdigit() else key]
    target[int(last) if last.isdigit() else last] = value
    return copied
