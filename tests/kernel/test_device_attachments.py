# SPDX-License-Identifier: Apache-2.0
"""Places on devices outlive loads and agents, by links and by filters, and are nobody else's to touch."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kubeproxy_ebpf.datapath import device_hooks, loader
from kubeproxy_ebpf.datapath.device_attachments import filter_name, our_filters, remove_filters
from kubeproxy_ebpf.datapath.device_hooks import DeviceHook, find_filter
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.loader import Datapath
from kubeproxy_ebpf.datapath.netlink import RouteSocket
from kubeproxy_ebpf.plan.devices import Device
from tests.kernel.conftest import SMALL
from tests.kernel.namespaces import Namespace

DEVICE = Device("net0", has_ethernet=True, source_ipv4=None, source_ipv6=None)


@pytest.fixture
def index(node_namespace: Namespace) -> Iterator[int]:
    """Return the index of a device, in the namespace that the test is in meanwhile."""
    node_namespace.run("ip", "link", "add", DEVICE.name, "type", "bridge")
    with node_namespace.entered():
        yield socket.if_nametoindex(DEVICE.name)


@pytest.fixture(params=["the best way", "filters"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Attach as this kernel can, or as those before 6.6 do, which refuse links at devices."""
    if request.param == "filters":
        monkeypatch.setattr(device_hooks, "attach_link", lambda *_: None)
    return str(request.param)


def load(pin_folder: Path, cgroup: Path, *, packets: bool = True) -> Datapath:
    """Load, with the packet programs or without."""
    objects = loader.PACKET_OBJECTS if packets else ()
    return loader.load(pin_folder=pin_folder, cgroup=cgroup, sizes=SMALL, lock_timeout=0, packet_objects=objects)


def attach(datapath: Datapath, index: int) -> None:
    """Attach to the device."""
    assert datapath.packets is not None
    attachments = datapath.packets.attachments()
    attachments.attach(index, DEVICE)
    assert attachments.is_attached(index, DEVICE)


@pytest.mark.usefixtures("way")
def test_an_upgrade_takes_the_devices_over(index: int, pin_folder: Path, scratch_cgroup: Path) -> None:
    """What the next load finds attached is attached still, to its own programs; so it is after an end in between."""
    with load(pin_folder, scratch_cgroup) as first:
        attach(first, index)
    for _ in range(2):
        with load(pin_folder, scratch_cgroup) as second:
            assert second.packets is not None
            attachments = second.packets.attachments()
            assert attachments.devices() == {index}
            assert attachments.is_attached(index, DEVICE)
    assert loader.pinned_devices(pin_folder) == {DEVICE.name}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("end", ["unload", "load without packets"])
def test_nothing_is_left_on_the_devices(index: int, pin_folder: Path, scratch_cgroup: Path, end: str) -> None:
    """When all is unloaded, and when the next agent does not want the packet path."""
    with load(pin_folder, scratch_cgroup) as datapath:
        attach(datapath, index)
    if end == "unload":
        assert loader.unload(pin_folder, lock_timeout=0)
    else:
        load(pin_folder, scratch_cgroup, packets=False).close()
        assert loader.pinned_devices(pin_folder) is None
    with closing(RouteSocket()) as kernel:
        assert [find_filter(kernel, index, hook) for hook in DeviceHook] == [None, None]


@pytest.mark.parametrize("way", ["filters"], indirect=True)
def test_another_states_filters_are_left_alone(
    way: str, index: int, pin_folder: Path, scratch_cgroup: Path, bpffs: Path
) -> None:
    """A trial load beside an agent, in a folder of its own, neither replaces nor removes what the agent attached."""
    with load(pin_folder, scratch_cgroup) as datapath, closing(RouteSocket()) as kernel:
        attach(datapath, index)
        before = [find_filter(kernel, index, hook) for hook in DeviceHook]
        other = bpffs / "other"
        load(other, scratch_cgroup).close()
        loader.unload(other, lock_timeout=0)
        assert [find_filter(kernel, index, hook) for hook in DeviceHook] == before
        assert all(before), way
        assert len(list(our_filters(kernel, filter_name(pin_folder)))) == len(DeviceHook)
        remove_filters(filter_name(pin_folder))
        assert not list(our_filters(kernel, filter_name(pin_folder)))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("way", ["filters"], indirect=True)
@pytest.mark.parametrize("obstacle", ["a qdisc", "a filter"])
def test_what_is_in_the_way_is_said(
    index: int, node_namespace: Namespace, pin_folder: Path, scratch_cgroup: Path, obstacle: str
) -> None:
    """The qdisc of the old kind has no egress; somebody else's filter in our place stays."""
    kind = "ingress" if obstacle == "a qdisc" else "clsact"
    node_namespace.run("tc", "qdisc", "add", "dev", DEVICE.name, kind)
    with load(pin_folder, scratch_cgroup) as datapath, closing(RouteSocket()) as kernel:
        assert datapath.packets is not None
        if obstacle == "a filter":
            program = syscalls.open_pinned(str(pin_folder / "layout_1" / "programs" / "forward_ingress"))
            device_hooks.attach_filter(kernel, index, DeviceHook.INGRESS, program, "somebody's")
        attachments = datapath.packets.attachments()
        with pytest.raises(OSError, match=r"qdisc `ingress`|filter of \"somebody's\"") as caught:
            attachments.attach(index, DEVICE)
        assert caught.value.errno == errno.EBUSY
        assert not attachments.is_attached(index, DEVICE)


@pytest.mark.usefixtures("way")
def test_a_device_gets_the_programs_for_its_link_layer(index: int, pin_folder: Path, scratch_cgroup: Path) -> None:
    """Also if it had the others before, and after a load."""
    without = DEVICE._replace(has_ethernet=False)
    with load(pin_folder, scratch_cgroup) as datapath:
        attach(datapath, index)
        assert datapath.packets is not None
        attachments = datapath.packets.attachments()
        attachments.attach(index, without)
        assert attachments.is_attached(index, without)
        assert not attachments.is_attached(index, DEVICE)
    with load(pin_folder, scratch_cgroup) as again:
        assert again.packets is not None
        assert again.packets.attachments().is_attached(index, without)


@pytest.mark.usefixtures("way")
def test_a_device_that_is_gone_is_forgotten(
    index: int, node_namespace: Namespace, pin_folder: Path, scratch_cgroup: Path
) -> None:
    """Detaching from it is no error, and nothing of it stays."""
    with load(pin_folder, scratch_cgroup) as datapath:
        attach(datapath, index)
        assert datapath.packets is not None
        attachments = datapath.packets.attachments()
        node_namespace.run("ip", "link", "delete", DEVICE.name)
        assert not attachments.is_attached(index, DEVICE)
        attachments.detach(index)
        assert attachments.devices() == set()
        addresses = datapath.store.descriptor("devices")
        assert syscalls.map_next_key(addresses, None, 4) is None
