# SPDX-License-Identifier: Apache-2.0
"""Events of the programs in words, and how many of them are shown."""

from __future__ import annotations

import pytest

from kubeproxy_ebpf import map_schema
from kubeproxy_ebpf.cli.event_rows import EventRow, event_row, is_about
from kubeproxy_ebpf.cli.monitor import RateLimit
from kubeproxy_ebpf.map_schema import Event
from kubeproxy_ebpf.model.address import UNSPECIFIED_IPV6, parse_address

PACKET = Event(
    time=2_500_000_000,
    socket_cookie=0,
    netns_cookie=0,
    source=parse_address("203.0.113.5"),
    source_port=40000,
    destination=parse_address("192.0.2.1"),
    destination_port=30080,
    endpoint=parse_address("10.1.0.5"),
    endpoint_port=8080,
    protocol=6,
    verdict=1,
    reason=0,
    service=7,
    backend=3,
    device=2,
    command="",
)
SOCKET = PACKET._replace(
    source=UNSPECIFIED_IPV6, source_port=0, device=0, socket_cookie=11, netns_cookie=12, command="curl"
)
WEB = ("shop", "web", "http", "TCP/IPv4")
AN_HOUR = 3_600_000_000_000


def row(event: Event, names: tuple[str, str, str, str] | None = WEB) -> EventRow:
    """Return an event's row, an hour after the epoch; device 2 is eth0."""
    return event_row(event, names, {2: "eth0"}.__getitem__, AN_HOUR)


def test_a_packet() -> None:
    """With its client, its Service, its endpoint and its device."""
    assert row(PACKET).line() == (
        "1970-01-01T01:00:02.500000+00:00 203.0.113.5:40000 -> 192.0.2.1:30080/TCP shop/web:http DNAT 10.1.0.5:8080 "
        "(eth0)"
    )


def test_a_socket() -> None:
    """With its process, or none where the kernel itself connects, and the pod that it is in."""
    assert row(SOCKET).source == "curl[netns 12]"
    assert row(SOCKET._replace(command="")).source == "kernel[netns 12]"
    assert row(SOCKET).line().endswith(" shop/web:http DNAT 10.1.0.5:8080")


@pytest.mark.parametrize(
    ("reason", "expected"), [(map_schema.REASONS.index("unknown_port"), "unknown_port"), (250, "reason_250")]
)
def test_a_refusal(reason: int, expected: str) -> None:
    """With its reason, also one of a later version; there may be no Service."""
    refused = row(SOCKET._replace(verdict=2, reason=reason, endpoint=UNSPECIFIED_IPV6), None)
    assert (refused.endpoint, refused.reason, refused.name) == ("", expected, "")
    assert refused.line().endswith(f" -> 192.0.2.1:30080/TCP REJECT {expected}")


@pytest.mark.parametrize("address", ["203.0.113.5", "192.0.2.1", "10.1.0.5"])
def test_whom_an_event_is_about(address: str) -> None:
    """Its client, its frontend and its endpoint."""
    assert is_about(PACKET, parse_address(address))
    assert not is_about(PACKET, parse_address("192.0.2.2"))


def test_more_than_the_rate_is_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And shown again in the next second; 0 is no limit."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    limit, unlimited = RateLimit(2), RateLimit(0)
    assert [limit.admits() for _ in range(5)] == [True, True, False, False, False]
    assert all(unlimited.admits() for _ in range(5))
    limit.report()
    limit.report()
    unlimited.report()
    assert capsys.readouterr().err == "3 more than --rate 2 a second were not shown\n"
    now = 101.0
    assert limit.admits()
