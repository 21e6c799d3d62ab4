# SPDX-License-Identifier: Apache-2.0
"""What the programs answered, in words and in a table's cells."""

from __future__ import annotations

import pytest

from kubeproxy_ebpf import map_schema
from kubeproxy_ebpf.cli.explanation import EndpointRow, Explanation, Names, explain, hooks
from kubeproxy_ebpf.cli.trace import row_of
from kubeproxy_ebpf.cli.trace_target import parse_client, parse_target
from kubeproxy_ebpf.datapath.trace import Answer, Trace
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.map_schema import BackendEntry, Set
from kubeproxy_ebpf.model.address import Family, parse_address
from kubeproxy_ebpf.model.objects import ObjectName, Protocol
from kubeproxy_ebpf.plan.service_plan import FrontendKey, FrontendKind, ServicePortKey, SetRule, Source, Verdict
from kubeproxy_ebpf.testing import FakeMapStore

WEB = ServicePortKey(ObjectName("shop", "web"), "http", Protocol.TCP, Family.IPV4)
INTERNAL, EXTERNAL = map_schema.SERVICE_INTERNAL_LOCAL, map_schema.SERVICE_EXTERNAL_LOCAL
NOTHING = Answer(
    set=Set(0, 0),
    service=0,
    service_flags=0,
    frontend_kind=0,
    address_kinds=0,
    affinity_seconds=0,
    backend=0,
    verdict=Verdict.PASS,
    reason=0,
    is_local_set=False,
    by_affinity=False,
    masquerade=False,
)
PICKED = NOTHING._replace(
    set=Set(4, 2), service=3, frontend_kind=FrontendKind.CLUSTER_IP, address_kinds=1, backend=1, verdict=Verdict.DNAT
)
OUTSIDE_FRONTEND = PICKED._replace(frontend_kind=FrontendKind.NODE_PORT, service_flags=EXTERNAL)


@pytest.fixture
def names() -> Names:
    """Return the names of a Service and two backends."""
    maps = FakeMapStore()
    maps.hashes[HashMap.SERVICE_NAMES][map_schema.pack_u32(3)] = map_schema.pack_name(WEB)
    size = map_schema.ENTRY_SIZES[ArrayMap.BACKENDS]
    for number, flags in ((1, map_schema.BACKEND_LOCAL), (2, 0)):
        entry = BackendEntry(parse_address(f"10.244.0.{number}"), 8080, 3, 0, 1, flags)
        maps.write(ArrayMap.BACKENDS, number * size, map_schema.pack_backend(entry))
    return Names(maps)


def explained(names: Names, answer: Answer, *, source: str = "pod", to: str = "10.96.0.10:80/TCP") -> Explanation:
    """Return an answer in words; what is not refused may go to both backends."""
    key = parse_target(to)
    assert isinstance(key, FrontendKey)
    candidates = {1: True, 2: False} if answer.verdict is Verdict.DNAT else {}
    return explain(key, parse_client(source), Trace(answer, candidates), names)


def refused(reason: str, verdict: Verdict) -> Answer:
    """Return an answer with a reason of the programs."""
    return PICKED._replace(reason=map_schema.REASONS.index(reason), verdict=verdict)


def test_everything_of_a_connection(names: Names) -> None:
    """Who, where to, which Service, which endpoints and by what."""
    assert explained(names, PICKED._replace(affinity_seconds=600, by_affinity=True, backend=2)) == Explanation(
        source="pod",
        destination="10.96.0.10:80/TCP",
        service="shop/web:http",
        kind="ClusterIP",
        verdict="DNAT",
        reason="",
        because="internalTrafficPolicy Cluster: endpoints that are ready",
        endpoints=(EndpointRow("10.244.0.1:8080", True, True), EndpointRow("10.244.0.2:8080", False, False)),  # noqa: FBT003 -- columns
        affinity_seconds=600,
        affinity_endpoint="10.244.0.2:8080",
        hooks=("connect4",),
    )


@pytest.mark.parametrize(
    ("rule", "because"),
    [
        (SetRule.NODE_HINTS, "endpoints that are ready and hinted for this node"),
        (SetRule.ZONE_HINTS, "endpoints that are ready and hinted for this node's zone"),
        (SetRule.TERMINATING, "endpoints that serve while they terminate, as none is ready"),
    ],
)
def test_the_rule_of_the_set_that_applies(names: Names, rule: SetRule, because: str) -> None:
    """The cluster set's rule is not the local set's."""
    cluster = PICKED._replace(service_flags=rule * map_schema.SERVICE_CLUSTER_RULE)
    assert explained(names, cluster).because == f"internalTrafficPolicy Cluster: {because}"
    local = PICKED._replace(service_flags=INTERNAL | rule * map_schema.SERVICE_LOCAL_RULE, is_local_set=True)
    assert explained(names, local).because == f"internalTrafficPolicy Local: this node's {because}"


