# SPDX-License-Identifier: Apache-2.0
"""Events come to whoever listens, and only then."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from kubeproxy_ebpf.datapath.events import EventReader, ListenedToError
from kubeproxy_ebpf.datapath.loader import Datapath
from kubeproxy_ebpf.datapath.netns_cookie import host_netns_cookie
from kubeproxy_ebpf.datapath.self_test import self_test
from kubeproxy_ebpf.layout.changes import ArrayMap
from kubeproxy_ebpf.map_schema import (
    SETTINGS_FLAGS_OFFSET,
    SETTINGS_LISTENING,
    SETTINGS_LOCALHOST_NODE_PORTS,
    settings_flags_word,
    unpack_settings,
)
from kubeproxy_ebpf.model.address import format_address
from tests.kernel.namespaces import Namespace
from tests.kernel.processes import run_in


def flags(datapath: Datapath) -> int:
    """Return the programs' flags."""
    return unpack_settings(datapath.store.read(ArrayMap.SETTINGS)).flags


def test_decisions_are_told_while_somebody_listens(
    datapath: Datapath, scratch_cgroup: Path, pin_folder: Path, node_namespace: Namespace
) -> None:
    """Each connection of the self-test is one event; before and after the reader there are none."""
    run_in(node_namespace, scratch_cgroup, self_test, pin_folder)
    with EventReader(datapath.store, pin_folder) as reader:
        assert select.select([reader], [], [], 0)[0] == []
        run_in(node_namespace, scratch_cgroup, self_test, pin_folder)
        assert select.select([reader], [], [], 5)[0] == [reader]
        events = reader.read()
        assert reader.read() == []
    assert [(event.protocol, format_address(event.endpoint)) for event in events] == [
        (6, "127.0.0.1"),
        (17, "127.0.0.1"),
        (6, "::1"),
        (17, "::1"),
    ]
    cookie = run_in(node_namespace, None, host_netns_cookie)
    assert {event.netns_cookie for event in events} == {cookie}
    assert {event.verdict for event in events} == {1}
    assert [event.time for event in events] == sorted(event.time for event in events)
    run_in(node_namespace, scratch_cgroup, self_test, pin_folder)
    with EventReader(datapath.store, pin_folder) as reader:
        assert reader.read() == []


def test_listening_changes_no_other_setting(datapath: Datapath, pin_folder: Path) -> None:
    """The flag that somebody listens comes and goes; the others stay."""
    word = settings_flags_word(SETTINGS_LOCALHOST_NODE_PORTS)
    datapath.store.publish(ArrayMap.SETTINGS, SETTINGS_FLAGS_OFFSET, word)
    with EventReader(datapath.store, pin_folder):
        assert flags(datapath) == SETTINGS_LOCALHOST_NODE_PORTS | SETTINGS_LISTENING
    assert flags(datapath) == SETTINGS_LOCALHOST_NODE_PORTS


def test_there_is_one_reader_at_a_time(datapath: Datapath, pin_folder: Path) -> None:
    """Another one is refused by name, and does not make the programs fall silent."""
    with EventReader(datapath.store, pin_folder):
        with pytest.raises(ListenedToError, match=f"process {os.getpid()} "):
            EventReader(datapath.store, pin_folder)
        assert flags(datapath) == SETTINGS_LISTENING
    with EventReader(datapath.store, pin_folder):
        assert flags(datapath) == SETTINGS_LISTENING
