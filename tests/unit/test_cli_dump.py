# SPDX-License-Identifier: Apache-2.0
"""``dump`` of maps whose contents are known: tables, JSON, filters."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from struct import pack
from types import TracebackType
from typing import Self

import pytest
from typer.testing import CliRunner

from kubeproxy_ebpf import map_schema
from kubeproxy_ebpf.cli.inventory import AffinityRow, Filter, Inventory
from kubeproxy_ebpf.cli.main import app
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.map_schema import BackendEntry, OriginEntry, ServiceEntry, Set
from kubeproxy_ebpf.model.address import Family, parse_address, parse_prefix
from kubeproxy_ebpf.model.objects import ObjectName, Protocol
from kubeproxy_ebpf.plan.service_plan import FrontendKey, FrontendKind, ServicePortKey
from kubeproxy_ebpf.testing import FakeMapStore

WEB = ServicePortKey(ObjectName("shop", "web"), "http", Protocol.TCP, Family.IPV4)
WEB6 = ServicePortKey(ObjectName("shop", "web"), "http", Protocol.TCP, Family.IPV6)
DNS = ServicePortKey(ObjectName("kube-system", "dns"), "", Protocol.UDP, Family.IPV4)
IN_BOTH = map_schema.BACKEND_ALLOCATED | map_schema.BACKEND_IN_CLUSTER_SET | map_schema.BACKEND_IN_LOCAL_SET
IN_CLUSTER = map_schema.BACKEND_ALLOCATED | map_schema.BACKEND_IN_CLUSTER_SET
NOW = 5_000 * 10**9


class KnownMaps(FakeMapStore):
    """Maps that are filled by hand."""

    def __init__(self) -> None:
        """Start with empty maps."""
        super().__init__()
        self.affinity: dict[bytes, bytes] = {}
        self.counts: dict[str, dict[int, tuple[int, ...]]] = {"service_counters": {}, "reason_counters": {}}

    def entries_of(self, map_name: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield the records of affinity."""
        assert map_name == "affinity"
        yield from self.affinity.items()

    def counters(self, map_name: str) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield the counters of a map."""
        yield from self.counts[map_name].items()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing is to be closed."""

    def enter(self, name: ArrayMap, number: int, data: bytes) -> None:
        """Write entries of an array."""
        self.write(name, number * map_schema.ENTRY_SIZES[name], data)

    def service(self, number: int, key: ServicePortKey, entry: ServiceEntry) -> None:
        """Write a service port."""
        self.hashes[HashMap.SERVICE_NAMES][map_schema.pack_u32(number)] = map_schema.pack_name(key)
        self.enter(ArrayMap.SERVICES, number, map_schema.pack_service(entry))

    def backend(self, number: int, service: int, endpoint: tuple[str, int], flags: int, generation: int) -> None:
        """Write a backend."""
        entry = BackendEntry(parse_address(endpoint[0]), endpoint[1], service, 0, generation, flags)
        self.enter(ArrayMap.BACKENDS, number, map_schema.pack_backend(entry))

    def frontend(self, origin: int, service: int, key: FrontendKey, kind: FrontendKind) -> None:
        """Write a frontend."""
        packed = map_schema.pack_frontend_key(key)
        self.enter(ArrayMap.ORIGINS, origin, map_schema.pack_origin(OriginEntry(packed, service, kind)))
        self.hashes[HashMap.FRONTENDS][packed] = map_schema.pack_u32(origin)

    def remember(self, service: int, client: bytes, backend: int, generation: int, seconds_ago: int) -> None:
        """Write a record of affinity."""
        value = pack("=IIQ", backend, generation, NOW - seconds_ago * 10**9)
        self.affinity[pack("=II16s", service, 0, client)] = value


