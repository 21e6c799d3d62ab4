# SPDX-License-Identifier: Apache-2.0
"""An API server and a folder of manifests that say the same come to the same maps."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeproxy_ebpf.model.address import parse_prefix
from tests.cluster.cluster import SERVICE_CIDR, Cluster
from tests.cluster.conftest import FIRST, SECOND, AgentFactory
from tests.cluster.maps import contents, differences
from tests.kernel.agent_process import Manifests, endpoint_slice, service
from tools.kubernetes.credentials import NODE_PROXIER

VARIETY = (
    service("two-endpoints", "10.96.0.30"),
    endpoint_slice("two-endpoints", [FIRST, SECOND]),
    service("nobody", "10.96.0.31"),
    service("sticky", "10.96.0.32", sessionAffinity="ClientIP"),
    endpoint_slice("sticky", [FIRST]),
    service(
        "everywhere",
        "10.96.0.33",
        type="LoadBalancer",
        externalIPs=["198.51.100.7"],
        externalTrafficPolicy="Local",
        loadBalancerSourceRanges=["203.0.113.0/24"],
        ports=[{"name": "tcp", "protocol": "TCP", "port": 80, "nodePort": 30080}],
    )
    | {"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.8", "ipMode": "VIP"}]}}},
    endpoint_slice("everywhere", [SECOND]),
    service("headless", "None"),
    SERVICE_CIDR | {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.112.0.0/16"]}},
)


@pytest.mark.parametrize("with_certificate", [False, True], ids=["token", "client certificate"])
def test_same_objects_same_maps(
    cluster: Cluster, make_agent: AgentFactory, tmp_path: Path, *, with_certificate: bool
) -> None:
    """What the API server has, written into files as it has it, is the same to the kernel."""
    cluster.put(*VARIETY)
    from_server = make_agent(cluster.plane.kubeconfig(NODE_PROXIER, with_certificate=with_certificate))
    from_server.start()
    manifests = Manifests(tmp_path)
    manifests.write("everything.yaml", *cluster.everything())
    from_files = make_agent(manifests)
    from_files.start()
    found, expected = contents(from_server.pin_folder), contents(from_files.pin_folder)
    assert not differences(found, expected)
    assert parse_prefix("10.112.0.0/16") in found["settings"].service_cidrs
    names = {row.name for row in found["services"]}
    assert names == {"kubernetes", "control", "two-endpoints", "nobody", "sticky", "everywhere"}
