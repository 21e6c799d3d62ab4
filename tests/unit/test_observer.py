# SPDX-License-Identifier: Apache-2.0
"""What is observed of ranges and of this node, whichever source says it."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from kubeproxy_ebpf.map_schema import MAX_CIDRS
from kubeproxy_ebpf.model.address import parse_address, parse_prefix
from kubeproxy_ebpf.model.network import NodeAddresses
from kubeproxy_ebpf.model.objects import ObjectName, ServiceCIDR
from kubeproxy_ebpf.model.settings import Settings
from kubeproxy_ebpf.observer import Observer
from kubeproxy_ebpf.source import ObjectKey, Update

ADDRESS = parse_address("192.0.2.1")
ADDRESSES = NodeAddresses(frozenset({ADDRESS}), ADDRESS, None)


def cidr(name: str, *texts: str, uid: str = "") -> Update:
    """Return a ServiceCIDR as news."""
    cidrs = tuple(map(parse_prefix, texts))
    newest = ServiceCIDR(name=ObjectName("", name), cidrs=cidrs, uid=uid)
    return Update(ObjectKey("ServiceCIDR", newest.name), newest)


def gone(name: str, uid: str = "") -> Update:
    """Return the end of a ServiceCIDR as news."""
    return Update(ObjectKey("ServiceCIDR", ObjectName("", name)), None, uid)


def ranges(observer: Observer) -> list[str]:
    """Return the ranges that the node's settings have."""
    return [str(prefix) for prefix in observer.settings_entry(1).service_cidrs]


@pytest.fixture
def observer() -> Observer:
    """Return an observer without configured ranges."""
    return Observer(Settings(), "this-node", ADDRESSES)


def test_service_cidrs_of_the_cluster(observer: Observer) -> None:
    """Those of all objects count, each once, for as long as an object names them."""
    observer.observe([cidr("a", "10.96.0.0/12", "fd00::/112"), cidr("b", "10.96.0.0/12")])
    assert ranges(observer) == ["10.96.0.0/12", "fd00::/112"]
    observer.observe([gone("a")])
    assert ranges(observer) == ["10.96.0.0/12"]


def test_a_late_end_is_another_objects(observer: Observer) -> None:
    """One that was deleted and made anew under its name is there."""
    observer.observe([cidr("a", "10.0.0.0/16", uid="old"), cidr("a", "10.1.0.0/16", uid="new"), gone("a", "old")])
    assert ranges(observer) == ["10.1.0.0/16"]


def test_configured_ranges_stand_in_for_them() -> None:
    """Whoever names ranges knows why."""
    observer = Observer(Settings(service_cidrs=(parse_prefix("10.0.0.0/8"),)), "this-node", ADDRESSES)
    observer.observe([cidr("a", "10.96.0.0/12")])
    assert ranges(observer) == ["10.0.0.0/8"]


def test_too_many_are_one_error(observer: Observer) -> None:
    """As many as there is room for count; it is said once which do not."""
    observer.observe([cidr(f"c{number}", f"10.{number}.0.0/16") for number in range(MAX_CIDRS + 2)])
    with capture_logs() as logs:
        assert len(ranges(observer)) == MAX_CIDRS
        assert len(ranges(observer)) == MAX_CIDRS
    (entry,) = logs
    assert (entry["event"], entry["log_level"]) == ("service_cidrs_too_many", "error")
    assert entry["left_out"] == ["10.8.0.0/16", "10.9.0.0/16"]