@pytest.fixture
def maps() -> KnownMaps:
    """Return maps with two Services, one of them dual stack."""
    maps = KnownMaps()
    flags = map_schema.SERVICE_EXTERNAL_LOCAL | map_schema.SERVICE_HAS_ENDPOINTS | map_schema.SERVICE_SOURCE_RANGES
    maps.service(3, WEB, ServiceEntry(Set(10, 3), Set(13, 1), 600, flags))
    maps.service(4, WEB6, ServiceEntry(Set(14, 1), Set(0, 0), 0, map_schema.SERVICE_HAS_ENDPOINTS))
    maps.service(7, DNS, ServiceEntry(Set(0, 0), Set(0, 0), 0, map_schema.SERVICE_INTERNAL_LOCAL))
    maps.backend(1, 3, ("10.244.0.5", 8080), IN_BOTH | map_schema.BACKEND_LOCAL, 2)
    maps.backend(2, 3, ("10.244.1.5", 8080), IN_CLUSTER, 1)
    maps.backend(5, 4, ("fd00::5", 8080), IN_CLUSTER | map_schema.BACKEND_LOCAL, 1)
    maps.backend(6, 0, ("10.244.9.9", 80), 0, 9)  # free
    maps.enter(ArrayMap.SLOTS, 10, map_schema.pack_slots((1, 2, 1, 1, 5)))
    key = FrontendKey(parse_address("10.96.0.10"), 80, Protocol.TCP)
    maps.frontend(21, 3, key, FrontendKind.CLUSTER_IP)
    maps.frontend(22, 3, key._replace(address=parse_address("192.0.2.1"), port=30080), FrontendKind.NODE_PORT)
    maps.frontend(23, 3, key._replace(address=parse_address("198.51.100.1")), FrontendKind.LOAD_BALANCER)
    maps.frontend(24, 4, key._replace(address=parse_address("fd00:10::10")), FrontendKind.CLUSTER_IP)
    maps.frontend(25, 7, FrontendKey(parse_address("10.96.0.53"), 53, Protocol.UDP), FrontendKind.CLUSTER_IP)
    maps.hashes[HashMap.SOURCE_RANGES][map_schema.pack_source_range(3, parse_prefix("203.0.113.0/24"))] = b"\1\0\0\0"
    maps.remember(3, parse_address("10.244.0.9"), 1, 2, 10)
    maps.remember(3, bytes(8) + pack("=Q", 42), 2, 1, 700)
    maps.remember(3, parse_address("10.244.0.8"), 1, 1, 10)
    maps.remember(99, parse_address("10.244.0.7"), 1, 2, 10)
    maps.counts["service_counters"] = {3: (12, 1), 0: (5, 0), 99: (1, 1)}
    maps.counts["reason_counters"] = {1: (4,), 4: (2,), 77: (1,)}
    return maps


