# SPDX-License-Identifier: Apache-2.0
"""The packet programs are kept where they belong: what comes, changes, goes, is taken away, and fails."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from kubeproxy_ebpf.devices import DeviceError, DeviceKeeper, require_matches
from kubeproxy_ebpf.model.address import parse_address
from kubeproxy_ebpf.model.network import Interface, InterfaceAddress, NodeAddresses, NodeNetwork
from kubeproxy_ebpf.plan.devices import Device

NODE = parse_address("192.0.2.1")


class Kernel:
    """Devices and who runs what on them."""

    def __init__(self) -> None:
        """Start with none."""
        self.attached: dict[int, Device] = {}
        self.refuses: dict[int, int] = {}
        """Interface index -> errno."""

    def devices(self) -> set[int]:
        """Return where programs were attached."""
        return set(self.attached)

    def is_attached(self, index: int, device: Device) -> bool:
        """Whether they are there."""
        return self.attached.get(index) == device

    def attach(self, index: int, device: Device) -> None:
        """Attach, or refuse."""
        if index in self.refuses:
            raise OSError(self.refuses[index], "refused")
        self.attached[index] = device

    def detach(self, index: int) -> None:
        """Detach, or refuse."""
        if index in self.refuses:
            raise OSError(self.refuses[index], "refused")
        self.attached.pop(index, None)


def network(*addresses: str) -> NodeNetwork:
    """Return a network with one device, which has these addresses."""
    own = tuple(InterfaceAddress(parse_address(text), is_global=True, is_preferred=True) for text in addresses)
    eth0 = Interface(2, "eth0", has_ethernet=True, is_loopback=False, addresses=own)
    return NodeNetwork(NodeAddresses(frozenset(), None, None), (eth0,), ())


def names(events: Sequence[object]) -> list[str]:
    """Return the names of logged events."""
    return [str(event["event"]) for event in events if isinstance(event, dict)]


@pytest.fixture
def kernel() -> Kernel:
    """Return a kernel without anything."""
    return Kernel()


def follow(keeper: DeviceKeeper, *addresses: str) -> None:
    """Have a keeper look at a network."""
    keeper.look(network(*addresses), {NODE})


def test_a_device_is_attached_and_gets_new_addresses(kernel: Kernel) -> None:
    """Said once; that its addresses changed is no news to people."""
    keeper = DeviceKeeper(kernel, ())
    with capture_logs() as events:
        follow(keeper, "192.0.2.1")
        follow(keeper, "192.0.2.1")
        follow(keeper, "192.0.2.1", "2001:db8::1")
    assert kernel.attached == {2: Device("eth0", True, NODE, parse_address("2001:db8::1"))}  # noqa: FBT003 - a record
    assert names(events) == ["packet_programs_attached"]


def test_what_leads_to_others_no_more_is_detached(kernel: Kernel) -> None:
    """Also what an earlier agent attached."""
    kernel.attached[7] = Device("old", True, None, None)  # noqa: FBT003 - a record
    keeper = DeviceKeeper(kernel, ())
    follow(keeper, "192.0.2.1")
    assert kernel.attached.keys() == {2}
    with capture_logs() as events:
        follow(keeper, "198.51.100.1")
    assert kernel.attached == {}
    assert names(events) == ["packet_programs_detached"]


def test_what_somebody_detached_is_attached_again(kernel: Kernel) -> None:
    """With a warning."""
    keeper = DeviceKeeper(kernel, ())
    follow(keeper, "192.0.2.1")
    before = dict(kernel.attached)
    kernel.attached.clear()
    with capture_logs() as events:
        follow(keeper, "192.0.2.1")
        follow(keeper, "192.0.2.1")
    assert kernel.attached == before
    assert names(events) == ["packet_programs_attached_again"]


def test_a_failure_is_said_once_and_tried_again(kernel: Kernel) -> None:
    """Until it succeeds."""
    keeper = DeviceKeeper(kernel, ())
    kernel.refuses[2] = errno.ENOMEM
    with capture_logs() as events:
        follow(keeper, "192.0.2.1")
        follow(keeper, "192.0.2.1")
        kernel.refuses.clear()
        follow(keeper, "192.0.2.1")
    assert kernel.attached.keys() == {2}
    assert names(events) == ["packet_programs_not_in_place", "packet_programs_attached"]


def test_detaching_that_fails_is_tried_again(kernel: Kernel) -> None:
    """It ends nothing else, and what was not detached is known still."""
    keeper = DeviceKeeper(kernel, ())
    follow(keeper, "192.0.2.1")
    kernel.refuses[2] = errno.EPERM
    with capture_logs() as events:
        follow(keeper, "198.51.100.1")
        follow(keeper, "198.51.100.1")
        kernel.refuses.clear()
        follow(keeper, "198.51.100.1")
    assert kernel.attached == {}
    assert names(events) == ["packet_programs_not_in_place", "packet_programs_detached"]


def test_a_device_that_is_gone_is_no_failure(kernel: Kernel) -> None:
    """It went between the look and the attachment."""
    keeper = DeviceKeeper(kernel, ())
    kernel.refuses[2] = errno.ENODEV
    with capture_logs() as events:
        follow(keeper, "192.0.2.1")
    assert events == []


@pytest.mark.parametrize("patterns", [(), ("eth*",), ("wg0", "eth0")])
def test_patterns_that_match(patterns: tuple[str, ...]) -> None:
    """One is enough: the others' devices may come later."""
    require_matches(network("192.0.2.1"), patterns)


def test_patterns_that_no_device_matches() -> None:
    """The message names the key, the patterns and what there is."""
    with pytest.raises(DeviceError, match=r"devices: no network device is called wg\*, ppp0; there are eth0"):
        require_matches(network(), ("wg*", "ppp0"))
