# SPDX-License-Identifier: Apache-2.0
"""What ``trace`` takes on its command line, and what it says of everything else."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kubeproxy_ebpf import map_schema
from kubeproxy_ebpf.cli.trace_target import (
    Client,
    ServiceTarget,
    TargetError,
    destinations,
    of_family,
    parse_client,
    parse_target,
)
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.map_schema import OriginEntry, ServiceEntry, Set
from kubeproxy_ebpf.model.address import Family, parse_address
from kubeproxy_ebpf.model.objects import ObjectName, Protocol
from kubeproxy_ebpf.plan.service_plan import FrontendKey, FrontendKind, ServicePortKey, Source
from kubeproxy_ebpf.testing import FakeMapStore

WEB, WEB6 = (FrontendKey(parse_address(text), 80, Protocol.TCP) for text in ("10.96.0.10", "fd00:10::10"))
DNS = FrontendKey(parse_address("10.96.0.53"), 53, Protocol.UDP)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.96.0.10:80/TCP", WEB),
        ("[fd00:10::10]:80/tcp", WEB6),
        ("[::ffff:10.96.0.10]:80/TCP", WEB),
        ("10.96.0.10:00080/TCP", WEB),
        ("1.2.3.4:65535/sctp", FrontendKey(parse_address("1.2.3.4"), 65535, Protocol.SCTP)),
        ("shop/web", ServiceTarget(ObjectName("shop", "web"), "")),
        ("shop/web:http", ServiceTarget(ObjectName("shop", "web"), "http")),
        ("shop/web:80", ServiceTarget(ObjectName("shop", "web"), "80")),
    ],
)
def test_targets(text: str, expected: object) -> None:
    """Destinations of either family, and Services with and without a port."""
    assert parse_target(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", ":", "//", "web", "/web", "shop/", "shop/web/http", "shop/web/", "shop/:http", "Shop/web"),
        *("10.96.0.10:80", "10.96.0.10/TCP", "10.96.0.10:80/", "10.96.0.10:80/ICMP", "10.96.0.10:80/TCP/TCP"),
        *("10.96.0.10:0/TCP", "10.96.0.10:65536/TCP", "10.96.0.10:-1/TCP", "10.96.0.10:+80/TCP"),
        *("10.96.0.10: 80/TCP", "10.96.0.10:8_0/TCP", "10.96.0.10:٨٠/TCP", "10.96.0.10:http/TCP", "10.96.0.10:/TCP"),
        *("fd00::10:80/TCP", "[fd00::10:80/TCP", "fd00::10]:80/TCP", "[10.96.0.10]:80/TCP", "[fe80::1%eth0]:80/TCP"),
        *("10.96.0:80/TCP", "10.96.0.010:80/TCP", "example.org:80/TCP", f"10.96.0.10:{'9' * 5000}/TCP"),
        "\0/\0:\0/TCP",
    ],
)
def test_what_is_no_target(text: str) -> None:
    """The message has what was given, and what can be."""
    with pytest.raises(TargetError, match=r"give (an address|one from 1 to 65535)") as caught:
        parse_target(text)
    assert repr(text) in str(caught.value)


@given(st.text())
@example("a/b:c")
def test_any_text_is_a_target_or_named(text: str) -> None:
    """Nothing that is typed ends in another error."""
    for parse in (parse_target, parse_client):
        try:
            parse(text)
        except TargetError as error:
            assert repr(text) in str(error)  # noqa: PT017 -- whether it is raised is up to the text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pod", Client(Source.POD, None)),
        ("node=192.0.2.10", Client(Source.NODE, parse_address("192.0.2.10"))),
        ("outside=2001:db8::1", Client(Source.OUTSIDE, parse_address("2001:db8::1"))),
    ],
)
def test_clients(text: str, expected: Client) -> None:
    """Kinds of sources, with an address where it matters; they print as they are given."""
    assert parse_client(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text", ["", "Pod", "pods", "pod=", "=10.0.0.1", "node=host", "pod=10.0.0.1/24", "node=0.0.0.0", "outside=::"]
)
def test_what_is_no_client(text: str) -> None:
    """The message has what was given, and what can be done about it."""
    with pytest.raises(TargetError, match=r"--from is .*: give pod, node or outside|: leave =ADDRESS out") as caught:
        parse_client(text)
    assert repr(text) in str(caught.value)


@pytest.fixture
def maps() -> FakeMapStore:
    """Return maps with a Service of both families, and one of a single port without a name."""
    maps = FakeMapStore()
    web = ObjectName("shop", "web")
    _add(maps, 3, ServicePortKey(web, "http", Protocol.TCP, Family.IPV4), WEB)
    _add(maps, 4, ServicePortKey(web, "http", Protocol.TCP, Family.IPV6), WEB6)
    _add(maps, 5, ServicePortKey(ObjectName("kube-system", "dns"), "", Protocol.UDP, Family.IPV4), DNS)
    return maps


def _add(maps: FakeMapStore, service: int, name: ServicePortKey, key: FrontendKey) -> None:
    size = map_schema.ENTRY_SIZES[ArrayMap.SERVICES]
    entry = map_schema.pack_service(ServiceEntry(Set(0, 0), Set(0, 0), 0, 0))
    maps.write(ArrayMap.SERVICES, service * size, entry)
    size = map_schema.ENTRY_SIZES[ArrayMap.ORIGINS]
    origin = map_schema.pack_origin(OriginEntry(map_schema.pack_frontend_key(key), service, FrontendKind.CLUSTER_IP))
    maps.write(ArrayMap.ORIGINS, service * size, origin)
    maps.hashes[HashMap.FRONTENDS][map_schema.pack_frontend_key(key)] = map_schema.pack_u32(service)
    maps.hashes[HashMap.SERVICE_NAMES][map_schema.pack_u32(service)] = map_schema.pack_name(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shop/web", [WEB, WEB6]),
        ("shop/web:http", [WEB, WEB6]),
        ("shop/web:80", [WEB, WEB6]),
        ("kube-system/dns:53", [DNS]),
        ("192.0.2.1:1/TCP", [FrontendKey(parse_address("192.0.2.1"), 1, Protocol.TCP)]),
    ],
)
def test_destinations(maps: FakeMapStore, text: str, expected: list[FrontendKey]) -> None:
    """A Service means all its frontends, or those of a port by name or number; a destination means itself."""
    assert destinations(parse_target(text), maps) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shop/wep", "the Service shop/wep is not in the kernel's maps: `kubeproxy-ebpf dump services` shows"),
        ("shop/web:https", "the Service shop/web has no port 'https' in the kernel's maps: it has http, 80"),
        ("kube-system/dns:5", "has no port '5' in the kernel's maps: it has 53"),
    ],
)
def test_unknown_services(maps: FakeMapStore, text: str, message: str) -> None:
    """Where the maps have no such Service or port, the message says where to look."""
    with pytest.raises(TargetError) as caught:
        destinations(parse_target(text), maps)
    assert message in str(caught.value)


def test_families() -> None:
    """A client of one family meets a Service's frontends of that family, and is told if there are none."""
    keys = [WEB, WEB6]
    assert of_family(Client(Source.POD, None), keys) == keys
    assert of_family(parse_client("pod=fd00::1"), keys) == [WEB6]
    with pytest.raises(TargetError, match="pod=fd00::1, an IPv6 address, and the destination has none"):
        of_family(parse_client("pod=fd00::1"), [WEB])