@pytest.mark.parametrize(
    ("answer", "source", "because"),
    [
        (
            OUTSIDE_FRONTEND,
            "node",
            "externalTrafficPolicy Local (not for clients on this node): endpoints that are ready",
        ),
        (
            OUTSIDE_FRONTEND._replace(is_local_set=True),
            "outside",
            "externalTrafficPolicy Local: this node's endpoints that are ready",
        ),
        (
            OUTSIDE_FRONTEND._replace(reason=2, verdict=Verdict.DROP),
            "outside",
            "externalTrafficPolicy Local, and no endpoint of this node is usable",
        ),
        (refused("unknown_port", Verdict.REJECT), "pod", "the ClusterIP has no such port"),
        (NOTHING, "pod", "no Service's address, or excluded"),
        (NOTHING._replace(address_kinds=map_schema.ADDRESS_EXCLUDED), "pod", "the address is excluded"),
        (
            NOTHING._replace(address_kinds=map_schema.ADDRESS_NODE),
            "pod",
            "a Service's address, but not its port",
        ),
    ],
)
def test_why(names: Names, answer: Answer, source: str, because: str) -> None:
    """Policies name whom they apply to; what is refused, and what is no Service's, says why."""
    assert explained(names, answer, source=source).because == because


@pytest.mark.parametrize("number", range(1, len(map_schema.REASONS)))
def test_every_reason_has_a_sentence(names: Names, number: int) -> None:
    """But for the one that only a socket can have: it has no place left to remember."""
    said = explained(names, PICKED._replace(reason=number, verdict=Verdict.DROP))
    assert (" " in said.because) is (map_schema.REASONS[number] != "socket_origins_full")


@pytest.mark.parametrize(
    ("source", "verdict"),
    [("pod", "UNKNOWN"), ("outside", "UNKNOWN"), ("node", "DROP"), ("pod=10.244.0.9", "DROP")],
)
def test_source_ranges_need_a_source(names: Names, source: str, verdict: str) -> None:
    """The node's address is known; whose is not is asked for."""
    assert explained(names, refused("source_not_allowed", Verdict.DROP), source=source).verdict == verdict


@pytest.mark.parametrize(
    ("source", "to", "hooks"),
    [
        ("node", "[fd00::1]:80/TCP", ("connect6",)),
        ("pod", "10.96.0.10:53/UDP", ("connect4", "sendmsg4")),
        ("pod", "10.96.0.10:80/SCTP", ()),
        ("outside", "10.96.0.10:80/TCP", ()),
    ],
)
def test_hooks(names: Names, source: str, to: str, hooks: tuple[str, ...]) -> None:
    """Sockets of this node are seen, but for SCTP; nothing else is without the packet programs."""
    assert explained(names, PICKED, source=source, to=to).hooks == hooks


@pytest.mark.parametrize(("protocol", "expected"), [("TCP", ("forward_ingress",)), ("SCTP", ())])
def test_packets_are_met_by_a_hook_of_their_own(protocol: str, expected: tuple[str, ...]) -> None:
    """Those from outside, if the programs for them are loaded; sockets' stay what they are."""
    key = FrontendKey(parse_address("10.96.0.10"), 80, Protocol[protocol])
    assert hooks(key, Source.OUTSIDE, has_packet_path=True) == expected
    assert "forward_ingress" not in hooks(key, Source.POD, has_packet_path=True)


def test_an_id_without_a_name(names: Names) -> None:
    """Of a Service whose name has just gone its number is shown."""
    assert explained(names, PICKED._replace(service=77)).service == "77"


def test_cells(names: Names) -> None:
    """A row of the table says in words what an object has in fields."""
    said = explained(names, PICKED._replace(affinity_seconds=600, by_affinity=True))
    assert row_of(said)[6:] == (
        "10.244.0.1:8080, 10.244.0.2:8080",
        "600 s, now 10.244.0.1:8080",
        "only to 10.244.0.1:8080",
        "connect4",
    )
    both = tuple(row._replace(masquerade=True) for row in said.endpoints)
    assert row_of(said._replace(endpoints=both, affinity_endpoint=""))[7:9] == ("600 s", "yes")
    assert row_of(explained(names, NOTHING, source="outside"))[6:] == ("", "", "", "none")
    many = said._replace(endpoints=said.endpoints[1:] * 50)
    assert row_of(many)[6:9:2] == (", ".join(["10.244.0.2:8080"] * 8) + " and 42 more", "no")