@pytest.fixture
def pinned(maps: KnownMaps, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Have the loader give these maps; return which pin folders were asked for."""
    folders: list[Path] = []

    def open_pinned(folder: Path) -> KnownMaps:
        folders.append(folder)
        return maps

    monkeypatch.setattr("kubeproxy_ebpf.datapath.loader.open_pinned", open_pinned)
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: NOW)
    return folders


def table(*arguments: str) -> list[list[str]]:
    """Run dump and return the cells of its lines, which two blanks separate."""
    result = CliRunner().invoke(app, ["dump", *arguments])
    assert result.exit_code == 0, result.output
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in result.stdout.splitlines()]


def data(*arguments: str) -> list[dict[str, object]]:
    """Run dump and return its JSON."""
    result = CliRunner().invoke(app, ["dump", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert isinstance(rows, list)
    return rows


@pytest.mark.usefixtures("pinned")
def test_services() -> None:
    """Service ports sorted by name, with endpoints, policies and ranges."""
    rows = data("services")
    assert [(row["name"], row["port"], row["protocol"]) for row in rows] == [
        ("dns", "", "UDP/IPv4"),
        ("web", "http", "TCP/IPv4"),
        ("web", "http", "TCP/IPv6"),
    ]
    assert rows[1] == {
        "namespace": "shop",
        "name": "web",
        "port": "http",
        "protocol": "TCP/IPv4",
        "cluster_ip": "10.96.0.10:80",
        "endpoints": 2,
        "local_endpoints": 1,
        "internal_policy": "Cluster",
        "external_policy": "Local",
        "affinity_seconds": 600,
        "source_ranges": ["203.0.113.0/24"],
        "id": 3,
    }
    assert (rows[0]["internal_policy"], rows[0]["endpoints"]) == ("Local", 0)
    assert rows[2]["cluster_ip"] == "[fd00:10::10]:80"
    # It has no local set, as no policy asks for one.
    assert (rows[2]["endpoints"], rows[2]["local_endpoints"], rows[2]["external_policy"]) == (1, 1, "Cluster")


@pytest.mark.usefixtures("pinned")
def test_table() -> None:
    """The table has one line a row, under the columns' names."""
    lines = table("services", "--name", "web")
    assert lines[0][:5] == ["namespace", "name", "port", "protocol", "cluster ip"]
    assert lines[1][:5] == ["shop", "web", "http", "TCP/IPv4", "10.96.0.10:80"]
    assert len(lines) == 3


@pytest.mark.usefixtures("pinned")
def test_frontends() -> None:
    """Every address that clients use, by kind."""
    assert table("frontends", "-n", "shop")[1:] == [
        ["shop", "web", "http", "TCP/IPv4", "ClusterIP", "10.96.0.10:80", "3", "21"],
        ["shop", "web", "http", "TCP/IPv4", "LoadBalancer", "198.51.100.1:80", "3", "23"],
        ["shop", "web", "http", "TCP/IPv4", "NodePort", "192.0.2.1:30080", "3", "22"],
        ["shop", "web", "http", "TCP/IPv6", "ClusterIP", "[fd00:10::10]:80", "4", "24"],
    ]


@pytest.mark.usefixtures("pinned")
def test_backends() -> None:
    """Backends in use, with what they are in; free entries are not shown."""
    assert table("backends")[1:] == [
        ["shop", "web", "http", "TCP/IPv4", "10.244.0.5:8080", "yes", "yes", "yes", "2", "3", "1"],
        ["shop", "web", "http", "TCP/IPv4", "10.244.1.5:8080", "yes", "no", "no", "1", "3", "2"],
        ["shop", "web", "http", "TCP/IPv6", "[fd00::5]:8080", "yes", "no", "yes", "1", "4", "5"],
    ]


@pytest.mark.usefixtures("pinned")
def test_sets() -> None:
    """Sets in the order of their slots, repetitions included."""
    rows = {(row["protocol"], row["set"]): row for row in data("sets", "--name", "web")}
    web = rows["TCP/IPv4", "cluster"]
    assert (web["base"], web["slots"]) == (10, 3)
    assert web["endpoints"] == ["10.244.0.5:8080", "10.244.1.5:8080", "10.244.0.5:8080"]
    assert rows["TCP/IPv4", "local"]["endpoints"] == ["10.244.0.5:8080"]
    assert rows["TCP/IPv6", "local"] == {
        "namespace": "shop",
        "name": "web",
        "port": "http",
        "protocol": "TCP/IPv6",
        "set": "local",
        "base": 0,
        "slots": 0,
        "endpoints": [],
    }


def test_affinity(maps: KnownMaps) -> None:
    """Clients' records: in effect, timed out, of an earlier generation; those of no Service are left out."""
    start = ("shop", "web", "http", "TCP/IPv4")
    assert Inventory(maps, Filter()).affinity(NOW) == [
        AffinityRow(*start, "10.244.0.8", "10.244.0.5:8080", 10, in_effect=False),
        AffinityRow(*start, "10.244.0.9", "10.244.0.5:8080", 10, in_effect=True),
        AffinityRow(*start, "netns 42", "10.244.1.5:8080", 700, in_effect=False),
    ]


@pytest.mark.usefixtures("pinned")
def test_counters() -> None:
    """Counters per service port and per reason; what has no counter of its own is one row."""
    result = CliRunner().invoke(app, ["dump", "counters", "--json"])
    counters = json.loads(result.stdout)
    assert [(row["name"], row["connections"], row["refused"]) for row in counters["services"]] == [
        ("", 5, 0),
        ("web", 12, 1),
    ]
    assert counters["reasons"] == [
        {"reason": "no_endpoints", "times": 4},
        {"reason": "unknown_port", "times": 2},
        {"reason": "77", "times": 1},
    ]
    assert [] in table("counters")


@pytest.mark.usefixtures("pinned")
def test_nothing_to_show() -> None:
    """No rows are an empty list, or a word."""
    assert table("services", "-n", "nowhere") == [["none"]]
    assert data("affinity", "-n", "nowhere") == []


@pytest.mark.usefixtures("pinned")
def test_long_lists_are_cut_in_tables_only(maps: KnownMaps) -> None:
    """A Maglev table does not flood the terminal."""
    maps.service(3, WEB, ServiceEntry(Set(100, 50), Set(0, 0), 0, 0))
    maps.enter(ArrayMap.SLOTS, 100, map_schema.pack_slots((1, 2) * 25))
    assert table("sets", "--name", "web")[1][-1].endswith(" and 42 more")
    endpoints = data("sets", "--name", "web")[0]["endpoints"]
    assert isinstance(endpoints, list)
    assert len(endpoints) == 50


def test_the_pin_folder_is_that_of_the_configuration(pinned: list[Path]) -> None:
    """The maps are those below --bpffs."""
    table("services", "--bpffs", "/run/bpf")
    assert pinned == [Path("/run/bpf/kubeproxy-ebpf")]


def test_without_anything_loaded(tmp_path: Path) -> None:
    """Where nothing is loaded, dump says so in one message."""
    result = CliRunner().invoke(app, ["dump", "services", "--bpffs", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert str(tmp_path) in result.stderr
